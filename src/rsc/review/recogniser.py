"""Models that find names and places, plugged in beside the rules. None is used by default.

A recogniser is brought by the user, with the model it needs; nothing here downloads anything. Its recall is
its own: measure it with `rsc.review.score.score` on labelled text of your kind and hand the sentence in, it
is printed in every report.

Not covered: what a model does with the text it is given (some fetch lists from the network at the first
call; run the import where there is no route out).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rsc.review.findings import Finding


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
