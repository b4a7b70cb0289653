"""Recall and precision of a scanner on a labelled corpus, per type, with 95 % intervals.

A corpus is JSON lines: {"text": ..., "spans": [{"start", "end", "type"}, ...]}; docs/review.md lists the
variants that are understood. A planted span is *covered* when none of its letters and digits lies outside
of findings of any type, *partial* when some do, and *typed* when 80 % lie in findings of its own type.
What is left of a partly redacted span often says the rest, so it counts as a miss. A finding is *right* when
at least half of it lies in a planted span of any type. Spans of types nobody looks for (names, places) are
not counted for recall; findings inside them are not counted as wrong.

Intervals: Wilson 1927, as restated by Brown, Cai and DasGupta 2001, equation 4.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rsc.errors import DataError
from rsc.review.findings import TYPES, Finding

_LABELS: dict[str, str] = {
    "email": "email_address mail e_mail",
    "phone": "phone_number telephone telephonenum phonenumber fax_number",
    "credit_card": "creditcard credit_card_number creditcardnumber credit_debit_card",
    "iban": "iban_code",
    "ssn": "us_ssn social_security_number socialnum socialnumber us_itin",
    "national_id": "es_nif es_nie it_fiscal_code in_aadhaar in_pan pl_pesel uk_nhs uk_nino nhs_number "
    "au_tfn au_medicare fi_personal_identity_code sg_nric_fin kr_rrn th_tnin br_cpf "
    "national_id_number tax_id aadhaar taxnum pesel nif cpf idcardnum",
    "id_document": "us_passport passport us_driver_license driver_license us_bank_number bank_account "
    "accountnum driverlicensenum",
    "ip_address": "ip ipv4 ipv6 ipaddress",
    "mac_address": "mac macaddress",
    "crypto_wallet": "crypto bitcoin_address bitcoinaddress",
    "date_of_birth": "dob dateofbirth birth_date",
    "coordinates": "gps coordinate nearbygpscoordinate",
    "handle": "username user_name twitter_handle",
    "street_address": "address street",
    "secret": "password api_key key token private_key",
}
ALIASES: dict[str, str] = {label: name for name, labels in _LABELS.items() for label in labels.split()}
"""Labels of other tools and corpora, in lower case with underscores, and our type for each."""

Scan = Callable[[str], Sequence[Finding]]


class Labelled(NamedTuple):
    text: str
    spans: tuple[tuple[int, int, str], ...]
    language: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """hits of total, with the Wilson interval."""

    hits: int
    total: int

    @property
    def value(self) -> float | None:
        return self.hits / self.total if self.total else None

    def interval(self, *, z: float = 1.959964) -> tuple[float, float]:
        if not self.total:
            return 0.0, 1.0
        n, p = self.total, self.hits / self.total
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval()
        return {
            "value": self.value,
            "low": round(low, 4),
            "high": round(high, 4),
            "hits": self.hits,
            "total": self.total,
        }


@dataclass(frozen=True, slots=True)
class TypeScore:
    covered: Rate
    partial: Rate
    typed: Rate
    precision: Rate


@dataclass(frozen=True, slots=True)
class Score:
    """`types` per type of the scanner; `overall` over all of them; `languages` the same per
    language that the records name; `not_scored`: labels nobody looks for."""

    records: int
    characters: int
    overall: TypeScore
    types: dict[str, TypeScore]
    languages: dict[str, TypeScore]
    not_scored: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "characters": self.characters,
            "overall": _score_dict(self.overall),
            "types": {name: _score_dict(score) for name, score in self.types.items()},
            "languages": {name: _score_dict(score) for name, score in self.languages.items()},
            "not_scored": self.not_scored,
        }


def _score_dict(score: TypeScore) -> dict[str, Any]:
    return {
        "recall": score.covered.to_dict(),
        "partial": score.partial.to_dict(),
        "typed": score.typed.to_dict(),
        "precision": score.precision.to_dict(),
    }


def canonical_type(label: str) -> str:
    """Our name for a label of another tool; an unknown label comes back in lower case."""
    plain = label.strip().lower().replace("-", "_").replace(" ", "_")
    return ALIASES.get(plain, plain)


def read_corpus(path: Path) -> Iterator[Labelled]:
    """Records of a labelled corpus, one JSON object a line. Raises DataError with the line number."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    yield parse_labelled(json.loads(line))
                except (ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
                    raise DataError(
                        f"{path.name} line {number} is not a labelled record: {type(error).__name__}",
                        hint='each line is {"text": ..., "spans": [{"start": 0, "end": 5, "type": "email"}]}',
                    ) from None


def parse_labelled(record: dict[str, Any]) -> Labelled:
    """One record in the layout of any common corpus; docs/review.md lists the names that are understood.

    Raises ValueError, KeyError, TypeError or StopIteration for what is none of them.
    """
    text = next(
        record[name] for name in ("text", "full_text", "source_text", "unmasked_text") if name in record
    )
    spans = next(
        (
            record[name]
            for name in ("spans", "entities", "labels", "label", "privacy_mask", "truth")
            if name in record
        ),
        None,
    )
    if not isinstance(text, str) or spans is None:
        raise ValueError("no text or no spans")
    parsed = tuple(_parse_span(span) for span in (json.loads(spans) if isinstance(spans, str) else spans))
    if any(not 0 <= start < end <= len(text) for start, end, _ in parsed):
        raise ValueError("a span lies outside its text")
    language = next((str(record[name]) for name in ("language", "lang", "locale") if record.get(name)), "")
    return Labelled(text, parsed, language)


def _parse_span(span: Any) -> tuple[int, int, str]:
    if not isinstance(span, dict):
        return int(span[0]), int(span[1]), canonical_type(str(span[2]))
    start = next(span[name] for name in ("start", "start_position", "start_offset", "begin") if name in span)
    end = next(span[name] for name in ("end", "end_position", "end_offset") if name in span)
    label = next(span[name] for name in ("type", "entity_type", "label", "entity") if name in span)
    return int(start), int(end), canonical_type(str(label))


@dataclass
class _Tally:
    """Spans and findings counted under one name."""

    planted: int = 0
    covered: int = 0
    partial: int = 0
    typed: int = 0
    found: int = 0
    right: int = 0

    def rates(self) -> TypeScore:
        return TypeScore(
            Rate(self.covered, self.planted),
            Rate(self.partial, self.planted),
            Rate(self.typed, self.planted),
            Rate(self.right, self.found),
        )


def score(corpus: Iterable[Labelled], *, scan: Scan, only: frozenset[str] = frozenset(TYPES)) -> Score:
    """Run `scan` over the corpus. `only`: the types it claims to look for."""
    overall, types, languages = _Tally(), defaultdict[str, _Tally](_Tally), defaultdict[str, _Tally](_Tally)
    not_scored: Counter[str] = Counter()
    records = characters = 0
    for text, spans, language in corpus:
        records, characters = records + 1, characters + len(text)
        findings = scan(text)
        for start, end, name in spans:
            if name not in only:
                not_scored[name] += 1
                continue
            is_left = _is_left(text, start, end, findings)
            is_typed = _overlap(start, end, [f for f in findings if f.type == name]) >= 0.8
            for tally in (overall, types[name], languages[language]):
                tally.planted += 1
                tally.covered += not any(is_left)
                tally.partial += any(is_left) and not all(is_left)
                tally.typed += is_typed
        for finding in findings:
            inside = _overlap(finding.start, finding.end, [Finding(n, s, e, "") for s, e, n in spans]) >= 0.5
            for tally in (overall, types[finding.type], languages[language]):
                tally.found += 1
                tally.right += inside
    return Score(
        records,
        characters,
        overall.rates(),
        {name: types[name].rates() for name in sorted(types)},
        {name: languages[name].rates() for name in sorted(languages) if name},
        dict(not_scored),
    )


def _is_left(text: str, start: int, end: int, findings: Sequence[Finding]) -> list[bool]:
    """For each letter and digit of a span, or each character where it has none, whether no finding has it."""
    places = [place for place in range(start, end) if text[place].isalnum()] or list(range(start, end))
    near = [(f.start, f.end) for f in findings if f.start < end and f.end > start]
    return [not any(first <= place < last for first, last in near) for place in places]


def _overlap(start: int, end: int, findings: Iterable[Finding]) -> float:
    """Share of [start, end) that lies in findings, which do not overlap each other."""
    hit = sum(max(0, min(end, f.end) - max(start, f.start)) for f in findings)
    return min(1.0, hit / (end - start))
