"""Messages of a job: a kind, named facts, and bytes that ride along; framed by their length.

    frame    = u32 length of the body, big endian; body
    body     = u32 length of the head, head (JSON), payload
    sealed   = u32 length, AES-256-GCM of a body (channel.py)

A frame has a bound, which its reader holds before it reserves a byte: a length above it ends the connection.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

from rsc.errors import DataError

LENGTH = struct.Struct(">I")
MOST_BYTES = 1 << 20
"""Of a frame: the rows of thousands of ranks, or a rank's address for its peers, have some kilobytes."""


@dataclass(frozen=True)
class Message:
    kind: str
    facts: dict[str, Any] = field(default_factory=dict)
    payload: bytes = b""

    def encode(self) -> bytes:
        head = json.dumps({"kind": self.kind, **self.facts}, separators=(",", ":")).encode()
        return b"".join((LENGTH.pack(len(head)), head, self.payload))

    @classmethod
    def decode(cls, body: bytes) -> Message:
        """Raises DataError for anything else than a message."""
        try:
            (size,) = LENGTH.unpack_from(body)
            head = json.loads(body[LENGTH.size : LENGTH.size + size])
            if len(body) < LENGTH.size + size or not isinstance(head["kind"], str):
                raise ValueError
        except (struct.error, ValueError, TypeError, LookupError, RecursionError):
            raise DataError(f"{len(body)} bytes that are no message") from None
        return cls(head.pop("kind"), head, body[LENGTH.size + size :])


class Frames:
    """Takes bytes as they arrive and gives whole frames."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._read = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are whole now. Raises DataError for a length above the bound."""
        self._read += data
        found, at = [], 0
        while len(self._read) - at >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._read, at)
            if size > self._most_bytes:
                raise DataError(f"a frame of {size} bytes, above {self._most_bytes}")
            if len(self._read) - at < LENGTH.size + size:
                break
            found.append(bytes(self._read[at + LENGTH.size : at + LENGTH.size + size]))
            at += LENGTH.size + size
        del self._read[:at]
        return found


def framed(body: bytes) -> bytes:
    return LENGTH.pack(len(body)) + body
