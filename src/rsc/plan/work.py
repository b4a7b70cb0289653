"""A model, a layout and a machine as columns of numbers: what every formula of the planner takes.

Each field is a number or an array; all arrays of one calculation have the same length, so that a million
layouts, or all published rows, go through the formulas at once. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rsc.models.config import ModelConfig

Column = NDArray[np.float64]
Columns = TypeVar("Columns", bound="_Columns")


@dataclass(frozen=True)
class _Columns:
    def take(self: Columns, chosen: Any) -> Columns:
        """Some of the rows; fields of one number stay."""
        return self._map(lambda column: column[chosen] if column.ndim else column)

    def _map(self: Columns, function: Any) -> Columns:
        return replace(self, **{f.name: function(np.asarray(getattr(self, f.name))) for f in fields(self)})


@dataclass(frozen=True)
class Shape(_Columns):
    """A transformer. Sizes count features or tokens."""

    layers: Any
    width: Any
    heads: Any
    kv_heads: Any
    head_width: Any
    mlp_width: Any
    vocabulary: Any
    sequence: Any
    gated: Any = True
    """Three matrices in an MLP, else two."""
    causal: Any = True
    experts: Any = 0
    top_k: Any = 0
    expert_width: Any = 0
    shared_width: Any = 0
    dense_layers: Any = 0
    """Of a model with experts, the blocks that keep a plain MLP."""
    latent: Any = False
    """Latent attention of DeepSeek-V2 and V3 (arXiv:2405.04434): ranks 1536 and 512, heads of 128 + 64."""
    tied: Any = False
    """One matrix serves as embedding and as scores."""
    other_weights: Any = 0
    """Stems and heads beyond one embedding and one matrix of scores."""
    trainable: Any = 1.0
    """Share of the weights that get gradients and moments; LoRA: a small one."""

    @property
    def matrices(self) -> Any:
        return np.where(self.gated, 3, 2)

    @property
    def expert_layers(self) -> Any:
        return np.where(np.asarray(self.experts) > 0, np.asarray(self.layers) - self.dense_layers, 0)

    @property
    def attention_weights(self) -> Any:
        """Of one block."""
        plain = self.width * np.asarray(self.head_width) * 2 * (np.asarray(self.heads) + self.kv_heads)
        inside = 1536 * np.asarray(self.heads) * 192 + 512 * np.asarray(self.heads) * 256
        latent = self.width * (1536 + 576 + np.asarray(self.heads) * 128) + inside
        return np.where(self.latent, latent, plain)

    @property
    def mlp_weights(self) -> Any:
        """Of one plain MLP."""
        return self.matrices * self.width * np.asarray(self.mlp_width)

    @property
    def routed_weights(self) -> Any:
        """Of all experts of one block, which expert parallelism divides."""
        return self.matrices * self.width * np.asarray(self.expert_width) * self.experts

    @property
    def shared_weights(self) -> Any:
        """Of one block with experts, besides those: the router and the shared MLP."""
        return self.width * (self.experts + self.matrices * np.asarray(self.shared_width))

    @property
    def block_weights(self) -> Any:
        """Without experts, over all blocks: what data parallel ranks all hold."""
        dense = np.asarray(self.layers) - self.expert_layers
        norms = 2 * np.asarray(self.width)
        blocks = self.layers * (self.attention_weights + norms)
        return blocks + dense * self.mlp_weights + self.expert_layers * self.shared_weights

    @property
    def expert_weights(self) -> Any:
        return self.expert_layers * self.routed_weights

    @property
    def edge_weights(self) -> Any:
        """Embedding, scores, last norm, stems."""
        tables = 2 - np.asarray(self.tied, dtype=float)
        return tables * self.vocabulary * self.width + self.width + self.other_weights

    @property
    def parameters(self) -> Any:
        return self.block_weights + self.expert_weights + self.edge_weights

    @property
    def active(self) -> Any:
        """Weights of matrices that one token meets."""
        routed = self.matrices * self.width * np.asarray(self.expert_width) * self.top_k
        scores = np.asarray(self.vocabulary) * self.width
        return self.block_weights + self.expert_layers * routed + scores

    @property
    def flops_per_token(self) -> Any:
        """6 a weight and 12 L H E s for attention over the whole square, as models/counts.py has it."""
        square = 12 * np.asarray(self.layers) * self.heads * self.head_width * self.sequence
        return 6 * self.active + square


@dataclass(frozen=True)
class Layouts(_Columns):
    """Where the work goes. world = dp x tp x cp x pp; ep borrows from dp x cp x tp."""

    dp: Any = 1
    tp: Any = 1
    cp: Any = 1
    pp: Any = 1
    ep: Any = 1
    virtual: Any = 1
    """Pipeline stages of a rank."""
    micro: Any = 1
    """Sequences of a microbatch."""
    batch: Any = 1
    """Sequences of an optimiser step."""
    shard: Any = 1
    """0: every dp rank holds all. 1: moments are cut (ZeRO-1). 2: gradients too. 3: weights too (FSDP)."""
    shard_ranks: Any = 0
    """HSDP: ranks that share one copy; 0: all of dp x cp."""
    recompute: Any = 0
    """0 nothing, 1 selective, 2 whole blocks."""
    sequence_parallel: Any = True
    zero_bubble: Any = False
    offload: Any = False
    """Moments and master weights wait in the host's memory."""
    bits: Any = 16
    """Of the products in blocks: 16, 8, 4."""
    age: Any = 2.0
    """Years of the software since the device appeared: kernels ripen."""
    eager: Any = False
    """Plain PyTorch kernels: norms, activations and attention are not fused for this device."""
    unfused: Any = False
    """Software before flash attention and overlapped messages (to about 2022, half precision)."""

    @property
    def world(self) -> Any:
        return np.asarray(self.dp) * self.tp * self.cp * self.pp

    @property
    def microbatches(self) -> Any:
        return np.asarray(self.batch) / (np.asarray(self.dp) * self.micro)

    @property
    def copies(self) -> Any:
        """Ranks that share weights, moments or gradients."""
        whole = np.asarray(self.dp) * self.cp
        return np.where(np.asarray(self.shard_ranks) > 0, np.minimum(self.shard_ranks, whole), whole)


