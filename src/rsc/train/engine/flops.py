"""FLOPs of a model on a batch, counted from its settings.

They are the model's own, 6 per active weight of a matrix and position and 12 * L * H * E per block for
attention over the whole square (Chowdhery et al. 2022, arXiv:2204.02311, appendix B); what recompute does
again does not count. A convolution's weight counts at each place where it is used. The first product of a
stem counts 4: nobody asks for the gradient of the input. Tables (embeddings, n-grams) are looked up and count
nothing; neither do norms, and what has no weights (the spectrum of a sound).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch

from rsc.models.config import AudioConfig, ImageConfig, ModelConfig
from rsc.models.convolution import ConvBody

_FILTER = 5  # frames under a convolution of AudioStem


def model_flops(config: ModelConfig, *, rows: int, positions: Mapping[str, int]) -> float:
    """Forward and backward of `rows` samples, to whose sequence each stem gives so many `positions`."""
    trunk = config.trunk
    length = sum(positions.values())
    sides = list(positions.values()) if config.task.compares_samples else [length]
    heads = trunk.num_heads * trunk.head_features
    attention = trunk.width * trunk.head_features * 2 * (trunk.num_heads + trunk.kv_heads)
    weights = sum(attention + _mlp_weights(config, layer) for layer in range(trunk.num_layers))
    squares = 12 * trunk.num_layers * heads * sum(side * side for side in sides)
    return float(
        rows * (6 * length * weights + squares + config.task.head_flops(length) + _stems(config, positions))
    )


def _mlp_weights(config: ModelConfig, layer: int) -> int:
    """Weights of the MLP that one position meets."""
    trunk = config.trunk
    if trunk.moe is None or not trunk.has_experts(layer):
        return 3 * trunk.width * trunk.mlp_width
    moe = trunk.moe
    return trunk.width * (moe.num_experts + 3 * moe.expert_width * (moe.top_k + moe.num_shared))


def _stems(config: ModelConfig, positions: Mapping[str, int]) -> int:
    """Of one sample."""
    width, total = config.trunk.width, 0
    if config.image is not None:
        total += _image(config.image, width=width)
    if config.audio is not None:
        total += positions["audio"] * _audio(config.audio, width=width)
    if config.text is not None and (config.text.ngrams or config.text.words):
        total += 6 * positions["text"] * config.text.ngram_width * width
    return total


def _image(config: ImageConfig, *, width: int) -> int:
    if config.style == "patch":
        return 4 * config.num_positions * config.channels * config.patch**2 * width
    first, *others, features = _convolutions(config)
    return 4 * first + 6 * sum(others) + 6 * config.num_positions * features * width


@cache
def _convolutions(config: ImageConfig) -> list[int]:
    """Multiplications of each convolution on one picture, in order; last, the features of a position."""
    with torch.device("meta"):
        body = ConvBody(config)
    return [*body.multiplications(config.height * config.width), body.out_channels]


def _audio(config: AudioConfig, *, width: int) -> int:
    """Of one position: one convolution at each of its `stack` frames, then one over them."""
    return 4 * config.stack * _FILTER * config.num_mels * width + 6 * _FILTER * width * width
