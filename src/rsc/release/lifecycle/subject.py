"""Find what a data set version holds about one person, without an index of persons in the open.

The gate stored, for each finding, a keyed code of what matched (HMAC-SHA256 under the version's subject
key, truncated to 80 bits), in the encrypted split `findings`. Here the same code is computed from what the
person tells us, once per type, and looked up. Without the key the codes say nothing.

Texts are searched for the subject letter by letter, too: the gate may have missed a mention, or was told to
let it stay. Not covered: mentions that the gate did not find in another spelling (see the recall table of the
review), in tokens, pictures or sounds; a person known under values that are not given; records in which
somebody is only described.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rsc.keys.secret import SecretKey
from rsc.review.findings import RECOGNISER_TYPES, TYPES
from rsc.review.phone_number import phone_form
from rsc.review.redact import pseudonyms
from rsc.store.dataset import Dataset
from rsc.store.format.columns import Columns, Ragged
from rsc.store.format.schema import Field, Schema

FINDINGS, QUARANTINE, SUBJECT_KEY = "findings", "quarantine", "subject-key"
SUBJECT_KEY_SCHEMA = Schema((Field("key", "bytes"),))
_SHORTEST_SUBJECT = 4
"""Characters of a subject that is searched for in texts; shorter ones would stand in every second record."""
_SHORTEST_NUMBER = 7  # digits of a subject that is searched for in other groups, too
_NUMBER = re.compile(r"\+?[0-9 ().,/-]{7,32}", re.ASCII)
_GAP = rb"[ .()/-]{0,3}"
_CODES = rb"(?:(?:\+|00|011 ?)[0-9]{1,3}" + _GAP + rb")?(?:[018]" + _GAP + rb")?"
"""A country code behind its sign or exit code, and a trunk prefix."""
_SUBJECT_INFO = b"rsc-subject-1"  # HKDF info of the import (ingest/importer.py)


@dataclass(frozen=True, slots=True)
class Hit:
    """One finding about the person. `split` is empty where the record was dropped at import; `record` is -1
    where the text was searched, which does not say which record of the source it came from."""

    data: str
    version: int
    split: str
    sample: int
    record: int
    field: str
    type: str
    action: str


def subject_key(dataset: Dataset, *, key: SecretKey) -> SecretKey:
    """The key of the codes: derived from the data key, or, where records were erased since, carried over."""
    if not holds_subject_key(dataset):
        return key.derive(salt=b"", info=_SUBJECT_INFO)
    (columns,) = dataset.split(SUBJECT_KEY, key=key).iterate()
    stored = columns["key"]
    assert isinstance(stored, Ragged), "its schema says bytes"
    return SecretKey.from_buffer(bytearray(stored[0].tobytes()))


def holds_subject_key(dataset: Dataset) -> bool:
    """Erasures and imports that add to a version write one. A source could once bring in a split of this
    name, with any content."""
    is_ours = "erased_from" in dataset.facts or "appended_to" in dataset.facts
    return SUBJECT_KEY in dataset.splits and is_ours


def find_subject(dataset: Dataset, *, key: SecretKey, subject: str) -> list[Hit]:
    """Every finding whose code is that of `subject` (an address, a number, a handle, a name) in any spelling
    that `review.canonical` makes one, and every text that holds it letter for letter but for case."""
    if FINDINGS not in dataset.splits:
        return []
    with subject_key(dataset, key=key) as codes_key:
        codes = {
            (name, code.encode())
            for name in (*TYPES, *RECOGNISER_TYPES)
            for code in pseudonyms(subject, type_name=name, key=codes_key.view)
        }
    found = [
        hit
        for columns in dataset.split(FINDINGS, key=key).iterate()
        for hit in _hits(dataset, columns, codes=codes)
    ]
    known = {(hit.split, hit.sample) for hit in found}
    written = _written_out(dataset, key=key, subject=subject)
    return found + [hit for hit in written if (hit.split, hit.sample) not in known]


def _written_out(dataset: Dataset, *, key: SecretKey, subject: str) -> Iterator[Hit]:
    """Samples whose text still says `subject`: what the gate did not find, or a policy let stay."""
    pattern = _spellings(subject.strip())
    if pattern is None:
        return
    for split, info in dataset.splits.items():
        fields = [field.name for field in info.schema.fields if field.kind == "string"]
        if split in (FINDINGS, QUARANTINE, SUBJECT_KEY) or not fields:
            continue
        first = 0
        for columns in dataset.split(split, key=key).iterate():
            for name in fields:
                column = columns[name]
                assert isinstance(column, Ragged), "its schema says string"
                for row in _rows_with(pattern, column):
                    yield Hit(dataset.name, dataset.version, split, first + row, -1, name, "text", "stays")
            first += len(next(iter(columns.values())))


def _spellings(needle: str) -> re.Pattern[bytes] | None:
    """The subject letter by letter but for case; a number with any separators, country code and trunk prefix.
    None for a subject too short to search for."""
    if len(needle) < _SHORTEST_SUBJECT:
        return None
    forms = {re.escape(form.encode()) for form in (needle, needle.lower(), needle.upper(), needle.title())}
    if _NUMBER.fullmatch(needle) and sum(map(str.isdigit, needle)) >= _SHORTEST_NUMBER:
        digits = phone_form(needle).encode()
        forms.add(_CODES + _GAP.join(digits[place : place + 1] for place in range(len(digits))))
    return re.compile(b"|".join(sorted(forms)), re.IGNORECASE)


def _rows_with(pattern: re.Pattern[bytes], column: Ragged) -> list[int]:
    """Rows in which a match stands that no letter or digit of the row continues."""
    whole = column.values.tobytes()
    rows: set[int] = set()
    for match in pattern.finditer(whole):
        row = int(np.searchsorted(column.offsets, match.start(), side="right")) - 1
        begins, ends = int(column.offsets[row]), int(column.offsets[row + 1])
        beside = (
            whole[max(begins, match.start() - 1) : match.start()]
            + whole[match.end() : min(ends, match.end() + 1)]
        )
        if match.end() <= ends and not any(chr(byte).isalnum() for byte in beside if byte < 128):
            rows.add(row)
    return sorted(rows)


def is_quarantined(raw: bytes, *, subject: str) -> bool:
    """Whether a record that could not be read mentions the person, letter for letter but for case, or by the
    digits of a number in any groups."""
    pattern = _spellings(subject.strip())
    return subject.lower().encode() in raw.lower() or bool(pattern and pattern.search(raw))


def _hits(dataset: Dataset, columns: Columns, *, codes: set[tuple[str, bytes]]) -> Iterator[Hit]:
    for row, code in enumerate(texts(columns["subject"])):
        if (_text(columns, "type", row), code.encode()) in codes:
            yield Hit(
                data=dataset.name,
                version=dataset.version,
                split=_text(columns, "split", row),
                sample=int(columns["sample"][row]),
                record=int(columns["record"][row]),
                field=_text(columns, "field", row),
                type=_text(columns, "type", row),
                action=_text(columns, "action", row),
            )


def texts(column: object) -> list[str]:
    assert isinstance(column, Ragged), "its schema says string"
    return [bytes(column[row]).decode() for row in range(len(column))]


def _text(columns: Columns, name: str, row: int) -> str:
    column = columns[name]
    assert isinstance(column, Ragged), "its schema says string"
    return bytes(column[row]).decode()
