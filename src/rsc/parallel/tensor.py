"""Tensor parallelism with sequence parallelism: matmuls split over `tp`, everything between by sequence.

    [B, L / tp, D] -- norm -- gather L -- COLUMNS (features / tp) -- ROWS -- sum, cut L -- [B, L / tp, D]

A module of the plan is replaced by the class below that has its role, with the same parameter names, so
checkpoints do not see the axis (Megatron: Shoeybi et al. 2019, arXiv:1909.08053; sequence parallel:
Korthikanti et al. 2022, arXiv:2205.05198). Weights are DTensors, so that FSDP can cut them further. Stems
and heads without a role of their own do the same work on every rank; sequence.py cuts between.

A weight that is whole and works on a part of L (norm, router) gets a partial gradient: `PartialWeights`
adds those up once per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Shard, distribute_tensor

from rsc.models.cross_entropy import IGNORED
from rsc.models.heads import Want
from rsc.models.placement import PlacementPlan, Role
from rsc.parallel.collectives import gather_parts, gather_same, sum_and_cut, sum_same


def split_tensors(model: nn.Module, *, plan: PlacementPlan, mesh: DeviceMesh) -> None:
    """Replace the modules that have a role on the tensor axis. `mesh` is the tp axis. In place, on meta."""
    held = dict(model.named_modules())
    group = mesh.get_group()
    for name, role in plan.roles.items():
        if name not in held:
            continue  # another pipeline stage has it
        module = held[name]
        if role in _CUTS:
            _place(module, mesh=mesh, placement=_CUTS[role])
        if role in _CLASSES:
            _swap(model, name, _CLASSES[role](module, group))
        elif role is Role.GATHER_IN:
            module.register_forward_pre_hook(lambda _, args: (_gather_tokens(args[0], group), *args[1:]))


def _gather_tokens(x: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
    """[B, L / tp, D] -> [B, L, D]; rows of tokens [N / tp, D] -> [N, D]."""
    return gather_parts(x, dim=x.ndim - 2, group=group)


Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(x [.., I], weight [O, I]) -> [.., O]; float8.py puts its own in place."""


class ColumnParallel(nn.Module):
    """Output features split: [B, L, D] -> [B, L, F / tp]. The input's gradient is a partial sum."""

    weight: nn.Parameter

    def __init__(self, linear: nn.Linear, group: dist.ProcessGroup) -> None:
        super().__init__()
        assert linear.bias is None, "a column-split layer with a bias is not planned for"
        self.weight = linear.weight
        self.product: Product = F.linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(x, local(self.weight))


class RowParallel(nn.Module):
    """Input features split: [B, L, F / tp] -> partial sums -> [B, L / tp, D]."""

    weight: nn.Parameter
    _group: dist.ProcessGroup

    def __init__(self, linear: nn.Linear, group: dist.ProcessGroup) -> None:
        super().__init__()
        assert linear.bias is None, "a row-split layer with a bias is not planned for"
        self.weight = linear.weight
        self.product: Product = F.linear
        self._group = group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        partial = self.product(x, local(self.weight))
        return sum_and_cut(partial, dim=x.ndim - 2, group=self._group)


