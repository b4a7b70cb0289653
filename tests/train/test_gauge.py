"""What a step cost: FLOPs against a count, energy where it can be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rsc.models.build import build_model
from rsc.models.config import HeadConfig, ModelConfig, MoeConfig, TextConfig, TrunkConfig
from rsc.models.heads import Want
from rsc.parallel.layout import Layout
from rsc.train.gauge import Gauge, Peak, energy_meter, model_flops

MOE = MoeConfig(num_experts=4, top_k=2, expert_width=32, num_shared=1, first_layer=1)


@pytest.mark.parametrize("moe", [None, MOE])
def test_flops_are_those_of_the_matrix_products(moe: MoeConfig | None) -> None:
    """A count of the products that really run. Attention over the square is 12 L H E a position and block of
    it; the CPU's own attention skips what lies ahead, so a model that looks both ways is counted."""
    trunk = TrunkConfig(
        width=64, num_layers=2, num_heads=4, num_kv_heads=2, mlp_width=96, causal=False, moe=moe
    )
    head = HeadConfig(kind="masked_token")
    model = build_model(ModelConfig(trunk=trunk, text=TextConfig(), head=head))
    tokens = torch.zeros(2, 48, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model({"tokens_BL": tokens, "targets_BL": tokens}, Want.LOSS)["total"].backward()
    assert model_flops(model.config, rows=2, length=48) == pytest.approx(counter.get_total_flops(), rel=0.02)


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
