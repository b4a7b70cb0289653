"""`rsc plan calibrate`: what is measured becomes a cluster file that a plan reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rsc.cli.main import run
from rsc.errors import ConfigError
from rsc.plan.machines import cluster_of
from rsc.plan.measure import calibrate, kernels
from rsc.plan.measure.disk import disk_rates


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with products of one size, each done once."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(kernels, "_QUICK_SIZES", {"cpu": (64,)})
    monkeypatch.setattr(kernels, "best_s", lambda work, device, quick: (work(), 0.01)[1])
    monkeypatch.setattr(calibrate, "all_reduce_rates", lambda device, count, quick: {4096: 1e8, 1 << 20: 2e9})


@pytest.mark.usefixtures("small")
def test_the_file_is_one_that_a_plan_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ours.toml"
    assert (
        run(["plan", "calibrate", "--quick", "--out", str(file), "--scratch", str(tmp_path), "--json"]) == 0
    )
    measured = json.loads(capsys.readouterr().out)["measured"]
    cluster = cluster_of(str(file))
    assert cluster.device.is_host
    assert cluster.device.matmul(16) == measured["matmul_flops_per_s"]["64"] == 2 * 64**3 / 0.01
    assert cluster.device.scale_up == 2.0
    assert run(["plan", "run", "language", "--on", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["figures"]["step_s"] > 0


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("where", ["ours.txt", "none/ours.toml"])
def test_a_place_that_takes_no_file_is_refused_before_anything_is_measured(
    tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "calibrate", "--quick", "--out", str(tmp_path / where)]) == 2
    assert "measuring" not in capsys.readouterr().err


def test_a_disk_that_takes_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot measure the disk"):
        disk_rates(tmp_path / "none", quick=True)
    assert disk_rates(tmp_path, quick=True).write > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_this_machine_is_measured(tmp_path: Path) -> None:
    found = calibrate.calibrate_machine(scratch=tmp_path, quick=True, say=lambda text: None)
    assert found["device"]["matmul_bf16"] > 0
    assert found["measured"]["all_reduce_bytes_per_s"] or torch.cuda.is_available()
