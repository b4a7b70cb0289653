"""What is simulated: a TOML file with one section for each part of a cluster, checked before any event.

Times end in `_s`, rates name their period (`_per_node_day`, `_per_day`). Every default is an assumption and
is listed in docs/simulate.md with its source.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from rsc.errors import ConfigError
from rsc.layers import FrozenModel, Resolved, nearest, parse_as, resolve, with_defaults

DAY_S = 86_400.0

Share = Annotated[float, Field(ge=0, le=1)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ClusterShape(FrozenModel):
    nodes: Annotated[int, Field(ge=1, le=200_000)]
    """Nodes that take jobs; spares come on top."""
    gpus_per_node: Annotated[int, Field(ge=1, le=72)] = 8
    nodes_per_rack: Annotated[int, Field(ge=1)] = 2
    nodes_per_pod: Annotated[int, Field(ge=1)] = 20


class JobClass(FrozenModel):
    """Jobs of one size. Give `mean_h`, or `gpu_time_share` of the offered load."""

    gpus: Annotated[int, Field(ge=1)]
    job_share: Share
    mean_h: Annotated[float | None, Field(gt=0)] = None
    gpu_time_share: Annotated[Share | None, Field(gt=0)] = None
    sigma: Duration = 1.0
    """Of the lognormal run time; 0 = every run as long as the mean."""
    law: Literal["lognormal", "exponential"] = "lognormal"
    high_share: Share = 0.0
    low_share: Share = 0.0
    """Share of these jobs with the QOS high (may preempt) and low; the rest is normal."""


class Endings(FrozenModel):
    """How jobs end for reasons of their own."""

    failed: Share = 0.0
    cancelled: Share = 0.0
    out_of_memory: Share = 0.0


class Workload(FrozenModel):
    jobs_per_day: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    gpu_hours_per_job: Annotated[float | None, Field(gt=0)] = None
    """Mean over all jobs; needed where classes give `gpu_time_share`."""
    classes: tuple[JobClass, ...] = ()
    endings: Endings = Endings()
    limit_factor: Annotated[float, Field(ge=1)] = 3.0
    """The time limit a user asks for, over the run time; the partition's limit caps it."""
    projects: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Accounts with equal quotas; their shares of the jobs fall as 1/rank."""
    single_job_gpus: Annotated[int, Field(ge=0)] = 0
    """One job of this size that runs from the start to the end; 0 = none."""
    trace: str = ""
    """A CSV of jobs instead of all the above (see docs/simulate.md)."""
    trace_layout: Literal["rsc", "philly", "helios", "alibaba", "sacct"] = "rsc"


class Scheduler(FrozenModel):
    interval_s: Duration = 30.0
    """Between two passes over the queue; 0 = a pass at every event."""
    backfill: bool = True
    preempt_after_s: Duration = 7200.0
    preemption: bool = True
    time_limit_s: Duration = 604_800.0
    """Longest attempt of the partition; 0 = none."""
    qos_weight_s: Duration = 1_209_600.0
    """Seconds of age that one step of QOS is worth."""
    fair_share_weight_s: Duration = 86_400.0
    """Seconds of age lost by an account that has used all of the cluster."""
    fair_share_half_life_s: Positive = 604_800.0


class Cause(FrozenModel):
    name: str
    share: Share
    """Of the rate of failures."""
    permanent: Share = 0.5
    """Share of these failures that a reboot does not mend."""
    coverage: Share = 0.9
    """Share that a health check sees."""
    severity: Literal["high", "low"] = "high"
    """high ends the jobs of the node; low drains it after they end."""


class FailureRates(FrozenModel):
    rate_per_node_day: Annotated[float, Field(ge=0, le=100)] = 0.0
    causes: tuple[Cause, ...] = (Cause(name="node", share=1.0),)
    size_exponent: Annotated[float, Field(ge=0, le=4)] = 0.0
    """A node in a job of N nodes fails (N / size_from_nodes)^exponent times as often; 0 = linear law."""
    size_from_nodes: Annotated[int, Field(ge=1)] = 4096
    infant_factor: Annotated[float, Field(ge=1, le=100)] = 1.0
    """Rate just after a permanent repair, over the usual one."""
    infant_decay_s: Positive = 7 * DAY_S
    rack_rate_per_day: Annotated[float, Field(ge=0, le=10)] = 0.0
    pod_rate_per_day: Annotated[float, Field(ge=0, le=10)] = 0.0
    """FailureRates that take all nodes of one rack or pod at once."""
    lemon_share: Share = 0.0
    lemon_factor: Annotated[float, Field(ge=1, le=1000)] = 1.0
    """Share of nodes that are lemons, and their rate over a good node's."""


