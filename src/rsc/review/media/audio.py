"""Tags of WAV, AIFF, FLAC, MP3 and Ogg recordings, removed without touching the coded samples.

Each format's end is checked on the way: sizes and counts in headers, whole frames, Ogg's last page.

WAV: Microsoft RIFF 1991, EBU Tech 3285 (bext). AIFF: Apple 1989, AIFF-C draft 1991. FLAC: RFC 9639 section 8.
ID3v2: id3.org 2.4.0 section 3.1; APEv2 and Lyrics3 as their authors publish them. Ogg: RFC 3533; Vorbis I
section 5, Opus RFC 7845 section 5.
"""

from __future__ import annotations

import zlib

from rsc.review.media.mpeg import count_frames
from rsc.review.media.riff_exif import Removed, riff_chunks, riff_file

_WAV_KEPT = frozenset({b"fmt ", b"fact", b"data"})
_AIFF_KEPT = frozenset({b"FVER", b"COMM", b"SSND"})
_AIFC_PLAIN = frozenset({b"NONE", b"sowt", b"twos", b"fl32", b"FL32", b"fl64", b"FL64", b"raw "})
_FLAC_KINDS = {1: "padding", 2: "application", 4: "tags", 5: "cue sheet", 6: "picture"}
_FLAC_KEPT = frozenset({0, 3})  # STREAMINFO, SEEKTABLE


def clean_wav(data: bytes) -> tuple[bytes, list[Removed]]:
    """Keep format, sample count and samples."""
    kept, removed = list[tuple[bytes, bytes]](), list[Removed]()
    for name, payload in riff_chunks(data):
        if name in _WAV_KEPT:
            kept.append((name, payload))
        else:
            removed.append(Removed("tags", len(payload)))
    if [name for name, _ in kept if name != b"fact"] != [b"fmt ", b"data"]:
        raise ValueError("format or samples are missing, or there twice")
    behind = len(data) - 8 - int.from_bytes(data[4:8], "little")
    if behind > 0:
        if not kept[-1][1]:
            raise ValueError(f"its header says that it holds no samples, and {behind} bytes follow")
        removed.append(Removed("trailing", behind))
    return riff_file(b"WAVE", kept), removed


