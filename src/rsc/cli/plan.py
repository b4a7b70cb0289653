"""`rsc plan ...`: what a run needs before anyone buys it. Of its verbs calibrate alone loads torch."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.config import Workspace
from rsc.durable import replace_file
from rsc.errors import ConfigError
from rsc.layers import nearest, recipe_names
from rsc.units import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from rsc.plan.inverse import Wish

_SIZE = re.compile(r"[\d.]+\s*[A-Za-z]*")


class ShortForm(TyperGroup):
    """`rsc plan 7B` is `rsc plan run 7B`: for what is a size, a recipe or a file, and for nothing else."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name in self.commands:
            return super().resolve_command(ctx, args)
        if _SIZE.fullmatch(name) or name.endswith(".toml") or name in recipe_names():
            return super().resolve_command(ctx, ["run", *args])
        known = [*self.commands, *recipe_names()]
        raise ConfigError(
            f"{name!r} is neither a verb of `rsc plan`, nor a recipe, nor a size such as 7B",
            hint=nearest(name, known, what="rsc plan --help"),
        )


app = typer.Typer(cls=ShortForm, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Rows = Annotated[Path, typer.Argument(help="JSON rows of published runs; docs/plan.md has their keys.")]


@app.command()
def run(
    model: Annotated[
        str, typer.Argument(help="A recipe, or a size such as 7B; empty with --days: how large?")
    ] = "",
    overrides: Annotated[
        list[str] | None, typer.Argument(help="section.key=value of a recipe; parallel.tp=4 pins an axis.")
    ] = None,
    on: Annotated[
        str, typer.Option(help="An accelerator of `rsc plan machines`, or a cluster file.")
    ] = "H100-SXM-80GB",
    gpus: Annotated[int | None, typer.Option(help="Accelerators; default: the cluster file's, or 8.")] = None,
    tokens: Annotated[str, typer.Option(help="To train on: 300B, 15.6T.")] = "",
    loss: Annotated[
        float | None, typer.Option(help="To reach, by Chinchilla's law (arXiv:2203.15556).")
    ] = None,
    batch: Annotated[str, typer.Option(help="Tokens of an optimiser step: about 4M.")] = "",
    sequence: Annotated[int | None, typer.Option(help="Tokens of a sequence.", min=1, max=10**9)] = None,
    precision: Annotated[str, typer.Option(help="Of the products: bf16, fp8 or fp4.")] = "bf16",
    offload: Annotated[bool, typer.Option("--offload", help="Moments may wait in host memory.")] = False,
    price: Annotated[float | None, typer.Option(help="Of one accelerator and hour.", min=0)] = None,
    days: Annotated[
        float | None, typer.Option(help="Without MODEL: the largest model that trains in so long.")
    ] = None,
    deadline: Annotated[str, typer.Option(help="The fewest accelerators that are done in time: 7d.")] = "",
    budget: Annotated[float | None, typer.Option(help="What the run may cost; needs a price.", min=0)] = None,
    explain: Annotated[str, typer.Option(help="Print formula and numbers of one figure, such as days.")] = "",
    compare: Annotated[str, typer.Option(help="Another accelerator or cluster file to set beside it.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Plan a run: the fastest layout, memory, days with failures, storage, energy and cost."""
    from rsc.plan import report
    from rsc.plan.answer import PlanAnswer, answer
    from rsc.plan.fit import load_calibration
    from rsc.plan.inverse import Wish, largest_model, smallest_cluster
    from rsc.plan.machines import cluster_of
    from rsc.plan.question import question
    from rsc.plan.search import Limits

    calibration = load_calibration()
    limits = Limits(bits=_bits(precision), offload=(False, True) if offload else (False,))
    wish = Wish(days=parse_seconds(deadline) / 86_400 if deadline else None, budget=budget)
    _check_question(model, gpus=gpus, days=days, wish=wish)
    _check_numbers({"--price": price, "--loss": loss, "--budget": budget})

    def planned(cluster: str) -> PlanAnswer:
        count = gpus if gpus is not None or cluster.endswith(".toml") else 8
        if not model:
            assert days is not None, "_check_question() refuses it"
            given = cluster_of(cluster, count=count, price_per_hour=price)
            return largest_model(given, calibration, days=days, limits=limits, sequence=sequence)
        ask = question(
            model, tokens=tokens, loss=loss, batch_tokens=batch, sequence=sequence, overrides=overrides or ()
        )
        if wish.days is not None or wish.budget is not None:
            sized = lambda size: cluster_of(cluster, count=size, price_per_hour=price)  # noqa: E731
            return smallest_cluster(ask, sized, calibration, wish=wish, limits=limits)
        return answer(ask, cluster_of(cluster, count=count, price_per_hour=price), calibration, limits=limits)

    given = planned(on)
    result, text = report.to_json(given), report.to_text(given)
    if explain:
        text = report.explain(given, explain)
        result["explained"] = text
    if compare:
        other = planned(compare)
        result["compared"] = report.to_json(other)
        text = table(report.compare(given, other), header=("figure", on, compare, "ratio"))
    emit(result, as_json=as_json, text=text)


def _check_question(model: str, *, gpus: int | None, days: float | None, wish: Wish) -> None:
    """Refuses what contradicts itself."""
    asks_size = wish.days is not None or wish.budget is not None
    if not model and days is None:
        raise ConfigError("nothing to plan", hint="name a recipe or a size: rsc plan run 7B --gpus 32")
    if model and days is not None:
        raise ConfigError(
            "--days asks how large a model may be, and there is one", hint="use --deadline for it"
        )
    if not model and asks_size:
        raise ConfigError("--deadline and --budget need a model", hint="name a recipe or a size")
    if gpus is not None and asks_size:
        raise ConfigError(f"--gpus {gpus} and --deadline or --budget, which ask for that number")
    if gpus is not None and not 1 <= gpus <= 1_000_000:
        raise ConfigError(f"--gpus {gpus}", hint="plan for 1 to 1,000,000 accelerators")
    if days is not None and not 0 < days < 1e5:
        raise ConfigError(f"--days {days:g}", hint="plan for more than 0 days")


def _check_numbers(given: dict[str, float | None]) -> None:
    for option, value in given.items():
        if value is not None and not math.isfinite(value):
            raise ConfigError(f"{option} {value}", hint="give a finite number")


def _bits(precision: str) -> int:
    known = {"bf16": 16, "fp8": 8, "fp4": 4}
    if precision not in known:
        raise ConfigError(f"no precision {precision!r}", hint=nearest(precision, known, what="docs/plan.md"))
    return known[precision]


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
def calibrate(
    out: Annotated[
        Path | None, typer.Option(help="The cluster file to write; default: the workspace's machine.toml.")
    ] = None,
    scratch: Annotated[Path, typer.Option(help="A folder on the disk to measure.")] = Path(),
    quick: Annotated[bool, typer.Option("--quick", help="Seconds instead of minutes.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure this machine: products, attention, memory, disk, messages. `rsc train` then expects by it."""
    import tomlkit

    from rsc.plan.expectation import MACHINE_FILE
    from rsc.plan.measure.calibrate import calibrate_machine  # brings torch

    target = out or Workspace.from_environment().root / MACHINE_FILE
    if target.suffix != ".toml" or not target.parent.is_dir():
        raise ConfigError(f"cannot write {target}", hint="--out names a .toml file in a folder that is there")
    found = calibrate_machine(scratch=scratch, quick=quick, say=say)
    replace_file(target, tomlkit.dumps(found).encode(), mode=0o644)
    rows = [(name, _measured(value)) for name, value in found["measured"].items()]
    emit({"path": str(target), **found}, as_json=as_json, text=table(rows, header=("figure", "measured")))
    say(f"wrote {target}")
    next_commands("rsc plan run RECIPE --on " + str(target))


def _measured(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{size}: {rate:.3g}" for size, rate in value.items())
    return value if isinstance(value, str) else f"{value:.3g}"


@app.command()
def data(
    size: Annotated[str, typer.Option(help="Of the corpus: 1EB, 20 TB.")],
    gpus: Annotated[int, typer.Option(help="That read it.")],
    kind: Annotated[str, typer.Option(help="text, tokens or images.")] = "text",
    per_node: Annotated[int, typer.Option(help="GPUs of a node.")] = 8,
    rate: Annotated[str, typer.Option(help="Bytes that a GPU takes a second.")] = "1GB",
    bulk_rate: Annotated[str, typer.Option(help="Bytes a second of the bulk store; default: enough.")] = "",
    set_size: Annotated[str, typer.Option(help="Of a data set: one approval, one key a month.")] = "1PB",
    signatures: Annotated[int, typer.Option(help="Reviewers who sign for a version.")] = 2,
    keep_days: Annotated[float, typer.Option(help="Until data is destroyed.")] = 365.0,
    scan_cores: Annotated[int | None, typer.Option(help="Default: 16 of each node.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Plan a corpus: epoch, bandwidth by tier, cache, shards, keys, reviews, cost of the scan."""
    from rsc.plan.data_plane import DataQuestion, plan_data, to_text

    ask = DataQuestion(
        size=parse_bytes(size),
        gpus=gpus,
        kind=kind,
        per_node=per_node,
        gpu_rate=parse_bytes(rate),
        bulk_rate=parse_bytes(bulk_rate) if bulk_rate else None,
        set_size=parse_bytes(set_size),
        signatures=signatures,
        keep_days=keep_days,
        scan_cores=scan_cores,
    )
    found = plan_data(ask)
    emit(found, as_json=as_json, text=to_text(found))


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
