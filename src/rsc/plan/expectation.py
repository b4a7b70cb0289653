"""What one run is expected to need, in its own layout, on the machine it starts on. No torch here.

The machine is the file that `rsc plan calibrate` wrote to the workspace, else an NVIDIA GPU that the driver
names; without either only memory is known. A run keeps this as `prediction.json`, as data: whoever shows the
run (`rsc runs show`) needs no planner.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from rsc.errors import ConfigError
from rsc.parallel.layout import Layout
from rsc.plan.answer import machine_of
from rsc.plan.fit import FittedModel, load_calibration
from rsc.plan.machines import Cluster, accelerators, cluster_of
from rsc.plan.memory import memory
from rsc.plan.question import recipe_shape
from rsc.plan.step_time import step_time
from rsc.plan.work import Layouts, Shape
from rsc.recipes.recipe import Recipe
from rsc.units import format_bytes, format_seconds

MACHINE_FILE = "machine.toml"
"""In a workspace: the cluster file of this machine."""
_DRIVER = Path("/proc/driver/nvidia/gpus")
_HOST_SPREAD = 0.4
"""Half width of the interval on a CPU, in log(seconds); assumed, since no published rows are of CPUs."""
_RECOMPUTE = {"none": 0, "selective": 1, "full": 2}


def expect(recipe: Recipe, *, world: int, workspace: Path, driver: Path = _DRIVER) -> dict[str, Any]:
    """Seconds, bytes and energy of a run; None for what is unknown, and `why` it is."""
    layout = recipe.layout(world=world)
    shape, plan = recipe_shape(recipe), _layouts(recipe, layout)
    found: dict[str, Any] = {
        "machine": None,
        "world": world,
        "steps": recipe.train.steps,
        "memory_bytes": float(memory(shape, plan).total),
        **dict.fromkeys(("step_s", "low_s", "high_s", "total_s", "energy_wh")),
        "why": "",
    }
    try:
        cluster = _this_machine(world, workspace=workspace, driver=driver)
    except ConfigError as error:
        return {**found, "why": error.message}
    if cluster is None:
        return {**found, "why": "this machine is not measured: `rsc plan calibrate` does it"}
    if cluster.device.is_host and world > (os.cpu_count() or 1):
        return {**found, "why": f"{world} ranks are more than the CPU of {cluster.config.accelerator} has"}
    return found | _time(recipe, shape, plan, cluster, load_calibration())


def to_line(expected: dict[str, Any]) -> str:
    """One sentence for people."""
    held = f"{format_bytes(expected['memory_bytes'])} a rank"
    if expected["step_s"] is None:
        return f"the plan expects {held}; time and energy unknown ({expected['why']})"
    low, high = (format_seconds(expected[f"{end}_s"] * expected["steps"]) for end in ("low", "high"))
    energy = "unknown" if expected["energy_wh"] is None else f"{expected['energy_wh'] / 1000:.3g} kWh"
    time = f"{format_seconds(expected['total_s'])} ({low} to {high})"
    step = format_seconds(expected["step_s"])
    return f"the plan expects {time}, {step} a step, {held}, energy {energy}, on {expected['machine']}"


def _time(
    recipe: Recipe, shape: Shape, plan: Layouts, cluster: Cluster, calibration: FittedModel
) -> dict[str, Any]:
    device, config = cluster.device, cluster.config
    machine = machine_of(cluster, bits=int(plan.bits))
    seconds = float(step_time(shape, plan, machine, calibration.factors).total)
    kind = "experts" if float(shape.experts) else "dense"
    spread = math.exp(_HOST_SPREAD if device.is_host else calibration.spread[kind])
    total = seconds * recipe.train.steps
    energy = None
    if not device.is_host:
        watts = config.power_share * (device.power_w + config.host_power_w) * config.pue
        energy = watts * cluster.size * total / 3600
    return {
        "machine": config.accelerator,
        "step_s": seconds,
        "low_s": seconds / spread,
        "high_s": seconds * spread,
        "total_s": total,
        "energy_wh": energy,
    }


def _layouts(recipe: Recipe, layout: Layout) -> Layouts:
    train, parallel = recipe.train, recipe.parallel
    local = recipe.train.batch_size // (layout.dp * train.accumulate)
    pieces = (parallel.microbatches or 2 * layout.pp) if layout.pp > 1 else 1
    return Layouts(
        dp=layout.dp,
        tp=layout.tp,
        cp=layout.cp,
        pp=layout.pp,
        ep=layout.ep,
        virtual=1 if parallel.pp_schedule == "1f1b" or layout.pp == 1 else 2,
        micro=max(1, local // pieces),
        batch=train.batch_size,
        shard=3,
        shard_ranks=layout.fsdp,
        recompute=_RECOMPUTE[train.recompute],
        zero_bubble=parallel.splits_backward,
        bits=8 if train.precision == "float8" else 16,
    )


def _this_machine(world: int, *, workspace: Path, driver: Path) -> Cluster | None:
    file = workspace / MACHINE_FILE
    if file.exists():
        return cluster_of(str(file), count=world)
    for about in sorted(driver.glob("*/information")):
        model = re.search(r"^Model:\s*(.+)$", about.read_text(errors="replace"), re.MULTILINE)
        name = _accelerator_in(model[1]) if model else None
        if name is not None:
            return cluster_of(name, count=world)
    return None


def _accelerator_in(model: str) -> str | None:
    """`NVIDIA H100 80GB HBM3` -> `H100-SXM-80GB`: of a chip's entries, the one that shares most words."""
    words = set(model.lower().replace("-", " ").split())
    known = {name: len(words & set(name.lower().split("-"))) for name in accelerators()}
    chips = [name for name in known if name.lower().split("-")[0] in words]
    return max(chips, key=lambda name: known[name], default=None)
