"""Collectives with gradients, named for what happens to the sequence. One pair undoes the other:

gather_parts       parts of a dim -> whole   (backward: sum and cut)       each rank uses it on its own
sum_and_cut        partial sums -> part      (backward: gather)
take_part          whole -> part             (backward: gather)        every rank did the same work before
gather_same        parts -> whole            (backward: cut)           every rank does the same work after
sum_same           partial sums -> whole     (backward: nothing)       every rank does the same work after
trade_rows         rows to other ranks and back (backward: the way back)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.distributed as dist

Movement: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

# torch 2.13 renamed these two and warns about the old names, 2.11 has only those.
_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gather_parts(part: torch.Tensor, *, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    """[.., n, ..] on each of P ranks -> [.., P * n, ..], in rank order."""
    on: dict[str, Any] = {"dim": dim, "group": group}
    return _move(part, there=partial(all_gather, **on), back=partial(reduce_scatter, **on))


def sum_and_cut(partial_sum: torch.Tensor, *, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Sum over the ranks, of which each keeps its part of `dim`."""
    on: dict[str, Any] = {"dim": dim, "group": group}
    return _move(partial_sum, there=partial(reduce_scatter, **on), back=partial(all_gather, **on))


def take_part(whole: torch.Tensor, *, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    on: dict[str, Any] = {"dim": dim, "group": group}
    return _move(whole, there=partial(own_part, **on), back=partial(all_gather, **on))


def gather_same(part: torch.Tensor, *, dim: int, group: dist.ProcessGroup) -> torch.Tensor:
    on: dict[str, Any] = {"dim": dim, "group": group}
    return _move(part, there=partial(all_gather, **on), back=partial(own_part, **on))


def sum_same(partial_sum: torch.Tensor, *, group: dist.ProcessGroup) -> torch.Tensor:
    """Sum over the ranks, whole on each of them."""
    return _move(partial_sum, there=partial(_sum, group=group), back=_unchanged)


def trade_rows(
    rows_MD: torch.Tensor, *, sent: Sequence[int], received: Sequence[int], group: dist.ProcessGroup
) -> torch.Tensor:
    """Rows in blocks by receiving rank (`sent` rows each) -> rows in blocks by sending rank."""
    there, back = list(sent), list(received)
    return _move(
        rows_MD,
        there=partial(_trade, sent=there, received=back, group=group),
        back=partial(_trade, sent=back, received=there, group=group),
    )


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


class _Move(torch.autograd.Function):
    """A tensor goes `there`; its gradient comes `back`."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, there: Movement, back: Movement) -> torch.Tensor:
        ctx.back = back
        return there(tensor)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return ctx.back(grad), None, None


def _move(tensor: torch.Tensor, *, there: Movement, back: Movement) -> torch.Tensor:
    return _Move.apply(tensor, there, back)  # type: ignore[no-any-return,no-untyped-call]


def _sum(partial_sum: torch.Tensor, *, group: dist.ProcessGroup) -> torch.Tensor:
    whole = partial_sum.clone()
    dist.all_reduce(whole, group=group)
    return whole


def _unchanged(grad: torch.Tensor) -> torch.Tensor:
    return grad


def _trade(
    rows: torch.Tensor, *, sent: list[int], received: list[int], group: dist.ProcessGroup
) -> torch.Tensor:
    out = rows.new_empty(sum(received), *rows.shape[1:])
    dist.all_to_all_single(out, rows.contiguous(), received, sent, group=group)
    return out
