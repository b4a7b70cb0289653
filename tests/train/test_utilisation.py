"""What a step cost: shares of FLOPs, energy where it can be read."""

from __future__ import annotations

import torch

from rsc.parallel.layout import Layout
from rsc.train.utilisation import Gauge, Peak


def test_ranks_that_share_samples_share_their_flops() -> None:
    gauge = Gauge(
        device=torch.device("cpu"),
        peak=Peak(1e9, "made up"),
        layout=Layout(tp=2, pp=2, dp_shard=3),
    )
    gauge.held_s = 0.5
    assert gauge.facts(flops=4e8, step_s=0.2) == {"flops": 1e8, "checkpoint_s": 0.5, "mfu": 0.5}
    assert gauge.facts(flops=4e8, step_s=0.2)["checkpoint_s"] == 0.0


class Meter:
    name, wraps_at_j = "a meter", 10.0

    def __init__(self, *joules: float) -> None:
        self._joules = iter(joules)

    def read_j(self) -> float:
        return next(self._joules)


def test_energy_is_what_the_meters_counted_since_the_last_line() -> None:
    gauge = Gauge(
        device=torch.device("cpu"),
        peak=None,
        layout=Layout(),
        meters=[Meter(1.0, 3.0, 3.5), Meter(9.0, 9.5, 0.5)],
    )
    assert gauge.facts(flops=1.0, step_s=1.0)["node_energy_j"] == 2.5
    assert gauge.facts(flops=1.0, step_s=1.0)["node_energy_j"] == 1.5  # the second wrapped


def test_without_meters_energy_is_absent() -> None:
    gauge = Gauge(device=torch.device("cpu"), peak=None, layout=Layout())
    assert "node_energy_j" not in gauge.facts(flops=1.0, step_s=1.0)
