"""What the tests of this room share: options, and reading a whole source as rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsc.config import Workspace
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.source import BadRecord, NarrowTypes, Source

Rows = tuple[list[dict[str, Any]], list[BadRecord]]


def read_all(source: Source, *, part_bytes: int = 1 << 20) -> Rows:
    """Rows in source order with their record number as `#`, and the bad records.

    As an import does, it surveys the source where the first records tell too little.
    """
    try:
        return _read_all(source, part_bytes=part_bytes)
    except NarrowTypes:
        return _read_all(source.surveyed(), part_bytes=part_bytes)


def _read_all(source: Source, *, part_bytes: int) -> Rows:
    rows: list[dict[str, Any]] = []
    bad: list[BadRecord] = []
    for part in source.parts(part_bytes=part_bytes):
        for chunk in source.read(part):
            names = list(chunk.columns)
            values = zip(*(chunk.columns[name] for name in names), strict=True) if names else iter(())
            found = [dict(zip(names, row, strict=True)) for row in values]
            rows += [{"#": int(number), **row} for number, row in zip(chunk.numbers, found, strict=True)]
            bad += chunk.bad
    return rows, bad


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "home"
    root.mkdir()
    return Workspace(root)


@pytest.fixture
def options() -> Callable[..., ImportOptions]:
    return lambda **settings: ImportOptions(**settings)


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = Path(os.environ.get("RSC_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set RSC_TEST_DATA")
    return folder
