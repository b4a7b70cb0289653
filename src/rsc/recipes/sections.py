"""The `[train]` and `[eval]` sections of a recipe, checked before any process starts. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from rsc.cluster.supervise.config import SupervisionConfig
from rsc.errors import ConfigError
from rsc.layers import FrozenModel
from rsc.recipes.faults import parse_fault

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
OnHangup = Literal["checkpoint", "continue"]


class OptimizerConfig(FrozenModel):
    name: Literal["adamw", "muon"] = "adamw"
    """`muon` orthogonalises the update of 2-D weights inside the trunk; everything else still takes AdamW."""
    learning_rate: Annotated[float, Field(gt=0.0)] = 3e-4
    """Peak learning rate."""
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    """After warm-up: cosine to `min_ratio`; stay, then linear over the last `decay_fraction`; or stay."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of linear rise from 0 to the peak."""
    min_ratio: Fraction = 0.1
    """Learning rate at the last step over the peak; unused by `constant`."""
    decay_fraction: Fraction = 0.2
    """Share of the steps that decay, for `wsd` only."""
    beta1: Fraction = 0.9
    """AdamW: share of the mean of gradients that stays at each step."""
    beta2: Fraction = 0.95
    """AdamW: share of the mean of their squares that stays at each step."""
    epsilon: Annotated[float, Field(gt=0.0)] = 1e-8
    """AdamW: added to the root of that mean."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.1
    """Decoupled; applies to weights of two or more dims, not to norms, biases and embeddings."""
    bag_learning_rate: Annotated[float, Field(gt=0.0)] = 1e-2
    """Peak for the weights of `model.bag`, which start at 0."""
    bag_epsilon: Annotated[float, Field(gt=0.0)] = 2e-4
    """Epsilon for them: so large that a row that few samples touch moves little, as a strong prior would have
    it; with the 1e-5 of the other weights the bag learns its texts by heart."""
    muon_learning_rate: Annotated[float, Field(gt=0.0)] = 0.02
    """Peak for the weights that Muon updates; scaled by max(1, rows / columns)**0.5."""
    muon_momentum: Fraction = 0.95
    """Muon: share of its mean of gradients that stays at each step."""
    clip_norm: Annotated[float, Field(ge=0.0)] = 1.0
    """Largest gradient norm over the whole mesh; 0 turns clipping off."""


class TrainConfig(SupervisionConfig):
    steps: Positive = 1000
    """Optimiser steps of the whole run."""
    batch_size: Positive = 16
    """Samples of an optimiser step over all ranks: a multiple of dp ranks x accumulate x microbatches."""
    accumulate: Positive = 1
    """Backward passes per optimiser step; each takes batch_size / accumulate samples."""
    seed: int = 0
    """Start of every random stream: weights, data order, dropout."""
    precision: Literal["auto", "fp32", "bf16", "float8"] = "auto"
    """`auto` is bf16 where the device multiplies it in hardware, else fp32. float8 needs that extra."""
    compile: Literal["auto", "off", "blocks"] = "auto"
    """torch.compile per block. `auto` compiles on a GPU only: on CPU we measured no gain."""
    recompute: Literal["none", "selective", "full"] = "none"
    """Activations recomputed in the backward pass: none, all but the matmuls' results, or whole blocks."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of a worker; 0 shares the cores out between the workers of the node."""
    optimizer: OptimizerConfig = OptimizerConfig()
    metrics_every: Positive = 1
    """Steps between two lines of metrics/rank<r>.jsonl."""
    tensorboard: bool = False
    """Write rank 0's metrics as TensorBoard event files too; needs the extra `tensorboard`."""
    bad_loss: Literal["stop", "skip"] = "skip"
    """A loss or gradient norm that is not finite, or a spike: stop the run, or skip that batch."""
    spike_sigmas: Annotated[float, Field(ge=0.0)] = 0.0
    """A loss this many standard deviations above the mean of the last 64 is a spike; 0 turns that off."""
    snapshot_every: Annotated[int, Field(ge=0)] = 0
    """Steps between two copies of the state into memory that outlives a worker; 0 turns them off."""
    on_hangup: OnHangup = "checkpoint"
    """What a lost terminal (SIGHUP) means: write a checkpoint and leave with exit code 75, or train on. What
    is said after it goes to controller.log in the run. `rsc train --detach` has no terminal to lose."""
    fail_at: str = ""
    """Fault drill: `rank=1,step=30,kind=sigkill`, several with `;`. Each fires once a run."""

    @field_validator("fail_at")
    @classmethod
    def _known_fault(cls, text: str) -> str:
        try:
            parse_fault(text)
        except ConfigError as error:
            raise ValueError(error.message) from None
        return text


class EvalConfig(FrozenModel):
    split: str = "validation"
    """Split of the data set that no training step sees."""
    batch_size: Positive = 64
    """Samples a forward pass takes."""
    max_batches: Annotated[int, Field(ge=0)] = 0
    """Stop after this many batches; 0 reads the whole split."""
    every: Annotated[int, Field(ge=0)] = 0
    """Steps between two validations during training, told in the metrics; 0 turns them off."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Such validations in a row without a lower loss that end the training early; 0 trains every step."""
    every_batches: Positive = 4
    """Batches of such a validation, of training's size and always the same."""
    overlap: Fraction = 0.5
    """Share of a language window that is context only, scored by the window before; 0: none."""
    positive: tuple[str, ...] = ()
    """Labels that count as positive in slices; empty takes the first label."""
    slice_columns: tuple[str, ...] = ()
    """Fields whose values are groups: false-positive and false-negative rates are shown for each."""
    slice_terms: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Groups by words in the text: name -> words, in any case; a sample may be in several."""
    min_group: Positive = 10
    """Groups of fewer samples are shown together as `other`: the rates of a few describe persons. A policy's
    `min_group` is the least that it may be."""
