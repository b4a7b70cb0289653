"""`rsc eval`, `rsc generate`, `rsc predict`: ask a finished run or an exported folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from rsc.api import models
from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.evaluate.assess import Assessment
from rsc.evaluate.measures import Measure, Slice
from rsc.runs.sample_problems import meanings
from rsc.train.batches.collate import STILL_USED

Model = Annotated[str, typer.Argument(help="A run (id, unique part of it, or `last`) or an exported folder.")]
Step = Annotated[str, typer.Option(help="Checkpoint of a run: newest, best (by validation), or a step.")]


def eval(  # noqa: A001 (the command is called so)
    model: Model,
    overrides: Annotated[list[str] | None, typer.Argument(help="eval.key=value, e.g. groups.")] = None,
    data: Annotated[str | None, typer.Option(help="Another data set than the run's.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to measure on; the recipe's if left out.")] = None,
    step: Step = "newest",
    as_json: JsonFlag = False,
) -> None:
    """Measure a model on held-out data: figures with 95 % intervals, slices, calibration."""
    found = models.evaluate(model, *(overrides or []), data=data, split=split, step=step)
    _say_all(found.notes)
    emit(found.to_json(), as_json=as_json, text=_report(found.assessment, positive=found.positive))
    next_commands(("rsc", "runs", "export", model) if found.is_run else ("rsc", "generate", model))


def generate(
    model: Model,
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    num_bytes: Annotated[int, typer.Option("--bytes", help="Tokens to add; bytes for a byte model.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the best token each time.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw from the k best only; 0: from all.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same text.")] = 0,
    step: Step = "newest",
    as_json: JsonFlag = False,
) -> None:
    """Continue a text. What comes out may repeat what the model was trained on."""
    found = models.generate(
        model, prompt, num_tokens=num_bytes, temperature=temperature, top_k=top_k, seed=seed, step=step
    )
    _say_all(found.notes)
    emit(found.to_json(), as_json=as_json, text=str(found))


def predict(
    model: Model,
    source: Annotated[
        str,
        typer.Argument(help="A picture, a recording, text, .jsonl or .csv; a folder of them; - for stdin."),
    ],
    text_field: Annotated[
        str | None, typer.Option(help="What .jsonl and .csv call the text; as the model does if left out.")
    ] = None,
    step: Step = "newest",
    as_json: JsonFlag = False,
) -> None:
    """Print what a trained model makes of each sample of a file or folder."""
    found = models.predict(model, source, text_field=text_field, step=step)
    _say_all(found.notes)
    rows = [
        (
            p.place,
            p.answer or "-",
            "" if p.confidence is None else f"{p.confidence:.3f}",
            " ".join(p.problems),
        )
        for p in found
    ]
    text = table(rows, header=("sample", "answer", "confidence", "problems"))
    emit(found.to_json(), as_json=as_json, text=text)
    _say_all(meanings(" ".join(sorted({word for p in found for word in p.problems}))))


def _say_all(lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def _report(result: Assessment, *, positive: Sequence[str]) -> str:
    """`positive` are the labels that count as such in groups; empty where no group was asked for."""
    rows: list[tuple[Any, ...]] = [
        (name, f"{m.value:.4f}", f"{m.low:.4f} to {m.high:.4f}") for name, m in result.measures.items()
    ]
    if result.xz_bits_per_byte is not None:
        rows.append(("xz -9 bits_per_byte", f"{result.xz_bits_per_byte:.4f}", "the same bytes"))
    what = "bytes" if result.xz_bits_per_byte is not None else "samples"
    lines = [f"{result.count:,} {what} of {result.data} version {result.version}, split {result.split}"]
    lines.append(table(rows, header=("measure", "value", "95 % interval")))
    if result.details is not None:
        lines += _details(result, positive=positive)
    return "\n".join(lines)


def _details(result: Assessment, *, positive: Sequence[str]) -> list[str]:
    assert result.details is not None
    details, lines = result.details, []
    if details.per_class:
        rows = [(name, _figure(value)) for name, value in details.per_class.items()]
        lines.append(table(rows, header=("class", "F1")))
    if details.calibration is not None:
        lines.append(
            f"calibration error {details.calibration.error:.3f}, Brier {details.calibration.brier:.3f}"
        )
    if details.slices and positive:
        lines.append(f"positive: {', '.join(positive)}")
        lines.append(
            table(map(_slice_row, details.slices), header=("group", "samples", "false +", "false -"))
        )
    for what, words in (("not used", details.bad.keys() - STILL_USED), ("used as they are", STILL_USED)):
        counted = [f"{count} {name}" for name, count in details.bad.items() if name in words]
        if counted:
            lines += [f"{what}: {', '.join(counted)}", *meanings(" ".join(counted))]
    return lines


def _slice_row(row: Slice) -> tuple[Any, ...]:
    return row.group, row.count, _rate(row.false_positive_rate), _rate(row.false_negative_rate)


def _rate(measure: Measure) -> str:
    """`-` for a share of no samples."""
    return "-" if math.isnan(measure.value) else str(measure)


def _figure(value: float) -> str:
    """`-` for a class that is neither there nor answered."""
    return "-" if math.isnan(value) else f"{value:.3f}"
