"""A disk in memory that loses power at any chosen operation, in each way a real one can."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from random import Random


class PowerLoss(BaseException):
    """Not an Exception: nothing may catch it and go on."""


class CrashDisk:
    """Implements rsc.audit.disk.LogDisk. `crash_at` counts operations that change something."""

    def __init__(self, *, crash_at: int | None = None, how: str = "before", seed: int = 0) -> None:
        self.files: dict[str, bytes] = {}
        self.operations = 0
        self._crash_at, self._how, self._random = crash_at, how, Random(seed)

    def survivor(self) -> CrashDisk:
        """What the machine finds after it starts again."""
        disk = CrashDisk()
        disk.files = copy.deepcopy(self.files)
        disk.operations = len(disk.files)
        return disk

    def read(self, path: str, *, offset: int = 0) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path][offset:]

    def size(self, path: str) -> int | None:
        return len(self.files[path]) if path in self.files else None

    def append(self, path: str, data: bytes) -> None:
        if self._is_crash():
            start = len(self.files[path])
            self.files[path] += self._torn(data)
            if self._how == "holes":
                self.files[path] = with_hole(self.files[path], start=start, random=self._random)
            raise PowerLoss
        self.files[path] += data

    def truncate(self, path: str, size: int) -> None:
        if self._is_crash():
            if self._how == "all":
                self.files[path] = self.files[path][:size]
            raise PowerLoss
        self.files[path] = self.files[path][:size]

    def put(self, path: str, data: bytes) -> None:
        crash = self._is_crash()
        if not crash or self._how == "all":
            self._replace(path, data)
        if crash:
            raise PowerLoss

    def put_many(self, files: Mapping[str, bytes]) -> None:
        crash = self._is_crash()
        for path, data in files.items():
            if not crash:
                self._replace(path, data)
            elif self._random.random() < 0.6:
                self._replace(path, self._torn(data))
        if crash:
            raise PowerLoss

    def delete_folder(self, path: str) -> None:
        if self._is_crash():
            raise PowerLoss
        for inside in [name for name in self.files if name.startswith(f"{path}/")]:
            del self.files[inside]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        yield

    def _is_crash(self) -> bool:
        self.operations += 1
        return self.operations == self._crash_at

    def _replace(self, path: str, data: bytes) -> None:
        self.files[path] = data

    def _torn(self, data: bytes) -> bytes:
        """The part of an unsynced write that survived."""
        if self._how == "before":
            return b""
        if self._how == "short":
            return data[: self._random.randrange(len(data) + 1)]
        return data


def with_hole(data: bytes, *, start: int, random: Random) -> bytes:
    """Zero one or more 512-byte sectors of what lies behind `start`."""
    sectors = range(start // 512, -(-len(data) // 512))
    lost = [sector for sector in sectors if random.random() < 0.5] or [random.choice(list(sectors))]
    out = bytearray(data)
    for sector in lost:
        for position in range(max(start, sector * 512), min(len(data), (sector + 1) * 512)):
            out[position] = 0
    return bytes(out)
