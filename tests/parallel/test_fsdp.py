"""When FSDP frees what it gathered: on a group that sends nothing, as in a dry run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from rsc.models.build import build_model
from rsc.models.config import ModelConfig
from rsc.models.heads import Want
from rsc.parallel.apply import How, fill, parallelize
from rsc.parallel.config import ParallelConfig
from rsc.parallel.layout import Layout
from rsc.plan.dry_run.dry_run import fake_group

TINY: dict[str, Any] = {
    "trunk": {"width": 16, "num_layers": 2, "num_heads": 2, "mlp_width": 16},
    "text": {},
    "head": {"kind": "next_token"},
}


@pytest.mark.parametrize("frees", [True, False])
def test_weights_are_freed_after_the_forward_pass_if_the_setting_says_so(frees: bool) -> None:
    tokens = torch.zeros(2, 8, dtype=torch.int64)
    with fake_group(Layout(dp_shard=2)) as mesh:
        how = How(config=ParallelConfig(dp_shard=2, reshard_after_forward=frees), dtype=torch.float32)
        model = build_model(ModelConfig.model_validate(TINY), device="meta")
        placed = parallelize(model, mesh=mesh, how=how)
        fill(placed.modules, device=mesh.device, initial_value=lambda name, shape: torch.zeros(shape))
        (module,) = placed.modules
        module({"tokens_BL": tokens, "targets_BL": tokens}, Want.LOSS)
        held = [weight for name, weight in module.named_parameters() if "blocks" in name]
        assert held
        assert all(isinstance(weight, DTensor) is frees for weight in held)
