"""The main job, whole: what its summary promises, held by an own look at what lies on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Rsc


@pytest.mark.slow
def test_the_main_job_keeps_what_its_summary_says(rsc: Rsc) -> None:
    done = rsc("quickstart", "--minutes", "1", "--json")
    summary = json.loads(done.stdout)
    assert summary["review"]["recall"] > 0.95
    assert summary["review"]["precision"] > 0.95
    assert summary["store"]["plaintext_hits"] == 0
    assert summary["store"]["files"] > 40
    assert summary["resume"]["losses_equal"] is True
    assert summary["resume"]["losses_compared"] > summary["resume"]["resumed_at_step"] > 0
    assert 0.5 < summary["eval"]["bits_per_byte"] < 6  # few steps on a slow machine
    assert 1 < summary["eval"]["xz_bits_per_byte"] < 4
    assert summary["expire"]["refused_exit_code"] == 3
    assert summary["expire"]["proof"]["opened_before"] == 1
    assert summary["expire"]["proof"]["opened_after"] == 0
    assert summary["seconds"] > 0
    assert (Path(summary["export"]["path"]) / "model.safetensors").stat().st_size > 1e6
    assert "single-person" in done.stderr


@pytest.mark.parametrize("time", [["--minutes", "0"], ["--minutes", "nan"], ["--minutes", "3", "--full"]])
def test_a_time_that_is_none_is_refused_before_anything_is_written(rsc: Rsc, time: list[str]) -> None:
    rsc("quickstart", *time, expect=2)
    assert not (rsc.home / "quickstart").exists()


def test_a_folder_that_quickstart_did_not_make_is_left_alone(rsc: Rsc) -> None:
    mine = rsc.home / "quickstart" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    assert "was not made by quickstart" in rsc("quickstart", expect=2).stderr
    assert mine.read_text() == "years of work"
