"""Files in memory for tests of the store."""

from __future__ import annotations

from rsc.errors import IntegrityError


class MemoryFile:
    """A sink and a `RandomAccess` over one bytearray."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)

    def write(self, data: memoryview, /) -> None:
        self.data += data

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        if offset + len(buffer) > len(self.data):
            raise IntegrityError("file ends early", outcome="truncated")
        memoryview(buffer)[:] = memoryview(self.data)[offset : offset + len(buffer)]

    def close(self) -> None:
        pass
