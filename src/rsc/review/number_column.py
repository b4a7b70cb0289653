"""Columns of numbers that hold identifiers. Numbers cannot be redacted, so whoever imports is asked.

A column is *named* when its name would label a value in a form (`ssn`, `phone`, `lat`): then a tenth of its
values that the rules take for personal data is enough. Without such a name its shape must say so: card
numbers by issuer and check digit, telephone numbers by the plans of the countries they would belong to.

Not covered: social security and other numbers without a check digit in a column whose name is silent;
fields that hold lists of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from rsc.review.field_label import field_label
from rsc.review.findings import Finding
from rsc.review.scanner.rules.payment import is_card_number
from rsc.review.scanner.rules.phone import is_in_use

ScanMany = Callable[[Sequence[str]], Sequence[Sequence[Finding]]]

_SAMPLE = 64  # values looked at in a chunk: a share of a tenth shows in 99.9 % of samples
_NAMED_SHARE = 0.1
_SHAPED_SHARE = 0.9  # of random numbers a twentieth are card numbers, and at most half are telephone numbers
_FEWEST_SHAPED = 8
_RUN = 16  # numbers that lie closer together than this are counters
_TYPES = frozenset(
    {"phone", "credit_card", "ssn", "national_id", "id_document", "coordinates", "date_of_birth"}
)


def identifiers_in(name: str, values: np.ndarray[Any, Any], *, scan_many: ScanMany) -> str:
    """The type of personal data that a column of numbers [n] seems to hold, or nothing."""
    label = field_label(name)
    digits = _sample(values, least=0 if label else 10**9)
    if not digits:
        return ""
    return _named(label, digits, scan_many=scan_many) if label else _shaped(digits)


def _named(label: str, digits: Sequence[str], *, scan_many: ScanMany) -> str:
    types = [
        next((f.type for f in found if f.end > len(label) and f.type in _TYPES), "")
        for found in scan_many([label + value for value in digits])
    ]
    most = max(_TYPES, key=lambda kind: (types.count(kind), kind))
    return most if types.count(most) >= _NAMED_SHARE * len(digits) else ""


def _shaped(digits: Sequence[str]) -> str:
    if len(digits) < _FEWEST_SHAPED:
        return ""
    if _share(map(is_card_number, digits), of=digits) >= _SHAPED_SHARE:
        return "credit_card"
    numbers = sorted(map(int, digits))
    is_counter = numbers[-1] - numbers[0] < _RUN * len(numbers)
    if not is_counter and _share(map(_is_dialled, digits), of=digits) >= _SHAPED_SHARE:
        return "phone"
    return ""


def _is_dialled(digits: str) -> bool:
    """Ten digits of North America's plan, or those of an international number without its `+`."""
    return is_in_use(f"1{digits}") if len(digits) == 10 else 11 <= len(digits) <= 13 and is_in_use(digits)


def _share(hits: Iterable[bool], *, of: Sequence[str]) -> float:
    return sum(hits) / len(of)


def _sample(values: np.ndarray[Any, Any], *, least: int) -> list[str]:
    """Up to `_SAMPLE` different values of at least `least`, spread over the column, as a text would have
    them. Whole numbers stay whole where missing ones made the column one of floats."""
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
        if not len(values) or (least and not np.all(values == np.rint(values))):
            return []
    if least:
        values = values[values >= least]
    spread = values[np.linspace(0, len(values) - 1, min(_SAMPLE, len(values)), dtype=np.int64)]
    return list(dict.fromkeys(str(int(v)) if v == np.rint(v) else str(v) for v in spread))
