"""Ask a finished run or an exported folder: `rsc eval generate predict`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsc.api.record import Record, entry, html_table
from rsc.api.run_records import marks_of
from rsc.config import Workspace
from rsc.errors import ConfigError, GateRefused
from rsc.evaluate.assess import Assessment, assess, keep
from rsc.evaluate.generate import Sampling
from rsc.evaluate.generate import generate as continue_ids
from rsc.evaluate.open_model import Trained, from_state, open_run
from rsc.evaluate.predict import Prediction
from rsc.evaluate.predict import predict as predict_samples
from rsc.evaluate.sample_files import require_source
from rsc.export.settings import is_export
from rsc.export.weights import read_export
from rsc.keys.secret import SecretKey
from rsc.layers import override
from rsc.recipes.data_fit import check_fields, samples_of
from rsc.recipes.sections import EvalConfig
from rsc.recipes.tokens_fit import check_tokens
from rsc.release.agent.custody import Custody
from rsc.release.agent.request import KeyRequest
from rsc.release.lifecycle.retention import open_to_read
from rsc.review.policy import parse_policy
from rsc.runs.folder import RunFolder, find_run
from rsc.store.dataset import Dataset
from rsc.store.format.reserved_names import SIDECARS


@dataclass(frozen=True)
class Asked:
    """A model that answers, and what to know about it."""

    trained: Trained
    notes: tuple[str, ...]
    """Damaged checkpoints that were passed over, marks of erasures, the step and the number format."""
    is_run: bool


@dataclass(frozen=True)
class Evaluation(Record):
    assessment: Assessment
    positive: tuple[str, ...]
    """Labels that count as positive in groups; empty where no group was asked for."""
    is_run: bool
    notes: tuple[str, ...]

    @property
    def measures(self) -> Mapping[str, float]:
        """Figures by name; `assessment` has their intervals."""
        return {name: measure.value for name, measure in self.assessment.measures.items()}

    def to_json(self) -> dict[str, Any]:
        return self.assessment.to_json()

    def _repr_html_(self) -> str:
        rows = [
            (name, f"{measure.value:.4f}", f"{measure.low:.4f} to {measure.high:.4f}")
            for name, measure in self.assessment.measures.items()
        ]
        what = f"{self.assessment.data} version {self.assessment.version}, split {self.assessment.split}"
        return html_table(what, rows, header=("measure", "value", "95 % interval"))


@dataclass(frozen=True)
class Generated(Record):
    prompt: str
    text: str
    """What the model added."""
    tokens: int
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        return {"prompt": self.prompt, "text": self.text, "tokens": self.tokens}

    def __str__(self) -> str:
        return self.prompt + self.text


@dataclass(frozen=True)
class Predictions(Record):
    predictions: list[Prediction]
    notes: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        record = super().to_json()
        return {"predictions": record["predictions"]}

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.predictions)

    def __len__(self) -> int:
        return len(self.predictions)

    def _repr_html_(self) -> str:
        rows = [
            (p.place, p.answer, "" if p.confidence is None else f"{p.confidence:.3f}")
            for p in self.predictions
        ]
        return html_table("predictions", rows, header=("sample", "answer", "confidence"))


@entry
def evaluate(
    model: str | Path,
    *overrides: str,
    data: str | None = None,
    split: str | None = None,
    step: str = "newest",
) -> Evaluation:
    """Measure a run, or an exported folder, on held-out data; `overrides` are `eval.key=value`."""
    workspace = Workspace.from_environment()
    asked = open_model(str(model), workspace=workspace, step=step)
    trained = asked.trained
    config = trained.recipe.eval if trained.recipe else EvalConfig()
    config = override(config, section="eval", overrides=overrides)
    dataset = _dataset(trained, data=data, workspace=workspace)
    _require_large_groups(config, dataset=dataset)
    split = _split(dataset, split or config.split)
    samples = samples_of(dataset, split=split)
    check_fields(samples, model=trained.config, text_field=trained.text_field)
    if samples.tokenizer is not None:  # text is made into ids as it is read
        check_tokens(samples, model=trained.config, text_field=trained.text_field)
    request = KeyRequest("evaluate", data=dataset.name, version=dataset.version)
    with _release(request, workspace=workspace) as key:
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
    has_groups = bool(config.positive or config.slice_columns or config.slice_terms)
    positive = config.positive or trained.config.head.labels[:1]
    return Evaluation(result, tuple(positive) if has_groups else (), asked.is_run, asked.notes)


@entry
def generate(
    model: str | Path,
    prompt: str = "",
    *,
    num_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 0,
    seed: int = 0,
    step: str = "newest",
) -> Generated:
    """Continue a text. What comes out may repeat what the model was trained on."""
    asked = open_model(str(model), workspace=Workspace.from_environment(), step=step)
    trained = asked.trained
    if not trained.config.task.is_language:
        raise ConfigError(f"{trained.name} is no language model", hint=f"try `rsc predict {model} FILE`")
    tokenizer = trained.tokenizer()
    ids = continue_ids(
        trained.model,
        prompt=tokenizer.encode(prompt) if trained.recipe else tokenizer.encode_prompt(prompt),
        num_tokens=num_tokens,
        context=trained.context,
        sampling=Sampling(temperature=temperature, top_k=top_k, seed=seed),
        stop=tokenizer.separator if trained.separator is None else trained.separator,
    )
    return Generated(prompt, tokenizer.decode(ids), len(ids), asked.notes)


@entry
def predict(
    model: str | Path, source: str | Path, *, text_field: str | None = None, step: str = "newest"
) -> Predictions:
    """What a trained model makes of a file, the files of a folder, or standard input (`-`). `text_field` is
    what the source calls the text; by default as the model does."""
    require_source(str(source))
    asked = open_model(str(model), workspace=Workspace.from_environment(), step=step)
    found = predict_samples(asked.trained, source=str(source), text_field=text_field)
    return Predictions(list(found), asked.notes)


def open_model(name: str, *, workspace: Workspace, step: str = "newest") -> Asked:
    """A run of the workspace, or an exported folder. The release of a run's key is logged."""
    if is_export(Path(name)):
        return _open_export(name, step=step)
    run = find_run(workspace.runs, name)
    request = KeyRequest("checkpoint", run=run.id)
    with _release(request, workspace=workspace) as key:
        trained = open_run(run, key=key, step=step)
    damaged = (
        f"the checkpoint of step {each} is damaged; an older one is used" for each in trained.passed_over
    )
    where = f"run {run.id} at step {trained.step}, {trained.precision.name}: {trained.precision.reason}"
    return Asked(trained, (*damaged, *_marked(run), where), is_run=True)


