"""Passes over memory written by hand for CPUs, where a step is bound by them and not by products.

Measured on one core with AMX, 16 x 256 positions, 6 heads of 64, width 384, bf16, forward and backward:
attention 52 ms by torch's fused kernel, 23 ms here; RMSNorm 11.4 ms by torch, 3 ms here (the whole step:
benchmarks/train_cpu.py). All are plain torch operators: any dtype, bit-equal each time. Attention takes a few
samples at a time, so that its scores are still in the core's cache when the next operator reads them.

Shapes: B batch, L positions, D width, G key/value heads, R query heads per group, T = R + 1, S = R + 2, E
head features, N rows; C samples of a part, Z = C * G, Q queries of a block, M keys they may see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

MAX_SCORE_BYTES = 64 << 20  # of one layer; beyond it torch's kernel, which keeps none, is the better choice
PART_BYTES = 4 << 20  # of scores at a time: in the caches of most cores, and enough work for several threads
QUERY_ROWS = 128  # queries at a time: half of what a causal product would compute for nothing is skipped

Tables = tuple[torch.Tensor, torch.Tensor]


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
        R = S - 2
        tables = turning_tables(cos, sin, queries=R, dtype=qkv_BLGSE.dtype)
        blocks = _blocks(L, causal=causal)
        ahead_of = {_size(rows): _ahead(_size(rows), dtype=qkv_BLGSE.dtype) for rows, _ in blocks}
        qk_BGTLE = qkv_BLGSE.new_empty(B, G, R + 1, L, E)
        v_BGLE = qkv_BLGSE.new_empty(B, G, L, E)
        shares = [qkv_BLGSE.new_empty(B, G, R * _size(rows), end) for rows, end in blocks]
        mixed_BLHE = qkv_BLGSE.new_empty(B, L, G * R, E)
        for part in _parts(B, score_bytes=_score_bytes(qkv_BLGSE)):
            source = qkv_BLGSE[part].permute(0, 2, 3, 1, 4)
            qk_CGTLE = turn(qk_BGTLE[part].copy_(source[:, :, : R + 1]), _tables_of(tables, part))
            k_ZLE = qk_CGTLE[:, :, R].flatten(0, 1)
            v_ZLE = v_BGLE[part].copy_(source[:, :, R + 1]).flatten(0, 1)
            for (rows, end), share_BGQM in zip(blocks, shares, strict=True):
                q_ZQE = qk_CGTLE[:, :, :R, rows].reshape(len(k_ZLE), -1, E)
                score_ZQM = torch.bmm(q_ZQE, k_ZLE[:, :end].transpose(1, 2))
                score_BHQM = score_ZQM.view(-1, G * R, _size(rows), end)
                if mask_BLM is not None:
                    score_BHQM.masked_fill_(~mask_BLM[part, None, rows, :end], float("-inf"))
                elif causal:
                    score_BHQM[..., rows] += ahead_of[_size(rows)]
                share_ZQM = share_BGQM[part].flatten(0, 1)
                torch.softmax(score_ZQM, dim=-1, out=share_ZQM)
                mixed_ZQE = torch.bmm(share_ZQM, v_ZLE[:, :end])
                mixed_BLHE[part, rows] = mixed_ZQE.view(-1, G * R, _size(rows), E).transpose(1, 2)
        ctx.save_for_backward(qk_BGTLE, v_BGLE, *tables, *shares)
        ctx.causal = causal
        return mixed_BLHE.view(B, L, -1)

    @staticmethod
    def backward(ctx: Any, grad_BLF: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        qk_BGTLE, v_BGLE, cos, sin, *shares = ctx.saved_tensors
        B, G, T, L, E = qk_BGTLE.shape
        R = T - 1
        blocks = _blocks(L, causal=ctx.causal)
        grad_BLHE = grad_BLF.view(B, L, G * R, E)
        grad_qkv_BLGSE = grad_BLF.new_empty(B, L, G, R + 2, E)
        for part in _parts(B, score_bytes=_score_bytes(grad_qkv_BLGSE)):
            qk_CGTLE, v_ZLE = qk_BGTLE[part], v_BGLE[part].flatten(0, 1)
            k_ZLE = qk_CGTLE[:, :, R].flatten(0, 1)
            grad_qk_CGTLE, grad_v_ZLE = torch.empty_like(qk_CGTLE), torch.zeros_like(v_ZLE)
            grad_k_ZLE = grad_qk_CGTLE[:, :, R].zero_().flatten(0, 1)
            for (rows, end), share_BGQM in zip(blocks, shares, strict=True):
                share_ZQM = share_BGQM[part].flatten(0, 1)
                q_ZQE = qk_CGTLE[:, :, :R, rows].reshape(len(k_ZLE), -1, E)
                grad_ZQE = grad_BLHE[part, rows].transpose(1, 2).reshape(len(k_ZLE), -1, E)
                slope_ZQM = torch.bmm(grad_ZQE, v_ZLE[:, :end].transpose(1, 2))
                slope_ZQM = torch._softmax_backward_data(slope_ZQM, share_ZQM, -1, share_ZQM.dtype)
                grad_q_ZQE = torch.bmm(slope_ZQM, k_ZLE[:, :end])
                grad_qk_CGTLE[:, :, :R, rows] = grad_q_ZQE.view(-1, G, R, _size(rows), E)
                grad_k_ZLE[:, :end] += torch.bmm(slope_ZQM.transpose(1, 2), q_ZQE)
                grad_v_ZLE[:, :end] += torch.bmm(share_ZQM.transpose(1, 2), grad_ZQE)
            target = grad_qkv_BLGSE[part].permute(0, 2, 3, 1, 4)
            target[:, :, : R + 1] = turn_back(grad_qk_CGTLE, _tables_of((cos, sin), part))
            target[:, :, R + 1] = grad_v_ZLE.view(-1, G, L, E)
        return grad_qkv_BLGSE, None, None, None, None


def is_worth_it(qkv_BLGSE: torch.Tensor) -> bool:
    """Whether the scores of one layer are small enough to keep."""
    return len(qkv_BLGSE) * _score_bytes(qkv_BLGSE) <= MAX_SCORE_BYTES


def turning_tables(cos: torch.Tensor, sin: torch.Tensor, *, queries: int, dtype: torch.dtype) -> Tables:
    """Tables [T, L, E] for `turn`: cosines twice, sines with the sign of the half they apply to.

    In [L, 1, E / 2], or [B, L, 1, E / 2] where positions differ by sample; then out [B, 1, T, L, E]. Those of
    the R queries, which come before the key, bring in the 1 / sqrt(E) of the softmax.
    """
    cos, sin = cos[..., 0, :], sin[..., 0, :]
    scale_T11 = torch.ones(queries + 1, 1, 1, dtype=cos.dtype)
    scale_T11[:queries] /= math.sqrt(2 * cos.shape[-1])
    wide = (torch.cat(halves, dim=-1)[..., None, :, :] * scale_T11 for halves in ((cos, cos), (-sin, sin)))
    cosines, sines = (table.to(dtype) for table in wide)
    return (cosines, sines) if cos.ndim == 2 else (cosines[:, None], sines[:, None])


def turn(x_BGTLE: torch.Tensor, tables: Tables) -> torch.Tensor:
    """Rotary turn in place of pairs (i, i + E / 2): swapping the halves is a roll."""
    swapped = x_BGTLE.roll(x_BGTLE.shape[-1] // 2, dims=-1)
    return x_BGTLE.mul_(tables[0]).addcmul_(swapped, tables[1])


def turn_back(x_BGTLE: torch.Tensor, tables: Tables) -> torch.Tensor:
    """The inverse, which is the gradient too; in place."""
    swapped = x_BGTLE.roll(x_BGTLE.shape[-1] // 2, dims=-1)
    return x_BGTLE.mul_(tables[0]).addcmul_(swapped, tables[1], value=-1)


def _tables_of(tables: Tables, part: slice) -> Tables:
    """Tables of some samples; one for all where positions do not differ."""
    return tables if tables[0].ndim == 3 else (tables[0][part], tables[1][part])


def _parts(samples: int, *, score_bytes: int) -> Iterator[slice]:
    """Samples that are taken together."""
    size = max(1, PART_BYTES // score_bytes)
    return (slice(start, min(start + size, samples)) for start in range(0, samples, size))


def _score_bytes(qkv_BLGSE: torch.Tensor) -> int:
    """Of one sample."""
    _, L, G, S, _ = qkv_BLGSE.shape
    return G * (S - 2) * L * L * qkv_BLGSE.element_size()


def _blocks(length: int, *, causal: bool) -> list[tuple[slice, int]]:
    """Query rows, and the end of the keys they may see: the last row's own when causal."""
    size = QUERY_ROWS if causal else length
    ends = [min(start + size, length) for start in range(0, length, size)]
    return [(slice(start, end), end) for start, end in zip(range(0, length, size), ends, strict=True)]


def _size(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _ahead(size: int, *, dtype: torch.dtype) -> torch.Tensor:
    """What a causal block adds to its last, square part: minus infinity above the diagonal."""
    return torch.full((size, size), float("-inf"), dtype=dtype).triu_(1)
