"""`rsc eval`, `rsc generate`, `rsc predict`: ask a finished run or an exported folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.config import Workspace, override
from rsc.errors import ConfigError
from rsc.evaluate.assess import Assessment, assess, keep
from rsc.evaluate.generate import Sampling
from rsc.evaluate.generate import generate as continue_ids
from rsc.evaluate.measures import Measure, Slice
from rsc.evaluate.open_model import Trained, from_state, open_run
from rsc.evaluate.predict import predict as predict_file
from rsc.evaluate.predict import require_file
from rsc.export.settings import is_export
from rsc.export.weights import read_export
from rsc.keys.secret import SecretKey
from rsc.recipes.data_fit import check_fields, samples_of
from rsc.recipes.sections import EvalConfig
from rsc.recipes.tokens_fit import check_tokens
from rsc.release.agent.custody import Custody
from rsc.release.agent.request import KeyRequest
from rsc.release.lifecycle.retention import open_to_read
from rsc.runs.folder import find_run
from rsc.runs.sample_problems import meanings
from rsc.store.dataset import Dataset
from rsc.store.format.reserved_names import SIDECARS
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
    workspace = Workspace.from_environment()
    trained = open_model(model, workspace=workspace, step=step)
    config = trained.recipe.eval if trained.recipe else EvalConfig()
    config = override(config, section="eval", overrides=overrides or [])
    dataset = _dataset(trained, data=data, workspace=workspace)
    split = split or config.split
    known = [name for name in dataset.splits if name not in SIDECARS]
    if split not in known:
        raise ConfigError(
            f"{dataset.name} version {dataset.version} has no split {split!r}",
            hint=f"it has: {', '.join(known)}; give one with --split",
        )
    samples = samples_of(dataset, split=split)
    check_fields(samples, model=trained.config, text_field=trained.text_field)
    if samples.tokenizer is not None:  # text is made into ids as it is read
        check_tokens(samples, model=trained.config, text_field=trained.text_field)
    request = KeyRequest("evaluate", data=dataset.name, version=dataset.version)
    with release(request, workspace=workspace) as key:
        result = assess(
            trained,
            reader=dataset.split(split, key=key),
            data=dataset.name,
            version=dataset.version,
            split=split,
            config=config,
        )
    if trained.recipe is not None and data is None:
        keep(result, folder=workspace.runs / trained.name)
    positive = config.positive or trained.config.head.labels[:1]
    has_groups = bool(config.positive or config.slice_columns or config.slice_terms)
    emit(
        result.to_json(),
        as_json=as_json,
        text=_report(result, positive=positive if has_groups else ()),
    )
    next_commands(f"rsc runs export {model}" if trained.recipe else f"rsc generate {model}")


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
    trained = open_model(model, workspace=Workspace.from_environment(), step=step)
    if not trained.config.task.is_language:
        raise ConfigError(f"{trained.name} is no language model", hint=f"try `rsc predict {model} FILE`")
    tokenizer = trained.tokenizer()
    ids = continue_ids(
        trained.model,
        prompt=tokenizer.encode(prompt) if trained.recipe else tokenizer.encode_prompt(prompt),
        num_tokens=num_bytes,
        context=trained.context,
        sampling=Sampling(temperature=temperature, top_k=top_k, seed=seed),
        stop=tokenizer.separator if trained.separator is None else trained.separator,
    )
    text = tokenizer.decode(ids)
    emit({"prompt": prompt, "text": text, "tokens": len(ids)}, as_json=as_json, text=prompt + text)


def predict(
    model: Model,
    file: Annotated[Path, typer.Argument(help="A picture, a recording, a text file or .jsonl.")],
    step: Step = "newest",
    as_json: JsonFlag = False,
) -> None:
    """Say what a trained model makes of a file."""
    require_file(file)
    trained = open_model(model, workspace=Workspace.from_environment(), step=step)
    predictions = list(predict_file(trained, file=file))
    rows = [
        (
            p.sample,
            p.answer or "-",
            "" if p.confidence is None else f"{p.confidence:.3f}",
            " ".join(p.problems),
        )
        for p in predictions
    ]
    text = table(rows, header=("sample", "answer", "confidence", "problems"))
    emit({"predictions": [asdict(p) for p in predictions]}, as_json=as_json, text=text)
    for line in meanings(" ".join(sorted({word for p in predictions for word in p.problems}))):
        say(line)


def open_model(name: str, *, workspace: Workspace, step: str = "newest") -> Trained:
    """A run of the workspace, or an exported folder. The release of a run's key is logged."""
    if is_export(Path(name)):
        if step != "newest":
            raise ConfigError(f"{name} is an export, which has one step", hint="leave --step out")
        opened = read_export(Path(name))
        return from_state(
            name,
            config=opened.config,
            state=opened.state,
            context=opened.context,
            separator=opened.separator,
        )
    run = find_run(workspace.runs, name)
    request = KeyRequest("checkpoint", run=run.id)
    with release(request, workspace=workspace) as key:
        trained = open_run(run, key=key, step=step)
    for damaged in trained.passed_over:
        say(f"the checkpoint of step {damaged} is damaged; an older one is used")
    say(f"run {run.id} at step {trained.step}, {trained.precision.name}: {trained.precision.reason}")
    return trained


def release(request: KeyRequest, *, workspace: Workspace) -> SecretKey:
    """Ask the key agent in this process. Raises GateRefused."""
    return Custody(workspace).agent.release(request)


def _dataset(trained: Trained, *, data: str | None, workspace: Workspace) -> Dataset:
    if data is not None:
        return open_to_read(workspace, name=data)
    if trained.recipe is None:
        raise ConfigError(f"{trained.name} does not say what it was trained on", hint="name one with --data")
    config = trained.recipe.data
    return open_to_read(workspace, name=config.name, version=config.version)


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
