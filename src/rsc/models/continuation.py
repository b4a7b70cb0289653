"""One sequence, token by token, without running again what has been run: keys and values are kept.

    continuation = Continuation(model)
    logits_V = continuation.read([72, 101])     # after these tokens, float32
    logits_V = continuation.read([108])         # costs one position, not three

Kept per layer: 2 x G x positions x E numbers. Shapes: L new positions, M all so far, G key/value heads, R
query heads per group, H = G * R, E head features, D width, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rsc.models.build import Model
from rsc.models.heads import Want
from rsc.models.trunk import Attention, Block, Rotary, rotary_tables, rotate

Kept = tuple[torch.Tensor, torch.Tensor]


class Continuation:
    """A next-token model that remembers the sequence it has read. Holds one sequence."""

    def __init__(self, model: Model) -> None:
        assert model.config.task.is_language, "only a next-token model continues a sequence"
        self._model = model
        self._kept: dict[str, Kept] = {}
        self.length = 0
        """Positions read so far."""

    def forget(self) -> None:
        """Start anew."""
        self._kept, self.length = {}, 0

    @torch.no_grad()
    def read(self, ids: list[int]) -> torch.Tensor:
        """Take in at least one more token; scores of what follows the last of them [V], on the CPU."""
        model, trunk = self._model, self._model.trunk
        assert model.stems is not None
        assert model.head is not None
        assert trunk.norm is not None
        device = next(model.parameters()).device
        x_BLD = model.stems["text"](torch.tensor([ids], device=device))
        places_L = torch.arange(self.length, self.length + len(ids), device=device)
        rotary = rotary_tables(places_L, config=trunk.config)
        for name, block in trunk.blocks.items():
            assert isinstance(block, Block)
            x_BLD = x_BLD + self._attend(name, block.attention, block.attention_norm(x_BLD), rotary)
            x_BLD = x_BLD + block.mlp(block.mlp_norm(x_BLD))
        self.length += len(ids)
        last_BLD = trunk.norm(x_BLD[:, -1:])
        logits_V: torch.Tensor = model.head(last_BLD, None, {}, Want.LOGITS)["logits"][0, -1]
        return logits_V.float().cpu()

    def _attend(self, name: str, attention: Attention, x_BLD: torch.Tensor, rotary: Rotary) -> torch.Tensor:
        """As `Attention.forward`, with the keys and values of earlier positions put before the new ones."""
        B, L, _ = x_BLD.shape
        R, E = attention.queries_per_group, attention.head_width
        qkv_BLGSE = attention.qkv(x_BLD).view(B, L, -1, R + 2, E)
        cos, sin = (table.to(x_BLD.dtype) for table in rotary)
        turned = rotate(qkv_BLGSE[..., : R + 1, :], cos[..., None, :], sin[..., None, :])
        q_BHLE = turned[..., :R, :].flatten(2, 3).transpose(1, 2)
        k_BGME, v_BGME = turned[..., R, :].transpose(1, 2), qkv_BLGSE[..., R + 1, :].transpose(1, 2)
        if name in self._kept:
            k_BGME, v_BGME = (
                torch.cat(pair, dim=2) for pair in zip(self._kept[name], (k_BGME, v_BGME), strict=True)
            )
        self._kept[name] = (k_BGME, v_BGME)
        M = k_BGME.shape[2]
        mask_LM = torch.ones(L, M, dtype=torch.bool, device=x_BLD.device).tril(M - L)
        mixed_BHLE = F.scaled_dot_product_attention(
            q_BHLE, k_BGME, v_BGME, attn_mask=mask_LM, enable_gqa=R > 1
        )
        return attention.out(mixed_BHLE.transpose(1, 2).reshape(B, L, -1))  # type: ignore[no-any-return]