class Health(FrozenModel):
    checks: bool = True
    interval_s: Positive = 300.0
    false_positives_per_node_day: Annotated[float, Field(ge=0, le=10)] = 0.0
    heartbeat_s: Duration = 600.0
    """Until the scheduler gives up a node that no check saw."""
    undetected_s: Duration = 1800.0
    """Until a collective's time-out ends a job whose fault nothing saw."""
    lemon_detection: bool = True
    lemon_failures: Annotated[int, Field(ge=2)] = 3
    lemon_window_s: Positive = 28 * DAY_S


class Repair(FrozenModel):
    transient_s: Duration = 3600.0
    permanent_s: Duration = 2 * DAY_S
    sigma: Duration = 0.5
    """Of the lognormal repair time."""
    test_s: Duration = 900.0
    """Checks before a node takes jobs again."""
    spares: Annotated[int, Field(ge=0, le=200_000)] = 0
    swap_s: Duration = 1800.0
    """Until a spare stands in; a spare needs no return-to-service test."""


class CheckpointCadence(FrozenModel):
    interval_s: Duration = 3600.0
    """Productive time between two checkpoints; 0 = nothing is ever lost."""
    bytes_per_gpu: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    write_s: Duration = 0.0
    """Fixed part of a write; the transfer of `bytes_per_gpu` to the store comes on top."""
    blocking: bool = False
    restart_s: Duration = 300.0
    """From the start of an attempt to its first productive second."""


class Storage(FrozenModel):
    bytes_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Of the store, shared by all writers; 0 = no limit."""
    node_bytes_per_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class Fabric(FrozenModel):
    adaptive_routing: bool = True
    loss_without: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Bandwidth between pods that is lost without adaptive routing (RSC-1 bring-up: 0.5 to 0.75)."""
    communication_share: Share = 0.2
    """Of a step, for jobs that span pods."""


class Energy(FrozenModel):
    busy_w: Duration = 650.0
    """Of one GPU's share of a node that runs a job."""
    idle_w: Duration = 150.0
    pue: Annotated[float, Field(ge=1, le=5)] = 1.1
    cap_w: Duration = 0.0
    """Limit on busy_w; 0 = none."""
    speed_exponent: Annotated[float, Field(ge=0, le=1)] = 0.33
    """A capped job runs at (cap / busy)^exponent of its speed."""


class Scenario(FrozenModel):
    days: Annotated[float, Field(gt=0, le=3650)]
    cluster: ClusterShape
    workload: Workload = Workload()
    scheduler: Scheduler = Scheduler()
    failures: FailureRates = FailureRates()
    health: Health = Health()
    repair: Repair = Repair()
    checkpoint: CheckpointCadence = CheckpointCadence()
    storage: Storage = Storage()
    fabric: Fabric = Fabric()
    energy: Energy = Energy()

    @property
    def horizon_s(self) -> float:
        return self.days * DAY_S

    @property
    def gpus(self) -> int:
        return self.cluster.nodes * self.cluster.gpus_per_node


def scenario_names() -> list[str]:
    """The scenarios inside the package."""
    folder = resources.files("rsc.plan.sim") / "scenarios"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name != "__init__.py"
    )


def load_scenario(name: str, *, overrides: tuple[str, ...] = ()) -> tuple[Scenario, Resolved]:
    """A shipped scenario or a .toml file with `section.key=value` on top.

    Returns it with every default written out. Raises ConfigError for what cannot be simulated.
    """
    path = name
    if not name.endswith(".toml"):
        if name not in scenario_names():
            hint = nearest(name, scenario_names(), what="rsc simulate ls")
            raise ConfigError(f"there is no scenario {name!r}", hint=hint)
        path = str(Path(str(resources.files("rsc.plan.sim"))) / "scenarios" / f"{name}.toml")
    resolved = resolve(path, overrides=[_switched(text) for text in overrides])
    scenario = parse_as(Scenario, resolved)
    check(scenario)
    return scenario, with_defaults(scenario, resolved)


def _switched(override: str) -> str:
    """`health.checks=off` is how people write it."""
    key, equals, value = override.partition("=")
    word = {"on": "true", "off": "false"}.get(value.strip(), value)
    return f"{key}{equals}{word}"


def check(scenario: Scenario) -> None:
    """Refuse what contradicts itself, or by which no job could ever end."""
    _check_jobs(scenario)
    _check_shares(scenario)
    _check_progress(scenario)


