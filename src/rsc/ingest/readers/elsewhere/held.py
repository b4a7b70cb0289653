"""A source file that has no path: what is read from a pipe, or an object in a store.

Readers open it as they open a path. Only the importing process can: workers get the bytes of their part with
it, and know the file by its name.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class HeldFile(ABC):
    """Read from any place in it, any number of times. Its name says how it is packed, as a path's does."""

    def __init__(self, name: str) -> None:
        self._path = PurePosixPath(name)
        self.name = self._path.name
        self.stem = self._path.stem
        self.suffix = self._path.suffix
        self.suffixes = self._path.suffixes

    @abstractmethod
    def stamp(self) -> tuple[int, str]:
        """Size in bytes, and what changes when the content does."""

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill `buffer`, which ends within the file."""

    @property
    @abstractmethod
    def size_bytes(self) -> int: ...

    @property
    @abstractmethod
    def block_bytes(self) -> int:
        """How much to read at once."""

    def open(self, mode: Literal["rb"] = "rb") -> BinaryIO:
        assert mode == "rb", "a source is never written"
        return io.BufferedReader(_Bytes(self), buffer_size=self.block_bytes)

    def __str__(self) -> str:
        return str(self._path)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Name, (str(self._path),)


class _Name(HeldFile):
    """What a worker has of it."""

    def stamp(self) -> tuple[int, str]:
        raise AssertionError(f"a worker has only the name of {self.name}")

    def read_into(self, offset: int, buffer: memoryview) -> None:
        raise AssertionError(f"a worker has only the name of {self.name}")

    @property
    def size_bytes(self) -> int:
        raise AssertionError(f"a worker has only the name of {self.name}")

    @property
    def block_bytes(self) -> int:
        raise AssertionError(f"a worker has only the name of {self.name}")


class _Bytes(io.RawIOBase):
    """The bytes of a held file, read forwards from wherever one seeks to."""

    def __init__(self, file: HeldFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size_bytes}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self._file.size_bytes - self._at))
        if count:
            self._file.read_into(self._at, view[:count])
        self._at += count
        return count