@dataclass(frozen=True)
class Machine(_Columns):
    """SI units, of one device."""

    peak: Any
    """FLOP/s in 16 bits."""
    matmul: Any
    """FLOP/s of the best product in 16 bits."""
    matmul_narrow: Any
    """The same in the plan's `bits`."""
    memory: Any
    memory_rate: Any
    scale_up: Any
    """B/s one way inside a domain."""
    scale_out: Any
    domain: Any
    world: Any


def shape_of(config: ModelConfig, *, sequence: int) -> Shape:
    """A recipe's model. Stems, n-grams and heads count in `other_weights`, by models/counts.py."""
    from rsc.models.counts import count_units

    trunk, moe = config.trunk, config.trunk.moe
    vocabulary = config.text.rows if config.text is not None and config.task.answers_tokens else 0
    shape = Shape(
        layers=trunk.num_layers,
        width=trunk.width,
        heads=trunk.num_heads,
        kv_heads=trunk.kv_heads,
        head_width=trunk.head_features,
        mlp_width=trunk.mlp_width,
        vocabulary=vocabulary,
        sequence=sequence,
        causal=trunk.causal,
        experts=moe.num_experts if moe else 0,
        top_k=moe.top_k if moe else 0,
        expert_width=moe.expert_width if moe else 0,
        shared_width=moe.num_shared * moe.expert_width if moe else 0,
        dense_layers=min(moe.first_layer, trunk.num_layers) if moe else 0,
    )
    return replace(shape, other_weights=count_units(config).total - int(shape.parameters))
