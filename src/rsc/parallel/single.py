"""One process alone: weights stay whole, and nothing is gathered, cut or sent.

What is left of FSDP's work is its mixed precision: the model computes in `dtype` on copies of the float32
weights, made once per backward pass and dropped after it; gradients arrive in float32. The numbers are
those of FSDP on one rank, without its gathers and cuts of what is whole already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def computing_in(dtype: torch.dtype, *, model: nn.Module) -> Iterator[None]:
    """Put copies in `dtype` in the weights' places. Backward belongs inside: a block may compute twice."""
    owners = [
        (module, name, weight)
        for module in model.modules()
        for name, weight in module._parameters.items()
        if weight is not None and weight.dtype != dtype
    ]
    try:
        for module, name, weight in owners:
            module._parameters[name] = weight.to(dtype)  # type: ignore[assignment]
        yield
    finally:
        for module, name, weight in owners:
            module._parameters[name] = weight


def cast_floats(batch: Mapping[str, torch.Tensor], *, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The batch with its floating-point inputs in `dtype`, as FSDP hands them to a model."""
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}
