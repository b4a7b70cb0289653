"""Take privileges away from this process and all it will start, and be a good first process.

None of this needs root, and none of it can be undone.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from rsc.cluster.sandbox import seccomp, syscalls

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def harden() -> None:
    """No core dumps; on Linux also no capabilities, no new privileges and only the usual sockets."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return
    syscalls.drop_capabilities()
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install()


def run_as_init(command: Sequence[str]) -> int:
    """Start `command`, pass signals on to it, reap whatever else ends, return its exit code.

    For process 1 of a PID namespace: when this returns and exits, the kernel ends everything left. Without
    such a namespace orphans come here all the same, and are ended here.
    """
    if sys.platform == "linux":
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        _execute(command)
    for number in FORWARDED:
        signal.signal(number, lambda received, _frame: os.kill(child, received))
    while True:
        try:
            ended, status = os.waitpid(-1, 0)
        except InterruptedError:
            continue
        if ended == child:
            if os.getpid() != 1 and sys.platform == "linux":
                _end_orphans()
            return exit_code(status)


def _end_orphans() -> None:
    """Kill and reap every child, and theirs, which come here as they lose their parents."""
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    with contextlib.suppress(OSError, ChildProcessError):
        while left := task.read_text().split():
            for pid in left:
                os.kill(int(pid), signal.SIGKILL)
                os.waitpid(int(pid), 0)


def exit_code(status: int) -> int:
    """As a shell says it: 128 + signal for a process that a signal ended."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _execute(command: Sequence[str]) -> None:
    for number in FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
        os._exit(127)
