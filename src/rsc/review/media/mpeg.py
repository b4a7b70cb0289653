"""Frames of MPEG audio, counted to the end: MP3 has no end mark, only whole frames and a count in the first.

Headers: ISO 11172-3 section 2.4.1.3 and 13818-3; Xing, Info and VBRI as their authors publish them.
"""

from __future__ import annotations

from typing import NamedTuple

_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBIT_PER_S = {
    (True, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""By (is MPEG-1, layer bits: 3 is layer I, 1 is layer III)."""


class FrameCounts(NamedTuple):
    """How many frames there are, and how many the first one counts; None where it counts none."""

    found: int
    counted: int | None


def begins_with_frames(data: bytes) -> bool:
    """An ID3v2 tag, or two frames in a row: one sync word stands in other data too."""
    if data[:3] == b"ID3":
        return True
    size = _frame_bytes(data, 0)
    return size is not None and (len(data) == size or _frame_bytes(data, size) is not None)


def has_count(data: bytes) -> bool:
    """Whether the first frame counts the others. `data` may begin with a tag."""
    start = data[: 1 << 20]
    return b"Xing" in start or b"Info" in start or b"VBRI" in start


def count_frames(data: bytes) -> FrameCounts:
    """Raises ValueError where no frame stands, the last is cut short, or the count does not fit."""
    offset = found = 0
    while offset < len(data):
        size = _frame_bytes(data, offset)
        if size is None:
            if found and not data[offset:].strip(b"\0"):
                break
            raise ValueError(f"no frame at byte {offset}")
        if offset + size > len(data):
            raise ValueError("the last frame is cut short")
        offset, found = offset + size, found + 1
    counted = _counted(data[: _frame_bytes(data, 0)])
    if counted is not None and found - 1 != counted:
        raise ValueError(f"its first frame counts {counted} frames, {found - 1} follow")
    return FrameCounts(found, counted)


def _frame_bytes(data: bytes, offset: int) -> int | None:
    """Size of the frame at `offset`; None where there is none, or its size is not stated."""
    head = data[offset : offset + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate, speed, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 0 or rate in (0, 15) or speed == 3:
        return None
    bits = 1000 * _KBIT_PER_S[version == 3, layer][rate - 1]
    hertz = _RATES_HZ[version][speed]
    if layer == 3:
        return (12 * bits // hertz + padding) * 4
    return (72 if layer == 1 and version != 3 else 144) * bits // hertz + padding


def _counted(frame: bytes) -> int | None:
    for mark in (b"Xing", b"Info"):
        at = frame.find(mark)
        if 0 < at <= 36 and frame[at + 7 : at + 8] and frame[at + 7] & 1:
            return int.from_bytes(frame[at + 8 : at + 12], "big")
    return int.from_bytes(frame[50:54], "big") if frame[36:40] == b"VBRI" else None
