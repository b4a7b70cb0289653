"""Accounting of a private cluster: a MariaDB of its own without a network, slurmdbd, and two QOS.

`high` preempts `normal`, whose jobs are requeued. The account is `research`; the user who starts the cluster
belongs to it.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Sequence
from typing import Protocol

from rsc.cluster.dev.config_files import CLUSTER
from rsc.cluster.dev.plan import ClusterPlan


class Spawn(Protocol):
    def __call__(self, argv: Sequence[str], **environment: str) -> None: ...


class Wait(Protocol):
    def __call__(self, is_so: Callable[[], bool], *, what: str) -> None: ...


class RunCommand(Protocol):
    def __call__(self, argv: Sequence[str], *, check: bool = True) -> str: ...


def start(plan: ClusterPlan, *, spawn: Spawn, run: RunCommand, wait: Wait) -> None:
    """MariaDB and slurmdbd, until both answer."""
    place, user = plan.folder / "database", pwd.getpwuid(os.getuid()).pw_name
    path = plan.folder / "run" / "mariadb.sock"
    spawn(
        ["mariadb-install-db", "--no-defaults", f"--datadir={place}", f"--user={user}", "--skip-test-db",
         "--auth-root-authentication-method=socket", f"--auth-root-socket-user={user}"]
    )  # fmt: skip
    server = (
        f"mariadbd --no-defaults --datadir={place} --user={user} --skip-networking --socket={path} "
        f"--pid-file={plan.folder}/run/mariadb.pid --innodb-buffer-pool-size=64M "
        f"--log-error={plan.folder}/log/mariadb.log"
    )
    spawn(["sh", "-c", f"{server} </dev/null >/dev/null 2>&1 &"])
    wait(path.exists, what="the database answers")
    init = plan.folder / "run" / "account.sql"
    init.write_text(
        f"CREATE DATABASE slurm; CREATE USER IF NOT EXISTS '{user}'@'localhost' IDENTIFIED VIA unix_socket;"
        f" GRANT ALL ON *.* TO '{user}'@'localhost';"
    )
    spawn(["sh", "-c", f"mariadb --no-defaults --socket={path} --user=root <{init}"])
    spawn(["slurmdbd"], MYSQL_UNIX_PORT=str(path))
    # slurmctld ends where there is no answer
    wait(
        lambda: "high" in run(["sacctmgr", "-i", "add", "qos", "high"], check=False), what="slurmdbd answers"
    )


def fill(*, run: RunCommand, wait: Wait) -> None:
    """Accounts and QOS. A limit on GPUs can be set only after slurmctld has registered their kind."""
    wait(
        lambda: (
            CLUSTER in run(["sacctmgr", "-nP", "show", "cluster", "format=Cluster"], check=False)
            and "gpu" in run(["sacctmgr", "-nP", "show", "tres"], check=False)
        ),
        what="slurmctld has registered",
    )
    user = pwd.getpwuid(os.getuid()).pw_name
    for change in (
        "modify qos high set Priority=1000 Preempt=normal",
        "add account research Description=research Organization=research",
        f"add user {user} account=research DefaultAccount=research QOS=normal,high DefaultQOS=normal",
    ):
        run(["sacctmgr", "-i", *change.split()])
