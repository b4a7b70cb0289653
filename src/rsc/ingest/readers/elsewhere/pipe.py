"""Standard input as a source: `zstdcat posts.jsonl.zst | rsc data import - --name posts`.

An import may read its source more than once (types, repeated records), and a pipe can be read once. So what
comes is kept, encrypted under a key that lives in memory alone, in a file without a name: a kill leaves
nothing behind, and nobody reads what was in it.

Not covered: hiding how much was read. The program before the pipe: when it fails, it ends the pipe as if all
were well, so use `set -o pipefail` and look at the number of records.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from rsc.errors import DataError
from rsc.ingest.readers.elsewhere.held import HeldFile
from rsc.keys.secret import SecretKey

STANDARD_INPUT = "-"
_FRAME_BYTES = 1 << 20
_TAG_BYTES = 16  # of AES-GCM
_NAME = "standard-input"
_PACKED = {
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"BZh": ".bz2",
    b"\xfd7zXZ\x00": ".xz",
}
"""How a packed stream begins, and the ending of a file that holds one."""


class PipedInput(HeldFile):
    """Everything that came through a pipe."""

    def __init__(self, pipe: BinaryIO, *, folder: Path) -> None:
        """Reads to the end of the pipe. Raises DataError where nothing comes, OSError for a full disk."""
        with SecretKey.generate() as key:
            self._aead = key.aead()
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - as long as the source is read
        self._size = 0
        start = b""
        for number, frame in enumerate(_frames(pipe)):
            start = start or frame[:16]
            self._file.write(self._aead.encrypt(_nonce(number), frame, None))
            self._size += len(frame)
        self._file.flush()
        if not self._size:
            raise DataError("standard input is empty", hint="an import needs at least one record")
        packed = next((suffix for mark, suffix in _PACKED.items() if start.startswith(mark)), "")
        super().__init__(_NAME + packed)

    @property
    def size_bytes(self) -> int:
        return self._size

    @property
    def block_bytes(self) -> int:
        return _FRAME_BYTES

    def stamp(self) -> tuple[int, str]:
        return self._size, str(id(self))

    def read_into(self, offset: int, buffer: memoryview) -> None:
        done = 0
        while done < len(buffer):
            number, within = divmod(offset + done, _FRAME_BYTES)
            self._file.seek(number * (_FRAME_BYTES + _TAG_BYTES))
            sealed = self._file.read(_FRAME_BYTES + _TAG_BYTES)
            piece = self._aead.decrypt(_nonce(number), sealed, None)[within:][: len(buffer) - done]
            buffer[done : done + len(piece)] = piece
            done += len(piece)


def _frames(pipe: BinaryIO) -> Iterator[bytes]:
    """Pieces of one size but for the last; a pipe gives less than one asks for."""
    frame = bytearray()
    while block := pipe.read(_FRAME_BYTES - len(frame)):
        frame += block
        if len(frame) == _FRAME_BYTES:
            yield bytes(frame)
            frame.clear()
    if frame:
        yield bytes(frame)


def _nonce(number: int) -> bytes:
    """The key encrypts this one file, so the number of the frame is enough."""
    return number.to_bytes(12, "little")
