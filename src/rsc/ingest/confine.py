"""What a process that decodes foreign files cannot do, whatever a file makes of it.

    no network       a network namespace of its own, and no sockets
    no processes     nothing is started, and no other process signalled, traced or looked into
    no files         only the source, Python and the system's libraries are read, and nothing is written
    no terminal      stdin, stdout and stderr are /dev/null, in a session of its own (workers.py)

The kernel's own means, and no right of root: seccomp for calls, Landlock for files, a namespace for the
network. All this is set before any library that decodes is loaded: threads that such a library starts at its
import would stay outside. A kernel that lacks one of them has the others.

Not covered: what the process may do with what it was given, which is to answer wrongly about the source;
kernels without Landlock (before 5.13), where it reads what its user reads; with models of a policy
(`models`), which lie anywhere, all files can be read.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from rsc.hardening import harden_process
from rsc.ingest.parse_limits import leave_the_network
from rsc.syscall_filter import CallRule, install

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_CLONE_THREAD = 0x00010000  # linux/sched.h
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_NEVER = (
    *("socket", "socketpair", "connect", "bind", "fork", "vfork", "execve", "execveat"),
    *("tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal", "pidfd_open", "pidfd_getfd"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "kcmp"),
    *("unshare", "setns", "chroot", "pivot_root", "mount", "umount2", "open_tree", "move_mount", "fsopen"),
    *("mount_setattr", "add_key", "request_key", "keyctl", "bpf", "perf_event_open", "userfaultfd"),
    *("open_by_handle_at", "creat", "truncate", "rename", "renameat", "renameat2", "mkdir", "mkdirat"),
    *("rmdir", "unlink", "unlinkat", "link", "linkat", "symlink", "symlinkat", "mknod", "mknodat"),
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "lchown", "fchown", "fchownat"),
    *("setxattr", "lsetxattr", "fsetxattr"),
)
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types"),
    *("/dev/null", "/dev/urandom", "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system"),
)
"""Where libraries lie, and what they look at when they are loaded."""

# linux/landlock.h: the calls have these numbers on every architecture
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ABI_QUESTION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15}  # how many rights of files each knows; later ones 16
_TCP, _SCOPES = 0b11, 0b11  # bind and connect; abstract sockets and signals
_TCP_ABI, _SCOPE_ABI = 4, 6


def confine(sources: Sequence[str], *, reads_anything: bool = False) -> None:
    """Give up, for good, all that decoding `sources` (files or folders) does not need.

    To be called before anything that decodes is imported, by a process with one thread. Where the kernel
    lacks a means the others are taken; raises OSError for a failure of another kind.
    """
    harden_process()
    leave_the_network()
    if sys.platform != "linux":
        return
    one, zero = ctypes.c_ulong(1), ctypes.c_ulong(0)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, one, zero, zero, zero)
    readable = ["/"] if reads_anything else [*sources, *sys.path, sys.prefix, sys.base_prefix, *_SYSTEM]
    with contextlib.suppress(OSError):  # a kernel without Landlock
        _allow_reading(readable)
    with contextlib.suppress(OSError):  # a kernel without filters
        install(_rules(os.getpid()))


def source_roots(files: Sequence[Path]) -> list[str]:
    """The one file, or the folder below which all of them lie, without links on the way."""
    return [os.path.commonpath([os.path.realpath(path) for path in files])] if files else []


def _rules(own: int) -> list[CallRule]:
    return [
        *(CallRule(call) for call in _NEVER),
        *(CallRule(call, errno.ENOSYS) for call in ("clone3", "openat2", "io_uring_setup")),
        CallRule("clone", without_bits=_CLONE_THREAD),
        CallRule("open", errno.EACCES, argument=1, with_bits=_WRITES),
        CallRule("openat", errno.EACCES, argument=2, with_bits=_WRITES),
        *(CallRule(call, unless=(own,)) for call in ("kill", "tgkill")),  # abort() signals itself
    ]


def _allow_reading(paths: Sequence[str]) -> None:
    """From now on these paths and what lies below them can be read, and nothing else opened or changed."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi = _called(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ABI_QUESTION))
    rights = (1 << _RIGHTS_BY_ABI.get(abi, 16)) - 1
    attributes = struct.pack("=Q", rights)
    if abi >= _TCP_ABI:
        attributes += struct.pack("=Q", _TCP)
    if abi >= _SCOPE_ABI:
        attributes += struct.pack("=Q", _SCOPES)
    rules = _called(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    try:
        for path in paths:
            _add(libc, rules, path)
        _called(libc.syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)


def _add(libc: ctypes.CDLL, rules: int, path: str) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not on this machine: nothing to allow
    try:
        allowed = _READ_FILE | (_READ_DIR if Path(path).is_dir() else 0)
        rule = struct.pack("=Qi", allowed, place)
        _called(libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0))
    finally:
        os.close(place)


def _called(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