def _marked(run: RunFolder) -> Iterable[str]:
    return (f"run {run.id} is marked: {mark}" for mark in marks_of(run))


def _open_export(name: str, *, step: str) -> Asked:
    if step != "newest":
        raise ConfigError(f"{name} is an export, which has one step", hint="leave --step out")
    opened = read_export(Path(name))
    trained = from_state(
        name,
        config=opened.config,
        state=opened.state,
        context=opened.context,
        separator=opened.separator,
    )
    marks = (f"{name} is marked: {mark}" for mark in marks_of(RunFolder(Path(name))))
    return Asked(trained, tuple(marks), is_run=False)


def _release(request: KeyRequest, *, workspace: Workspace) -> SecretKey:
    """Ask the key agent in this process. Raises GateRefused."""
    return Custody(workspace).agent.release(request)


def _dataset(trained: Trained, *, data: str | None, workspace: Workspace) -> Dataset:
    if data is not None:
        return open_to_read(workspace, name=data)
    if trained.recipe is None:
        raise ConfigError(f"{trained.name} does not say what it was trained on", hint="name one with --data")
    config = trained.recipe.data
    return open_to_read(workspace, name=config.name, version=config.version)


def _require_large_groups(config: EvalConfig, *, dataset: Dataset) -> None:
    """Reviewers sign a policy that says how few people a figure may be about; a recipe can ask for more.
    Raises GateRefused. The key is released under this policy or not at all, since approvals bind it."""
    least = parse_policy(dataset.read_review("policy.toml") or b"").min_group
    if config.min_group < least:
        raise GateRefused(
            f"eval.min_group = {config.min_group}: the policy of {dataset.name} version {dataset.version} "
            f"shows groups of {least} samples and more",
            hint=f"evaluate with eval.min_group={least}; fewer need a policy that says so, and a review",
        )


def _split(dataset: Dataset, split: str) -> str:
    known = [name for name in dataset.splits if name not in SIDECARS]
    if split not in known:
        raise ConfigError(
            f"{dataset.name} version {dataset.version} has no split {split!r}",
            hint=f"it has: {', '.join(known)}; give one with --split",
        )
    return split
