"""What `rsc train` says before it starts, and what a run keeps of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsc.api import run_records
from rsc.cli.main import run
from rsc.clock import SystemClock
from rsc.plan.expectation import MACHINE_FILE, expect, to_line
from rsc.recipes.recipe import Recipe, load_recipe
from rsc.runs.folder import PREDICTION, RunFolder

HOST = """
accelerator = "a CPU"
per_node = 1
[device]
bf16 = 0.2
memory = 16
memory_rate = 0.02
scale_up = 1
scale_out = 1
domain = 1
power_w = 50
released = 2020
is_host = true
source = "made up"
"""


def recipe(name: str = "language", *overrides: str) -> Recipe:
    return load_recipe(name, overrides=["data.name=none", *overrides]).recipe


def expected(workspace: Path, *overrides: str, world: int = 1, name: str = "language") -> dict[str, Any]:
    return expect(recipe(name, *overrides), world=world, workspace=workspace, driver=workspace / "gpus")


@pytest.mark.parametrize("name", ["language", "language-moe", "vision", "speech-ctc", "harmful-content"])
def test_a_machine_that_nobody_measured_has_memory_and_no_time(tmp_path: Path, name: str) -> None:
    found = expected(tmp_path, name=name)
    assert found["memory_bytes"] > 0
    assert found["step_s"] is None
    assert found["energy_wh"] is None
    assert "rsc plan calibrate" in to_line(found)


def test_a_measured_machine_has_a_time_with_an_interval(tmp_path: Path) -> None:
    (tmp_path / MACHINE_FILE).write_text(HOST)
    one, two = expected(tmp_path), expected(tmp_path, "train.steps=800")
    assert one["low_s"] < one["step_s"] < one["high_s"]
    assert two["total_s"] == pytest.approx(2 * one["total_s"])
    assert one["energy_wh"] is None  # nobody asked a sensor
    assert "a CPU" in to_line(one)


def test_ranks_share_a_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / MACHINE_FILE).write_text(HOST)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert expected(tmp_path, world=2)["step_s"] > 0.9 * expected(tmp_path)["step_s"]
    assert "8 ranks" in expected(tmp_path, world=8)["why"]


@pytest.mark.parametrize("text", ["accelerator = 3", "x", 'accelerator = "H1000"', "a.b = 1\n" * 3, ""])
def test_a_broken_machine_file_stops_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / MACHINE_FILE).write_text(text)
    found = expected(tmp_path)
    assert found["step_s"] is None
    assert found["why"]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-SXM-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-SXM-40GB"),
        ("NVIDIA H200", "H200-SXM"),
    ],
)
def test_a_gpu_is_known_by_what_its_driver_says(tmp_path: Path, model: str, name: str) -> None:
    about = tmp_path / "gpus" / "0000:01:00.0"
    about.mkdir(parents=True)
    (about / "information").write_text(f"Model: \t\t {model}\nIRQ: 1\n")
    found = expected(tmp_path)
    assert found["machine"] == name
    assert found["energy_wh"] > 0
    (about / "information").write_text("Model: \t\t NVIDIA Something 9000\n")
    assert expected(tmp_path)["machine"] is None


def folder(runs: Path) -> RunFolder:
    return RunFolder.create(runs, recipe="language", steps=4, lineage={}, clock=SystemClock())


def test_promise_and_reality_are_shown_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RSC_HOME", str(tmp_path))
    made = folder(tmp_path / "runs")
    kept = {
        "machine": "a CPU",
        "step_s": 0.5,
        "low_s": 0.4,
        "high_s": 0.7,
        "memory_bytes": 2.0**20,
        "energy_wh": None,
    }
    (made.path / PREDICTION).write_text(json.dumps(kept))
    lines = [{"step": step, "loss": 1.0, "step_s": 0.6, "time": "2026-01-01T00:00:00Z"} for step in (1, 2)]
    (made.path / "metrics" / "rank0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run(["runs", "show", made.id]) == 0
    told = capsys.readouterr().out
    assert "0.5 s a step (0.4 s to 0.7 s), 1 MiB a rank, energy unknown" in told
    assert "0.6 s a step: +20 %" in told
    assert run_records.run(made.id).to_json()["prediction"] == kept


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"step_s": {}}', '{"step_s": NaN}', '{"memory_bytes": "much"}', "[" * 9999]
)
def test_what_is_no_prediction_is_shown_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    monkeypatch.setenv("RSC_HOME", str(tmp_path))
    made = folder(tmp_path / "runs")
    (made.path / PREDICTION).write_text(text)
    assert run(["runs", "show", made.id]) == 0
    assert "expected" not in capsys.readouterr().out
