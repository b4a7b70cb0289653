"""Does any open file hold what the gate found, or a value that somebody planted to see where it turns up?

Every file of the workspace that is text is scanned. What the scanner finds is turned into the keyed codes
that the gate stored beside each version, and looked up there: so a hit is a value that was really in the
data, and no list of values is kept anywhere. Only where an open file holds something is a key opened.

Planted values (`rsc verify --planted FILE`) are searched for in the bytes of every file, encrypted ones too,
as they are and as UTF-16, JSON escapes, percent signs, hexadecimal and base64.

Not covered: values in another spelling than codes make equal; what the scanner does not look for (plant it);
versions whose keys are gone, or lie in a service, a token or under a passphrase (they are counted);
compressed files and swap; copies outside the workspace.
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from rsc.errors import DataError, RscError
from rsc.keys.envelope import data_key_context, open_envelope
from rsc.release.lifecycle.subject import FINDINGS, subject_key, texts
from rsc.release.verify.checks import VerifyContext
from rsc.release.verify.plaintext_search import CONTAINER_MAGIC
from rsc.release.verify.promise import Breach, Promise, judge
from rsc.review.redact import pseudonyms
from rsc.review.scanner.scanner import Scanner
from rsc.store.dataset import Dataset, list_datasets, list_versions
from rsc.untrusted import UntrustedFolder

PLANTED = "planted values"
_PIECE_BYTES = 1 << 20
_START_BYTES = 4096  # a NUL byte in them says that a file is no text, as grep has it
_SHORTEST_PLANTED = 4
_MOST_VALUES = 100_000  # different ones that the scanner finds in open files; a log of addresses has fewer
_SMALL_BYTES = 2 << 20  # the fastest engine needs half a second to get ready

Value = tuple[str, str]
"""(type, text) of a finding."""


@dataclass
class _Found:
    """What the scanner finds in open files, and where first."""

    places: dict[Value, str] = field(default_factory=dict)
    num_files: int = 0

    def add(self, value: Value, path: str) -> None:
        if len(self.places) < _MOST_VALUES:
            self.places.setdefault(value, path)


def nothing_found_lies_open(house: VerifyContext) -> Promise:
    found = _scan(house)
    breaches, num_closed = [], 0
    for dataset in _with_findings(house) if found.places else ():
        hits = _stored_codes(house, dataset, found.places)
        num_closed += hits is None
        breaches += [
            Breach(
                f"{found.places[value]} holds {value[0]} that the gate found in {dataset.name}", dataset.name
            )
            for value in hits or ()
        ]
    told = f"{found.num_files} open files, {len(found.places)} values in them looked up"
    closed = f"; not in {num_closed} versions, whose keys do not open here" if num_closed else ""
    return judge("nothing found lies open", breaches, told=told + closed)


def planted_values(house: VerifyContext) -> Promise:
    """Raises DataError for a value that is too short to look for."""
    for number, value in enumerate(house.planted, start=1):
        if len(value) < _SHORTEST_PLANTED:
            raise DataError(f"planted value {number} is shorter than {_SHORTEST_PLANTED} characters")
    needles = [_spellings(value) for value in house.planted]
    longest = max((len(form) for forms in needles for form in forms), default=1)
    breaches, num_files = [], 0
    for path, file in _files(house):
        num_files += 1
        found: set[int] = set()
        for piece in _pieces(file, overlap=longest - 1):
            low = piece.lower()
            found |= {
                number
                for number, forms in enumerate(needles, start=1)
                if number not in found and any(form in piece or form.lower() in low for form in forms)
            }
        breaches += [Breach(f"{path} holds planted value {number}") for number in sorted(found)]
    return judge(PLANTED, breaches, told=f"0 of {len(needles)} values in {num_files} files")


def papers_end_with_data(house: VerifyContext) -> Promise:
    """Of versions that the log says have ended, the papers that stay are those of numbers alone."""
    breaches, num_ended = [], 0
    for (name, number), said in sorted(house.recorded.ended.items()):
        if number not in list_versions(house.workspace.bulk, name):
            continue
        num_ended += 1
        dataset = Dataset.open(house.workspace.bulk, name=name, version=number)
        if not dataset.is_ended or dataset.root_hash != said.value:
            told = f"{name} version {number} has ended, and root.json still has words of its source"
            breaches.append(Breach(f"{told}: `rsc data expire {name} --version {number}` ends them", name))
    return judge("papers end with data", breaches, told=f"{num_ended} ended versions, numbers alone")


def _scan(house: VerifyContext) -> _Found:
    found = _Found()
    scanner: Scanner | None = None
    for path, file in _files(house):
        start = file.read(_START_BYTES)
        if start.startswith(CONTAINER_MAGIC) or b"\0" in start:
            continue
        found.num_files += 1
        size_bytes = os.fstat(file.fileno()).st_size
        scanner = scanner or Scanner("re")
        if size_bytes > _SMALL_BYTES and scanner.engine == "re":
            scanner = Scanner()
        file.seek(0)
        with suppress(OSError):
            while piece := file.read(_PIECE_BYTES) + file.readline(_PIECE_BYTES):  # lines are not cut
                text = piece.decode(errors="replace")
                for finding in scanner.scan(text):
                    found.add((finding.type, text[finding.start : finding.end]), path)
    return found


def _files(house: VerifyContext) -> Iterator[tuple[str, BinaryIO]]:
    """Every plain file of the workspace, opened without following links; others have rows of their own."""
    roots = [house.workspace.root]
    bulk = house.workspace.bulk
    if isinstance(bulk, Path) and not bulk.resolve().is_relative_to(house.workspace.root.resolve()):
        roots.append(bulk)
    for root in roots:
        folder = UntrustedFolder(root)
        for above, _, names in os.walk(root):
            for name in sorted(names):
                path = Path(above, name)
                with suppress(OSError, DataError):
                    if not stat.S_ISREG(path.lstat().st_mode):
                        continue
                    relative = path.relative_to(root).as_posix()
                    with os.fdopen(folder.open(relative), "rb") as file:
                        yield relative, file


def _with_findings(house: VerifyContext) -> Iterator[Dataset]:
    for name, numbers in list_datasets(house.workspace.bulk):
        for number in numbers:
            with suppress(RscError):
                dataset = Dataset.open(house.workspace.bulk, name=name, version=number)
                if FINDINGS in dataset.splits and not dataset.is_ended:
                    yield dataset


def _stored_codes(house: VerifyContext, dataset: Dataset, values: Iterable[Value]) -> list[Value] | None:
    """Those of the values whose codes stand among the findings; None where they cannot be read here."""
    try:
        envelope = dataset.envelope()
        provider = house.providers.get(envelope.provider)
        if provider is None or not provider.is_immediate:
            return None
        with open_envelope(provider, envelope, context=data_key_context(dataset.name)) as key:
            with subject_key(dataset, key=key) as codes_key:
                wanted = _codes(values, key=codes_key.view)
            hits: set[Value] = set()
            for columns in dataset.split(FINDINGS, key=key).iterate():
                stored = zip(texts(columns["type"]), texts(columns["subject"]), strict=True)
                hits.update(value for pair in stored for value in wanted.get(pair, ()))
    except RscError:
        return None
    return sorted(hits)


def _codes(values: Iterable[Value], *, key: memoryview) -> Mapping[tuple[str, str], list[Value]]:
    wanted: dict[tuple[str, str], list[Value]] = defaultdict(list)
    for value in values:
        for code in pseudonyms(value[1], type_name=value[0], key=key):
            wanted[value[0], code].append(value)
    return wanted


def _spellings(value: str) -> list[bytes]:
    """The bytes that a value is searched for as."""
    raw = value.encode()
    forms = [
        raw,
        value.lower().encode(),
        value.upper().encode(),
        value.encode("utf-16-le"),
        value.encode("utf-16-be"),
        raw.hex().encode(),
    ]
    forms += [json.dumps(value)[1:-1].encode(), quote(value, safe="").encode()]
    forms += [_base64_core(raw, shift) for shift in range(3)]
    return [form for form in dict.fromkeys(forms) if len(form) >= _SHORTEST_PLANTED]


def _base64_core(raw: bytes, shift: int) -> bytes:
    """The characters that stand for `raw` alone where it begins `shift` bytes behind a group of three."""
    text = base64.b64encode(b"\0" * shift + raw)
    first = -(-shift * 4 // 3) if shift else 0
    whole = (shift + len(raw)) * 8 // 6
    return text[first:whole]


def _pieces(file: BinaryIO, *, overlap: int) -> Iterator[bytes]:
    """The file in pieces that share `overlap` bytes, so that nothing is cut in two."""
    kept = b""
    with suppress(OSError):
        while fresh := file.read(_PIECE_BYTES):
            piece = kept + fresh
            yield piece
            kept = piece[len(piece) - overlap :] if overlap else b""
