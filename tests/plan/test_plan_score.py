"""Predictions of published runs: outcome fields are judged and never read, blanks become intervals."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsc.errors import ConfigError, DataError
from rsc.plan.fit import calibrate, fit, load_calibration, predict
from rsc.plan.published import OUTCOMES, bits_of, read_rows, stack_date, why_not
from rsc.plan.score import score
from rsc.plan.step_time import Factors

DENSE: dict[str, Any] = {
    "layers": 32,
    "hidden": 4096,
    "ffn": 14336,
    "ffn_gated": True,
    "heads": 32,
    "kv_heads": 8,
    "vocab": 128_256,
    "seq": 8192,
    "global_batch": 512,
    "micro_batch": 1,
    "tp": 2,
    "pp": 2,
    "vp": 2,
    "cp": 1,
    "ep": 1,
    "dp": 16,
    "dp_kind": "zero1",
    "recompute": "none",
    "precision": "bf16",
    "accelerator": "H100-SXM-80GB",
    "n_accel": 64,
    "accel_per_node": 8,
    "software": "made 25.01",
    "id": "d",
    "group": "made up",
}
EXPERTS = {
    **DENSE,
    "id": "x",
    "group": "experts",
    "experts": 64,
    "experts_topk": 4,
    "ep": 8,
    "params_b": 40,
    "ffn": 1408,
}
BLANK = {**DENSE, "id": "b", "micro_batch": None, "vp": None, "recompute": None}


def rows() -> list[dict[str, Any]]:
    """A sweep over layouts, with times that the first factors make with noise of 5 %."""
    found = []
    for number, (tp, pp, micro) in enumerate(itertools.product((1, 2, 4, 8), (1, 2, 4), (1, 2))):
        layout = {"tp": tp, "pp": pp, "vp": 1, "dp": 64 // tp // pp, "micro_batch": micro}
        group = f"sweep {number % 3}"
        found.append({**DENSE, **layout, "id": f"r{number}", "group": group, "recompute": "full"})
    noise = np.random.default_rng(0).normal(0, 0.05, len(found))
    times = predict(found, Factors()) * np.exp(noise)
    return [{**row, "step_time_s": float(time)} for row, time in zip(found, times, strict=True)]


@pytest.mark.parametrize("row", [DENSE, EXPERTS, BLANK], ids=["dense", "experts", "blanks"])
def test_outcomes_change_no_prediction(row: dict[str, Any]) -> None:
    calibration = load_calibration()
    given = [{**row, **dict.fromkeys(OUTCOMES, value)} for value in (None, 1e-3, 7.0, 1e6)]
    found = [score([each], calibration)["rows"][0] for each in given]
    keys = ("predicted_s", "low_s", "high_s", "baseline_s", "memory_gib")
    assert len({tuple(each[key] for key in keys) for each in found}) == 1
    assert found[0]["low_s"] < found[0]["predicted_s"] < found[0]["high_s"]


def test_blanks_widen_the_interval() -> None:
    whole, blank = score([DENSE, BLANK], load_calibration())["rows"]
    assert blank["high_s"] / blank["predicted_s"] >= whole["high_s"] / whole["predicted_s"] * 0.999


def test_a_group_has_the_figures_by_which_it_is_judged() -> None:
    found = score(rows(), load_calibration())
    assert [group["rows"] for group in found["groups"]] == [8, 8, 8]
    for group in found["groups"]:
        mine = [row for row in found["rows"] if row["group"] == group["group"]]
        assert group["mape"] == pytest.approx(100 * np.mean([abs(row["error"]) for row in mine]))
        assert -1 <= group["rank"] <= 1
        assert group["regret"] >= 0
        assert group["baseline_mape"] > 0


def test_a_fit_finds_the_factors_that_made_the_rows() -> None:
    found = fit(rows())
    assert np.abs(np.log(predict(rows(), found) / [row["step_time_s"] for row in rows()])).mean() < 0.06


def test_a_calibration_says_where_it_is_from() -> None:
    found = calibrate(rows())
    assert found.provenance["rows"] == 24
    assert set(found.provenance["mape_left_out"]) == {"sweep 0", "sweep 1", "sweep 2"}
    shipped = load_calibration().provenance
    assert shipped["rows"] > 1000
    assert shipped["stack_date"] > 2025


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"seq": None}, "no seq"),
        ({"accelerator": "H1000"}, "no accelerator 'H1000' is known"),
        ({"micro_batch": None, "global_batch": 7}, "no micro batch divides"),
        ({"layers": "many"}, "layers"),
        ({"hidden": -4}, "hidden"),
        ({"global_batch": math.inf}, "global_batch"),
        ({"recompute": ["full"]}, "recompute"),
        ({"tp": 0.5}, "tp"),
        ({"heads": 0}, None),
    ],
)
def test_a_row_that_cannot_be_predicted_is_left_out_with_the_reason(
    changed: dict[str, Any], reason: str | None
) -> None:
    said = why_not({**DENSE, **changed})
    assert (said is None) if reason is None else (said is not None and reason in said)
    assert len(score([{**DENSE, **changed}, DENSE], load_calibration())["rows"]) == 1 + (reason is None)


@pytest.mark.parametrize("text", ["{", "3", "[1, 2]", '{"rows": 4}', "[" * 100_000])
def test_a_file_that_holds_no_rows_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(DataError):
        read_rows(path)
    with pytest.raises(ConfigError):
        read_rows(tmp_path / "none.json")


def test_precision_and_date_are_read_from_what_people_write() -> None:
    assert [bits_of(text) for text in ("bf16", "amp_bf16", "FP8-CS", "MXFP8", "NVFP4", None)] == [
        16,
        16,
        8,
        8,
        4,
        16,
    ]
    assert stack_date({"software": "NeMo 25.09 container"}) == pytest.approx(2025.7, abs=0.05)
    assert stack_date({"software": "Megatron-LM 2021"}) == pytest.approx(2021.5)


def test_score_works_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows()))
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from rsc.cli.main import run\n"
        f"sys.exit(run(['plan', 'score', {str(path)!r}, '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["groups"]) == 3
