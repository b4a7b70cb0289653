"""Collectives with gradients, named for what happens to the sequence. One pair undoes the other:

gather_parts       parts of a dim -> whole   (backward: sum and cut)       each rank uses it on its own
sum_and_cut        partial sums -> part      (backward: gather)
take_part          whole -> part             (backward: gather)        every rank did the same work before
gather_same        parts -> whole            (backward: cut)           every rank does the same work after
sum_same           partial sums -> whole     (backward: nothing)       every rank does the same work after
trade_rows         rows to other ranks and back (backward: the way back)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

# torch 2.13 renamed these two and warns about the old names, 2.11 has only those.
_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gather_parts(part: torch.Tensor, *, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    """[.., n, ..] on each of P ranks -> [.., P * n, ..], in rank order."""
    return _GatherParts.apply(part, dim, group)  # type: ignore[no-any-return,no-untyped-call]


def sum_and_cut(partial: torch.Tensor, *, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Sum over the ranks, of which each keeps its part of `dim`."""
    return _SumAndCut.apply(partial, dim, group)  # type: ignore[no-any-return,no-untyped-call]


def take_part(whole: torch.Tensor, *, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    return _TakePart.apply(whole, dim, group)  # type: ignore[no-any-return,no-untyped-call]


def gather_same(part: torch.Tensor, *, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    return _GatherSame.apply(part, dim, group)  # type: ignore[no-any-return,no-untyped-call]


def sum_same(partial: torch.Tensor, *, group: dist.ProcessGroup) -> torch.Tensor:
    """Sum over the ranks, whole on each of them."""
    return _SumSame.apply(partial, group)  # type: ignore[no-any-return,no-untyped-call]


def trade_rows(
    rows_MD: torch.Tensor, *, sent: Sequence[int], received: Sequence[int], group: dist.ProcessGroup
) -> torch.Tensor:
    """Rows in blocks by receiving rank (`sent` rows each) -> rows in blocks by sending rank."""
    return _TradeRows.apply(rows_MD, list(sent), list(received), group)  # type: ignore[no-any-return,no-untyped-call]


def all_gather(part: torch.Tensor, *, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Without gradient."""
    size = dist.get_world_size(group)
    flat = part.new_empty(size, *part.shape)
    _gather(flat.view(-1), part.contiguous().view(-1), group=group)
    return torch.cat(list(flat), dim=dim) if dim else flat.flatten(0, 1)


def reduce_scatter(whole: torch.Tensor, *, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Without gradient. `dim` divides by the number of ranks."""
    size = dist.get_world_size(group)
    blocks = torch.stack(whole.chunk(size, dim=dim)).contiguous()
    part = torch.empty_like(blocks[0])
    _scatter(part.view(-1), blocks.view(-1), group=group)
    return part


def own_part(whole: torch.Tensor, *, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    return whole.chunk(dist.get_world_size(group), dim=dim)[dist.get_rank(group)].contiguous()


class _GatherParts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.dim, ctx.group = dim, group
        return all_gather(part, dim=dim, group=group)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return reduce_scatter(grad, dim=ctx.dim, group=ctx.group), None, None


class _SumAndCut(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, partial: torch.Tensor, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.dim, ctx.group = dim, group
        return reduce_scatter(partial, dim=dim, group=group)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return all_gather(grad, dim=ctx.dim, group=ctx.group), None, None


class _TakePart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: torch.Tensor, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.dim, ctx.group = dim, group
        return own_part(whole, dim=dim, group=group)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return all_gather(grad, dim=ctx.dim, group=ctx.group), None, None


class _GatherSame(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
        ctx.dim, ctx.group = dim, group
        return all_gather(part, dim=dim, group=group)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return own_part(grad, dim=ctx.dim, group=ctx.group), None, None


class _SumSame(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, partial: torch.Tensor, group: dist.ProcessGroup) -> torch.Tensor:
        whole = partial.clone()
        dist.all_reduce(whole, group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad, None


class _TradeRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup
    ) -> torch.Tensor:
        ctx.sent, ctx.received, ctx.group = sent, received, group
        return _trade(rows, sent=sent, received=received, group=group)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        return _trade(grad, sent=ctx.received, received=ctx.sent, group=ctx.group), None, None, None


def _trade(
    rows: torch.Tensor, *, sent: list[int], received: list[int], group: dist.ProcessGroup
) -> torch.Tensor:
    out = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(out, rows.contiguous(), received, sent, group=group)
    return out
