"""Where a machine may write memory to a disk: swap, and the handler of core dumps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class SwapArea:
    """A line of /proc/swaps. `keeps` says what is left of memory that was swapped out."""

    name: str
    size_bytes: int
    keeps: str
    """`memory` (zram), `ciphertext` (dm-crypt), or `plaintext`."""


def swap_areas(*, swaps: Path = Path("/proc/swaps"), blocks: Path = Path("/sys/block")) -> list[SwapArea]:
    """Areas that are on; none on systems without /proc/swaps."""
    try:
        lines = swaps.read_text().splitlines()[1:]
    except OSError:
        return []
    rows = [line.split() for line in lines if line.strip()]
    return [SwapArea(row[0], int(row[2]) * 1024, _keeps(row[0], blocks=blocks)) for row in rows]


def _keeps(device: str, *, blocks: Path) -> str:
    """dm-crypt gives its devices a UUID that begins with CRYPT-; a swap file counts as its disk: unknown."""
    name = Path(device).resolve().name
    if name.startswith("zram"):
        return "memory" if _text(blocks / name / "backing_dev") in ("", "none\n") else "plaintext"
    return "ciphertext" if _text(blocks / name / "dm" / "uuid").startswith("CRYPT-") else "plaintext"


def core_handler(*, pattern: Path = Path("/proc/sys/kernel/core_pattern")) -> str:
    """Where this machine puts core dumps: a file name, or a program behind `|`; empty where unknown."""
    return _text(pattern).strip()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
