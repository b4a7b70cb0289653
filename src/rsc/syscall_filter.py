"""Filters of system calls (seccomp) out of rules with names, for x86_64 and aarch64.

A rule names a call, the error that it gets, and which calls of it are meant: all, those whose argument has
some bits, lacks them, or is none of a list. Whatever no rule names is allowed, so a filter is a list of what
a process never needs. Only the lower half of an argument is looked at, which is all the kernel takes of the
arguments that rules are about (flags, families, process ids).

Not covered: other architectures (`install` says so by its return value); pointers, which a filter cannot
follow: calls that take their flags behind one (clone3, openat2) are answered ENOSYS, and libraries fall back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # linux/audit.h
_NUMBERS: dict[str, tuple[int | None, int | None]] = {  # of x86_64 and aarch64, from the kernel's tables
    "open": (2, None), "creat": (85, None), "openat": (257, 56), "openat2": (437, 437),
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "clone": (56, 220), "clone3": (435, 435), "fork": (57, None), "vfork": (58, None),
    "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41),
    "mount": (165, 40), "umount2": (166, 39), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "mount_setattr": (442, 442),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "open_by_handle_at": (304, 265),
    "truncate": (76, 45), "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "unlink": (87, None), "unlinkat": (263, 35),
    "link": (86, None), "linkat": (265, 37), "symlink": (88, None), "symlinkat": (266, 36),
    "mknod": (133, None), "mknodat": (259, 33),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
}  # fmt: skip
_X32_BIT = 0x40000000  # x86_64's second ABI, whose numbers would slip past the comparisons

# linux/bpf_common.h, linux/seccomp.h, linux/prctl.h; offsets of struct seccomp_data
_LOAD, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


@dataclass(frozen=True)
class CallRule:
    """A call that is answered `error`: always, or by its argument number `argument`."""

    call: str
    error: int = errno.EPERM
    argument: int = 0
    with_bits: int = 0
    """Only where the argument has one of these."""
    without_bits: int = 0
    """Only where the argument has none of these."""
    unless: tuple[int, ...] = ()
    """Only where the argument is none of these."""


def install(rules: Sequence[CallRule]) -> bool:
    """Filter this thread and everything it starts, for good; False where the architecture is not known.

    Needs no_new_privs. Raises OSError when the kernel has no seccomp filters.
    """
    if platform.machine() not in _AUDIT_ARCH:
        return False
    program = _program(rules, machine=platform.machine())
    code = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code)))
    pointer, zero = ctypes.c_ulong(ctypes.addressof(header)), ctypes.c_ulong(0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), pointer, zero, zero) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_SECCOMP): {os.strerror(number)}")
    return True


def _program(rules: Sequence[CallRule], *, machine: str) -> list[bytes]:
    column = list(_AUDIT_ARCH).index(machine)
    steps = [
        _step(_LOAD, _ARCH),
        _step(_JUMP_EQUAL, _AUDIT_ARCH[machine], if_true=1),
        _step(_RETURN, _KILL_PROCESS),
        _step(_LOAD, _NUMBER),
        _step(_JUMP_ABOVE, _X32_BIT, if_false=1),
        _step(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for rule in rules:
        number = _NUMBERS[rule.call][column]
        if number is not None:
            body = _body(rule)
            steps += [_step(_JUMP_EQUAL, number, if_false=len(body)), *body]
    return [*steps, _step(_RETURN, _ALLOW)]


def _body(rule: CallRule) -> list[bytes]:
    """What happens to the call of a rule; each way through it ends in an answer."""
    refuse, allow = _step(_RETURN, _ERRNO | rule.error), _step(_RETURN, _ALLOW)
    load = _step(_LOAD, _ARGUMENTS + 8 * rule.argument)
    if rule.with_bits:
        return [load, _step(_JUMP_BITS, rule.with_bits, if_false=1), refuse, allow]
    if rule.without_bits:
        return [load, _step(_JUMP_BITS, rule.without_bits, if_true=1), refuse, allow]
    if rule.unless:
        count = len(rule.unless)
        known = [_step(_JUMP_EQUAL, value, if_true=count - at) for at, value in enumerate(rule.unless)]
        return [load, *known, refuse, allow]
    return [refuse]


def _step(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)
