"""The state of a rank as named pieces: which box of which whole tensor lies here, and who writes it.

A checkpoint does not know the mesh that wrote it: any other mesh asks for its own boxes and copies
what overlaps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from rsc.parallel.boxes import Box, is_first_copy, local_box


@dataclass(frozen=True)
class Piece:
    """One tensor of the state as far as this rank holds it."""

    name: str
    whole: tuple[int, ...]
    box: Box
    tensor: torch.Tensor
    """The local part itself, not a copy: read it to save, write into it to load."""
    is_ours: bool
    """Of the ranks that hold the same box, this one writes it."""


def piece_of(name: str, tensor: torch.Tensor, *, is_writer: bool) -> Piece:
    """A piece of a DTensor, or of a plain tensor, which is whole on this rank.

    `is_writer`: of the ranks that differ only on axes this tensor does not know, this one writes.
    """
    if not isinstance(tensor, DTensor):
        box = Box((0,) * tensor.ndim, tuple(tensor.shape))
        return Piece(name, tuple(tensor.shape), box, tensor.detach(), is_ours=is_writer)
    local = tensor.to_local().detach()
    box = local_box(tensor)
    assert tuple(local.shape) == box.shape, f"{name}: {tuple(local.shape)} is not {box}"
    return Piece(name, tuple(tensor.shape), box, local, is_ours=is_writer and is_first_copy(tensor))


def model_tensors(modules: Iterable[nn.Module]) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tensors of parameters and persistent buffers; the stages of a pipeline rank add up."""
    for module in modules:
        transient = {
            f"{prefix}.{name}" if prefix else name
            for prefix, owner in module.named_modules()
            for name in owner._non_persistent_buffers_set
        }
        for name, tensor in chain(module.named_parameters(), module.named_buffers()):
            if name not in transient:
                yield name, tensor


def state_pieces(
    modules: Sequence[nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    is_writer: Callable[[torch.Tensor], bool],
) -> list[Piece]:
    """Everything this rank holds: `model/<name>` and `optimizer/<name>/<key>`, in a fixed order.

    What an optimiser keeps per weight has the weight's shape and placement, or is one number (a step
    count), which whoever writes the first corner of the weight writes too.
    """
    pieces, by_parameter = [], {}
    for name, tensor in model_tensors(modules):
        piece = piece_of(f"model/{name}", tensor, is_writer=is_writer(tensor))
        pieces.append(piece)
        by_parameter[tensor] = piece
    for parameter, key, value in _optimizer_tensors(optimizers):
        home = by_parameter[parameter]
        name = f"optimizer/{home.name.removeprefix('model/')}/{key}"
        owns_corner = home.is_ours and not any(home.box.offset) and not home.box.is_empty
        writes = owns_corner if value.ndim == 0 else is_writer(parameter)
        pieces.append(piece_of(name, value, is_writer=writes))
    return pieces


def _optimizer_tensors(
    optimizers: Sequence[torch.optim.Optimizer],
) -> Iterator[tuple[torch.Tensor, str, torch.Tensor]]:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                for key, value in sorted(optimizer.state.get(parameter, {}).items()):
                    yield parameter, key, value
