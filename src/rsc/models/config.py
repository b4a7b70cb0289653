"""What a model is made of, as settings: stems (inputs), one trunk, one head. No torch here.

A stem that is absent is an input the model does not read. Stems that are present feed one sequence,
in the order image, audio, text, so that a post with a picture is one sample.
"""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from rsc.config import FrozenModel

NUM_BYTES = 256
SEPARATOR = 256  # the id between two documents; the byte tokenizer has 257 ids in all


class MoeConfig(FrozenModel):
    """Experts in place of a block's MLP; a token takes `top_k` of them and all the shared ones."""

    num_experts: PositiveInt
    """Routed experts of a block. Expert parallelism must divide it."""
    top_k: PositiveInt
    """Routed experts a token takes."""
    expert_width: PositiveInt
    """Features inside one expert's gated MLP."""
    num_shared: NonNegativeInt = 0
    """Shared experts, as one MLP of num_shared x expert_width that every token takes."""
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    """How router logits become scores: softmax as Mixtral, sigmoid as DeepSeek-V3."""
    normalise: bool = True
    """Divide the scores of the chosen experts by their sum."""
    balance_rate: NonNegativeFloat = 1e-3
    """Step of the choice bias towards even load after each optimiser step; 0 turns balancing off."""
    first_layer: NonNegativeInt = 0
    """Blocks before this one keep a plain MLP of mlp_width."""

    @model_validator(mode="after")
    def _enough_experts(self) -> MoeConfig:
        if self.top_k > self.num_experts:
            raise ValueError(f"top_k {self.top_k} is more than num_experts {self.num_experts}")
        return self


class RopeScaling(FrozenModel):
    """Llama 3.1's stretch of the long rotary wavelengths to a longer context (Llama 3 paper, section 3.4)."""

    factor: PositiveFloat
    """How many times longer than the original context."""
    low_freq_factor: PositiveFloat = 1.0
    """Wavelengths above original_context / this are stretched in full."""
    high_freq_factor: PositiveFloat = 4.0
    """Wavelengths below original_context / this are left alone; between the two it blends."""
    original_context: PositiveInt
    """Positions the model was first trained on."""


class TrunkConfig(FrozenModel):
    """A pre-norm transformer: RMSNorm, rotary positions, grouped-query attention, gated MLP."""

    width: PositiveInt
    """Features of the residual stream."""
    num_layers: PositiveInt
    """Transformer blocks."""
    num_heads: PositiveInt
    """Query heads."""
    num_kv_heads: PositiveInt | None = None
    """Key and value heads; divides num_heads; default num_heads. Tensor parallelism must divide it."""
    head_width: PositiveInt | None = None
    """Features of one head; even; default width / num_heads."""
    mlp_width: PositiveInt
    """Features inside the gated MLP, which has three matrices of width x mlp_width."""
    causal: bool = True
    """True: a position sees itself and earlier ones (next token). False: all of its document."""
    documents: Literal["masked", "joined"] = "masked"
    """Packed documents: `masked` never attends across a separator, `joined` does (one document, faster)."""
    rope_base: PositiveFloat = 10_000.0
    """Base of the rotary wavelengths (Su et al. 2021, arXiv:2104.09864); larger for longer context."""
    rope_scaling: RopeScaling | None = None
    """Set for weights that were stretched to a longer context."""
    norm_eps: PositiveFloat = 1e-5
    """Added to the mean square inside RMSNorm."""
    moe: MoeConfig | None = None
    """Set: blocks from moe.first_layer on have experts."""

    def has_experts(self, layer: int) -> bool:
        return self.moe is not None and layer >= self.moe.first_layer

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def head_features(self) -> int:
        return self.head_width or self.width // self.num_heads

    @model_validator(mode="after")
    def _heads_fit(self) -> TrunkConfig:
        if self.num_heads % self.kv_heads:
            raise ValueError(f"num_kv_heads {self.kv_heads} does not divide num_heads {self.num_heads}")
        if self.head_width is None and self.width % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide width {self.width}")
        if self.head_features % 2:
            raise ValueError(f"head_width {self.head_features} is odd; rotary positions turn pairs")
        return self


class TextConfig(FrozenModel):
    """Token ids in, vectors of the trunk's width out."""

    vocabulary: PositiveInt = NUM_BYTES + 1
    """Number of token ids; 257 is the byte tokenizer (256 bytes and the separator)."""
    tokenizer: str = "bytes"
    """`bytes`, or the path of a tokenizer.json."""
    pad_to: PositiveInt = 64
    """The embedding gets rows up to the next multiple of this, for fast and divisible matrices."""

    @property
    def rows(self) -> int:
        return -(-self.vocabulary // self.pad_to) * self.pad_to


class HeadConfig(FrozenModel):
    """What the model answers."""

    kind: Literal["next_token"] = "next_token"
    """next_token: a distribution over the vocabulary at each position."""


class ModelConfig(FrozenModel):
    """One model: `[model.trunk]`, the stems that are present, `[model.head]`."""

    trunk: TrunkConfig
    text: TextConfig | None = None
    head: HeadConfig = Field(default_factory=HeadConfig)

    @model_validator(mode="after")
    def _parts_fit(self) -> ModelConfig:
        if self.text is None:
            raise ValueError("no stem: set [model.text]")
        return self
