"""What a reviewer looks at: findings in their surroundings, samples per type, the redacted result.

Works on redacted text, which is all that an import keeps. Values that the policy allows to stay are masked
here; in the surroundings every digit is 0 and whatever holds an @ is x@x, so that a reviewer, a screen and a
scroll-back buffer see that a number or an address was missed, but not which.

Not covered: words that nobody found, names above all, stand in the surroundings as they are; finding them is
what the reviewer is for.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol
from unicodedata import normalize

from rsc.review.redact import is_mask, mask


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


class ReviewText:
    """A redacted text as a reviewer sees it, with the new places of its findings."""

    def __init__(self, redacted: str, *, findings: Sequence[Shown]) -> None:
        """`findings` in the order of their places."""
        pieces: list[str] = []
        self._places: dict[tuple[int, int], tuple[int, int]] = {}
        done = length = 0
        for finding in findings:
            start, end = finding.redacted_start, finding.redacted_end
            if start < done:
                continue  # a damaged file
            before, shown = _surroundings(redacted[done:start]), redacted[start:end]
            if finding.action == "allow" or (finding.action == "mask" and not is_mask(shown)):
                shown = mask(shown, type_name=finding.type)
            pieces += (before, shown)
            self._places[start, end] = (length + len(before), length + len(before) + len(shown))
            length += len(before) + len(shown)
            done = end
        self.text = "".join([*pieces, _surroundings(redacted[done:])])

    def sample(self, finding: Shown, *, record: int, field: str, width: int) -> Sample:
        """One of the findings, with `width` characters on each side."""
        start, end = self._places[finding.redacted_start, finding.redacted_end]
        shape = finding.shape
        if shape and not is_mask(shape):
            shape = mask(shape, type_name=finding.type)  # as long as what it stood for
        return Sample(
            record=record,
            field=field,
            type=finding.type,
            rule=finding.rule,
            action=finding.action,
            shape=shape,
            before=self.text[max(0, start - width) : start],
            shown=self.text[start:end],
            after=self.text[end : end + width],
        )


def in_context(
    redacted: str, *, replacements: Sequence[Shown], record: int, field: str, width: int = 40
) -> list[Sample]:
    """Every finding of one text with `width` characters around it. Replacements as `redact` made them."""
    view = ReviewText(redacted, findings=replacements)
    return [view.sample(r, record=record, field=field, width=width) for r in replacements]


def _surroundings(text: str) -> str:
    """Text without the digits of any script (NFKC takes circled, squared and raised ones apart) and without
    words around an @."""
    text = _AT.sub("x@x", text)
    if text.isascii():
        return text.translate(_ZEROS)
    return "".join(
        "0" if any(map(str.isdigit, normalize("NFKC", character))) else character for character in text
    )


_AT = re.compile("\\S*[@\uff20\ufe6b]\\S*")
_ZEROS = str.maketrans("123456789", "000000000")


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
