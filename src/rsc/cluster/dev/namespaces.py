"""A network, a host name and processes of its own for each node of a private cluster.

    user namespace (not for root)
      network "cluster": bridge br0, slurmctld           10.77.0.1
        node n1: network with eth0, host name n1, PIDs   10.77.0.11
        node n2: ...

All hangs below one process, the keeper: its end ends every daemon and job and takes the networks with it. A
daemon that is user 0 of a user namespace fails at setgroups, so daemons and commands of an ordinary user go
through one more namespace, in which they have their real number.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rsc.cluster.dev.plan import CONTROLLER_IP, ClusterPlan
from rsc.cluster.dev.processes import MARK
from rsc.errors import ResourceError

SHARED_MIB = 64
_PATIENCE_S = 10.0
_REAP = "trap exit TERM; while :; do sleep 1000 & wait $!; done"
"""What a process does that is the first of a namespace: takes note of the ends of the others."""


@dataclass(frozen=True)
class Namespaces:
    plan: ClusterPlan

    @staticmethod
    def refused() -> str:
        """Why this machine gives no namespaces; empty where it does."""
        test = [*_outer(), "true"]
        done = subprocess.run(test, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return "" if done.returncode == 0 else f"namespaces are refused: {done.stderr.strip()}"

    def start(self) -> None:
        """The keeper, its network, and the disk `shared`."""
        setup = (
            f"ip link set lo up && ip link add br0 type bridge && "
            f"ip addr add {CONTROLLER_IP}/24 dev br0 && ip link set br0 up && "
            f"mount -t tmpfs -o size={SHARED_MIB}m,mode=1777 tmpfs {shlex.quote(str(self.plan.shared))} && "
            f"touch {shlex.quote(str(self.plan.folder / 'run' / 'keeper-ready'))}; {_REAP}"
        )
        self._launch([*_outer(), "bash", "-c", setup], pid_file=self._keeper_file, node="")
        self._wait_for(self.plan.folder / "run" / "keeper-ready")

    def start_node(self, name: str) -> None:
        """Its namespaces, the cable to the bridge, and slurmd."""
        plan, ready = self.plan, self.plan.folder / "run" / f"{name}-ready"
        ready.unlink(missing_ok=True)
        (plan.folder / "spool" / name).mkdir(exist_ok=True)
        log = plan.folder / "log" / "start.log"
        daemon = shlex.join(self._as_user(["slurmd", "-D", "-f", str(plan.conf), "-N", name]))
        inside = (
            f"hostname {name}; ip link set lo up; "
            "while ! ip link show eth0 >/dev/null 2>&1; do sleep 0.02; done; "
            f"ip addr add {plan.address(name)}/24 dev eth0; ip link set eth0 up; "
            f"touch {shlex.quote(str(ready))}; {daemon} </dev/null >>{log} 2>&1 & {_REAP}"
        )
        node = ["unshare", "--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
        pid_file = self._node_file(name)
        self._launch(self._inside([*node, "bash", "-c", inside]), pid_file=pid_file, node=name)
        first = self._first_process(name)
        cable = (
            f"ip link del v{name} 2>/dev/null; ip link add v{name} type veth peer name eth0 netns {first} && "
            f"ip link set v{name} master br0 && ip link set v{name} up"
        )
        self._privileged(["sh", "-c", cable])
        self._wait_for(ready)

    def stop_node(self, name: str) -> None:
        """Loss of power: everything in it is gone at once."""
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.kill(int(self._node_file(name).read_text()), signal.SIGKILL)

    def link(self, name: str, *change: str) -> None:
        """`ip link set`, on the cluster's end of a node's cable."""
        self._privileged(["ip", "link", "set", f"v{name}", *change])

    def shape(self, name: str, *shape: str) -> None:
        """`tc qdisc`, on the cluster's end of a node's cable; without `shape` as it was."""
        action = (
            ["replace", "dev", f"v{name}", "root", *shape] if shape else ["del", "dev", f"v{name}", "root"]
        )
        self._privileged(["tc", "qdisc", *action])

    def enter(self, argv: Sequence[str]) -> list[str]:
        """`argv` beside slurmctld, with the caller's own number."""
        return self._inside(self._as_user(argv))

    @property
    def _keeper_file(self) -> Path:
        return self.plan.folder / "run" / "keeper.pid"

    def _node_file(self, name: str) -> Path:
        return self.plan.folder / "run" / f"{name}.unshare.pid"

    def _inside(self, argv: Sequence[str]) -> list[str]:
        """Into the namespaces of the keeper, with all rights there."""
        keeper = _only_child(int(self._keeper_file.read_text()))
        user = [] if os.getuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", f"--target={keeper}", *user, "--net", "--mount", "--pid", "--", *argv]

    def _as_user(self, argv: Sequence[str]) -> list[str]:
        uid, gid = os.getuid(), os.getgid()
        return list(argv) if uid == 0 else ["unshare", "-U", f"--map-user={uid}", f"--map-group={gid}", *argv]

    def _privileged(self, argv: Sequence[str]) -> None:
        done = subprocess.run(self._inside(argv), capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise ResourceError(f"{' '.join(argv)} failed in the cluster's network: {done.stderr.strip()}")

    def _launch(self, argv: Sequence[str], *, pid_file: Path, node: str) -> None:
        own = {MARK: str(self.plan.folder), "SLURM_CONF": str(self.plan.conf), "RSC_DEV_NODE": node}
        path = {"PATH": f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"}
        with (self.plan.folder / "log" / "start.log").open("ab") as log:
            process = subprocess.Popen(
                argv, env={**os.environ, **path, **own}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        pid_file.write_text(str(process.pid))

    def _first_process(self, name: str) -> int:
        """Of a node, as the keeper's namespace counts it."""
        pid = int(self._node_file(name).read_text())
        deadline_s = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline_s:
            with contextlib.suppress(OSError, IndexError, ValueError):
                first = _descendant_of(pid, command=f"hostname {name};")
                status = Path(f"/proc/{first}/status").read_text()
                numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
                if len(numbers) == 4:  # here, in the keeper's namespace, in the node's
                    return int(numbers[2])
            time.sleep(0.01)
        raise ResourceError(f"node {name} did not start; see {self.plan.folder}/log/start.log")

    def _wait_for(self, path: Path) -> None:
        deadline_s = time.monotonic() + _PATIENCE_S
        while not path.exists():
            if time.monotonic() > deadline_s:
                log = (self.plan.folder / "log" / "start.log").read_text(errors="replace")
                raise ResourceError(f"{path.stem} did not come:\n{log[-500:]}")
            time.sleep(0.01)


def _outer() -> list[str]:
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def _only_child(pid: int) -> int:
    """unshare stays outside the namespace of processes; its child is the first inside."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _descendant_of(pid: int, *, command: str) -> int:
    """The first process below `pid` that runs that shell text."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        line = Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace")
        if line.startswith("bash\0") and command in line:
            return int(child)
        with contextlib.suppress(ValueError, OSError):
            return _descendant_of(int(child), command=command)
    raise ValueError(f"no process below {pid} runs it")
