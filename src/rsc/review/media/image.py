"""Metadata of JPEG, PNG, WebP and GIF, removed without touching the coded pixels.

JPEG: ITU-T T.81 annex B; EXIF in APP1 (CIPA DC-008 section 4.7), ICC in APP2 (ICC.1 annex B.4). PNG: W3C PNG
third edition sections 5 and 11. WebP: RFC 9649. GIF: CompuServe 89a, sections 17 to 27.
"""

from __future__ import annotations

import zlib

from rsc.review.media.riff_exif import (
    Removed,
    exif_kinds,
    orientation_block,
    orientation_of,
    riff_chunks,
    riff_file,
)

_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length: TEM, RST0-7
_PNG_KEPT = frozenset(
    {
        b"IHDR",
        b"PLTE",
        b"IDAT",
        b"IEND",
        b"tRNS",
        b"gAMA",
        b"cHRM",
        b"sRGB",
        b"iCCP",
        b"sBIT",
        b"bKGD",
        b"pHYs",
        b"cICP",
        b"mDCV",
        b"cLLI",
        b"acTL",
        b"fcTL",
        b"fdAT",
    }
)
_PNG_KINDS = {b"eXIf": "exif", b"tIME": "time", b"tEXt": "comment", b"zTXt": "comment", b"iTXt": "comment"}
_WEBP_KEPT = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"})


def clean_jpeg(data: bytes) -> tuple[bytes, list[Removed]]:
    """Keep what decoding needs: frame, tables, scans, JFIF without thumbnail, ICC, Adobe's colour note."""
    kept, removed = [data[:2]], list[Removed]()
    offset, orientation = 2, 1
    while True:
        marker, offset = _next_marker(data, offset)
        if marker == 0xD9:
            kept.append(b"\xff\xd9")
            break
        if marker in _STANDALONE:
            kept.append(bytes((0xFF, marker)))
            continue
        length = int.from_bytes(data[offset : offset + 2], "big")
        payload = data[offset + 2 : offset + length]
        if length < 2 or len(payload) != length - 2:
            raise ValueError(f"marker {marker:02x} is cut short")
        offset += length
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            if marker == 0xE1 and payload[:6] == b"Exif\x00\x00":
                orientation = orientation_of(payload[6:])
            segment, taken = _jpeg_application(marker, payload)
            removed += taken
            kept.append(segment)
            continue
        kept.append(data[offset - length - 2 : offset])
        if marker == 0xDA:
            end = _scan_end(data, offset)
            kept.append(data[offset:end])
            offset = end
    if len(data) > offset:
        removed.append(Removed("trailing", len(data) - offset))
    if orientation != 1:
        kept.insert(1, _jpeg_segment(0xE1, b"Exif\x00\x00" + orientation_block(orientation)))
    return b"".join(kept), removed


def _next_marker(data: bytes, offset: int) -> tuple[int, int]:
    """The marker at `offset` (fill bytes skipped) and the offset behind it."""
    if data[offset] != 0xFF:
        raise ValueError("a marker is missing")
    while data[offset] == 0xFF:
        offset += 1
    return data[offset], offset + 1


def _scan_end(data: bytes, offset: int) -> int:
    """Where entropy-coded data ends: at a marker that is neither a stuffed zero nor a restart."""
    while True:
        offset = data.find(b"\xff", offset)
        if offset < 0 or offset + 1 >= len(data):
            raise ValueError("the end mark is missing")
        if data[offset + 1] != 0 and not 0xD0 <= data[offset + 1] <= 0xD7:
            return offset
        offset += 2


def _jpeg_application(marker: int, payload: bytes) -> tuple[bytes, list[Removed]]:
    """What stays of an application segment or comment, and what goes."""
    if marker == 0xE0 and payload[:5] == b"JFIF\x00":
        thumbnail = payload[14:]
        taken = [Removed("thumbnail", len(thumbnail))] if thumbnail else []
        return _jpeg_segment(marker, payload[:12] + b"\x00\x00"), taken
    if (marker == 0xE2 and payload[:12] == b"ICC_PROFILE\x00") or (
        marker == 0xEE and payload[:5] == b"Adobe"
    ):
        return _jpeg_segment(marker, payload), []
    if marker == 0xE1 and payload[:6] == b"Exif\x00\x00":
        return b"", [Removed(kind, len(payload)) for kind in exif_kinds(payload[6:])]
    if marker == 0xE1 and payload.startswith(b"http://ns.adobe.com/x"):
        return b"", [Removed("xmp", len(payload))]
    return b"", [
        Removed({0xFE: "comment", 0xED: "iptc", 0xE0: "thumbnail"}.get(marker, "application"), len(payload))
    ]


