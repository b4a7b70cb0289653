"""A small seccomp filter: only the socket families that training needs, and no way to get privileges back.

A network namespace does not contain AF_VSOCK (the host of a virtual machine), and io_uring opens
sockets without the `socket` call, so both are closed here. Kernel keyrings are per user, not per
namespace. A fresh user namespace would give back every capability inside it. CLONE_PARENT would put a child
beside its maker, where the end of a lease does not find it (release/agent/sandboxes.py).

Not covered: architectures other than x86_64 and aarch64 (`install` says so by its return value).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from rsc.cluster.sandbox import syscalls

ALLOWED_FAMILIES = (
    socket.AF_UNIX,
    socket.AF_INET,
    socket.AF_INET6,
    16,
)  # 16 = AF_NETLINK, for interface lists


@dataclass(frozen=True)
class _Architecture:
    audit: int
    """AUDIT_ARCH_* of linux/audit.h"""
    socket: int
    clone: int
    refused: tuple[int, ...]
    """unshare, setns, add_key, request_key, keyctl, bpf, perf_event_open"""


_ARCHITECTURES = {  # numbers from the kernel's syscall tables
    "x86_64": _Architecture(0xC000003E, 41, 56, (272, 308, 248, 249, 250, 321, 298)),
    "aarch64": _Architecture(0xC00000B7, 198, 220, (97, 268, 217, 218, 219, 280, 241)),
}
_MISSING = (425, 435)  # io_uring_setup, clone3: answered ENOSYS, so that libraries fall back
_X32_BIT = 0x40000000  # x86_64's second ABI, whose numbers would slip past the comparisons

# linux/bpf_common.h, linux/seccomp.h; offsets of struct seccomp_data
_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENT_0 = 0, 4, 16
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_SECCOMP_MODE_FILTER = 2


def install() -> bool:
    """Filter this process and everything it starts, for good; False where the architecture is not known.

    Needs no_new_privs. Raises OSError when the kernel has no seccomp filters.
    """
    architecture = _ARCHITECTURES.get(platform.machine())
    if architecture is None:
        return False
    program = _program(architecture)
    code = ctypes.create_string_buffer(b"".join(program))
    header = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code))
    buffer = ctypes.create_string_buffer(header)
    syscalls.prctl(syscalls.PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(buffer))
    return True


def _program(architecture: _Architecture) -> list[bytes]:
    return [
        _step(_LOAD, _ARCH),
        _step(_JUMP_EQUAL, architecture.audit, if_true=1),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD, _NUMBER),
        _step(_JUMP_ABOVE, _X32_BIT, if_false=1),
        _step(_RETURN, _ERRNO | errno.ENOSYS),
        *_answer(architecture.refused, errno.EPERM),
        *_answer(_MISSING, errno.ENOSYS),
        _step(_JUMP_EQUAL, architecture.clone, if_false=4),
        _step(_LOAD, _ARGUMENT_0),
        _step(_JUMP_BITS, syscalls.CLONE_NEWUSER | syscalls.CLONE_PARENT, if_false=1),
        _step(_RETURN, _ERRNO | errno.EPERM),
        _step(_RETURN, _ALLOW),
        _step(_JUMP_EQUAL, architecture.socket, if_true=1),
        _step(_RETURN, _ALLOW),
        _step(_LOAD, _ARGUMENT_0),
        *[
            _step(_JUMP_EQUAL, family, if_true=len(ALLOWED_FAMILIES) - position)
            for position, family in enumerate(ALLOWED_FAMILIES)
        ],
        _step(_RETURN, _ERRNO | errno.EAFNOSUPPORT),
        _step(_RETURN, _ALLOW),
    ]


def _answer(numbers: Sequence[int], error: int) -> list[bytes]:
    steps = []
    for number in numbers:
        steps += [_step(_JUMP_EQUAL, number, if_false=1), _step(_RETURN, _ERRNO | error)]
    return steps


def _step(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
