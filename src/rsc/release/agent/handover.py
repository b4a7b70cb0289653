"""Carry a key from the agent to a worker without it passing through a socket buffer or a file.

The key lies in a page of `memfd_secret` memory, which no other process can read, root included, and
which never reaches swap; where the kernel has none, in a `memfd` whose size is sealed. Only the
descriptor travels (SCM_RIGHTS). The receiver copies the key into its own locked page and overwrites
the carrier, so that one copy is left. On systems without memfd the 32 bytes go over the socket.

Not covered: the kernel's own copy of socket data in that last case.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import socket
from typing import Literal

from rsc.keys.secret import KEY_BYTES, SecretKey

Carrier = Literal["memfd_secret", "memfd", "socket"]
_MEMORY: tuple[Carrier, ...] = ("memfd_secret", "memfd")
_SYS_MEMFD_SECRET = {"x86_64": 447, "aarch64": 447}  # kernel syscall tables
_LIBC = ctypes.CDLL(None, use_errno=True)
_FD_CLOEXEC = 0x80000  # O_CLOEXEC, the only flag of memfd_secret
_F_ADD_SEALS, _SEALS = 1033, 0x0001 | 0x0002 | 0x0004  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW


def carriers() -> tuple[Carrier, ...]:
    """What works here, best first; tried, since a `memfd_secret` that is mapped counts as locked memory."""
    found: list[Carrier] = []
    for carrier in _MEMORY:
        try:
            with SecretKey() as nothing:
                os.close(carry(nothing, carrier=carrier))
        except (OSError, AttributeError):
            continue
        found.append(carrier)
    return (*found, "socket")


def carry(key: SecretKey, *, carrier: Carrier) -> int:
    """A descriptor whose first 32 bytes are the key. The caller closes it after sending."""
    fd = _make_fd(carrier)
    try:
        with mmap.mmap(fd, mmap.PAGESIZE) as page:
            page[:KEY_BYTES] = key.view
        if carrier == "memfd":
            fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def take(fd: int) -> SecretKey:
    """The key from a received descriptor, which is overwritten and closed."""
    try:
        with mmap.mmap(fd, mmap.PAGESIZE) as page, memoryview(page) as view, view[:KEY_BYTES] as part:
            return SecretKey.from_buffer(part)
    finally:
        os.close(fd)


def send_inline(connection: socket.socket, key: SecretKey) -> None:
    connection.sendall(key.view)


def receive_inline(connection: socket.socket) -> SecretKey:
    """Read 32 bytes straight into locked memory. Raises ConnectionError when they do not come."""
    key = SecretKey()
    got = 0
    while got < KEY_BYTES:
        count = connection.recv_into(key.view[got:])
        if count == 0:
            key.close()
            raise ConnectionError("the key agent hung up")
        got += count
    return key


def _make_fd(carrier: Carrier) -> int:
    """Raises OSError where this kernel has no such memory."""
    if carrier == "memfd":
        fd = os.memfd_create("key", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    else:
        number = _SYS_MEMFD_SECRET.get(platform.machine(), -1)
        fd = _LIBC.syscall(number, _FD_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "memfd_secret")
    os.ftruncate(fd, mmap.PAGESIZE)
    return fd
