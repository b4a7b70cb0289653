from __future__ import annotations

import pytest
import torch

from rsc.models.build import Model, build_model
from rsc.models.config import ModelConfig, TrunkConfig
from rsc.models.heads import Want
from rsc.models.trunk import RMSNorm, document_mask, is_one, rotary_tables, rotate


def logits(model: Model, **batch: torch.Tensor) -> torch.Tensor:
    return model(batch, Want.LOGITS)["logits"]


def test_causal_trunk_does_not_see_later_tokens(model: Model, batch: dict[str, torch.Tensor]) -> None:
    tokens = batch["tokens_BL"]
    changed = tokens.clone()
    changed[:, 10:] = (changed[:, 10:] + 1) % 257
    before, after = logits(model, tokens_BL=tokens), logits(model, tokens_BL=changed)
    torch.testing.assert_close(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


def test_masked_documents_equal_documents_alone(model: Model, batch: dict[str, torch.Tensor]) -> None:
    """Rotary positions are relative, so a packed document gives the numbers it gives in a row of its own."""
    tokens = batch["tokens_BL"][:1]
    ids = torch.tensor([[0] * 9 + [1] * 15])
    packed = logits(model, tokens_BL=tokens, document_ids_BL=ids)
    torch.testing.assert_close(packed[:, :9], logits(model, tokens_BL=tokens[:, :9]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed[:, 9:], logits(model, tokens_BL=tokens[:, 9:]), rtol=1e-4, atol=1e-5)


def test_joined_documents_do_look_across(config: ModelConfig, batch: dict[str, torch.Tensor]) -> None:
    joined = config.model_copy(update={"trunk": config.trunk.model_copy(update={"documents": "joined"})})
    model = build_model(joined, seed=1)
    ids = torch.tensor([[0] * 9 + [1] * 15] * 2)
    whole = logits(model, tokens_BL=batch["tokens_BL"])
    torch.testing.assert_close(whole, logits(model, tokens_BL=batch["tokens_BL"], document_ids_BL=ids))


def test_positions_can_be_given(model: Model, batch: dict[str, torch.Tensor]) -> None:
    """A context-parallel rank passes its own positions; only differences matter."""
    shifted = logits(model, tokens_BL=batch["tokens_BL"], positions_L=torch.arange(100, 124))
    torch.testing.assert_close(shifted, logits(model, tokens_BL=batch["tokens_BL"]), rtol=1e-3, atol=1e-4)


def test_document_mask_of_padding() -> None:
    mask = document_mask(torch.tensor([[0, 0, 1, -1]]), causal=True)[0].int().tolist()
    assert mask == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_rotation_keeps_length_and_depends_on_distance_only() -> None:
    turning = TrunkConfig(width=8, num_layers=1, num_heads=1, mlp_width=1, rope_base=100.0)
    x, y = torch.randn(2, 1, 7, 1, 8, generator=torch.Generator().manual_seed(3))
    near = [rotate(v, *rotary_tables(torch.arange(7), config=turning)) for v in (x, y)]
    far = [rotate(v, *rotary_tables(torch.arange(50, 57), config=turning)) for v in (x, y)]
    torch.testing.assert_close(near[0].norm(dim=-1), x.norm(dim=-1))
    scores = [torch.einsum("blhe,bmhe->blm", *pair) for pair in (near, far)]
    torch.testing.assert_close(*scores, rtol=1e-4, atol=1e-4)


def test_rms_norm_formula() -> None:
    norm = RMSNorm(4, eps=1e-5)
    torch.nn.init.constant_(norm.weight, 2.0)
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    torch.testing.assert_close(norm(x), 2 * x / (7.5 + 1e-5) ** 0.5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_kv_heads": 3}, "num_kv_heads 3 does not divide num_heads 4"),
        ({"num_heads": 5, "num_kv_heads": 5}, "num_heads 5 does not divide width 32"),
        ({"num_heads": 32, "num_kv_heads": 32}, "head_width 1 is odd"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, int], words: str) -> None:
    fields = {"width": 32, "num_layers": 1, "num_heads": 4, "mlp_width": 8} | changes
    with pytest.raises(ValueError, match=words):
        TrunkConfig.model_validate(fields)


def test_one_document_needs_no_mask() -> None:
    assert is_one(torch.tensor([[3, 3, 3], [4, 4, 4]]))
    assert not is_one(torch.tensor([[3, 3, 3], [4, 4, 5]]))
    assert not is_one(torch.tensor([[-1, -1, -1]]))
