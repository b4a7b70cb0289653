"""The words between worker and agent: one JSON object a line, over a unix stream socket.

    -> {"op": "release", "request": {..}}           <- {"ok": true, "lease": 7, "lease_s": 180, "carrier": ..}
    -> {"op": "take"}   (carrier `socket` only)     <- 32 raw bytes
    -> {"op": "renew", "lease": 7, "request": {..}} <- {"ok": true, "lease_s": 180}
    -> {"op": "end", "lease": 7}                    <- {"ok": true}
    refused:                                        <- {"ok": false, "error": .., "message": .., "hint": ..}

With a released key comes its descriptor (handover.py), attached to the first byte of the line. Raw bytes
are sent only when asked for, so that they never mix into the buffer of a line.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsc.errors import GateRefused, RscError, from_message, to_message

MAX_LINE_BYTES = 64 << 10
_READ_BYTES = 4096
_LOCAL_PEERCRED, _LOCAL_PEERPID = 1, 2  # sys/un.h of macOS and BSD
_SCM_MAX_FD = 253  # in one message; with less room the kernel closes the others here and now
_PATH_BYTES = 100  # sun_path holds 108 on Linux, 104 on macOS


class DescriptorsPassed(ConnectionError):
    """Somebody sent descriptors to the agent; they are still open."""

    def __init__(self, fds: list[int]) -> None:
        super().__init__(f"{len(fds)} descriptors")
        self.fds = fds


class Line:
    """Reads and writes lines on one connection, which may be blocking (a worker's) or not (the agent's)."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._read = b""

    def send(self, message: dict[str, Any], *, fd: int | None = None) -> None:
        """Raises OSError; BlockingIOError when the other side leaves too many answers unread."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        sent = 0
        if fd is not None:
            sent = socket.send_fds(self.connection, [data], [fd])
        self.connection.sendall(data[sent:])

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message with the descriptors that came along; None when the other side hung up.

        Raises ConnectionError or ValueError for anything but JSON objects of a modest size.
        """
        descriptors: list[int] = []
        while (message := self._next()) is None:
            fds = self._fill(1 if not self._read else _READ_BYTES)
            if fds is None:
                return None
            descriptors += fds
        return message, descriptors

    def receive_now(self) -> list[dict[str, Any]] | None:
        """Every whole message among what has arrived; None when the other side hung up. Raises as `receive`
        does, and DescriptorsPassed: the agent takes none; closing one takes as long as its owner likes."""
        data, fds, _, _ = socket.recv_fds(self.connection, _READ_BYTES, _SCM_MAX_FD)
        if fds:
            raise DescriptorsPassed(list(fds))
        self._read += data
        return list(iter(self._next, None)) if data else None

    def _fill(self, size_bytes: int) -> list[int] | None:
        data, fds, _, _ = socket.recv_fds(self.connection, size_bytes, 4)
        self._read += data
        return list(fds) if data else None

    def _next(self) -> dict[str, Any] | None:
        if b"\n" not in self._read:
            if len(self._read) > MAX_LINE_BYTES:
                raise ConnectionError(f"a line above {MAX_LINE_BYTES} bytes")
            return None
        line, _, self._read = self._read.partition(b"\n")
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ConnectionError("a line that is not a JSON object")
        return message


def error_message(error: RscError) -> dict[str, Any]:
    return {"ok": False, **to_message(error)}


def to_error(message: dict[str, Any]) -> RscError:
    """The error that the agent met, as the class it had there."""
    return from_message(message, unknown=GateRefused)


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A path to the same socket that fits an address: long ones go through a descriptor of their folder."""
    if len(os.fsencode(path)) <= _PATH_BYTES or sys.platform != "linux":
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def peer_of(connection: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the other side, from the kernel."""
    if sys.platform == "linux":
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid, uid, _ = struct.unpack("iII", data)
        return pid, uid
    (pid,) = struct.unpack("i", connection.getsockopt(0, _LOCAL_PEERPID, 4))
    _, uid = struct.unpack("II", connection.getsockopt(0, _LOCAL_PEERCRED, 8))
    return pid, uid
