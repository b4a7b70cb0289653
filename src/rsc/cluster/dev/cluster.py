"""A private, real Slurm on this machine, as whoever you are: `with DevCluster.started(plan) as cluster: ...`.

    cluster.run(["sinfo"])            any command of Slurm, asked of this cluster
    cluster.faults.kill_node("n2")    what happens to clusters (faults.py)

Ready in some tenths of a second; nothing outside its folder is touched, and `down` ends all of it, also
what a killed `up` left. An ordinary user's cluster runs jobs as that user alone; root's runs them as anybody.

Not covered: cgroups, so a job can use more than it asked for; what several users do to each other, unless
root starts it; other versions of Slurm than the one that is installed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rsc.cluster.dev import database
from rsc.cluster.dev.config_files import files_of
from rsc.cluster.dev.faults import Faults
from rsc.cluster.dev.namespaces import Namespaces
from rsc.cluster.dev.plan import ClusterPlan, check, free_ports
from rsc.cluster.dev.processes import MARK, end_all, of_cluster
from rsc.errors import ConfigError, ResourceError

PROGRAMS = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "munged": "munge",
}
"""What a cluster needs -> the Debian package that has it."""
_OF_ACCOUNTING = {
    "slurmdbd": "slurmdbd",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
_OF_NAMESPACES = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2"}
_FOLDERS = ("state", "spool", "run", "log", "faults", "shared")
_PATIENCE_S = 30.0
_POLL_S = 0.02
_PATH = "/usr/sbin:/sbin"  # daemons lie there, and a user's PATH may not have it


def missing(*, accounting: bool = False, namespaces: bool = False) -> str:
    """What keeps this machine from having such a cluster, in words; empty where nothing does."""
    wanted = PROGRAMS | (_OF_ACCOUNTING if accounting else {}) | (_OF_NAMESPACES if namespaces else {})
    packages = sorted({wanted[name] for name in wanted if shutil.which(name, path=_search_path()) is None})
    if packages:
        return f"not installed: {', '.join(packages)} (Debian, Ubuntu: apt-get install {' '.join(packages)})"
    return Namespaces.refused() if namespaces else ""


@dataclass(frozen=True)
class DevCluster:
    plan: ClusterPlan

    @classmethod
    @contextmanager
    def started(cls, plan: ClusterPlan) -> Iterator[DevCluster]:
        """Up, and down again at the end."""
        cluster = cls.up(plan)
        try:
            yield cluster
        finally:
            cluster.down()

    @classmethod
    def up(cls, plan: ClusterPlan) -> DevCluster:
        """Start it and wait until every node is idle. Raises ConfigError and ResourceError."""
        check(plan)
        if reason := missing(accounting=plan.accounting, namespaces=plan.namespaces):
            raise ResourceError(f"this machine cannot have such a cluster: {reason}")
        cluster = cls(replace(plan, ports=free_ports(2 + plan.nodes)))
        cluster._make_folder()
        try:
            cluster._start()
        except BaseException:
            cluster.down()
            raise
        return cluster

    @classmethod
    def there(cls, folder: Path) -> DevCluster:
        """The one in that folder. Raises ConfigError where there is none."""
        return cls(ClusterPlan.read(folder))

    def down(self) -> None:
        """End every process and remove the folder. Raises ResourceError where one cannot be ended."""
        if left := end_all(lambda: of_cluster(self.plan.folder)):
            names = ", ".join(f"{each.pid} ({each.command[:40]})" for each in left)
            raise ResourceError(f"the kernel keeps processes of the cluster: {names}")
        shutil.rmtree(self.plan.folder, ignore_errors=True)

    @property
    def environment(self) -> dict[str, str]:
        """For programs that use the cluster, beside the rest of the environment."""
        return {"SLURM_CONF": str(self.plan.conf)}

    @property
    def faults(self) -> Faults:
        return Faults(self.plan, run=self.run, start_node=self.start_node)

    def command(self, argv: Sequence[str]) -> list[str]:
        """`argv` so that it reaches the cluster's network."""
        return self._namespaces.enter(argv) if self.plan.namespaces else list(argv)

    def run(self, argv: Sequence[str], *, check: bool = True, timeout_s: float = 60.0) -> str:
        """What a command of Slurm prints. Raises ResourceError with its words where it fails."""
        done = subprocess.run(
            self.command(argv),
            env={**_environment(), **self.environment},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )
        if check and done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise ResourceError(f"{' '.join(argv[:3])} failed with code {done.returncode}: {said}")
        return done.stdout.decode(errors="replace")

    def states(self) -> dict[str, str]:
        """Node -> what Slurm says of it, for example `idle`."""
        lines = self.run(["sinfo", "-h", "-N", "-p", "batch", "-o", "%N %T"], check=False).splitlines()
        return dict(line.split(None, 1) for line in lines if " " in line)

    def wait_idle(self, *, timeout_s: float = _PATIENCE_S) -> None:
        """Until every node is idle. Raises ResourceError with what the daemons wrote."""
        self._wait(
            lambda: set(self.states().values()) == {"idle"}, timeout_s=timeout_s, what="every node is idle"
        )

    def start_node(self, name: str) -> None:
        """Its daemon, as after power came back."""
        if self.plan.namespaces:
            self._namespaces.start_node(name)
        else:
            (self.plan.folder / "spool" / name).mkdir(exist_ok=True)
            self._spawn(["slurmd", "-f", str(self.plan.conf), "-N", name], RSC_DEV_NODE=name)

    @property
    def _namespaces(self) -> Namespaces:
        return Namespaces(self.plan)

    def _make_folder(self) -> None:
        """Under another name first: a folder of that name has the mark of a cluster, or is no cluster's."""
        folder = self.plan.folder
        staged = folder.with_name(f"{folder.name}.{os.getpid()}")
        staged.mkdir(mode=0o755, parents=True)
        (staged / self.plan.mark.name).write_text(self.plan.to_json())
        try:
            staged.rename(folder)  # fails where there is one that is not empty
        except OSError:
            shutil.rmtree(staged)
            raise ConfigError(
                f"{folder} is there already",
                hint="`rsc cluster dev down` removes that cluster; or choose another --name",
            ) from None

    def _start(self) -> None:
        plan = self.plan
        for name in _FOLDERS:
            (plan.folder / name).mkdir()
        plan.shared.chmod(0o1777)
        for name, (text, mode) in files_of(plan).items():
            path = plan.folder / name
            path.write_text(text)
            path.chmod(mode)
        self._start_munge()
        if plan.namespaces:
            self._namespaces.start()
        if plan.accounting:
            database.start(plan, spawn=self._spawn_inside, run=self.run, wait=self._wait)
        self._spawn_inside(["slurmctld", "-c", "-f", str(plan.conf)])
        for name in plan.names:
            self.start_node(name)
        if plan.accounting:
            database.fill(run=self.run, wait=self._wait)
        self.wait_idle()

    def _start_munge(self) -> None:
        key = self.plan.folder / "munge.key"
        key.touch(mode=0o400)
        key.chmod(0o600)
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.plan.folder}/munge.{ending}" for option, ending in files.items()]
        # --force: folders above, as /tmp in a container, may belong to somebody that munged does not know
        self._spawn(["munged", "--force", f"--key-file={key}", *options])

    def _spawn_inside(self, argv: Sequence[str], **environment: str) -> None:
        self._spawn(self._namespaces.enter(argv) if self.plan.namespaces else argv, **environment)

    def _spawn(self, argv: Sequence[str], **environment: str) -> None:
        """Start a program that goes into the background by itself; waits for that. Raises ResourceError."""
        log = self.plan.folder / "log" / "start.log"
        own = {MARK: str(self.plan.folder), **self.environment, **environment}
        with log.open("ab") as out:
            done = subprocess.run(
                argv, env={**_environment(), **own}, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        if done.returncode != 0:
            raise ResourceError(f"{argv[0]} ended with code {done.returncode}:\n{self._last_words()}")

    def _wait(self, is_so: Callable[[], bool], *, what: str, timeout_s: float = _PATIENCE_S) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not is_so():
            if time.monotonic() > deadline_s:
                raise ResourceError(f"not after {timeout_s:.0f} s: {what}\n{self._last_words()}")
            time.sleep(_POLL_S)

    def _last_words(self) -> str:
        """The ends of the daemons' logs, for the person."""
        told = []
        for path in sorted((self.plan.folder / "log").glob("*.log")):
            with contextlib.suppress(OSError):
                lines = path.read_text(errors="replace").splitlines()
                told += [f"  {path.name}: {line}" for line in lines[-3:]]
        return "\n".join(told)

    def processes(self) -> int:
        """How many there are."""
        return len(of_cluster(self.plan.folder))


def _search_path() -> str:
    return f"{os.environ.get('PATH', '/usr/bin:/bin')}:{_PATH}"


def _environment() -> dict[str, str]:
    """Of the caller, without what would send Slurm's commands to another cluster, or into another job."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH_"))}
    return {**kept, "PATH": _search_path()}
