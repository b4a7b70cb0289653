"""What a reviewer looks at: findings in their surroundings, samples per type, the redacted result.

Works on redacted text, which is all that an import keeps. Values that the policy allows to stay are masked
here, so that a reviewer, a screen and a scroll-back buffer see shapes only.

Not covered: personal data that nobody found stands in the surroundings as it is; finding that is what the
reviewer is for.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from rsc.review.redact import mask


@dataclass(frozen=True, slots=True)
class Sample:
    """One finding as it is shown. `before`, `after`: redacted text; `shown`: what stands in its place now;
    `shape`: what stood there, masked (empty in versions imported before it was kept)."""

    record: int
    field: str
    type: str
    rule: str
    action: str
    before: str
    shape: str
    shown: str
    after: str

    def line(self) -> str:
        """One line for a terminal, control characters and line ends as spaces; shape -> replacement."""
        became = f"{self.shape} -> " if self.shape not in ("", self.shown) else ""
        text = f"{self.before}\u27e6{became}{self.shown}\u27e7{self.after}"
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Shown(Protocol):
    """What is known of a finding, wherever it is kept (review.redact, the split `findings`)."""

    @property
    def type(self) -> str: ...
    @property
    def rule(self) -> str: ...
    @property
    def action(self) -> str: ...
    @property
    def redacted_start(self) -> int: ...
    @property
    def redacted_end(self) -> int: ...
    @property
    def shape(self) -> str: ...


def masked_text(redacted: str, *, replacements: Sequence[Shown]) -> str:
    """Redacted text in which allowed values are masked too; same length, so the offsets still hold."""
    pieces: list[str] = []
    done = 0
    for replacement in replacements:
        start, end = replacement.redacted_start, replacement.redacted_end
        if replacement.action == "allow":
            pieces += (redacted[done:start], mask(redacted[start:end]))
            done = end
    return "".join([*pieces, redacted[done:]])


def in_context(
    redacted: str, *, replacements: Sequence[Shown], record: int, field: str, width: int = 40
) -> list[Sample]:
    """Every finding of one text with `width` characters around it. Replacements as `redact` made them."""
    text = masked_text(redacted, replacements=replacements)
    return [sample_of(text, r, record=record, field=field, width=width) for r in replacements]


def sample_of(masked: str, finding: Shown, *, record: int, field: str, width: int) -> Sample:
    """One finding in a text that `masked_text` made."""
    start, end = finding.redacted_start, finding.redacted_end
    return Sample(
        record=record,
        field=field,
        type=finding.type,
        rule=finding.rule,
        action=finding.action,
        shape=finding.shape,
        before=masked[max(0, start - width) : start],
        shown=masked[start:end],
        after=masked[end : end + width],
    )


class SampleKeeper:
    """Keeps up to `per_type` samples of each type, each finding with equal chance (algorithm R)."""

    def __init__(self, *, per_type: int = 5, seed: int = 0) -> None:
        self._per_type = per_type
        self._rng = random.Random(seed)
        self._seen: Counter[str] = Counter()
        self._kept: dict[str, list[Sample]] = {}

    def add(self, sample: Sample) -> None:
        self._seen[sample.type] += 1
        kept = self._kept.setdefault(sample.type, [])
        if len(kept) < self._per_type:
            kept.append(sample)
            return
        place = self._rng.randrange(self._seen[sample.type])
        if place < self._per_type:
            kept[place] = sample

    def samples(self) -> dict[str, list[Sample]]:
        """Type -> samples in the order of the data."""
        return {
            name: sorted(kept, key=lambda s: (s.record, s.field)) for name, kept in sorted(self._kept.items())
        }
