"""What a step cost: shares of FLOPs, energy where it can be read."""

from __future__ import annotations

from pathlib import Path

import torch

from rsc.parallel.layout import Layout
from rsc.train.utilisation import Gauge, Peak, energy_meter


def test_ranks_that_share_samples_share_their_flops() -> None:
    gauge = Gauge(
        device=torch.device("cpu"),
        peak=Peak(1e9, "made up"),
        layout=Layout(tp=2, pp=2, dp_shard=3),
        energy=False,
    )
    gauge.held_s = 0.5
    assert gauge.facts(flops=4e8, step_s=0.2) == {"flops": 1e8, "checkpoint_s": 0.5, "mfu": 0.5}
    assert gauge.facts(flops=4e8, step_s=0.2)["checkpoint_s"] == 0.0


def test_energy_is_the_sum_of_packages_or_absent(tmp_path: Path) -> None:
    assert energy_meter(torch.device("cpu"), rapl=tmp_path) is None
    for package, microjoules in enumerate((2_000_000, 500_000)):
        folder = tmp_path / f"intel-rapl:{package}"
        folder.mkdir()
        (folder / "energy_uj").write_text(f"{microjoules}\n")
    read = energy_meter(torch.device("cpu"), rapl=tmp_path)
    assert read is not None
    assert read() == 2.5
