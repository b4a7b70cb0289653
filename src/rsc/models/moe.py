"""Mixture of experts: each token goes to its top-k experts, no token is ever dropped.

Balance comes from a bias per expert that only the choice sees, not the weight of the answer; after
every step it rises for experts that got less than the mean and falls for the others (Wang et al. 2024,
arXiv:2408.15664). Shared experts serve every token (DeepSeekMoE, arXiv:2401.06066).
Shapes: N tokens, D width, X experts, K experts a token takes, M = N * K, F features inside an expert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.tensor import DTensor

from rsc.models.config import MoeConfig
from rsc.models.trunk import GatedMLP


class Router(nn.Module):
    """Scores in float32: which experts, and how much each one's answer weighs."""

    bias: torch.Tensor
    load: torch.Tensor

    def __init__(self, config: MoeConfig, *, width: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, width))
        self.register_buffer("bias", torch.zeros(config.num_experts))
        self.register_buffer("load", torch.zeros(config.num_experts), persistent=False)

    def forward(
        self, x_ND: torch.Tensor, real_N: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights [N, K] float32 and expert numbers [N, K]. Counts the choices of real tokens in `load` while
        training: padding is routed too, all of it alike, and would pull the balance to itself."""
        logits_NX = F.linear(x_ND.float(), self.weight.float())
        scores_NX = logits_NX.softmax(-1) if self.config.scoring == "softmax" else logits_NX.sigmoid()
        chosen_NK = (scores_NX.detach() + self.bias).topk(self.config.top_k, dim=-1).indices
        weights_NK = scores_NX.gather(-1, chosen_NK)
        if self.config.normalise:
            weights_NK = weights_NK / weights_NK.sum(-1, keepdim=True)
        if self.training:
            counted_NK = (
                torch.ones_like(weights_NK) if real_N is None else real_N[:, None].expand_as(weights_NK)
            )
            self.load.index_add_(0, chosen_NK.flatten(), counted_NK.flatten().to(self.load.dtype))
        return weights_NK, chosen_NK


class Experts(nn.Module):
    """X gated MLPs in three stacked tensors, so that an expert-parallel rank holds a slice of dim 0.

    Expert parallelism wraps this module: it exchanges rows and counts before, and rows after.
    """

    def __init__(self, config: MoeConfig, *, width: int) -> None:
        super().__init__()
        num, inner = config.num_experts, config.expert_width
        self.gate = nn.Parameter(torch.empty(num, inner, width))
        self.up = nn.Parameter(torch.empty(num, inner, width))
        self.down = nn.Parameter(torch.empty(num, width, inner))

    def forward(self, sorted_MD: torch.Tensor, counts_X: torch.Tensor) -> torch.Tensor:
        """Rows sorted by expert, `counts_X` for each expert held here -> answers [M, D], same order."""
        gate, up, down = (_local(p) for p in (self.gate, self.up, self.down))
        if sorted_MD.is_cuda and sorted_MD.dtype == torch.bfloat16 and hasattr(torch, "_grouped_mm"):
            return _grouped(sorted_MD, gate, up, down, counts_X)
        parts = torch.split(sorted_MD, counts_X.tolist())
        answers = [
            F.linear(F.silu(F.linear(part_CD, gate[x])) * F.linear(part_CD, up[x]), down[x])
            for x, part_CD in enumerate(parts)
        ]
        return torch.cat(answers)


class MoE(nn.Module):
    """Takes the place of a block's MLP: [B, L, D] -> [B, L, D]."""

    def __init__(self, config: MoeConfig, *, width: int) -> None:
        super().__init__()
        self.router = Router(config, width=width)
        self.experts = Experts(config, width=width)
        self.shared: GatedMLP | None = None
        if config.num_shared:
            self.shared = GatedMLP(width=width, mlp_width=config.num_shared * config.expert_width)

    def forward(self, x_BLD: torch.Tensor, real_BL: torch.Tensor | None = None) -> torch.Tensor:
        """`real_BL`: positions that are no padding; None: all are."""
        x_ND = x_BLD.flatten(0, 1)
        weights_NK, chosen_NK = self.router(x_ND, None if real_BL is None else real_BL.flatten())
        order_M = chosen_NK.flatten().argsort(stable=True)
        counts_X = torch.bincount(chosen_NK.flatten(), minlength=len(self.router.bias))
        rows_MD = x_ND[:, None].expand(-1, chosen_NK.shape[1], -1).flatten(0, 1)
        sorted_MD = _Permute.apply(rows_MD, order_M)  # type: ignore[no-untyped-call]
        answers_MD = _Permute.apply(self.experts(sorted_MD, counts_X), order_M.argsort())  # type: ignore[no-untyped-call]
        answers_NKD = answers_MD.view(*chosen_NK.shape, -1)
        out_ND = torch.einsum("nkd,nk->nd", answers_NKD, weights_NK.to(answers_NKD.dtype))
        if self.shared is not None:
            out_ND = out_ND + self.shared(x_ND)
        return out_ND.view_as(x_BLD)


class _Permute(torch.autograd.Function):
    """rows[order] whose backward is a gather by the inverse order: no atomic adds, so bit-equal each time."""

    @staticmethod
    def forward(ctx: Any, rows_MD: torch.Tensor, order_M: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(order_M)
        return rows_MD[order_M]

    @staticmethod
    def backward(ctx: Any, grad_MD: torch.Tensor) -> tuple[torch.Tensor, None]:
        (order_M,) = ctx.saved_tensors
        return grad_MD[order_M.argsort()], None


def forget_loads(model: nn.Module) -> None:
    """After a batch that is left out: its tokens say nothing about the next step's balance."""
    for module in model.modules():
        if isinstance(module, Router):
            module.load.zero_()


@torch.no_grad()
def balance_experts(model: nn.Module, *, add_over_ranks: Callable[[torch.Tensor], object]) -> float | None:
    """After an optimiser step: move every router's bias by its rate towards even load, and reset the counts.

    `add_over_ranks` sums a tensor in place over all data-parallel ranks, so that all make the same move.
    Returns the worst (largest load / mean load) over the routers, 1.0 being even; None without experts.
    """
    routers = [module for module in model.modules() if isinstance(module, Router)]
    if not routers:
        return None
    load_RX = torch.stack([router.load for router in routers])
    add_over_ranks(load_RX)
    mean_R1 = load_RX.mean(1, keepdim=True)
    for router, load_X, mean_1 in zip(routers, load_RX, mean_R1, strict=True):
        router.bias += router.config.balance_rate * torch.sign(mean_1 - load_X)
        router.load.zero_()
    return float((load_RX / mean_R1.clamp_min(1)).max())


def _local(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def _grouped(
    sorted_MD: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor, counts_X: torch.Tensor
) -> torch.Tensor:
    """One kernel for all experts; row groups end at the cumulated counts."""
    ends_X = counts_X.cumsum(0).to(torch.int32)
    hidden_MF = F.silu(torch._grouped_mm(sorted_MD, gate.transpose(1, 2), offs=ends_X))
    hidden_MF = hidden_MF * torch._grouped_mm(sorted_MD, up.transpose(1, 2), offs=ends_X)
    return torch._grouped_mm(hidden_MF, down.transpose(1, 2), offs=ends_X)
