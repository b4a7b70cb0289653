"""Models that find names and places, plugged in beside the rules. None is used by default.

A policy names them, with a model that is on this machine already; nothing here downloads anything:

    [[models]]
    engine = "presidio"
    model = "en_core_web_lg"
    labels = { PERSON = "person", LOCATION = "place" }
    recall = "0.63 [0.60, 0.66] of 598 names in our own letters"

A model's recall is its own: measure it with `rsc review score --policy` on labelled text of your kind and
write the sentence into the policy; it is printed in every report.

Not covered: what a model does with the text it is given; run the import where there is no route out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rsc.errors import ConfigError
from rsc.extras import install_command
from rsc.review.findings import RECOGNISER_TYPES, TYPES, Finding


class RecogniserConfig(BaseModel):
    """One entry of `[[models]]` in a policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["presidio", "gliner"]
    """Library that runs the model."""
    model: str
    """For presidio a spaCy package or folder, for GLiNER a folder. It has to be on this machine."""
    labels: Annotated[dict[str, str], Field(min_length=1)]
    """What the model calls it (PERSON, LOCATION, ORGANIZATION; for GLiNER any words) -> our type."""
    language: str = "en"
    """What presidio is told; GLiNER does without."""
    least_score: Annotated[float, Field(ge=0, le=1)] = 0.4
    """Answers with a lower score do not count."""
    recall: str = "not measured"
    """Measured recall with its corpus and interval: printed in every report."""

    @field_validator("labels")
    @classmethod
    def _are_types(cls, value: dict[str, str]) -> dict[str, str]:
        known = (*RECOGNISER_TYPES, *TYPES)
        for label, name in value.items():
            if name not in known:
                raise ValueError(f"{label} = {name!r}: types are {', '.join(known)}")
        return value


class Recogniser(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def types(self) -> tuple[str, ...]:
        """Types it looks for, of findings.RECOGNISER_TYPES or findings.TYPES."""
        ...

    @property
    def recall(self) -> str:
        """Measured recall with its corpus and interval, or "not measured"."""
        ...

    def find(self, text: str) -> list[Finding]: ...


def load_recognisers(models: Sequence[RecogniserConfig]) -> tuple[Recogniser, ...]:
    """Seconds per model. Raises ConfigError when a package or a model is not on this machine."""
    loaders = {"presidio": _load_presidio, "gliner": _load_gliner}
    return tuple(loaders[config.engine](config) for config in models)


def describe(recogniser: Recogniser) -> str:
    """The line of the report."""
    return f"{recogniser.name} looks for {', '.join(recogniser.types)}; recall: {recogniser.recall}"


def add_recognised(
    found: Sequence[Finding], *, text: str, recognisers: Sequence[Recogniser]
) -> list[Finding]:
    """Findings of rules, and of recognisers where no rule found anything; earlier recognisers first."""
    merged = list(found)
    for recogniser in recognisers:
        for extra in sorted(recogniser.find(text), key=lambda f: (f.start, -f.end)):
            if all(extra.end <= f.start or extra.start >= f.end for f in merged):
                merged.append(extra)
    return sorted(merged, key=lambda f: f.start)


@dataclass(frozen=True)
class PresidioRecogniser:
    """Wraps a presidio `AnalyzerEngine`: `analyze(text=..., language=..., entities=[...])`."""

    analyzer: Any
    labels: Mapping[str, str]
    """Presidio's entity -> our type, e.g. {"PERSON": "person", "LOCATION": "place"}."""
    language: str = "en"
    recall: str = "not measured"
    least_score: float = 0.4
    name: str = "presidio"

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.labels.values()))

    def find(self, text: str) -> list[Finding]:
        results = self.analyzer.analyze(text=text, language=self.language, entities=list(self.labels))
        return [
            Finding(self.labels[r.entity_type], r.start, r.end, self.name)
            for r in results
            if r.score >= self.least_score
        ]


@dataclass(frozen=True)
class GlinerRecogniser:
    """Wraps a GLiNER model: `predict_entities(text, labels, threshold=...)`."""

    model: Any
    labels: Mapping[str, str]
    """Label asked of the model -> our type, e.g. {"person name": "person"}."""
    recall: str = "not measured"
    threshold: float = 0.5
    name: str = "gliner"

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.labels.values()))

    def find(self, text: str) -> list[Finding]:
        results = self.model.predict_entities(text, list(self.labels), threshold=self.threshold)
        return [Finding(self.labels[r["label"]], r["start"], r["end"], self.name) for r in results]


def _load_presidio(config: RecogniserConfig) -> Recogniser:
    """Presidio with its reader of a spaCy model only: the rules find the rest, and presidio's own rules for
    addresses fetch a list from the network."""
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import SpacyRecognizer
    except ImportError as error:
        raise _missing_package("presidio", error) from None
    if not (spacy.util.is_package(config.model) or Path(config.model).exists()):  # presidio would download it
        raise _missing_model(config, hint=f"python -m spacy download {config.model}, or name its folder")
    reader = SpacyRecognizer(supported_language=config.language, supported_entities=list(config.labels))
    engine = AnalyzerEngine(
        registry=RecognizerRegistry(recognizers=[reader], supported_languages=[config.language]),
        nlp_engine=SpacyNlpEngine([{"lang_code": config.language, "model_name": config.model}]),
        supported_languages=[config.language],
    )
    return PresidioRecogniser(
        engine,
        config.labels,
        language=config.language,
        recall=config.recall,
        least_score=config.least_score,
    )


def _load_gliner(config: RecogniserConfig) -> Recogniser:
    try:
        from gliner import GLiNER
    except ImportError as error:
        raise _missing_package("gliner", error) from None
    if not Path(config.model).is_dir():
        raise _missing_model(config, hint="name the folder that the model was saved to")
    model = GLiNER.from_pretrained(config.model, local_files_only=True)
    return GlinerRecogniser(model, config.labels, recall=config.recall, threshold=config.least_score)


def _missing_package(extra: str, error: ImportError) -> ConfigError:
    return ConfigError(f"the policy names a {extra} model: {error}", hint=install_command(extra))


def _missing_model(config: RecogniserConfig, *, hint: str) -> ConfigError:
    return ConfigError(f"there is no {config.engine} model {config.model!r} on this machine", hint=hint)
