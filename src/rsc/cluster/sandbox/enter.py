"""`python -m rsc.cluster.sandbox.enter PLAN -- COMMAND ...`: run a command inside the sandbox.

Two processes: the outer one makes the namespaces and then only passes signals in and the exit code
out; the inner one is process 1 of the sandbox. When either dies, everything inside dies.

The plan (JSON, made by sandbox.py) says how: `bwrap` lets bubblewrap build the namespaces, `unshare`
builds them here, `inside` is the inner half that bwrap starts, `open` only hardens.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rsc.cluster.sandbox import syscalls
from rsc.cluster.sandbox.harden import FORWARDED, exit_code, harden, run_as_init
from rsc.cluster.sandbox.mounts import Mount
from rsc.cluster.sandbox.rootfs import enter_root
from rsc.hardening import harden_process

COULD_NOT_ENTER = 4  # exit code of ResourceError: the machine, not the command, is at fault


@dataclass(frozen=True)
class SandboxPlan:
    method: str
    folder: str
    """Working folder inside."""
    mounts: list[Mount]
    bwrap: list[str]
    """Command line of bubblewrap up to the command, without the descriptor for its report."""

    @classmethod
    def from_json(cls, text: str) -> SandboxPlan:
        record: dict[str, Any] = json.loads(text)
        return cls(**{**record, "mounts": [Mount(**mount) for mount in record["mounts"]]})


def main(arguments: Sequence[str]) -> int:
    plan, command = SandboxPlan.from_json(arguments[0]), list(arguments[2:])
    try:
        if plan.method == "bwrap":
            return _through_bwrap(plan, arguments[0], command)
        if plan.method == "unshare":
            return _through_unshare(plan, command)
        return _inside(plan, command)
    except OSError as error:
        print(f"the sandbox could not be built: {error.strerror}", file=sys.stderr)
        return COULD_NOT_ENTER


def _through_unshare(plan: SandboxPlan, command: list[str]) -> int:
    uid, gid = os.geteuid(), os.getegid()
    syscalls.unshare(
        syscalls.CLONE_NEWUSER
        | syscalls.CLONE_NEWNET
        | syscalls.CLONE_NEWNS
        | syscalls.CLONE_NEWIPC
        | syscalls.CLONE_NEWUTS
        | syscalls.CLONE_NEWPID
    )
    syscalls.map_own_user(uid=uid, gid=gid)
    syscalls.raise_loopback()
    first = os.fork()
    if first == 0:
        _become_init(plan, command)
    return _wait(first)


def _become_init(plan: SandboxPlan, command: list[str]) -> None:
    """Process 1 of the new PID namespace; never returns."""
    code = COULD_NOT_ENTER
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        enter_root(plan.mounts)
        code = _inside(plan, command)
    except OSError as error:
        print(f"the sandbox could not be built: {error.strerror}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _through_bwrap(plan: SandboxPlan, plan_text: str, command: list[str]) -> int:
    """Start bubblewrap, which reports the outer number of its process 1 on a pipe."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    inner_plan = json.dumps({**json.loads(plan_text), "method": "inside", "mounts": [], "bwrap": []})
    inner = [sys.executable, "-m", "rsc.cluster.sandbox.enter", inner_plan, "--", *command]
    bwrap = os.fork()
    if bwrap == 0:
        for number in FORWARDED:
            signal.signal(number, signal.SIG_IGN)  # bwrap would die of them and take the command along
        os.execv(plan.bwrap[0], [*plan.bwrap, "--info-fd", str(writer), "--", *inner])
    os.close(writer)
    with open(reader) as report:
        told = report.read()
    if told:
        _forward_to(json.loads(told)["child-pid"])
    return exit_code(_wait_status(bwrap))


def _inside(plan: SandboxPlan, command: list[str]) -> int:
    if os.getpgrp() != os.getpid():  # else it was started as the leader of a session, and may not again
        os.setsid()  # a terminal's Ctrl-C reaches the outer process, which passes it on once
    if plan.folder:
        os.chdir(plan.folder)
    harden()
    harden_process()  # process 1 holds the supervisor's pipes: nothing inside may open /proc/1/fd
    return run_as_init(command)


def _wait(child: int) -> int:
    _forward_to(child)
    return exit_code(_wait_status(child))


def _forward_to(child: int) -> None:
    for number in FORWARDED:
        signal.signal(number, lambda received, _frame: os.kill(child, received))


def _wait_status(child: int) -> int:
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
