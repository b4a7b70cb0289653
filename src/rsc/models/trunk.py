"""The trunk that serves every domain: a pre-norm transformer.

Shapes: B batch, L positions, D width, H query heads, G key/value heads, R = H / G, E head features,
F MLP features. Modules hold no process groups; head counts are read from tensor shapes, so that a
tensor-parallel rank runs the same code on its part of the heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor

from rsc.models import cpu_kernels
from rsc.models.config import RopeScaling, TrunkConfig


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dim (Zhang and Sennrich 2019, arXiv:1910.07467)."""

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        if x_BLD.device.type == "cpu" and not isinstance(x_BLD, DTensor):
            normed: torch.Tensor = cpu_kernels.RmsNorm.apply(x_BLD, self.weight, self.eps)  # type: ignore[no-untyped-call]
            return normed
        return F.rms_norm(x_BLD, self.weight.shape, self.weight, self.eps)


Rotary = tuple[torch.Tensor, torch.Tensor]


def rotary_tables(positions_L: torch.Tensor, *, config: TrunkConfig) -> Rotary:
    """Cosines and sines [.., L, 1, E / 2] in float32 for positions [.., L]. Small: made per forward."""
    E = config.head_features
    exponents = torch.arange(0, E, 2, device=positions_L.device, dtype=torch.float32) / E
    frequencies = config.rope_base**-exponents
    if config.rope_scaling is not None:
        frequencies = stretch(frequencies, scaling=config.rope_scaling)
    angles = positions_L.float()[..., None, None] * frequencies
    return angles.cos(), angles.sin()


def stretch(frequencies: torch.Tensor, *, scaling: RopeScaling) -> torch.Tensor:
    """Divide the slow frequencies by `factor`, keep the fast ones, blend linearly in between."""
    turns = scaling.original_context * frequencies / (2 * math.pi)
    keep = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    keep = keep.clamp(0.0, 1.0)
    return frequencies * (keep + (1 - keep) / scaling.factor)