def clean_aiff(data: bytes) -> tuple[bytes, list[Removed]]:
    """Keep format, version and samples. As many samples as COMM counts, or ValueError."""
    kept, removed = list[tuple[bytes, bytes]](), list[Removed]()
    for name, payload in riff_chunks(data, order="big"):
        if name in _AIFF_KEPT:
            kept.append((name, payload))
        else:
            removed.append(Removed("tags", len(payload)))
    chunks = dict(kept)
    if len(chunks) < len(kept) or {b"COMM", b"SSND"} - chunks.keys():
        raise ValueError("format or samples are missing, or there twice")
    form, samples = chunks[b"COMM"], len(chunks[b"SSND"]) - 8
    if data[8:12] == b"AIFF" or form[18:22] in _AIFC_PLAIN:
        channels, count, bits = (
            form[0] << 8 | form[1],
            int.from_bytes(form[2:6], "big"),
            form[6] << 8 | form[7],
        )
        if samples != count * channels * ((bits + 7) // 8):
            raise ValueError(f"its header counts {count} samples, and {samples} bytes of them are there")
    behind = len(data) - 8 - int.from_bytes(data[4:8], "big")
    if behind > 0:
        removed.append(Removed("trailing", behind))
    return riff_file(data[8:12], kept, order="big"), removed


def clean_flac(data: bytes) -> tuple[bytes, list[Removed]]:
    """Keep STREAMINFO and SEEKTABLE; the last kept block gets the last-block flag."""
    kept, removed = list[tuple[int, bytes]](), list[Removed]()
    offset, is_last = 4, False
    while not is_last:
        is_last, kind = bool(data[offset] & 0x80), data[offset] & 0x7F
        size = int.from_bytes(data[offset + 1 : offset + 4], "big")
        payload = data[offset + 4 : offset + 4 + size]
        if len(payload) != size:
            raise ValueError("a metadata block is cut short")
        if kind in _FLAC_KEPT:
            kept.append((kind, payload))
        else:
            removed.append(Removed(_FLAC_KINDS.get(kind, "unknown"), size))
        offset += 4 + size
    if not kept or kept[0][0] != 0:
        raise ValueError("STREAMINFO is missing")
    blocks = [
        bytes((kind | (0x80 if index == len(kept) - 1 else 0),)) + len(payload).to_bytes(3, "big") + payload
        for index, (kind, payload) in enumerate(kept)
    ]
    frames, behind = _without_tags_behind(data[offset:])
    return b"fLaC" + b"".join(blocks) + frames, removed + behind


def clean_mp3(data: bytes) -> tuple[bytes, list[Removed]]:
    """Keep the frames between the tags."""
    removed = []
    while data[:3] == b"ID3":
        size = _syncsafe(data[6:10]) + 10 + (10 if data[5] & 0x10 else 0)
        if len(data) < size:
            raise ValueError("the ID3v2 tag is cut short")
        removed.append(Removed("tags", size))
        data = data[size:]
    data = data.lstrip(b"\x00")
    if len(data) < 4 or data[0] != 0xFF or data[1] & 0xE0 != 0xE0:
        raise ValueError("no audio frame follows the tag")
    frames, behind = _without_tags_behind(data)
    count_frames(frames)
    return frames, removed + behind


def _without_tags_behind(data: bytes) -> tuple[bytes, list[Removed]]:
    """Cut ID3v1, APEv2 and Lyrics3 off the end, as often as they are stacked."""
    removed = []
    while size := _tag_behind(data):
        removed.append(Removed("tags", size))
        data = data[:-size]
    return data, removed


def _tag_behind(data: bytes) -> int:
    """Bytes of the tag that ends the data; 0 for none."""
    if data[-128:-125] == b"TAG":
        return 128
    if data[-32:-24] == b"APETAGEX":
        size, flags = int.from_bytes(data[-20:-16], "little"), int.from_bytes(data[-12:-8], "little")
        return min(len(data), size + (32 if flags & 0x80000000 else 0))
    if data[-9:] == b"LYRICS200" and data[-15:-9].isdigit():
        return min(len(data), int(data[-15:-9]) + 15)
    return 0


def _syncsafe(four: bytes) -> int:
    return sum((byte & 0x7F) << shift for byte, shift in zip(four, (21, 14, 7, 0), strict=True))


def clean_ogg(data: bytes) -> tuple[bytes, list[Removed]]:
    """Empty the comment header of one Vorbis or Opus stream and frame its header pages anew.

    The pages of samples are copied; only their sequence numbers and checksums change. More than one stream
    in a file raises ValueError.
    """
    pages = _ogg_pages(data)
    serial = pages[0][14:18]
    if not pages[-1][5] & 0x04:
        raise ValueError("the last page does not say that it is the last")
    if any(page[14:18] != serial for page in pages):
        raise ValueError("more than one stream in one file")
    first = _ogg_payload(pages[0])
    if first.startswith(b"OpusHead"):
        headers, empty = 2, b"OpusTags" + b"\x00" * 8
    elif first.startswith(b"\x01vorbis"):
        headers, empty = 3, b"\x03vorbis" + b"\x00" * 8 + b"\x01"
    else:
        raise ValueError("neither Vorbis nor Opus")
    packets, used = _header_packets(pages, count=headers)
    removed = [Removed("tags", len(packets[1]))] if packets[1] != empty else []
    packets[1] = empty
    fresh = [
        _ogg_page([packets[0]], serial=serial, is_first=True),
        _ogg_page(packets[1:], serial=serial, is_first=False),
    ]
    numbered = [_ogg_numbered(page, index) for index, page in enumerate(fresh + pages[used:])]
    return b"".join(numbered), removed


def _ogg_pages(data: bytes) -> list[bytes]:
    pages, offset = list[bytes](), 0
    while offset < len(data):
        if data[offset : offset + 4] != b"OggS":
            raise ValueError(f"no page at byte {offset}")
        segments = data[offset + 26]
        size = 27 + segments + sum(data[offset + 27 : offset + 27 + segments])
        if offset + size > len(data):
            raise ValueError("the last page is cut short")
        page = data[offset : offset + size]
        if _ogg_checksum(page[:22] + b"\x00" * 4 + page[26:]) != int.from_bytes(page[22:26], "little"):
            raise ValueError(f"the checksum of page {len(pages)} is wrong")
        if int.from_bytes(page[18:22], "little") != len(pages) and len({p[14:18] for p in pages}) == 1:
            raise ValueError(f"page {len(pages)} is missing")
        pages.append(page)
        offset += size
    if not pages:
        raise ValueError("there is no page in it")
    return pages


def _ogg_payload(page: bytes) -> bytes:
    return page[27 + page[26] :]


def _header_packets(pages: list[bytes], *, count: int) -> tuple[list[bytes], int]:
    """The first `count` packets and the number of pages they fill; samples begin on a fresh page."""
    packets, packet = list[bytes](), b""
    for index, page in enumerate(pages):
        offset = 27 + page[26]
        for lacing in page[27 : 27 + page[26]]:
            packet += page[offset : offset + lacing]
            offset += lacing
            if lacing < 255:
                packets.append(packet)
                packet = b""
        if len(packets) == count and not packet:
            return packets, index + 1
    raise ValueError("the header packets do not end with a page")


def _ogg_page(packets: list[bytes], *, serial: bytes, is_first: bool) -> bytes:
    """A header page with granule position 0. Raises ValueError beyond the 255 segments of a page."""
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,)) for packet in packets)
    if len(lacing) > 255:
        raise ValueError("the codec's set-up header is larger than a page")
    head = (
        b"OggS\x00"
        + (b"\x02" if is_first else b"\x00")
        + b"\x00" * 8
        + serial
        + b"\x00" * 8
        + bytes((len(lacing),))
    )
    return head + lacing + b"".join(packets)


def _ogg_numbered(page: bytes, sequence: int) -> bytes:
    page = page[:18] + sequence.to_bytes(4, "little") + b"\x00" * 4 + page[26:]
    return page[:22] + _ogg_checksum(page).to_bytes(4, "little") + page[26:]


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # bits of a byte, last first


def _ogg_checksum(page: bytes) -> int:
    """RFC 3533 section 6: CRC-32 with generator 04c11db7, no reflection, start 0.

    zlib has the same generator reflected, so bits go in and come out mirrored; its start and end are ~0.
    """
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
