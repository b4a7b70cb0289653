"""Find what a data set version holds about one person, without an index of persons in the open.

The gate stored, for each finding, a keyed code of what matched (HMAC-SHA256 under the version's subject
key, truncated to 80 bits), in the encrypted split `findings`. Here the same code is computed from what the
person tells us, once per type, and looked up. Without the key the codes say nothing.

Not covered: mentions that the gate did not find (see the recall table of the review); a person known under
values that are not given; records in which somebody is only described.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rsc.keys.secret import SecretKey
from rsc.review.findings import RECOGNISER_TYPES, TYPES
from rsc.review.redact import pseudonym
from rsc.store.dataset import Dataset
from rsc.store.format.columns import Columns, Ragged
from rsc.store.format.schema import Field, Schema

FINDINGS, QUARANTINE, SUBJECT_KEY = "findings", "quarantine", "subject-key"
SUBJECT_KEY_SCHEMA = Schema((Field("key", "bytes"),))
_SUBJECT_INFO = b"rsc-subject-1"  # HKDF info of the import (ingest/importer.py)


@dataclass(frozen=True, slots=True)
class Hit:
    """One finding about the person. `split` is empty where the record was dropped at import."""

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
    """Only an erasure writes one. A source could once bring in a split of this name, with any content."""
    return SUBJECT_KEY in dataset.splits and "erased_from" in dataset.facts


def find_subject(dataset: Dataset, *, key: SecretKey, subject: str) -> list[Hit]:
    """Every finding whose code is that of `subject` (an address, a number, a handle, a name), in any spelling
    that `review.redact.canonical` makes one."""
    if FINDINGS not in dataset.splits:
        return []
    with subject_key(dataset, key=key) as codes_key:
        codes = {
            pseudonym(subject, type_name=name, key=codes_key.view).encode(): name
            for name in (*TYPES, *RECOGNISER_TYPES)
        }
    return [
        hit
        for columns in dataset.split(FINDINGS, key=key).iterate()
        for hit in _hits(dataset, columns, codes=codes)
    ]


def is_quarantined(raw: bytes, *, subject: str) -> bool:
    """Whether a record that could not be read mentions the person, letter for letter but for case."""
    return subject.lower().encode() in raw.lower()


def _hits(dataset: Dataset, columns: Columns, *, codes: dict[bytes, str]) -> Iterator[Hit]:
    for row, code in enumerate(texts(columns["subject"])):
        if codes.get(code.encode()) == _text(columns, "type", row):
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
