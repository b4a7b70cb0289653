"""Muon for the trunk's matrices and for convolutions, AdamW for all else, as one optimiser with named state.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) replaces the momentum of a matrix by the nearest
orthogonal one, so that all its directions move alike. Under FSDP or TP a rank holds a part of a matrix:
the whole momentum is gathered, made orthogonal on every rank, and each keeps its part. Of stacked experts
a rank gathers those it holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate
from torch.optim.adamw import adamw

# Quintic x -> a x + b x^3 + c x^5 that drives singular values from [0.01, 1] to about [0.7, 1.2] in 5 rounds.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_SMALL = 256  # rows or columns

Direction = Callable[[torch.Tensor], torch.Tensor]
"""From whole matrices [(count,) rows, columns] to where they move."""


class Muon(torch.optim.Optimizer):
    """Groups have `rule`: `muon` (momentum, heads) or `adamw` (betas, eps); and lr, weight_decay.

    `heads` is None, or (query heads a group, features of a head) of weights whose rows are the fused
    projections of attention: queries, keys and values then move each as a matrix of their own. `dtype` is
    that of Newton-Schulz: bf16 where the device multiplies it in hardware, as the model's products.

    Gradients are divided by `grad_scale` where that is set, as torch's fused optimisers do.
    """

    grad_scale: torch.Tensor | None = None

    def __init__(self, groups: list[dict[str, Any]], *, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__(groups, defaults={"lr": 0.0, "weight_decay": 0.0, "heads": None})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the loop computes the loss itself"
        divisor = 1.0 if self.grad_scale is None else float(self.grad_scale)
        for group in self.param_groups:
            if group["rule"] == "muon":
                self._muon(group, divisor=divisor)
            else:
                self._adamw(group)

    def _muon(self, group: dict[str, Any], *, divisor: float) -> None:
        weights = [p for p in group["params"] if p.grad is not None]
        for together in _together(weights):
            ahead = partial(self._look_ahead, momentum=group["momentum"], divisor=divisor)
            updates = [ahead(weight) for weight in together]
            moves = _moves(updates, direction=partial(direction, heads=group["heads"], dtype=self._dtype))
            for weight, move in zip(together, moves, strict=True):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(move.view(weight.shape), alpha=-group["lr"])

    def _look_ahead(self, weight: torch.Tensor, *, momentum: float, divisor: float) -> torch.Tensor:
        """The direction to move along: the gradient with the momentum after it, a filter in each row.

        `divisor` times as long as it should be, which `orthogonalise` takes away again.
        """
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        assert weight.grad is not None
        moved = state["momentum"].mul_(momentum).add_(weight.grad, alpha=1 / divisor)
        update = weight.grad.add(moved, alpha=momentum * divisor)
        return update.flatten(1) if _is_convolution(weight) else update

    def _adamw(self, group: dict[str, Any]) -> None:
        weights = [p for p in group["params"] if p.grad is not None]
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {
                    "step": torch.zeros((), dtype=torch.float32, device=weight.device),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        beta1, beta2 = group["betas"]
        adamw(
            list(weights),
            [weight.grad for weight in weights],
            [self.state[weight]["exp_avg"] for weight in weights],
            [self.state[weight]["exp_avg_sq"] for weight in weights],
            [],
            [self.state[weight]["step"] for weight in weights],
            fused=True,  # as torch.optim.AdamW in optim.py: one pass over memory, on a CPU and on a GPU
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
            grad_scale=self.grad_scale,
        )


def is_muon_weight(name: str, parameter: nn.Parameter) -> bool:
    """Matrices of the blocks, stacked experts too, and convolutions over pictures, a filter being a row; not
    routers, norms, heads, or the rest of the stems."""
    in_blocks = "trunk.blocks." in name and parameter.ndim >= 2 and "router" not in name
    return in_blocks or _is_convolution(parameter)


def _is_convolution(weight: torch.Tensor) -> bool:
    """Filters [outer, inner, H, W]; nothing else has four dims."""
    return weight.ndim == 4


def orthogonalise(matrix: torch.Tensor, *, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """About the nearest (semi-)orthogonal matrix, by Newton-Schulz rounds in `dtype`.

    In and out [(count,) rows, columns].
    A round is three products and nothing else: x a + b (x x^T) x + c (x x^T)^2 x = p x, where p is square and
    small, so sums and scales of it cost little. Three times faster on a CPU than adding up products of x.
    """
    is_tall = matrix.shape[-2] > matrix.shape[-1]
    x: torch.Tensor = (matrix.mT if is_tall else matrix).to(dtype, memory_format=torch.contiguous_format)
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    sum_of_products = torch.addmm if x.ndim == 2 else torch.baddbmm
    a, b, c = _COEFFICIENTS
    for _ in range(_ROUNDS):
        square = x @ x.mT
        polynomial = sum_of_products(square, square, square, beta=b, alpha=c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        x = polynomial @ x
    return (x.mT if is_tall else x).to(matrix.dtype)


def direction(
    matrix: torch.Tensor, *, heads: tuple[int, int] | None = None, dtype: torch.dtype = torch.bfloat16
) -> torch.Tensor:
    """Where a matrix moves at rate 1: orthogonal, sqrt(rows / columns) times as long where it is tall.

    With `heads`, queries, keys and values each by itself: as one matrix they would share its directions, and
    be as long as one that is three times as tall.
    """
    if heads is None:
        rows, columns = matrix.shape[-2:]
        moved = orthogonalise(matrix, dtype=dtype)
        return moved.mul_(math.sqrt(rows / columns)) if rows > columns else moved
    (R, E), D = heads, matrix.shape[-1]
    qkv_xSGED = matrix.view(*matrix.shape[:-2], -1, R + 2, E, D).transpose(-4, -3)
    places, counts = ([3], [3]) if R == 1 else ([R, 2], [1, 2])  # of S; matrices of one shape that they make
    roles = []
    for part_xSGED, count in zip(torch.split(qkv_xSGED, places, dim=-4), counts, strict=True):
        whole = part_xSGED.reshape(-1, part_xSGED.shape[-4:-1].numel() // count, D)
        roles.append(direction(whole, dtype=dtype).view(part_xSGED.shape))
    return torch.cat(roles, dim=-4).transpose(-4, -3).reshape(matrix.shape)


def _together(weights: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Small matrices of one shape in one list, every other weight alone: 8 of 256 x 704 take a third of the
    time when they are multiplied as one batch (two AMX cores), large ones fill the cores by themselves."""
    alike: dict[object, list[torch.Tensor]] = {}
    for weight in weights:
        is_small = weight.ndim == 2 and min(weight.shape) <= _SMALL and not isinstance(weight, DTensor)
        alike.setdefault((weight.shape, weight.device) if is_small else id(weight), []).append(weight)
    return list(alike.values())


def _moves(updates: list[torch.Tensor], *, direction: Direction) -> list[torch.Tensor]:
    if len(updates) == 1:
        return [_move_of_part(updates[0], direction=direction)]
    return list(direction(torch.stack(updates)).unbind())


def _move_of_part(update: torch.Tensor, *, direction: Direction) -> torch.Tensor:
    """`direction` of the whole matrix where `update` is this rank's part of one."""
    if not isinstance(update, DTensor):
        return direction(update)
    whole_matrices = [
        placement if placement.is_shard() and placement.dim < update.ndim - 2 else Replicate()  # type: ignore[attr-defined]
        for placement in update.placements
    ]
    whole = update.redistribute(placements=whole_matrices)
    answer = DTensor.from_local(
        direction(whole.to_local()),
        update.device_mesh,
        whole_matrices,
        run_check=False,
        shape=update.shape,
        stride=update.stride(),
    )
    return answer.redistribute(placements=update.placements)
