"""The text of every file that the daemons of a private cluster read. Pure.

Each line that is not the usual one has its reason beside it, in the file itself: they are read by people who
look for why a cluster behaves as it does.
"""

from __future__ import annotations

import os
import pwd
import socket

from rsc.cluster.dev.plan import CONTROLLER_IP, FAKE_GPUS, ClusterPlan

CLUSTER = "rscdev"
_PROLOG = """\
#!/bin/sh
# A node with a file of its name here has a prolog that fails (bad_prolog).
[ ! -e {faults}/prolog-"$SLURMD_NODENAME" ]
"""


def files_of(plan: ClusterPlan) -> dict[str, tuple[str, int]]:
    """Name -> (text, mode) of the files in the cluster's folder."""
    files = {
        "slurm.conf": (slurm_conf(plan), 0o644),
        "gres.conf": (gres_conf(plan), 0o644),
        "cgroup.conf": ("CgroupPlugin=cgroup/v1\n", 0o644),  # not used; named so that none is looked for
        "prolog.sh": (_PROLOG.format(faults=plan.faults), 0o755),
    }
    if plan.accounting:
        files["slurmdbd.conf"] = (slurmdbd_conf(plan), 0o600)  # slurmdbd refuses a wider mode
    return files


def slurm_conf(plan: ClusterPlan) -> str:
    place, user = plan.folder, pwd.getpwuid(os.getuid()).pw_name
    host = socket.gethostname().split(".")[0]
    control = CONTROLLER_IP if plan.namespaces else "127.0.0.1"
    lines = [
        f"ClusterName={CLUSTER}",
        f"SlurmctldHost={host}({control})",
        f"SlurmctldPort={plan.ports[0]}",
        f"SlurmUser={user}",
        f"SlurmdUser={user}",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        f"AuthInfo=socket={plan.munge_socket},cred_expire=5  # what a requeued job waits, else 120 s",
        f"StateSaveLocation={place}/state",
        f"SlurmdSpoolDir={place}/spool/%n",
        f"SlurmctldPidFile={place}/run/slurmctld.pid",
        f"SlurmdPidFile={place}/run/slurmd-%n.pid",
        f"SlurmctldLogFile={place}/log/slurmctld.log",
        f"SlurmdLogFile={place}/log/slurmd-%n.log",
        f"Prolog={place}/prolog.sh",
        "ProctrackType=proctrack/linuxproc  # no cgroups: an ordinary user may not make any",
        "TaskPlugin=task/none",
        "MpiDefault=none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "SlurmdParameters=config_overrides  # nodes have the CPUs written here, whatever the machine has",
        "GresTypes=gpu",
        "ReturnToService=2",
        "SlurmdTimeout=5  # seconds until a silent node is down",
        "KillWait=5",
        "MailProg=/bin/true",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1",
        "JobAcctGatherType=jobacct_gather/none",
        "DefMemPerCPU=100  # else a job takes the memory of the whole node",
        *(_accounting_lines(plan) if plan.accounting else _plain_lines(plan)),
        *(_node_line(plan, number, name, host=host) for number, name in enumerate(plan.names)),
        f"PartitionName=batch Nodes=n[1-{plan.nodes}] Default=YES State=UP",
        "PartitionName=short Nodes=n1 MaxTime=5 State=UP",
    ]
    return "\n".join(lines) + "\n"


def _plain_lines(plan: ClusterPlan) -> list[str]:
    return ["JobCompType=jobcomp/filetxt", f"JobCompLoc={plan.folder}/log/jobcomp.txt"]


def _accounting_lines(plan: ClusterPlan) -> list[str]:
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={CONTROLLER_IP if plan.namespaces else '127.0.0.1'}",
        f"AccountingStoragePort={plan.ports[1]}",
        f"AccountingStoragePass={plan.munge_socket}  # with MUNGE this is its socket",
        "AccountingStorageEnforce=associations,limits,qos,safe",
        "AccountingStorageTRES=gres/gpu",
        "PriorityType=priority/multifactor",
        "PriorityWeightQOS=10000",
        "PriorityWeightFairshare=1000",
        "PreemptType=preempt/qos",
        "PreemptMode=REQUEUE",
    ]


def _node_line(plan: ClusterPlan, number: int, name: str, *, host: str) -> str:
    where = "" if plan.namespaces else f"NodeHostname={host} "
    gpus = f" Gres=gpu:h100:{plan.gpus}" if plan.gpus else ""
    port = plan.ports[0] + 1 if plan.namespaces else plan.ports[2 + number]
    return (
        f"NodeName={name} {where}NodeAddr={plan.address(name)} Port={port} "
        f"CPUs={plan.cpus} RealMemory={plan.memory_mib}{gpus}"
    )


def gres_conf(plan: ClusterPlan) -> str:
    files = FAKE_GPUS[: plan.gpus]
    gpus = [f"NodeName=n[1-{plan.nodes}] Name=gpu Type=h100 File={path}" for path in files]
    return "\n".join(["AutoDetect=off", *gpus]) + "\n"


def slurmdbd_conf(plan: ClusterPlan) -> str:
    place, user = plan.folder, pwd.getpwuid(os.getuid()).pw_name
    lines = [
        "AuthType=auth/munge",
        f"AuthInfo=socket={plan.munge_socket}",
        "DbdHost=localhost",
        f"DbdAddr={CONTROLLER_IP if plan.namespaces else '127.0.0.1'}",
        f"DbdPort={plan.ports[1]}",
        f"SlurmUser={user}",
        f"LogFile={place}/log/slurmdbd.log",
        f"PidFile={place}/run/slurmdbd.pid",
        "StorageType=accounting_storage/mysql",
        "StorageHost=localhost",
        f"StorageUser={user}",
        "StorageLoc=slurm",
    ]
    return "\n".join(lines) + "\n"
