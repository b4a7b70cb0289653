"""Parameters, FLOPs and saved activations of a model, counted from its settings. No torch here.

The engine, the dry run and the planner share these counts; tests/models/test_counts.py and
tests/plan/test_agreement.py hold them to the modules that are really built.

FLOPs are the model's own, 6 per active weight of a matrix and position and 12 * L * H * E per block for
attention over the whole square (Chowdhery et al. 2022, arXiv:2204.02311, appendix B); what recompute does
again does not count. A convolution's weight counts at each place where it is used. The first product of a
stem counts 4: nobody asks for the gradient of the input. Tables (embeddings, n-grams) are looked up and count
nothing; neither do norms, and what has no weights (the spectrum of a sound).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rsc.models.config import AudioConfig, ImageConfig, ModelConfig, TextConfig, TrunkConfig

_FILTER = 5  # frames under a convolution of AudioStem


@dataclass(frozen=True)
class Units:
    """Parameters of one unit of each kind, and how many blocks of a kind there are."""

    stems: int
    dense_block: int
    expert_block: int
    head: int
    """With the trunk's last norm."""
    num_dense: int
    num_experts: int
    expert_weights: int = 0
    """Of an expert block, what expert parallelism divides."""

    @property
    def total(self) -> int:
        blocks = self.num_dense * self.dense_block + self.num_experts * self.expert_block
        return self.stems + blocks + self.head


def count_units(config: ModelConfig) -> Units:
    trunk = config.trunk
    layers = range(trunk.num_layers)
    with_experts = sum(trunk.has_experts(layer) for layer in layers)
    shared = _attention_weights(trunk) + 2 * trunk.width
    routed = 0 if trunk.moe is None else 3 * trunk.moe.num_experts * trunk.moe.expert_width * trunk.width
    return Units(
        stems=sum(_stem_weights(config)),
        dense_block=shared + 3 * trunk.width * trunk.mlp_width,
        expert_block=shared + routed + _router_and_shared(trunk) if trunk.moe is not None else 0,
        head=trunk.width + config.task.head_weights(),
        num_dense=trunk.num_layers - with_experts,
        num_experts=with_experts,
        expert_weights=routed,
    )


def _attention_weights(trunk: TrunkConfig) -> int:
    return trunk.width * trunk.head_features * 2 * (trunk.num_heads + trunk.kv_heads)


def _router_and_shared(trunk: TrunkConfig) -> int:
    moe = trunk.moe
    return 0 if moe is None else trunk.width * (moe.num_experts + 3 * moe.num_shared * moe.expert_width)


def _stem_weights(config: ModelConfig) -> list[int]:
    width = config.trunk.width
    found = []
    if config.text is not None:
        found.append(_text_weights(config.text, width=width))
    if config.image is not None:
        found.append(_image_weights(config.image, width=width))
    if config.audio is not None:
        found.append(width * (_FILTER * (config.audio.num_mels + width) + 2))
    return found


def _text_weights(text: TextConfig, *, width: int) -> int:
    tables = len(text.ngrams) + text.words
    ngrams = text.ngram_width * (tables * text.ngram_rows + width) if tables else 0
    return text.rows * width + ngrams


def _image_weights(image: ImageConfig, *, width: int) -> int:
    convolutions = _convolutions(image) if image.style == "conv" else []
    features = convolutions[-1].outer if convolutions else image.channels * image.patch**2
    body = sum(one.weights + 2 * one.outer for one in convolutions)  # a layer norm follows each
    return body + (features + 1) * width + image.num_positions * width


@dataclass(frozen=True)
class _Convolution:
    inner: int
    outer: int
    kernel: int
    places: int
    """Where it is used on one picture."""

    @property
    def weights(self) -> int:
        return self.inner * self.outer * self.kernel**2


def _convolutions(image: ImageConfig) -> list[_Convolution]:
    """Of models/convolution.py, in order."""
    places, width = image.height * image.width, image.conv_width
    kernel = 3 if image.patch == 1 else 6
    places //= 1 if image.patch == 1 else 4
    found = [
        _Convolution(image.channels, width, kernel, places),
        _Convolution(width, width, 3, places),
    ]
    for _ in range(int(math.log2(image.patch)) - 1):
        wider = 4 * image.conv_width
        found.append(_Convolution(width, wider, 3, places))
        places //= 4
        found.append(_Convolution(wider, wider, 3, places))
        width = wider
    return found


def model_flops(config: ModelConfig, *, rows: int, positions: Mapping[str, int]) -> float:
    """Forward and backward of `rows` samples, to whose sequence each stem gives so many `positions`."""
    trunk = config.trunk
    length = sum(positions.values())
    sides = list(positions.values()) if config.task.compares_samples else [length]
    heads = trunk.num_heads * trunk.head_features
    weights = sum(_attention_weights(trunk) + _mlp_weights(trunk, layer) for layer in range(trunk.num_layers))
    squares = 12 * trunk.num_layers * heads * sum(side * side for side in sides)
    return float(
        rows
        * (6 * length * weights + squares + config.task.head_flops(length) + _stem_flops(config, positions))
    )


def _mlp_weights(trunk: TrunkConfig, layer: int) -> int:
    """Weights of the MLP that one position meets."""
    if trunk.moe is None or not trunk.has_experts(layer):
        return 3 * trunk.width * trunk.mlp_width
    return _router_and_shared(trunk) + 3 * trunk.width * trunk.moe.expert_width * trunk.moe.top_k


def _stem_flops(config: ModelConfig, positions: Mapping[str, int]) -> int:
    """Of one sample."""
    width, total = config.trunk.width, 0
    if config.image is not None:
        total += _image_flops(config.image, width=width)
    if config.audio is not None:
        total += positions["audio"] * _audio_flops(config.audio, width=width)
    if config.text is not None and (config.text.ngrams or config.text.words):
        total += 6 * positions["text"] * config.text.ngram_width * width
    return total


def _image_flops(config: ImageConfig, *, width: int) -> int:
    if config.style == "patch":
        return 4 * config.num_positions * config.channels * config.patch**2 * width
    found = _convolutions(config)
    first, *others = (one.weights * one.places for one in found)
    return 4 * first + 6 * sum(others) + 6 * config.num_positions * found[-1].outer * width


def _audio_flops(config: AudioConfig, *, width: int) -> int:
    """Of one position: one convolution at each of its `stack` frames, then one over them."""
    return 4 * config.stack * _FILTER * config.num_mels * width + 6 * _FILTER * width * width
