"""`rsc plan run|score|fit|machines`: what a run needs before anyone buys it. Never loads torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.cli.output import JsonFlag, emit, say, table

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Rows = Annotated[Path, typer.Argument(help="JSON rows of published runs; docs/plan.md has their keys.")]


@app.command()
def score(rows: Rows, as_json: JsonFlag = False) -> None:
    """Predict published runs from their layouts; print the errors beside those of half of peak."""
    from rsc.plan.fit import load_calibration
    from rsc.plan.published import read_rows
    from rsc.plan.score import score as score_rows

    found = score_rows(read_rows(rows), load_calibration())
    header = ("group", "rows", "MAPE %", "bias %", "rank", "regret %", "in interval %", "half of peak MAPE %")
    lines = [
        (
            group["group"],
            group["timed"],
            _figure(group["mape"]),
            _figure(group["bias"]),
            _figure(group["rank"], digits=2),
            _figure(group["regret"], scale=100),
            _figure(group["coverage"], scale=100),
            _figure(group["baseline_mape"]),
        )
        for group in found["groups"]
    ]
    emit(found, as_json=as_json, text=table(lines, header=header))
    for row in found["left_out"][:5]:
        say(f"left out {row['id']}: {row['reason']}")
    if len(found["left_out"]) > 5:
        say(f"left out {len(found['left_out']) - 5} more; --json has them all")


@app.command()
def fit(
    rows: Rows,
    out: Annotated[Path, typer.Option(help="The calibration file to write.")],
    as_json: JsonFlag = False,
) -> None:
    """Fit efficiencies and overlaps to rows; a group's error is from a fit without it. Takes a minute."""
    from rsc.plan.fit import calibrate
    from rsc.plan.published import read_rows

    found = calibrate(read_rows(rows))
    out.write_text(json.dumps(found.to_json(), indent=1) + "\n")
    left_out = found.provenance["mape_left_out"]
    lines = [(group, number, left_out.get(group)) for group, number in found.provenance["groups"].items()]
    emit(
        found.to_json(), as_json=as_json, text=table(lines, header=("group", "rows", "MAPE % when left out"))
    )
    say(f"wrote {out}")


@app.command()
def machines(as_json: JsonFlag = False) -> None:
    """List the accelerators of the shipped table with their sources."""
    from rsc.plan.machines import accelerators

    rows = {name: each.model_dump() for name, each in accelerators().items()}
    header = ("accelerator", "bf16 TFLOP/s", "fp8", "GB", "TB/s", "domain", "W")
    keys = ("bf16", "fp8", "memory", "memory_rate", "domain", "power_w")
    lines = [(name, *(row[key] or "-" for key in keys)) for name, row in rows.items()]
    emit({"accelerators": rows}, as_json=as_json, text=table(lines, header=header))


def _figure(value: Any, *, scale: float = 1.0, digits: int = 1) -> str:
    return "-" if value is None else f"{scale * value:.{digits}f}"
