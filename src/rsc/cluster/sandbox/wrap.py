"""Wrap a command so that it runs with no way out: no network, no foreign files or sockets, no privileges.

    wrapped = wrap([sys.executable, "-m", "rsc.train.node"], level="required", writable=[run])
    subprocess.Popen(wrapped.argv, env=wrapped.environment)

Inside there is one network namespace with only `lo`, so the workers of a node reach each other and
nothing else; a root that shows system folders, Python, and the listed paths; its own PIDs; no
capabilities; a seccomp filter. bubblewrap builds it where it is installed, our own launcher otherwise;
neither needs root. That it holds is never assumed: probe.py measures it from inside, and the key agent
looks from outside.

Not covered: jobs that span nodes (they need a network; the level `required` refuses them); what the
kernel leaks through shared caches and timing; a hole in the kernel; root outside; RDMA devices and GPUs
with peer access, beyond not showing their device nodes (/dev/infiniband); files and sockets inside the
folders that are shown on purpose.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rsc.cluster.sandbox.environment import for_workers
from rsc.cluster.sandbox.mounts import Mount, plan_view
from rsc.errors import IsolationRefused

Level = Literal["required", "best-effort", "none"]
Method = Literal["bwrap", "unshare", "open"]
METHODS: tuple[Method, ...] = ("bwrap", "unshare")
"""Ways to build a sandbox, best first."""


@dataclass(frozen=True)
class Wrapped:
    argv: list[str]
    method: Method
    reason: str = ""
    """Why this is weaker than isolation; empty where it is isolated."""
    environment: dict[str, str] = field(default_factory=dict)
    """What workers need of the caller's environment, with HOME and TMPDIR that exist inside."""

    @property
    def is_isolated(self) -> bool:
        return self.method != "open"


def wrap(
    command: Sequence[str],
    *,
    level: Level,
    writable: Iterable[Path] = (),
    readable: Iterable[Path] = (),
    hidden: Iterable[Path] = (),
    folder: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    methods: Sequence[Method] = METHODS,
) -> Wrapped:
    """The command line that runs `command` in the strongest sandbox that works here.

    `folder` is the working folder inside (default: the first writable path); `hidden` are folders of which
    nothing is seen inside, whatever else is shown (view.py). Tries each of `methods` on a
    command that does nothing. Raises IsolationRefused at level `required` when none works, and at every
    level but `none` for a path to show that lies above or inside a hidden one; at
    `best-effort` the command runs hardened (no privileges, no core dumps, few socket families) but with
    the network, and `reason` says why; `none` runs it as it is, with the environment of workers.
    """
    if level == "none":
        return Wrapped(list(command), "open", "the policy asks for no isolation", for_workers(environment))
    writable = [path.resolve() for path in writable]
    inside = folder.resolve() if folder else next(iter(writable), Path("/tmp"))
    mounts = plan_view(readable=readable, writable=writable, hidden=hidden)
    reasons = []
    for method in methods:
        argv = _argv(method, mounts=mounts, folder=inside)
        reason = _try(argv, environment)
        if reason is None:
            return Wrapped([*argv, *command], method, environment=_clean(environment, is_isolated=True))
        reasons.append(f"{method}: {reason}")
    told = "; ".join(reasons)
    if level == "required":
        raise IsolationRefused(
            f"the policy requires isolation and this machine cannot give it ({told})",
            hint="install bubblewrap, allow unprivileged user namespaces, or have the policy say best-effort",
        )
    argv = _argv("open", mounts=[], folder=inside)
    return Wrapped([*argv, *command], "open", told, _clean(environment, is_isolated=False))


def wrap_with_network(
    command: Sequence[str], *, level: Level, folder: Path, environment: Mapping[str, str] = os.environ
) -> Wrapped:
    """For a command whose peers are on other nodes: hardened, with the network of its node.

    Raises IsolationRefused at level `required`.
    """
    if level == "required":
        raise IsolationRefused(
            "the policy requires isolation, and ranks on several nodes need a network",
            hint="train on one node (cluster.nodes=1), or have the policy say best-effort",
        )
    argv = [*_argv("open", mounts=[], folder=folder), *command] if level != "none" else list(command)
    reason = "its ranks reach other nodes over the network"
    return Wrapped(argv, "open", reason, _clean(environment, is_isolated=False))


def _argv(method: Method, *, mounts: Sequence[Mount], folder: Path) -> list[str]:
    plan = {
        "method": method,
        "folder": str(folder),
        "mounts": [asdict(mount) for mount in mounts],
        "bwrap": _bwrap_argv(mounts) if method == "bwrap" else [],
    }
    return [sys.executable, "-m", "rsc.cluster.sandbox.enter", json.dumps(plan), "--"]


def _bwrap_argv(mounts: Sequence[Mount]) -> list[str]:
    program = shutil.which("bwrap") or "bwrap"
    namespaces = ["--unshare-user", "--unshare-net", "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
    options = [*namespaces, "--unshare-cgroup-try", "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
    for mount in mounts:
        options += {
            "tmpfs": ["--dev", "/dev"] if mount.target == "/dev" else ["--tmpfs", mount.target],
            "proc": ["--proc", mount.target],
            "link": ["--symlink", mount.source, mount.target],
            "read": ["--ro-bind", mount.source, mount.target],
            "write": ["--bind", mount.source, mount.target],
            "device": ["--dev-bind", mount.source, mount.target],
        }[mount.kind]
    return [program, *options, "--remount-ro", "/"]


def _try(argv: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """None when `argv` can run a command; else what it said."""
    if sys.platform != "linux":
        return f"it is made of Linux namespaces and this is {sys.platform}"
    test = [*argv, "true"]
    done = subprocess.run(
        test, env=dict(environment), capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1]


def _clean(environment: Mapping[str, str], *, is_isolated: bool) -> dict[str, str]:
    kept = for_workers(environment)
    return {**kept, "HOME": "/tmp", "TMPDIR": "/tmp"} if is_isolated else kept
