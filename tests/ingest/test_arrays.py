from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rsc.config import Workspace
from rsc.errors import DataError, GateRefused
from rsc.ingest.config import ImportOptions
from rsc.ingest.importer import import_columns
from rsc.ingest.job import ImportResult
from rsc.store.format.columns import Ragged

from .bringing import POLICY, SAFE, stored


def bring(
    workspace: Workspace, columns: Any, *, policy: bytes = POLICY, options: ImportOptions | None = None
) -> ImportResult:
    return import_columns(
        columns, name="posts", workspace=workspace, policy=policy, author="ada", options=options
    )


def test_arrays_of_every_kind(workspace: Workspace) -> None:
    columns = {
        "image": np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3),
        "label": np.array([1, 0]),
        "tokens": Ragged(np.array([1, 2, 3], np.uint16), np.array([0, 1, 3])),
        "text": ["a", "mail bob@example.org"],
        "raw": [b"x", b""],
    }
    result = bring(workspace, columns, policy=SAFE)
    assert result.splits == {"train": 2}
    assert result.report.by_type() == {"email": 1}
    rows = stored(workspace, "train")
    assert rows[1] == {
        "image": columns["image"][1].tolist(), "label": 0, "tokens": [2, 3],
        "text": "mail [EMAIL]", "raw": b"",
    }  # fmt: skip


def test_batches_stream_through(workspace: Workspace) -> None:
    batches = ({"x": np.full((10, 2), n, np.float32)} for n in range(7))
    assert bring(workspace, batches).num_read == 70
    assert [row["x"][0] for row in stored(workspace, "train")][::10] == list(range(7))


def test_a_batch_that_differs(workspace: Workspace) -> None:
    with pytest.raises(DataError, match="batch 1 has columns"):
        bring(workspace, [{"x": np.zeros(3)}, {"y": np.zeros(3)}])
    with pytest.raises(DataError, match="of one length"):
        bring(workspace, {"x": np.zeros(3), "y": np.zeros(4)})
    with pytest.raises(DataError, match="column 'x' is a dict"):
        bring(workspace, {"x": {1: 2}})
    with pytest.raises(DataError, match="no batches"):
        bring(workspace, [])


def test_equal_rows_are_held_out_together(workspace: Workspace) -> None:
    bring(workspace, {"x": np.arange(400) % 40}, options=ImportOptions(holdout=0.4))
    train = {row["x"] for row in stored(workspace, "train")}
    validation = {row["x"] for row in stored(workspace, "validation")}
    assert train | validation == set(range(40))
    assert not train & validation


def test_arrow_tables(workspace: Workspace) -> None:
    arrow = pytest.importorskip("pyarrow")
    table = arrow.table({"text": ["a", "b"], "n": [1, 2]})
    assert bring(workspace, table).splits == {"train": 2}
    assert bring(workspace, table.to_batches()[0]).num_read == 2
    assert stored(workspace, "train") == [{"text": "a", "n": 1}, {"text": "b", "n": 2}]


def test_unscanned_text_needs_a_safeguard(workspace: Workspace) -> None:
    options = ImportOptions(scan=False)
    with pytest.raises(GateRefused):
        bring(workspace, {"text": ["mail bob@example.org"]}, options=options)
    bring(workspace, {"text": ["mail bob@example.org"]}, options=options, policy=SAFE)
