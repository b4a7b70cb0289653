"""Memory of windows and batches: pages that are used again as soon as nobody holds a view of them.

Fresh pages cost more than the decryption: the kernel clears each of them, and a virtual machine's host may
have to find it first. Window pages are huge where the system gives such, and left out of core dumps.

Windows are sized by the mean sample of a split, so a stretch of heavy samples can make one many times larger
than `window_bytes`. One that the machine has no memory for is refused before a byte of it is read: the kernel
would end the process at some page of it, without a word.

Who holds a view is seen by the references to the array that owns the pages: every view made by numpy, torch
or the buffer protocol keeps one. Not a finaliser on the array that was handed out: numpy lets views of views
refer to the owner, so such an array can be gone while its memory is in use.

Not covered: wiping freed memory; swap (use encrypted swap or none); limits of a container, which the kernel's
own count of what is available does not know; Python without the interpreter lock.
"""

from __future__ import annotations

import math
import mmap
import sys
from pathlib import Path

import numpy as np

from rsc.errors import ResourceError
from rsc.loader.layout import Bytes
from rsc.units import format_bytes

_HUGE_PAGE_BYTES = 2 << 20
_ROOM = 1.0625  # arenas and batches differ a little in size; growing one means fresh pages
_POOLED_BYTES = range(256 << 10, (64 << 20) + 1)
"""Sizes of batches that are worth pages of their own: the allocator keeps smaller pieces itself, and a larger
one should not stay with a pool because it came by once."""
_MOST_BLOCKS = 8  # a batch in use, the one before it, and a few that a queue to the device holds


class WindowMemory:
    """Reusable memory for one window."""

    def __init__(self) -> None:
        self._blocks: dict[str, Bytes] = {}

    def take(self, name: str, size_bytes: int) -> Bytes:
        """Memory under a name; what was there before is lost. Pages are kept between uses."""
        if name not in self._blocks or len(self._blocks[name]) < size_bytes:
            self._blocks[name] = _window_pages(int(size_bytes * _ROOM))
        return self._blocks[name][:size_bytes]

    @property
    def is_free(self) -> bool:
        """Whether no view of the memory is left."""
        return all(sys.getrefcount(self._blocks[name]) <= _OWN_REFERENCES for name in self._blocks)


class BatchMemory:
    """Memory for batches. A piece is handed out again when the last view of it is gone, and not before:
    whoever keeps a batch keeps it. Where too many are kept, further ones are ordinary arrays."""

    def __init__(self) -> None:
        self._blocks: list[Bytes] = []

    def take(self, size_bytes: int) -> Bytes:
        """uint8 [size_bytes] that nobody else holds, with any contents."""
        if size_bytes not in _POOLED_BYTES:
            return np.empty(size_bytes, np.uint8)
        free = [number for number in range(len(self._blocks)) if self._is_free(number)]
        for number in free:
            if len(self._blocks[number]) >= size_bytes:
                return self._blocks[number][:size_bytes]
        if free:
            del self._blocks[free[0]]  # too small; another is made instead
        if len(self._blocks) == _MOST_BLOCKS:
            return np.empty(size_bytes, np.uint8)
        self._blocks.append(_pages(int(size_bytes * _ROOM)))
        return self._blocks[-1][:size_bytes]

    def _is_free(self, number: int) -> bool:
        return sys.getrefcount(self._blocks[number]) <= _OWN_REFERENCES


def available_bytes() -> float:
    """Memory that can be had without swapping, as the kernel reckons it; infinite where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return math.inf
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in sizes else math.inf


def _window_pages(size_bytes: int) -> Bytes:
    """Pages for a window. Raises ResourceError where the machine has no room for them."""
    left_bytes = available_bytes()
    if size_bytes > left_bytes:
        raise ResourceError(
            f"a window of samples needs {format_bytes(size_bytes)} of memory at once, and "
            f"{format_bytes(left_bytes)} are available: samples of this stretch are larger than the mean, "
            "by which windows are sized",
            hint="go on where there is more memory, or start anew with a smaller window_bytes",
        )
    return _pages(size_bytes)


def _pages(size_bytes: int) -> Bytes:
    """Zeroed private pages, huge ones where the system gives them, left out of core dumps."""
    size_bytes = max(size_bytes, 1)
    if size_bytes >= _HUGE_PAGE_BYTES:
        size_bytes = -(-size_bytes // _HUGE_PAGE_BYTES) * _HUGE_PAGE_BYTES  # else they are not aligned to
    pages = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for advice in ("MADV_HUGEPAGE", "MADV_DONTDUMP"):
        if hasattr(mmap, advice):
            pages.madvise(getattr(mmap, advice))
    return np.frombuffer(pages, np.uint8)


def _count_own_references() -> int:
    """References that `is_free` sees on a block nobody else holds, on this interpreter."""
    blocks = {"": np.empty(1, np.uint8)}
    return next(sys.getrefcount(blocks[name]) for name in blocks)


_OWN_REFERENCES = _count_own_references()
