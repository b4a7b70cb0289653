"""System calls that Python 3.11 does not wrap, by ctypes: namespaces, mounts, capabilities, prctl.

Every function raises OSError with the name of the call, so that a report can say which one this
kernel refused.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import socket
import struct

# linux/sched.h
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x10000000, 0x20000000, 0x40000000
CLONE_PARENT = 0x00008000
# linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _AT_RECURSIVE, _AT_FDCWD = 1, 2, 0x8000, -100
# linux/prctl.h
PR_SET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE = 1, 3, 4
PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 22, 24, 38, 39
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, PR_SET_CHILD_SUBREAPER = 47, 4, 36
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_LAST_POSSIBLE_CAPABILITY = 63
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture (since Linux 5.12)

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    call("unshare", _libc.unshare(flags))


def prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    return call(f"prctl({option})", _libc.prctl(option, *padded))


def mount(source: str, target: str, *, kind: str = "", flags: int = 0, options: str = "") -> None:
    result = _libc.mount(
        source.encode(),
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    call(f"mount {target}", result)


def set_read_only(path: str, *, is_read_only: bool, is_recursive: bool = True) -> None:
    """Change a mount, with `is_recursive` also all below it. Raises OSError (ENOSYS) before Linux 5.12."""
    below = _AT_RECURSIVE if is_recursive else 0
    setting = _MOUNT_ATTR_RDONLY if is_read_only else 0
    clearing = 0 if is_read_only else _MOUNT_ATTR_RDONLY
    attributes = struct.pack("=QQQQ", setting | _MOUNT_ATTR_NOSUID, clearing, 0, 0)
    result = _libc.syscall(
        _SYS_MOUNT_SETATTR,
        _AT_FDCWD,
        path.encode(),
        below,
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    call(f"mount_setattr {path}", result)


def pivot_root(new_root: str, put_old: str) -> None:
    number = _SYS_PIVOT_ROOT.get(platform.machine())
    if number is None:
        raise OSError(38, f"pivot_root: number not known for {platform.machine()}")
    call("pivot_root", _libc.syscall(number, new_root.encode(), put_old.encode()))


def unmount(path: str) -> None:
    call(f"umount {path}", _libc.umount2(path.encode(), MNT_DETACH))


def map_own_user(*, uid: int, gid: int) -> None:
    """Inside a fresh user namespace: be the same user and group as outside, and nobody else."""
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def raise_loopback() -> None:
    """Set `lo` up; a fresh network namespace has it down, and then even 127.0.0.1 is unreachable."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16xH14x", fcntl.ioctl(probe, _SIOCGIFFLAGS, request))[0]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def drop_capabilities() -> None:
    """Empty all five capability sets of this process; its children cannot get any back."""
    for capability in range(_LAST_POSSIBLE_CAPABILITY + 1):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break  # EINVAL above the last one this kernel knows; EPERM when there was none to drop from
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("=Ii", _LINUX_CAPABILITY_VERSION_3, 0)
    call("capset", _libc.capset(header, bytes(24)))