class VocabularyIn(nn.Embedding):
    """Rows of the table split: each rank looks up the ids it has, and all get the sum.

    Stays an nn.Embedding, because optimisers treat tables apart.
    """

    def __init__(self, embedding: nn.Embedding, group: dist.ProcessGroup) -> None:
        super().__init__(embedding.num_embeddings, embedding.embedding_dim, device="meta")
        self.register_parameter("weight", cast(nn.Parameter, embedding.weight))
        self._group = group

    def forward(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        table = local(self.weight)
        mine_BL = tokens_BL - dist.get_rank(self._group) * table.shape[0]
        is_here_BL = (mine_BL >= 0) & (mine_BL < table.shape[0])
        found_BLD = F.embedding(mine_BL.clamp(0, table.shape[0] - 1), table) * is_here_BL[..., None]
        return sum_same(found_BLD, group=self._group)


class VocabularyOut(nn.Module):
    """Head whose rows are split: no rank ever holds all logits of a position."""

    def __init__(self, head: nn.Module, group: dist.ProcessGroup) -> None:
        super().__init__()
        self.weight = cast(nn.Parameter, head.weight)
        self._vocabulary = cast(int, head.vocabulary)
        self._group = group

    def forward(
        self, hidden_BLD: torch.Tensor, real_BL: torch.Tensor | None, answers: Any, want: Want
    ) -> dict[str, torch.Tensor]:
        hidden_BLD = _gather_tokens(hidden_BLD, self._group)[:, : answers["tokens_BL"].shape[1]]
        weight_VD = local(self.weight)
        logits_BLV = F.linear(hidden_BLD, weight_VD).float()
        first = dist.get_rank(self._group) * weight_VD.shape[0]
        ids_V = torch.arange(first, first + weight_VD.shape[0], device=logits_BLV.device)
        logits_BLV = logits_BLV.masked_fill(ids_V >= self._vocabulary, float("-inf"))
        if want is Want.LOGITS:
            return {"logits": gather_same(logits_BLV, dim=2, group=self._group)}
        targets_BL = answers["targets_BL"]
        losses_BL = _SplitCrossEntropy.apply(logits_BLV, targets_BL, first, self._group)  # type: ignore[no-untyped-call]
        count = (targets_BL != IGNORED).sum()
        if want is Want.ITEM_LOSSES:
            return {"losses": losses_BL, "count": count}
        return {"total": losses_BL.sum(), "count": count}


class _SplitCrossEntropy(torch.autograd.Function):
    """Cross-entropy [B, L] of logits split over the vocabulary: two small messages, never the logits."""

    @staticmethod
    def forward(
        ctx: Any, logits_BLV: torch.Tensor, targets_BL: torch.Tensor, first: int, group: dist.ProcessGroup
    ) -> torch.Tensor:
        top_BL = logits_BLV.amax(-1)
        dist.all_reduce(top_BL, op=dist.ReduceOp.MAX, group=group)
        shifted = logits_BLV - top_BL[..., None]
        mass_BL = shifted.exp().sum(-1)
        mine_BL = targets_BL - first
        is_here_BL = (mine_BL >= 0) & (mine_BL < logits_BLV.shape[-1])
        at_BL1 = mine_BL.clamp(0, logits_BLV.shape[-1] - 1)[..., None]
        wanted_BL = shifted.gather(-1, at_BL1)[..., 0].masked_fill(~is_here_BL, 0.0)
        both = torch.stack([mass_BL, wanted_BL])
        dist.all_reduce(both, group=group)
        mass_BL, wanted_BL = both
        counted_BL = targets_BL != IGNORED
        ctx.save_for_backward(shifted, mass_BL, at_BL1, is_here_BL, counted_BL)
        losses_BL: torch.Tensor = (mass_BL.log() - wanted_BL) * counted_BL
        return losses_BL

    @staticmethod
    def backward(ctx: Any, grad_BL: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        shifted, mass_BL, at_BL1, is_here_BL, counted_BL = ctx.saved_tensors
        slope = shifted.exp() / mass_BL[..., None]
        slope.scatter_add_(-1, at_BL1, -is_here_BL[..., None].to(slope.dtype))
        return slope * (grad_BL * counted_BL)[..., None], None, None, None


_CUTS: dict[Role, Placement] = {
    Role.COLUMNS: Shard(0),
    Role.ROWS: Shard(1),
    Role.VOCABULARY_IN: Shard(0),
    Role.VOCABULARY_OUT: Shard(0),
}
_CLASSES: dict[Role, Any] = {
    Role.COLUMNS: ColumnParallel,
    Role.ROWS: RowParallel,
    Role.VOCABULARY_IN: VocabularyIn,
    Role.VOCABULARY_OUT: VocabularyOut,
}


def _place(module: nn.Module, *, mesh: DeviceMesh, placement: Placement) -> None:
    for name, parameter in list(module.named_parameters(recurse=False)):
        placed = distribute_tensor(parameter.data, mesh, [placement])
        module.register_parameter(name, nn.Parameter(placed, requires_grad=parameter.requires_grad))


def _swap(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent) if parent else model, child, module)


def local(weight: torch.Tensor) -> torch.Tensor:
    """This rank's part; its gradient is whole for that part."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


class PartialWeights:
    """Weights that are whole on every rank of the axis and work on a part of L (norms, routers).

    Each rank's gradient is one term of a sum; `add_up` sums all of them in one message, after backward.
    """

    def __init__(
        self, modules: Sequence[nn.Module], *, plan: PlacementPlan, group: dist.ProcessGroup
    ) -> None:
        self._group = group
        self._weights = [
            parameter
            for model in modules
            for name, module in model.named_modules()
            if plan.roles.get(name) in (Role.NORM, Role.ROUTER)
            for parameter in module.parameters()
        ]

    @torch.no_grad()
    def add_up(self) -> None:
        gradients = [local(weight.grad) for weight in self._weights if weight.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat, group=self._group)
        sums = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, total in zip(gradients, sums, strict=True):
            gradient.copy_(total.view_as(gradient))
