"""Passes over memory written by hand for CPUs, where a step is bound by them and not by products.

Measured on one core with AMX, 16 x 256 positions, 6 heads of 64, width 384, bf16, forward and backward:
attention 52 ms by torch's fused kernel, 25 ms here; RMSNorm 11.4 ms by torch, 3 ms here (the whole step:
benchmarks/train_cpu.py). Both are plain torch operators: any dtype, bit-equal each time.

Shapes: B batch, L positions, D width, G key/value heads, R query heads per group, S = R + 2, E head
features, N rows, Z = B * G.
"""

from __future__ import annotations

import math
from typing import Any

import torch

MAX_SCORE_BYTES = 64 << 20  # of one layer; beyond it torch's kernel, which keeps none, is the better choice
QUERY_ROWS = 128  # queries at a time: half of what a causal product would compute for nothing is skipped


class RmsNorm(torch.autograd.Function):
    """x / rms(x) * weight with few passes: the scale is one number a row, so both its gradients are
    matrix-vector products with x * grad."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight_D: torch.Tensor, eps: float) -> torch.Tensor:
        x_ND = x.reshape(-1, x.shape[-1])
        norm_N1 = torch.linalg.vector_norm(x_ND, dim=-1, keepdim=True, dtype=torch.float32)
        scale_N1 = (norm_N1.square_().div_(x_ND.shape[-1])).add_(eps).rsqrt_()
        ctx.save_for_backward(x_ND, weight_D, scale_N1)
        normed_ND: torch.Tensor = (x_ND * scale_N1.to(x.dtype)).mul_(weight_D)
        return normed_ND.view(x.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x_ND, weight_D, scale_N1 = ctx.saved_tensors
        D = x_ND.shape[-1]
        grad_ND = grad.reshape(-1, D)
        product_ND = grad_ND * x_ND
        grad_weight_D = scale_N1[:, 0].to(x_ND.dtype) @ product_ND
        along_N1 = (product_ND @ weight_D)[:, None] * (scale_N1**3 / D)
        grad_x_ND = (grad_ND * weight_D).mul_(scale_N1.to(x_ND.dtype))
        grad_x_ND.addcmul_(x_ND, along_N1.to(x_ND.dtype), value=-1)
        return grad_x_ND.view(grad.shape), grad_weight_D, None


class Attend(torch.autograd.Function):
    """From `qkv` [B, L, G, S, E] to [B, L, G * R * E]: rotary turn, masked softmax, mixing.

    A mask [B, L, M] says who may look at whom; where `causal` is set it must forbid looking ahead too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        qkv_BLGSE: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask_BLM: torch.Tensor | None,
        causal: bool,
    ) -> torch.Tensor:
        B, L, G, S, E = qkv_BLGSE.shape
        tables = wide_tables(cos, sin, dtype=qkv_BLGSE.dtype)
        qk_ZTLE = turn(qkv_BLGSE[..., : S - 1, :].permute(0, 2, 3, 1, 4).contiguous(), tables).flatten(0, 1)
        q_ZRLE, k_ZLE = qk_ZTLE[:, :-1], qk_ZTLE[:, -1]
        v_ZLE = qkv_BLGSE[..., S - 1, :].permute(0, 2, 1, 3).reshape(B * G, L, E)
        mixed_ZRLE = torch.empty_like(q_ZRLE, memory_format=torch.contiguous_format)
        shares = []
        for rows, keys in _blocks(L, causal=causal):
            share_ZQM = _share(q_ZRLE, k_ZLE, rows, keys, mask_BLM=mask_BLM, causal=causal)
            shares.append(share_ZQM)
            mixed_ZRLE[:, :, rows] = torch.bmm(share_ZQM, v_ZLE[:, keys]).view(B * G, S - 2, -1, E)
        ctx.save_for_backward(qk_ZTLE, v_ZLE, *tables, *shares)
        ctx.causal = causal
        return mixed_ZRLE.view(B, G * (S - 2), L, E).transpose(1, 2).reshape(B, L, -1)

    @staticmethod
    def backward(ctx: Any, grad_BLF: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        qk_ZTLE, v_ZLE, *rest = ctx.saved_tensors
        tables, shares = (rest[0], rest[1]), rest[2:]
        (Z, T, L, E), B = qk_ZTLE.shape, len(grad_BLF)
        q_ZRLE, k_ZLE, scale = qk_ZTLE[:, :-1], qk_ZTLE[:, -1], 1 / math.sqrt(E)
        grad_ZRLE = grad_BLF.view(B, L, -1, E).transpose(1, 2).reshape(Z, T - 1, L, E)
        grad_qk_ZTLE, grad_v_ZLE = torch.zeros_like(qk_ZTLE), torch.zeros_like(v_ZLE)
        for (rows, keys), share_ZQM in zip(_blocks(L, causal=ctx.causal), shares, strict=True):
            grad_ZQE, q_ZQE = grad_ZRLE[:, :, rows].flatten(1, 2), q_ZRLE[:, :, rows].flatten(1, 2)
            grad_v_ZLE[:, keys] += torch.bmm(share_ZQM.transpose(1, 2), grad_ZQE)
            slope_ZQM = torch.bmm(grad_ZQE, v_ZLE[:, keys].transpose(1, 2))
            slope_ZQM = torch._softmax_backward_data(slope_ZQM, share_ZQM, -1, share_ZQM.dtype).mul_(scale)
            grad_q_ZQE = torch.bmm(slope_ZQM, k_ZLE[:, keys])
            grad_qk_ZTLE[:, :-1, rows] = grad_q_ZQE.view(Z, T - 1, -1, E)
            grad_qk_ZTLE[:, -1, keys] += torch.bmm(slope_ZQM.transpose(1, 2), q_ZQE)
        grad_qkv_BLGSE = grad_BLF.new_empty(B, L, Z // B, T + 1, E)
        turned = turn_back(grad_qk_ZTLE.view(B, -1, T, L, E), tables)
        grad_qkv_BLGSE[..., :T, :] = turned.permute(0, 3, 1, 2, 4)
        grad_qkv_BLGSE[..., T, :] = grad_v_ZLE.view(B, -1, L, E).transpose(1, 2)
        return grad_qkv_BLGSE, None, None, None, None


def is_worth_it(qkv_BLGSE: torch.Tensor) -> bool:
    """Whether the scores of one layer are small enough to keep."""
    B, L, G, S, _ = qkv_BLGSE.shape
    return B * G * (S - 2) * L * L * qkv_BLGSE.element_size() <= MAX_SCORE_BYTES


def wide_tables(
    cos: torch.Tensor, sin: torch.Tensor, *, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tables [.., L, E] for `turn`: cosines twice, sines with the sign of the half they apply to.

    In [L, 1, E / 2], or [B, L, 1, E / 2] where positions differ by sample.
    """
    cos, sin = cos[..., 0, :].to(dtype), sin[..., 0, :].to(dtype)
    tables = torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
    return tables if cos.ndim == 2 else (tables[0][:, None, None], tables[1][:, None, None])


def turn(x_BGTLE: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Rotary turn of pairs (i, i + E / 2): swapping the halves is a roll."""
    return (x_BGTLE * tables[0]).addcmul_(x_BGTLE.roll(x_BGTLE.shape[-1] // 2, dims=-1), tables[1])


def turn_back(x_BGTLE: torch.Tensor, tables: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The inverse, which is the gradient too."""
    half = x_BGTLE.shape[-1] // 2
    return (x_BGTLE * tables[0]).addcmul_(x_BGTLE.roll(half, dims=-1), tables[1], value=-1)


def _blocks(length: int, *, causal: bool) -> list[tuple[slice, slice]]:
    """Query rows and the keys they may see: those up to the last row when causal."""
    starts = range(0, length, QUERY_ROWS if causal else length)
    ends = [min(start + QUERY_ROWS, length) if causal else length for start in starts]
    return [(slice(start, end), slice(0, end)) for start, end in zip(starts, ends, strict=True)]


def _share(
    q_ZRLE: torch.Tensor,
    k_ZLE: torch.Tensor,
    rows: slice,
    keys: slice,
    *,
    mask_BLM: torch.Tensor | None,
    causal: bool,
) -> torch.Tensor:
    """How much each query takes from each key, [Z, R * rows, keys]: softmax of masked, scaled products."""
    q_ZQE = q_ZRLE[:, :, rows].flatten(1, 2)
    nothing = q_ZQE.new_zeros(1, 1, 1)
    score_ZQM = torch.baddbmm(
        nothing, q_ZQE, k_ZLE[:, keys].transpose(1, 2), beta=0, alpha=1 / math.sqrt(q_ZQE.shape[-1])
    )
    if mask_BLM is not None:
        seen_BQM = mask_BLM[:, rows, keys].repeat(1, q_ZRLE.shape[1], 1)
        score_ZQM.view(len(seen_BQM), -1, *seen_BQM.shape[1:]).masked_fill_(~seen_BQM[:, None], float("-inf"))
    elif causal:
        size = rows.stop - rows.start
        ahead = torch.full((size, size), float("-inf"), dtype=score_ZQM.dtype).triu_(1)
        score_ZQM.view(-1, size, score_ZQM.shape[-1])[..., rows] += ahead
    return torch.softmax(score_ZQM, dim=-1)
