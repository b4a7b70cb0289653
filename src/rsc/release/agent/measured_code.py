"""Which code a key is released to: a hash that the agent takes of RSC's own source, and of its bytecode.

    measure() when the workers' sandbox is made -> the same files are bound read-only into it
             -> at a decision: has any of them changed since? then the code is not the one that was measured

The agent reads the files itself; nothing that a worker says about its code counts. A change and its undoing
between the two looks are seen too: the kernel stamps ctime, which no user can set back.

Python runs bytecode from `__pycache__` where its header names the source's size and time, whatever it does.
It is hashed apart, since it differs between machines, and workers under isolation `required` are shown none.

Not covered: dependencies, the interpreter and what it loads at its start; the agent's own process, which
whoever owns the workspace can start from other code.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import rsc

_LOOK_S = 10.0  # how long a look at the files holds, as for the files of a review (facts_cache.py)
_Stamps = tuple[tuple[str, int, int, int, int], ...]


@dataclass
class MeasuredCode:
    """Digests in hexadecimal, and how the files looked when they were taken."""

    source: str
    bytecode: str
    root: Path
    stamps: _Stamps
    elapsed_s: Callable[[], float] = time.monotonic
    _held_until_s: float = field(default=0.0, init=False)

    def is_unchanged(self) -> bool:
        """Whether the source files are still those that were measured."""
        if self.elapsed_s() < self._held_until_s:
            return True
        is_same = _stamps(self.root) == self.stamps
        self._held_until_s = self.elapsed_s() + _LOOK_S if is_same else 0.0
        return is_same

    def to_record(self) -> dict[str, str]:
        return {"code": self.source, "bytecode": self.bytecode}


def measure(root: Path | None = None) -> MeasuredCode:
    """Of the package that this process runs, or of another folder of it."""
    root = root or Path(rsc.__file__).parent
    stamps = _stamps(root)
    return MeasuredCode(
        _digest(root, _sources(root)), _digest(root, sorted(root.rglob("*.pyc"))), root, stamps
    )


def bytecode_folders(root: Path | None = None) -> list[Path]:
    return sorted((root or Path(rsc.__file__).parent).rglob("__pycache__"))


def _sources(root: Path) -> list[Path]:
    """Whatever Python could import or RSC could read, bytecode aside."""
    return sorted(path for path in root.rglob("*") if path.is_file() and path.parent.name != "__pycache__")


def _digest(root: Path, paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(root)}\0{content}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _stamps(root: Path) -> _Stamps:
    return tuple(_stamp(path) for path in _sources(root))


def _stamp(path: Path) -> tuple[str, int, int, int, int]:
    found = path.stat()
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
