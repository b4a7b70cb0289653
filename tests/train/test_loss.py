from __future__ import annotations

import torch

from rsc.models.build import build_model
from rsc.models.config import ModelConfig, TextConfig, TrunkConfig
from rsc.train.engine.loss import loss_of


def test_microbatches_add_up_to_the_batch() -> None:
    trunk = TrunkConfig(width=16, num_layers=1, num_heads=2, mlp_width=16)
    model = build_model(ModelConfig(trunk=trunk, text=TextConfig()))
    tokens = torch.randint(0, 257, (4, 9), generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[0] * 8, [0] * 3 + [1] * 5, [2] * 8, [0] * 4 + [1] * 4])
    batch = {"tokens_BL": tokens[:, :-1], "targets_BL": tokens[:, 1:], "document_ids_BL": ids}
    whole = loss_of(model, batch)
    halves = [loss_of(model, {k: v[rows] for k, v in batch.items()}) for rows in (slice(0, 2), slice(2, 4))]
    assert int(whole.count) == sum(int(half.count) for half in halves) == 32
    torch.testing.assert_close(whole.total, halves[0].total + halves[1].total)
    assert int(whole.sums["correct"]) == sum(int(half.sums["correct"]) for half in halves)
