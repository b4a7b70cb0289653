"""Keep this process's memory to itself: no core dump, no other process of the same user that reads it.

Every process that can hold plaintext or keys calls `harden_process` first: the command line, the workers of
an import and of a scan, the supervisor with the ranks it forks, and the mover. `SecretKey` calls it too, so a
program that uses RSC as a library is hardened before it holds its first key. A fork inherits the settings;
exec resets one of them, which is why each program calls this itself.

Not covered: root on the same machine; swap and hibernation (`rsc doctor` looks at swap); systems without
prctl, where only the core limit is set; a debugger can no longer attach to these processes either.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_PR_SET_DUMPABLE = 4  # linux/prctl.h


@cache
def harden_process() -> None:
    """No core dumps; on Linux also not dumpable, since a core_pattern with a pipe ignores the limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        zero = ctypes.c_ulong(0)
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, zero, zero, zero, zero) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl(PR_SET_DUMPABLE): {os.strerror(number)}")


@contextmanager
def private_files() -> Iterator[None]:
    """What is made inside cannot be written by group and others: they must not write what decides, also
    where the umask is 002."""
    before = os.umask(0o077)
    os.umask(before | 0o022)
    try:
        yield
    finally:
        os.umask(before)
