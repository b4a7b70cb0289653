"""Cross-entropy of a linear head without ever holding all logits.

Shapes: N positions, D width, V vocabulary, C positions in one chunk. A chunk's logits [C, V] are made,
used for the loss and its gradient, and dropped: memory is C x V instead of N x V, and backward does not
make them again. (The idea of Liger Kernel's fused linear cross-entropy, arXiv:2410.10989; own code.)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

IGNORED = -100  # torch's own ignore_index: a position with this target does not count

# Bytes of float32 logits in one chunk. 8 MiB stays near the last-level cache of a small CPU and
# keeps a GPU busy at vocabulary 128k only with the larger figure.
CHUNK_BYTES = {"cpu": 8 << 20, "cuda": 512 << 20}


def chunk_rows(*, vocabulary: int, device_type: str) -> int:
    """Positions per chunk for this vocabulary: CHUNK_BYTES of float32 logits, at least 64 rows."""
    return max(64, CHUNK_BYTES.get(device_type, CHUNK_BYTES["cuda"]) // (4 * vocabulary))


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward makes the gradients too; backward multiplies them by the scalar that arrives."""

    @staticmethod
    def forward(
        ctx: Any, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, targets_N: torch.Tensor, vocabulary: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        total = hidden_ND.new_zeros((), dtype=torch.float32)
        correct = torch.zeros((), dtype=torch.int64, device=hidden_ND.device)
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
        rows = chunk_rows(vocabulary=len(weight_VD), device_type=hidden_ND.device.type)
        for start in range(0, len(hidden_ND), rows):
            chunk = slice(start, start + rows)
            nll_C, hit_C, slope_CV = _chunk(hidden_ND[chunk], weight_VD, targets_N[chunk], vocabulary)
            total += nll_C.sum()
            correct += hit_C.sum()
            torch.mm(slope_CV, weight_VD, out=grad_hidden_ND[chunk])
            grad_weight_VD += slope_CV.T @ hidden_ND[chunk]
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD.to(weight_VD.dtype))
        ctx.mark_non_differentiable(correct)
        return total, correct

    @staticmethod
    def backward(ctx: Any, grad_total: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_hidden_ND, grad_weight_VD = ctx.saved_tensors
        return (
            grad_hidden_ND * grad_total.to(grad_hidden_ND.dtype),
            grad_weight_VD * grad_total.to(grad_weight_VD.dtype),
            None,
            None,
        )


def _chunk(
    hidden_CD: torch.Tensor, weight_VD: torch.Tensor, targets_C: torch.Tensor, vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss [C], whether the best guess is right [C], and d loss / d logits [C, V] in hidden's dtype."""
    logits_CV = real_logits(F.linear(hidden_CD, weight_VD), vocabulary=vocabulary)
    counted_C = targets_C != IGNORED
    wanted_C1 = targets_C.clamp_min(0)[:, None]
    hit_C = (logits_CV.max(-1).indices == targets_C) & counted_C  # argmax takes twice the time on a CPU
    log_probability_CV = torch.log_softmax(logits_CV, dim=-1)
    nll_C = -log_probability_CV.gather(-1, wanted_C1)[:, 0] * counted_C
    slope_CV = log_probability_CV.exp_()
    slope_CV.scatter_add_(1, wanted_C1, slope_CV.new_full(wanted_C1.shape, -1.0))
    return nll_C, hit_C, (slope_CV * counted_C[:, None]).to(hidden_CD.dtype)


def real_logits(logits_CV: torch.Tensor, *, vocabulary: int) -> torch.Tensor:
    """Float32 logits; the padding columns from `vocabulary` on are -inf and so never predicted."""
    logits_CV = logits_CV.float()
    if logits_CV.shape[-1] > vocabulary:
        logits_CV[..., vocabulary:] = float("-inf")
    return logits_CV


def linear_cross_entropy(
    hidden_ND: torch.Tensor, *, weight_VD: torch.Tensor, targets_N: torch.Tensor, vocabulary: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed loss in nats (float32, differentiable) and number of right best guesses (int64)."""
    total, correct = _LinearCrossEntropy.apply(hidden_ND, weight_VD, targets_N, vocabulary)  # type: ignore[no-untyped-call]
    return total, correct


@torch.no_grad()
def position_losses(
    hidden_ND: torch.Tensor, *, weight_VD: torch.Tensor, targets_N: torch.Tensor, vocabulary: int
) -> torch.Tensor:
    """Loss in nats of each position [N], float32, zero where ignored. For evaluation: no gradient."""
    losses_N = torch.empty(len(hidden_ND), dtype=torch.float32, device=hidden_ND.device)
    rows = chunk_rows(vocabulary=len(weight_VD), device_type=hidden_ND.device.type)
    for start in range(0, len(hidden_ND), rows):
        chunk = slice(start, start + rows)
        logits_CV = real_logits(F.linear(hidden_ND[chunk], weight_VD), vocabulary=vocabulary)
        losses_N[chunk] = F.cross_entropy(logits_CV, targets_N[chunk], reduction="none", ignore_index=IGNORED)
    return losses_N
