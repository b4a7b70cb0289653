"""A small seccomp filter: only the socket families that training needs, and no way to get privileges back.

A network namespace does not contain AF_VSOCK (the host of a virtual machine), and io_uring opens
sockets without the `socket` call, so both are closed here. Kernel keyrings are per user, not per
namespace. A fresh user namespace would give back every capability inside it. CLONE_PARENT would put a child
beside its maker, where the end of a lease does not find it (release/agent/sandboxes.py).

Not covered: architectures other than x86_64 and aarch64 (`install` says so by its return value).
"""

from __future__ import annotations

import errno
import socket

from rsc import syscall_filter
from rsc.cluster.sandbox import syscalls
from rsc.syscall_filter import CallRule

ALLOWED_FAMILIES = (
    socket.AF_UNIX,
    socket.AF_INET,
    socket.AF_INET6,
    16,
)  # 16 = AF_NETLINK, for interface lists

_NEVER = ("unshare", "setns", "add_key", "request_key", "keyctl", "bpf", "perf_event_open")
_RULES = (
    *(CallRule(call) for call in _NEVER),
    CallRule("io_uring_setup", errno.ENOSYS),
    CallRule("clone3", errno.ENOSYS),
    CallRule("clone", with_bits=syscalls.CLONE_NEWUSER | syscalls.CLONE_PARENT),
    CallRule("socket", errno.EAFNOSUPPORT, unless=ALLOWED_FAMILIES),
)


def install() -> bool:
    """Filter this process and everything it starts, for good; False where the architecture is not known.

    Needs no_new_privs. Raises OSError when the kernel has no seccomp filters.
    """
    return syscall_filter.install(_RULES)