def rotate(x_BLHE: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn feature pairs (i, i + E / 2) by the position's angle: the pairing of open Llama weights."""
    first, second = x_BLHE.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class AttentionCore(nn.Module):
    """softmax(q k^T / sqrt(E)) v. Has no weights; context parallelism puts its own core in this place."""

    def forward(
        self,
        q_BHLE: torch.Tensor,
        k_BGLE: torch.Tensor,
        v_BGLE: torch.Tensor,
        mask_BLM: torch.Tensor | None,
        causal: bool,
    ) -> torch.Tensor:
        """Out [B, H, L, E]. With a mask [B, L, M] (True: may look), the mask alone decides."""
        if mask_BLM is not None:
            mask_BLM = mask_BLM[:, None]
        grouped = q_BHLE.shape[1] != k_BGLE.shape[1]
        return F.scaled_dot_product_attention(
            q_BHLE,
            k_BGLE,
            v_BGLE,
            attn_mask=mask_BLM,
            is_causal=causal and mask_BLM is None,
            enable_gqa=grouped,
        )


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) with rotary positions.

    `qkv` is one matrix whose rows are ordered by key/value group: for each of G groups, R query heads,
    one key head, one value head. Slicing its rows into any divisor of G keeps whole groups together.
    """

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.head_width = config.head_features
        self.queries_per_group = config.num_heads // config.kv_heads
        self.causal = config.causal
        rows = config.kv_heads * (self.queries_per_group + 2) * self.head_width
        self.qkv = nn.Linear(config.width, rows, bias=False)
        self.core = AttentionCore()
        self.out = nn.Linear(config.num_heads * self.head_width, config.width, bias=False)

    def forward(
        self,
        x_BLD: torch.Tensor,
        rotary: Rotary,
        mask_BLM: torch.Tensor | None,
    ) -> torch.Tensor:
        B, L, _ = x_BLD.shape
        R, E = self.queries_per_group, self.head_width
        qkv_BLGSE = self.qkv(x_BLD).view(B, L, -1, R + 2, E)
        if (
            x_BLD.device.type == "cpu"
            and type(self.core) is AttentionCore
            and cpu_kernels.is_worth_it(qkv_BLGSE)
        ):
            mixed_BLF = cpu_kernels.Attend.apply(qkv_BLGSE, *rotary, mask_BLM, self.causal)  # type: ignore[no-untyped-call]
            return self.out(mixed_BLF)  # type: ignore[no-any-return]
        cos, sin = (table.to(x_BLD.dtype) for table in rotary)
        turned = rotate(qkv_BLGSE[..., : R + 1, :], cos[..., None, :], sin[..., None, :])
        q_BHLE = turned[..., :R, :].flatten(2, 3).transpose(1, 2)
        k_BGLE = turned[..., R, :].transpose(1, 2)
        v_BGLE = qkv_BLGSE[..., R + 1, :].transpose(1, 2)
        mixed_BHLE = self.core(q_BHLE, k_BGLE, v_BGLE, mask_BLM, self.causal)
        return self.out(mixed_BHLE.transpose(1, 2).reshape(B, L, -1))  # type: ignore[no-any-return]


class GatedMLP(nn.Module):
    """down(silu(gate(x)) * up(x)): SwiGLU (Shazeer 2020, arXiv:2002.05202)."""

    def __init__(self, *, width: int, mlp_width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, mlp_width, bias=False)
        self.up = nn.Linear(width, mlp_width, bias=False)
        self.down = nn.Linear(mlp_width, width, bias=False)

    def forward(self, x_BLD: torch.Tensor) -> torch.Tensor:
        return self.down(F.silu(self.gate(x_BLD)) * self.up(x_BLD))  # type: ignore[no-any-return]


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); `mlp` is the gated MLP or a mixture of experts."""

    def __init__(self, config: TrunkConfig, *, mlp: nn.Module) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.width, eps=config.norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = mlp
        self.has_experts = not isinstance(mlp, GatedMLP)

    def forward(
        self,
        x_BLD: torch.Tensor,
        rotary: Rotary,
        mask_BLM: torch.Tensor | None,
        real_BL: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`real_BL`: positions that are no padding, for the balance of experts; None: all are."""
        x_BLD = x_BLD + self.attention(self.attention_norm(x_BLD), rotary, mask_BLM)
        normed_BLD = self.mlp_norm(x_BLD)
        return x_BLD + (self.mlp(normed_BLD, real_BL) if self.has_experts else self.mlp(normed_BLD))  # type: ignore[no-any-return]


class Trunk(nn.Module):
    """Blocks by number ("0", "1", ...) and the last norm. A pipeline stage deletes what is not its own
    (`blocks.pop`, `norm = None`); the names of what stays do not change."""

    norm: RMSNorm | None

    def __init__(self, config: TrunkConfig, *, blocks: Iterable[Block]) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleDict({str(layer): block for layer, block in enumerate(blocks)})
        self.norm = RMSNorm(config.width, eps=config.norm_eps)

    def forward(
        self,
        x_BLD: torch.Tensor,
        *,
        positions_L: torch.Tensor | None = None,
        document_ids_BL: torch.Tensor | None = None,
        real_BL: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """In and out [B, L, D]. `positions_L` [L] or [B, L] defaults to 0..L-1 (a context-parallel rank
        passes its own). Positions with a negative document id are padding: nobody looks at them, and
        `real_BL` says so of the positions in `x_BLD`, where those are a part only (parallel/sequence.py)."""
        config = self.config
        if real_BL is None and document_ids_BL is not None:
            real_BL = document_ids_BL >= 0
        if positions_L is None:
            positions_L = torch.arange(x_BLD.shape[1], device=x_BLD.device)
        rotary = rotary_tables(positions_L, config=config)
        mask_BLM = None
        if document_ids_BL is not None and config.documents == "masked" and not is_one(document_ids_BL):
            mask_BLM = document_mask(document_ids_BL, causal=config.causal)
        for block in self.blocks.values():
            x_BLD = block(x_BLD, rotary, mask_BLM, real_BL)
        return x_BLD if self.norm is None else self.norm(x_BLD)


def is_one(document_ids_BL: torch.Tensor) -> bool:
    """Whether every row is a single document, which needs no mask. Only looked at on a CPU, where it is free:
    a GPU would have to be waited for."""
    if document_ids_BL.device.type != "cpu" or type(document_ids_BL) is not torch.Tensor:
        return False  # a dry run's fake tensors have no values to look at
    first_B1 = document_ids_BL[:, :1]
    return bool(((document_ids_BL == first_B1) & (first_B1 >= 0)).all())


def document_mask(document_ids_BL: torch.Tensor, *, causal: bool) -> torch.Tensor:
    """Who may look at whom, bool [B, L, L]: same document, not padding, and not later when causal.

    Every position may look at itself, so that the softmax of a padding row is defined.
    """
    L = document_ids_BL.shape[1]
    same = (document_ids_BL[:, :, None] == document_ids_BL[:, None, :]) & (document_ids_BL >= 0)[:, None, :]
    if causal:
        same = same & torch.ones(L, L, dtype=torch.bool, device=same.device).tril()
    return same | torch.eye(L, dtype=torch.bool, device=same.device)