def _jpeg_segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def clean_png(data: bytes) -> tuple[bytes, list[Removed]]:
    """Keep the chunks that drawing and colour need. A wrong checksum of a chunk raises ValueError."""
    kept, removed = [data[:8]], list[Removed]()
    offset, name = 8, b""
    while name != b"IEND":
        size, name = int.from_bytes(data[offset : offset + 4], "big"), data[offset + 4 : offset + 8]
        payload, check = data[offset + 8 : offset + 8 + size], data[offset + 8 + size : offset + 12 + size]
        if len(check) != 4 or zlib.crc32(name + payload) != int.from_bytes(check, "big"):
            raise ValueError(f"chunk {name!r} is cut short or its checksum is wrong")
        if name in _PNG_KEPT:
            kept.append(data[offset : offset + 12 + size])
        else:
            removed += _png_removed(name, payload)
            if name == b"eXIf" and orientation_of(payload) != 1:
                kept.insert(2, _png_chunk(b"eXIf", orientation_block(orientation_of(payload))))
        offset += 12 + size
    if len(data) > offset:
        removed.append(Removed("trailing", len(data) - offset))
    return b"".join(kept), removed


def _png_removed(name: bytes, payload: bytes) -> list[Removed]:
    if name == b"eXIf":
        return [Removed(kind, len(payload)) for kind in exif_kinds(payload)]
    kind = "xmp" if payload.startswith(b"XML:com.adobe.xmp") else _PNG_KINDS.get(name, "unknown")
    return [Removed(kind, len(payload))]


def _png_chunk(name: bytes, payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + name + payload + zlib.crc32(name + payload).to_bytes(4, "big")


def clean_webp(data: bytes) -> tuple[bytes, list[Removed]]:
    """Keep image, alpha, animation and colour chunks; clear the header's EXIF and XMP flags."""
    kept, removed = list[tuple[bytes, bytes]](), list[Removed]()
    orientation = 1
    for name, payload in riff_chunks(data):
        if name == b"VP8X":
            kept.append((name, bytes((payload[0] & ~0x0C,)) + payload[1:]))
        elif name in _WEBP_KEPT:
            kept.append((name, payload))
        elif name == b"EXIF":
            tiff = payload.removeprefix(b"Exif\x00\x00")
            orientation = orientation_of(tiff)
            removed += [Removed(kind, len(payload)) for kind in exif_kinds(tiff)]
        else:
            removed.append(Removed("xmp" if name == b"XMP " else "unknown", len(payload)))
    if not any(name in (b"VP8 ", b"VP8L", b"ANMF") for name, _ in kept):
        raise ValueError("there is no image in it")
    if orientation != 1 and kept[0][0] == b"VP8X":
        kept[0] = (b"VP8X", bytes((kept[0][1][0] | 0x08,)) + kept[0][1][1:])
        kept.append((b"EXIF", orientation_block(orientation)))
    behind = len(data) - 8 - int.from_bytes(data[4:8], "little")
    if behind > 0:
        removed.append(Removed("trailing", behind))
    return riff_file(b"WEBP", kept), removed


_GIF_LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")  # the application extensions that say how often to play


def clean_gif(data: bytes) -> tuple[bytes, list[Removed]]:
    """Keep frames, their timing and the number of loops; comments, texts and other extensions go."""
    start = 13 + _colour_table(data[10])
    kept, removed = [data[:start]], list[Removed]()
    offset = start
    while (kind := data[offset]) != 0x3B:
        if kind == 0x2C:
            end = _sub_blocks_end(data, offset + 11 + _colour_table(data[offset + 9]))
            kept.append(data[offset:end])
        elif kind == 0x21:
            end = _sub_blocks_end(data, offset + 2)
            label, name = data[offset + 1], data[offset + 3 : offset + 14]
            if label == 0xF9 or (label == 0xFF and name in _GIF_LOOPS):
                kept.append(data[offset:end])
            else:
                removed.append(Removed("comment" if label == 0xFE else "application", end - offset))
        else:
            raise ValueError(f"no block at byte {offset}")
        offset = end
    if len(data) > offset + 1:
        removed.append(Removed("trailing", len(data) - offset - 1))
    return b"".join([*kept, b"\x3b"]), removed


def _colour_table(packed: int) -> int:
    return 3 << (packed & 7) + 1 if packed & 0x80 else 0


def _sub_blocks_end(data: bytes, offset: int) -> int:
    """The offset behind the empty block that ends a chain. Raises IndexError where the data ends before."""
    while data[offset]:
        offset += 1 + data[offset]
    return offset + 1
