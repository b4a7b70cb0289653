from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from rsc.models.build import Model, build_model
from rsc.models.config import HeadConfig, ModelConfig, MoeConfig, TextConfig, TrunkConfig
from rsc.models.continuation import Continuation
from rsc.models.heads import Want


def model(*, kv_heads: int = 2, moe: MoeConfig | None = None) -> Model:
    trunk = TrunkConfig(width=32, num_layers=3, num_heads=4, num_kv_heads=kv_heads, mlp_width=48, moe=moe)
    return build_model(ModelConfig(trunk=trunk, text=TextConfig(), head=HeadConfig()), seed=1).eval()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("moe", [None, MoeConfig(num_experts=4, top_k=2, expert_width=16, num_shared=1)])
def test_read_in_any_pieces_the_scores_are_those_of_the_whole(kv_heads: int, moe: MoeConfig | None) -> None:
    whole = model(kv_heads=kv_heads, moe=moe)
    ids = torch.randint(0, 256, (24,), generator=torch.Generator().manual_seed(0)).tolist()
    with torch.no_grad():
        wanted_LV = whole({"tokens_BL": torch.tensor([ids])}, Want.LOGITS)["logits"][0]
    for cuts in ([0, 24], [0, 1, 2, 24], [0, 7, 8, 9, 20, 24], list(range(25))):
        continuation = Continuation(whole)
        for start, end in pairwise(cuts):
            got_V = continuation.read(ids[start:end])
            torch.testing.assert_close(got_V, wanted_LV[end - 1], atol=1e-5, rtol=1e-5)
        assert continuation.length == 24


def test_forgetting_starts_anew() -> None:
    continuation = Continuation(model())
    first_V = continuation.read([1, 2, 3])
    continuation.read([4])
    continuation.forget()
    assert torch.equal(continuation.read([1, 2, 3]), first_V)
