"""`rsc data show --labels` counts what is stored, by split and field, and the log has the release."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

import rsc
from rsc.api.label_counts import MOST_LABELS
from rsc.cli.main import run
from rsc.config import Workspace
from rsc.release.agent.custody import Custody

RECORDS = [
    {"text": f"some text, number {n}", "label": ["cat", "dog", "dog"][n % 3], "grade": n % 2, "id": n}
    for n in range(MOST_LABELS + 50)
]


@pytest.fixture
def animals(tmp_path: Path, workspace: Workspace) -> str:
    source = tmp_path / "animals.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return rsc.api.import_data(source, processes=1).data


def test_labels_are_counted_and_texts_and_numbers_of_records_are_not(
    animals: str, workspace: Workspace
) -> None:
    found = rsc.api.data_set(animals, labels=True).labels
    assert found is not None
    sums = {"label": Counter[str](), "grade": Counter[str]()}
    for split, fields in found.items():
        assert fields.keys() == sums.keys()
        assert split in ("train", "validation")
        for name, count in sums.items():
            count.update(fields[name])
    assert sums["label"] == Counter(record["label"] for record in RECORDS)
    assert sums["grade"] == Counter(str(record["grade"]) for record in RECORDS)
    assert list(found["train"]["label"]) == ["dog", "cat"]
    released = [entry for entry in Custody(workspace).audit.entries() if entry["kind"] == "key_released"]
    assert [entry["purpose"] for entry in released] == ["review"]


def test_without_being_asked_nothing_is_read(
    animals: str, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rsc.api.data_set(animals).labels is None
    assert "key_released" not in [entry["kind"] for entry in Custody(workspace).audit.entries()]
    capsys.readouterr()
    assert run(["data", "show", animals, "--labels"]) == 0
    assert "train, label: " in capsys.readouterr().out
