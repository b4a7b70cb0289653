"""Parsers are total: any bytes end in an outcome of the list, and nothing is released before its tag."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.errors import IntegrityError
from rsc.keys.secret import SecretKey
from rsc.store.format.container import ContainerReader
from rsc.store.format.manifest import ENTRY, ManifestReader, ManifestTotals, page_digest
from rsc.store.format.root import Root
from rsc.store.staging import StagedProgress
from tests.store import spec_reader
from tests.store.make_vectors import CONTEXT, FRAMES, GOOD, KEY, Forge
from tests.store.memory import MemoryFile
from tests.store.spec_reader import Outcome

WORDS = ("no_key", "header", "frame", "truncated", "trailing")
FILE = GOOD.build()
FILES = (FILE, Forge(suite=2).build())
edits = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "copy"]),
        st.integers(0, len(FILE) - 1),
        st.integers(0, len(FILE) - 1),
        st.binary(min_size=1, max_size=8),
    ),
    max_size=4,
)


def edited(data: bytes, changes: list[tuple[str, int, int, bytes]]) -> bytes:
    for what, at, other, piece in changes:
        if what == "set":
            data = data[:at] + piece + data[at + len(piece) :]
        elif what == "insert":
            data = data[:at] + piece + data[at:]
        elif what == "delete":
            data = data[:at] + data[at + len(piece) :]
        else:
            data = data[:at] + data[other : other + 40] + data[at + 40 :]
    return data


def word(act: Callable[[], object]) -> str:
    """`ok`, or the outcome of the error; other errors pass through and fail the test."""
    try:
        act()
    except IntegrityError as error:
        return str(error.facts["outcome"])
    return "ok"


def outcome(file: bytes) -> str:
    """Reads everything; a frame that fails must leave zeros behind."""
    with SecretKey.from_buffer(bytearray(KEY)) as key:
        try:
            reader = ContainerReader(MemoryFile(file), key=key, context=CONTEXT)
        except IntegrityError as error:
            return str(error.facts["outcome"])
    for number in range(reader.num_frames):
        size = int(reader.frames["plain_bytes"][number])
        buffer = bytearray(b"\xff" * size)
        try:
            reader.read_frame_into(number, buffer)
        except IntegrityError as error:
            assert buffer == bytes(size)
            return str(error.facts["outcome"])
        assert bytes(buffer) == FRAMES[number]
    return "ok"


def outcome_of_the_page(file: bytes) -> str:
    try:
        spec_reader.read(file, key=KEY, context=CONTEXT)
    except Outcome as word:
        return str(word)
    return "ok"


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FILES), edits)
def test_an_edited_container_has_one_outcome_in_both_readers(
    good: bytes, changes: list[tuple[str, int, int, bytes]]
) -> None:
    file = edited(good, changes)
    found = outcome(file)
    assert found == outcome_of_the_page(file)
    assert (found == "ok") == (file == good)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from((b"", *(file[:128] for file in FILES))), st.binary(max_size=400))
def test_any_bytes_are_refused(start: bytes, rest: bytes) -> None:
    assert outcome(start + rest) in WORDS


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=6),
    st.tuples(*[st.integers(0, 2**64 - 1)] * 3) | st.none(),
    st.sampled_from([1, 2]),
)
def test_authentic_nonsense_is_refused_too(
    entries: list[tuple[int, int]], trailer: tuple[int, int, int] | None, suite: int
) -> None:
    """A table or trailer that a holder of the key made up."""
    file = Forge(entries=tuple(entries), trailer=trailer, suite=suite).build()
    found = outcome(file)
    assert found == outcome_of_the_page(file)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), min_size=4, max_size=4),
        min_size=1,
        max_size=4,
    ),
    st.booleans(),
)
def test_a_manifest_of_any_numbers_is_consistent_or_refused(
    entries: list[list[int]], true_sums: bool
) -> None:
    """Digests are right; with `true_sums` so are the totals, as far as u64 goes."""
    page = np.array([(bytes([number]) * 32, *entry) for number, entry in enumerate(entries)], ENTRY)
    sums = [sum(column) % 2**64 for column in zip(*entries, strict=True)] if true_sums else [0, 9, 9, 9]
    totals = ManifestTotals(
        merkle_root=page_digest(page.tobytes(), level=0),
        size_bytes=sums[0],
        num_samples=sums[1],
        num_frames=sums[2],
        num_shards=len(entries),
    )

    def read() -> None:
        reader = ManifestReader(MemoryFile(page.tobytes()), totals=totals)
        records = list(reader.records())
        assert [record.shard for record in records] == list(range(len(entries)))
        assert sum(record.num_samples for record in records) == totals.num_samples
        for record in records:
            if record.num_samples:
                assert reader.find_sample(record.first_sample) == record

    assert word(read) in ("ok", "frame")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
COUNTS = ("num_shards", "num_samples", "num_frames", "size_bytes")
ROOT: dict[str, object] = {
    "format": "rsc-dataset-1", "name": "posts", "version_id": "0" * 32, "created": "2026-11-21T09:00:00.000Z",
    "splits": {"train": {"fields": [{"name": "a", "kind": "bytes", "dtype": "uint8", "shape": []}],
                         "merkle_root": "0" * 64, **dict.fromkeys(COUNTS, 0)}},
    "policy_sha256": "0" * 64, "report_sha256": "0" * 64, "facts": {},
}  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(ROOT)), json_values, st.booleans())
def test_roots_are_whole_or_refused(name: str, value: object, deep: bool) -> None:
    record = json.loads(json.dumps(ROOT))
    Root.from_bytes(json.dumps(record).encode())
    target = record["splits"]["train"] if deep else record
    target[name] = value
    assert word(lambda: Root.from_bytes(json.dumps(record).encode())) in ("ok", "header")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_json_files_are_refused(data: bytes) -> None:
    assert word(lambda: Root.from_bytes(data)) == "header"
    assert word(lambda: StagedProgress.from_bytes(data)) == "header"
