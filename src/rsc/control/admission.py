"""The wall between training and the privacy gate: what is asked, and what a yes says. No torch."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rsc.cluster.sandbox.wrap import Level
from rsc.config import CipherChoice
from rsc.loader.config import DataConfig
from rsc.models.config import ModelConfig
from rsc.recipes.data_fit import SplitSamples, check_fields
from rsc.recipes.tokens_fit import check_tokens
from rsc.release.agent.job_scope import Served
from rsc.release.record.run_origin import RunOrigin, Version
from rsc.runs.folder import RunFolder

_ABOUT_DATA = ("data", "review", "key_period")
_PINNED_FIRST: tuple[CipherChoice, ...] = ("aes-256-gcm", "aegis-256", "auto")
_STRICTEST_FIRST: tuple[Level, ...] = ("required", "best-effort", "none")


@dataclass(frozen=True)
class Admission:
    """The gate's yes: what may be read, and what the lineage says about it."""

    version: int
    lineage: dict[str, Any]
    samples: SplitSamples
    """What the model must fit."""


@dataclass(frozen=True)
class Admissions:
    """The gate's yes to every data set of a run. The lineage calls all but the first `mixed`."""

    versions: dict[str, int]
    lineage: dict[str, Any]


class Gate(Protocol):
    """The privacy gate as training sees it (control/workspace_gate.py; a fake in tests)."""

    def admit(self, data: DataConfig) -> Admission:
        """Raises GateRefused when this data may not be trained on."""
        ...

    def isolation(self, version: Version, *, root_hash: str) -> Level:
        """What the policy of a data set version asks of workers; the strictest where it is gone."""
        ...

    def cipher(self, version: Version, *, root_hash: str) -> CipherChoice:
        """For checkpoints of a run on this version; AES-256-GCM where its policy is gone."""
        ...

    def origin(self, run: str) -> RunOrigin:
        """What the log says that a run was trained on. Raises GateRefused for a run that it does not know."""
        ...

    def record_start(self, origin: RunOrigin) -> None:
        """Write into the log where a run comes from; before any of its keys leave."""
        ...

    def record_drive(self, run: str, *, isolation: str) -> None:
        """Write into the log how isolated the workers of a run are, before its keys leave."""
        ...

    def make_run_key(self, run: RunFolder) -> None:
        """Make the key of the run's checkpoints; its envelope lies in the run's key.json."""
        ...

    def serve(self, socket: Path, *, serves: Served) -> AbstractContextManager[None]:
        """Answer the workers' requests for the keys of the list while the context is open."""
        ...


def admit_all(gate: Gate, data: DataConfig, *, model: ModelConfig) -> Admissions:
    """Ask the gate about each data set of the mixture; one no is a no to all.

    Raises GateRefused, and ConfigError for data that the model can never be trained on.
    """
    answers = {each.name: gate.admit(each) for each in data.sets}
    for each in data.sets:
        samples = answers[each.name].samples
        check_fields(samples, model=model, text_field=each.text_field)
        check_tokens(samples, model=model, text_field=each.text_field, separator=data.separator)
    first, *others = answers.values()
    mixed = [{key: each.lineage[key] for key in _ABOUT_DATA if key in each.lineage} for each in others]
    return Admissions(
        versions={name: answer.version for name, answer in answers.items()},
        lineage={**first.lineage, "mixed": mixed} if mixed else first.lineage,
    )


def isolation_of(gate: Gate, origin: RunOrigin) -> Level:
    """The strictest that anything asks for which the run was trained on, or the run that it started from: the
    key agent goes by all of it too."""
    asked = [gate.isolation(place, root_hash=origin.root_of(place)) for place in origin.all_data()]
    return min(asked, key=_STRICTEST_FIRST.index, default="none")


def cipher_of(gate: Gate, origin: RunOrigin) -> CipherChoice:
    """For checkpoints of a run: AES-256-GCM where anything that it was trained on asks for it."""
    asked = [gate.cipher(place, root_hash=origin.root_of(place)) for place in origin.all_data()]
    return min(asked, key=_PINNED_FIRST.index, default="auto")
