"""Every manifest vector has one outcome when all of its shards are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsc.errors import IntegrityError
from rsc.store.format.manifest import ManifestReader, ManifestTotals
from tests.store.make_manifest_vectors import FOLDER, vectors
from tests.store.memory import MemoryFile

PATHS = sorted(FOLDER.iterdir())


def outcome(head: dict[str, str], file: bytes) -> str:
    totals = ManifestTotals(
        merkle_root=bytes.fromhex(head["root"]),
        num_shards=int(head["shards"]),
        num_samples=int(head["samples"]),
        num_frames=int(head["frames"]),
        size_bytes=int(head["bytes"]),
    )
    try:
        records = list(ManifestReader(MemoryFile(file), totals=totals).records())
    except IntegrityError as error:
        return str(error.facts["outcome"])
    assert len(records) == totals.num_shards
    if records:
        assert records[-1].digest.hex() == head["last"]
        assert records[-1].first_sample + records[-1].num_samples == totals.num_samples
    return "ok"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_vector(path: Path) -> None:
    head, _, file = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
    assert outcome(fields, file) == fields["expect"]


def test_the_files_are_those_of_the_generator() -> None:
    assert {path.name: path.read_bytes() for path in PATHS} == vectors()
    assert {path.name.partition("-")[0] for path in PATHS} == {"ok", "frame", "truncated", "trailing"}
