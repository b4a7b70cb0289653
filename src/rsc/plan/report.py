"""An answer as text and JSON: figures with their interval, formulas with numbers, bars. No torch here."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from rsc.errors import ConfigError
from rsc.layers import nearest
from rsc.plan.answer import PlanAnswer, parts_of
from rsc.plan.work import Layouts
from rsc.units import format_bytes, format_seconds

_SHARD = {0: "DDP", 1: "ZeRO-1", 2: "ZeRO-2", 3: "FSDP"}
_RECOMPUTE = {0: "none", 1: "selective", 2: "full"}
_BAR = 40

FORMULAS = {
    "step_s": "sum of the parts on the slowest rank, of the fastest layout that fits",
    "low_s": "step_s / e^spread: 80 % of runs in groups that a fit left out lay between low and high",
    "high_s": "step_s x e^spread",
    "mfu": "tokens a step x FLOPs a token / (step_s x accelerators x peak); 6 a weight + 12 L H E s",
    "tokens_per_s": "sequences a step x length / step_s",
    "steps": "tokens / (sequences a step x length), rounded up",
    "ideal_days": "steps x step_s",
    "days": "ideal_days / ettr",
    "low_days": "days / e^spread; failures are taken at their mean",
    "high_days": "days x e^spread",
    "ettr": "i / (M e^(R/M) (e^((i + w)/M) - 1)); i between checkpoints, w to write one, R restart, M MTBF",
    "accelerator_hours": "days x 24 x accelerators",
    "checkpoint_bytes": "12 x parameters: float32 weights and two moments",
    "store_write_bytes_per_s": "checkpoint_bytes / seconds that a checkpoint may hold the run",
    "store_read_bytes_per_s": "4 x tokens_per_s",
    "energy_kwh": "accelerator_hours x power_share x (rated W + host W) x PUE / 1000",
    "cost": "accelerator_hours x price_per_hour; unknown without a price",
    "carbon_kg": "energy_kwh x carbon_kg_per_kwh; unknown without the grid's figure",
}


def to_json(given: PlanAnswer) -> dict[str, Any]:
    shape, config = given.question.shape, given.cluster.config
    return {
        "model": given.question.name,
        "parameters": float(shape.parameters),
        "active_parameters": float(shape.active),
        "tokens": given.question.tokens,
        "tokens_from": given.question.source,
        "sequences_a_step": given.question.batch,
        "sequence": float(shape.sequence),
        "accelerators": given.cluster.size,
        "cluster": config.model_dump(),
        "layouts_scored": given.found.num_scored,
        "layouts_that_fit": given.found.num_fit,
        "layouts": [
            layout_of(given.found.plans, at, given.found.seconds) for at in range(len(given.found.seconds))
        ],
        "step_parts_s": parts_of(given.step),
        "memory_bytes": {**parts_of(given.memory), "total": sum(parts_of(given.memory).values())},
        "failures": {**vars(given.failures)},
        "figures": given.figures,
        "bound_by": bound_by(given),
        "would_help": [{"what": what, "saves": saves} for what, saves in given.helps],
    }


def layout_of(plans: Layouts, at: int, seconds: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        f.name: int(getattr(plans, f.name)[at]) for f in fields(Layouts) if f.name not in _INNER
    }
    found["shard"] = _SHARD[found["shard"]]
    found["recompute"] = _RECOMPUTE[found["recompute"]]
    return {**found, "step_s": float(seconds[at])}


_INNER = ("age", "eager", "unfused", "batch", "shard_ranks", "sequence_parallel")


def bound_by(given: PlanAnswer) -> str:
    parts = parts_of(given.step)
    name, seconds = next(iter(parts.items()))
    share = seconds / sum(parts.values())
    what = {
        "compute": "matrix products and attention",
        "memory": "memory bandwidth",
        "tensor": "tensor parallel messages",
        "data": "messages of gradients and weights",
        "bubble": "idle time of the pipeline",
        "expert": "messages of experts",
        "optimizer": "the optimiser and what a step costs besides",
    }.get(name, name)
    return f"{what}: {100 * share:.0f} % of a step"


def to_text(given: PlanAnswer) -> str:
    ask, figures, shape = given.question, given.figures, given.question.shape
    device, rate = given.cluster.config.accelerator, _count(figures["tokens_per_s"])
    mfu, lost = 100 * figures["mfu"], 100 * (1 - figures["ettr"])
    stores = ("store_read_bytes_per_s", "store_write_bytes_per_s", "checkpoint_bytes")
    reads, writes, size = (format_bytes(figures[name]) for name in stores)
    lines = [
        f"{ask.name}: {_count(shape.parameters)} parameters, {_count(ask.tokens)} tokens ({ask.source})",
        f"{given.cluster.size} x {device}, {ask.batch} sequences of {int(shape.sequence)} a step",
        "",
        f"step      {_range(figures, 'step_s', 's')} s, MFU {mfu:.1f} %, {rate} tokens/s",
        f"days      {_range(figures, 'days', 'days')}, of which {lost:.1f} % lost to failures and saving",
        f"energy    {_count(figures['energy_kwh'])} kWh",
        f"cost      {_known(figures['cost'], 'give --price')}",
        f"carbon    {_known(figures['carbon_kg'], 'give carbon_kg_per_kwh in a cluster file', unit=' kg')}",
        f"store     reads {reads}/s, writes {writes}/s for a checkpoint of {size}{_every(given)}",
        "",
        "layout    " + _layout(layout_of(given.found.plans, 0, given.found.seconds)),
        f"          the fastest of {given.found.num_fit:,} that fit, {given.found.num_scored:,} scored",
        "",
        *_bars("step", parts_of(given.step), lambda seconds: format_seconds(seconds)),
        "",
        *_bars("memory", parts_of(given.memory), format_bytes),
        "",
        f"bound by {bound_by(given)}",
        f"{given.helps[0][0]} would save most: {100 * given.helps[0][1]:.0f} % of a step",
    ]
    return "\n".join(lines)


def explain(given: PlanAnswer, figure: str) -> str:
    """Formula and numbers of one figure. Raises ConfigError for another name."""
    if figure not in FORMULAS:
        raise ConfigError(
            f"there is no figure {figure!r}", hint=nearest(figure, FORMULAS, what="docs/plan.md")
        )
    value = given.figures[figure]
    lines = [f"{figure} = {'unknown' if value is None else f'{value:.6g}'}", f"  {FORMULAS[figure]}"]
    config, device = given.cluster.config, given.cluster.device
    numbers: dict[str, Any] = {
        **{name: given.figures[name] for name in FORMULAS if name in FORMULAS[figure] and name != figure},
        "accelerators": given.cluster.size,
        "tokens": given.question.tokens,
        "sequences a step": given.question.batch,
        "length": float(given.question.shape.sequence),
    }
    if figure in ("step_s", "low_s", "high_s"):
        numbers |= {f"part {name}": seconds for name, seconds in parts_of(given.step).items()}
    if figure in ("ettr", "days", "store_write_bytes_per_s"):
        numbers |= {f"failures {name}": value for name, value in vars(given.failures).items()}
        numbers["restart_s"] = 60 * config.restart_minutes
    if figure in ("energy_kwh", "carbon_kg"):
        numbers |= {"rated W": device.power_w, "host W": config.host_power_w, "PUE": config.pue}
        numbers |= {"power_share": config.power_share, "carbon_kg_per_kwh": config.carbon_kg_per_kwh}
    if figure == "mfu":
        numbers["FLOPs a token"] = float(given.question.shape.flops_per_token)
        numbers["peak"] = device.peak(int(given.found.plans.bits[0]))
    if figure == "cost":
        numbers["price_per_hour"] = config.price_per_hour
    lines += [f"  {name} = {'unknown' if one is None else f'{one:.6g}'}" for name, one in numbers.items()]
    return "\n".join([*lines, f"  accelerator: {device.source}"])


def _range(figures: dict[str, Any], name: str, suffix: str) -> str:
    return f"{figures[name]:.3g} ({figures[f'low_{suffix}']:.3g} to {figures[f'high_{suffix}']:.3g})"


def compare(first: PlanAnswer, second: PlanAnswer) -> list[tuple[str, str, str, str]]:
    """Rows (figure, first, second, second / first)."""
    rows = []
    for name in FORMULAS:
        one, two = first.figures[name], second.figures[name]
        ratio = "-" if not one or two is None else f"{two / one:.3g}"
        left, right = ("unknown" if each is None else f"{each:.4g}" for each in (one, two))
        rows.append((name, left, right, ratio))
    return rows


def _layout(found: dict[str, Any]) -> str:
    axes = [f"{name} {found[name]}" for name in ("dp", "tp", "cp", "pp", "ep") if found[name] > 1]
    extras = [f"virtual {found['virtual']}"] if found["virtual"] > 1 else []
    extras += ["zero bubble"] if found["zero_bubble"] else []
    extras += ["moments in host memory"] if found["offload"] else []
    tail = [f"micro batch {found['micro']}", f"recompute {found['recompute']}", f"{found['bits']} bits"]
    return ", ".join([" x ".join(axes) or "one process", found["shard"], *extras, *tail])


def _bars(title: str, parts: dict[str, float], show: Any) -> list[str]:
    total = sum(parts.values()) or 1.0
    shown = [(name, value) for name, value in parts.items() if value > 0.004 * total]
    bars = ["#" * max(1, round(_BAR * value / total)) for _, value in shown]
    titles = [title, *[""] * len(shown)]
    return [
        f"{left:8}  {name:12} {bar:{_BAR}} {show(value)}"
        for left, bar, (name, value) in zip(titles, bars, shown, strict=False)
    ]


def _every(given: PlanAnswer) -> str:
    interval = given.failures.interval_s
    return f" every {format_seconds(interval)}" if interval < 1e9 else ""


def _known(value: float | None, how: str, *, unit: str = "") -> str:
    return f"unknown ({how})" if value is None else f"{value:,.0f}{unit}"


def _count(value: Any) -> str:
    value = float(value)
    for power, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= power:
            return f"{value / power:.3g} {letter}"
    return f"{value:.3g}"
