"""First values of parameters: a function of (seed, name, shape) alone."""

from __future__ import annotations

import hashlib
import math

import torch

STD = 0.02  # GPT-2 (Radford et al. 2019): normal(0, 0.02), and 1 / sqrt(2 layers) of it where a block
# writes to the residual stream, so that its variance does not grow with depth.
_RESIDUAL = ("attention.out.weight", "mlp.down.weight", "shared.down.weight", "experts.down")


def first_value(
    name: str, *, shape: torch.Size, num_layers: int, seed: int, embedding_std: float = STD
) -> torch.Tensor:
    """The whole value, float32 on the CPU. `embedding_std` is that of the token embedding.

    By the name's end: norms 1, biases 0, a linear bag 0, convolutions He et al. 2015 (arXiv:1502.01852), all
    else normal.
    """
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith((".bias", "bag.table.weight")):
        return torch.zeros(shape)
    if name.endswith("temperature"):
        return torch.full(shape, math.log(1 / 0.07))  # CLIP's start, section 2.5
    std = STD / math.sqrt(2 * num_layers) if name.endswith(_RESIDUAL) else STD
    if name.endswith("text.embedding.weight"):
        std = embedding_std
    if name.endswith("blend.weight"):
        std = 1 / math.sqrt(shape[1])  # keeps the spread of what it blends
    if name.endswith("conv.weight"):
        std = math.sqrt(2 / math.prod(shape[1:]))
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return torch.empty(shape).normal_(0.0, std, generator=generator)
