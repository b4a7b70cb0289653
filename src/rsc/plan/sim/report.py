"""What `rsc simulate` prints for people."""

from __future__ import annotations

from typing import Any

from rsc.plan.sim.outcome import Figures

Rows = list[tuple[str, ...]]


def headline(result: Figures) -> Rows:
    """Shares of all GPU time, with the 95 % interval where there are several seeds."""
    names = {
        "utilisation": "GPUs held by jobs",
        "goodput": "of all GPU time is productive",
        "effective_time": "of the held time is productive",
        "idle": "idle",
        "down": "down",
    }
    rows: Rows = [(name, share(result[key]), meaning) for key, meaning in names.items() for name in [key]]
    rows.append(("energy", f"{number(result['energy_mwh'])} MWh", "with cooling"))
    rows.append(("jobs", number(result["jobs"]), f"{number(result['jobs_waiting_at_end'])} wait at the end"))
    rows.append(("lemons removed", number(result["lemons_removed"]), "nodes replaced for failing again"))
    return rows


def losses(result: Figures) -> Rows:
    lost = result["lost_gpu_hours"]
    total = sum(cell["mean"] or 0.0 for cell in lost.values()) or 1.0
    ordered = sorted(lost.items(), key=lambda pair: -(pair[1]["mean"] or 0.0))
    return [
        (name, number(cell), f"{(cell['mean'] or 0) / total:.1%}") for name, cell in ordered if cell["mean"]
    ]


def sizes(result: Figures) -> Rows:
    return [
        (
            gpus,
            number(row["jobs"]),
            share(row["gpu_time_share"]),
            seconds(row["wait_mean_s"]),
            seconds(row["wait_p90_s"]),
            share(row["ettr"]),
            share(row["ettr_without_queue"]),
            number(row["mttf_h"]),
            share(row["attempts_ended_by_failure"]),
        )
        for gpus, row in result["sizes"].items()
    ]


SIZES_HEADER = (
    *(
        "GPUs",
        "jobs",
        "GPU time",
        "wait mean",
        "wait p90",
        "ETTR",
        "without queue",
        "MTTF h",
        "ended by failure",
    ),
)


def share(cell: dict[str, Any]) -> str:
    if cell["mean"] is None:
        return "-"
    half = f" +-{(cell['high'] - cell['mean']) * 100:.2f}" if cell["high"] is not None else ""
    return f"{cell['mean'] * 100:.2f}{half} %"


def number(cell: dict[str, Any]) -> str:
    if cell["mean"] is None:
        return "-"
    digits = 0 if abs(cell["mean"]) >= 100 else 1
    half = f" +-{cell['high'] - cell['mean']:,.{digits}f}" if cell["high"] is not None else ""
    return f"{cell['mean']:,.{digits}f}{half}"


def seconds(cell: dict[str, Any]) -> str:
    value = cell["mean"]
    if value is None:
        return "-"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"