def _check_jobs(scenario: Scenario) -> None:
    work, size = scenario.workload, scenario.gpus
    sizes = [each.gpus for each in work.classes] + [work.single_job_gpus]
    for gpus in sizes:
        check_size(gpus, scenario.cluster)
    if max(sizes) > size:
        raise ConfigError(f"a job of {max(sizes):,} GPUs on a cluster of {size:,}", hint="set cluster.nodes")
    if not work.trace and not work.single_job_gpus and not (work.classes and work.jobs_per_day):
        raise ConfigError("the scenario has no jobs", hint="set workload.jobs_per_day with workload.classes")
    for each in work.classes:
        if (each.mean_h is None) == (each.gpu_time_share is None):
            raise ConfigError(f"jobs of {each.gpus} GPUs need one of mean_h and gpu_time_share")
        if each.gpu_time_share is not None and work.gpu_hours_per_job is None:
            raise ConfigError("gpu_time_share needs workload.gpu_hours_per_job")


def check_size(gpus: int, cluster: ClusterShape) -> None:
    """A job of more than a node takes whole nodes."""
    if gpus > cluster.gpus_per_node and gpus % cluster.gpus_per_node:
        whole = -(-gpus // cluster.gpus_per_node) * cluster.gpus_per_node
        raise ConfigError(
            f"a job of {gpus} GPUs fills no whole nodes of {cluster.gpus_per_node}", hint=f"ask for {whole}"
        )


def _check_shares(scenario: Scenario) -> None:
    work, endings = scenario.workload, scenario.workload.endings
    sums = {"workload.endings": (endings.failed + endings.cancelled + endings.out_of_memory, False)}
    if work.classes:
        sums["workload.classes job_share"] = (sum(each.job_share for each in work.classes), True)
    sums["failures.causes share"] = (sum(cause.share for cause in scenario.failures.causes), True)
    for each in work.classes:
        sums[f"QOS shares of {each.gpus} GPUs"] = (each.high_share + each.low_share, False)
    for name, (total, whole) in sums.items():
        if total > 1 + 1e-6 or (whole and total < 1 - 1e-6):
            raise ConfigError(
                f"{name}: the shares add up to {total:.4g}, not to {'1' if whole else 'at most 1'}"
            )


def _check_progress(scenario: Scenario) -> None:
    """A job that restarts for longer than it runs, or loses more than it does, never ends."""
    sizes = [each.gpus for each in scenario.workload.classes] + [scenario.workload.single_job_gpus]
    nodes = max(1, -(-max(sizes) // scenario.cluster.gpus_per_node))
    rate = nodes * job_rate_per_node_s(scenario, nodes)
    point = scenario.checkpoint
    needed = point.restart_s + point.interval_s + write_s(scenario, nodes)
    if rate and needed * rate > 12:
        raise ConfigError(
            f"a job of {nodes:,} nodes fails every {1 / rate:,.0f} s and needs {needed:,.0f} s to its first "
            "checkpoint: nothing ever finishes",
            hint="shorten checkpoint.interval_s or checkpoint.restart_s (seconds), or check the unit of "
            "failures.rate_per_node_day (6.5 per 1000 node-days is 0.0065)",
        )
    limit = scenario.scheduler.time_limit_s
    if limit and point.restart_s >= limit:
        raise ConfigError(
            f"checkpoint.restart_s {point.restart_s:,.0f} is no less than the time limit {limit:,.0f}"
        )


def job_rate_per_node_s(scenario: Scenario, nodes: int) -> float:
    """FailureRates a second of one node in a job of that many, by the law of the scenario."""
    failures = scenario.failures
    lemons = 1 + failures.lemon_share * (failures.lemon_factor - 1)
    size = float(max(1.0, nodes / failures.size_from_nodes) ** failures.size_exponent)
    return failures.rate_per_node_day * lemons * size / DAY_S


def write_s(scenario: Scenario, nodes: int, *, load: float = 0.0) -> float:
    """Seconds of one checkpoint write while other jobs keep the store busy for the share `load`.

    A store shared equally among its writers answers after size / (rate * (1 - load)), the mean of an
    M/G/1 queue with processor sharing (Kleinrock 1976, vol. 2, 4.4).
    """
    point, store = scenario.checkpoint, scenario.storage
    size = point.bytes_per_gpu * nodes * scenario.cluster.gpus_per_node
    own = size / (nodes * store.node_bytes_per_s) if store.node_bytes_per_s else 0.0
    shared = size / (store.bytes_per_s * max(0.01, 1 - load)) if store.bytes_per_s else 0.0
    return point.write_s + max(own, shared)
