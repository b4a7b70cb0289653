"""bzip2 and xz files, one or more streams in a row, read to their true end.

Python's own readers ignore bytes after the last stream; here they are an error, as a stream that ends early
is.
"""

from __future__ import annotations

import bz2
import io
import lzma
from typing import TYPE_CHECKING

from rsc.ingest.readers.source import SourceFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_READ_BYTES = 1 << 20
_MAX_XZ_BYTES = 1 << 30  # memory of a decoder: `xz -9` needs 65 MiB
_PADDING = b"\0\0\0\0"  # of xz files, section 2.2 of its specification


class BadStream(Exception):
    """A packed file that is not whole, or holds something after its end."""


class WholeStreams(io.RawIOBase):
    """The unpacked bytes. Reading raises BadStream where the file is not a row of whole streams."""

    def __init__(self, path: SourceFile) -> None:
        self._is_xz = path.suffix.lower() == ".xz"
        self._file = path.open("rb")
        self._stream = self._new()
        self._data = b""
        self._is_begun = False

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        unpacked = b""
        while not unpacked:
            if self._stream.eof:
                self._data, self._stream, self._is_begun = self._stream.unused_data, self._new(), False
            if self._stream.needs_input and not self._data:
                self._data = self._file.read(_READ_BYTES)
                if not self._data:
                    if self._is_begun:
                        raise BadStream("it ends inside a stream")
                    return 0
            unpacked = self._unpack(len(view))
        view[: len(unpacked)] = unpacked
        return len(unpacked)

    def _new(self) -> bz2.BZ2Decompressor | lzma.LZMADecompressor:
        if self._is_xz:
            return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_BYTES)
        return bz2.BZ2Decompressor()

    def _unpack(self, max_length: int) -> bytes:
        data, self._data = self._data, b""
        while self._is_xz and not self._is_begun and data.startswith(_PADDING):
            data = data[len(_PADDING) :]
        if not data and not self._is_begun:
            return b""
        self._is_begun = True
        try:
            return self._stream.decompress(data, max_length=max_length)
        except (OSError, lzma.LZMAError) as error:
            raise BadStream(str(error)) from None
