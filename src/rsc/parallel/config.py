"""The `[parallel]` section of a recipe: how many ranks each mesh axis has. No torch here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rsc.layers import FrozenModel

Degree = Annotated[int, Field(ge=1)]
DegreeOrAuto = Annotated[int, Field(ge=0)]


class ParallelConfig(FrozenModel):
    """world = dp_replicate x dp_shard x cp x tp x pp. `ep` borrows from dp_shard x cp x tp."""

    workers: DegreeOrAuto = 0
    """Worker processes on this machine; 0 is one per GPU, or one with all cores where there is none."""
    dp_replicate: Degree = 1
    """HSDP: groups that hold a whole copy of the weights and average gradients between them."""
    dp_shard: DegreeOrAuto = 0
    """FSDP: ranks that share one copy of weights, gradients and optimiser state; 0 takes what is left."""
    tp: Degree = 1
    """Tensor parallel with sequence parallel: splits each matmul; keep it inside one node."""
    cp: Degree = 1
    """Context parallel: splits the sequence; for lengths whose activations do not fit."""
    pp: Degree = 1
    """Pipeline parallel: splits the layers into stages."""
    ep: Degree = 1
    """Expert parallel: splits the experts; divides dp_shard x cp x tp and the number of experts."""
    pp_schedule: Literal["1f1b", "interleaved", "zero_bubble"] = "1f1b"
    """Order of microbatches. interleaved and zero_bubble give each rank two stages."""
    microbatches: DegreeOrAuto = 0
    """Microbatches a pipeline splits each backward pass into; 0 is two per stage."""
    reshard_after_forward: bool = True
    """FSDP frees gathered weights after the forward pass and gathers them again for the backward pass."""
    timeout_s: Annotated[float, Field(gt=0.0)] = 120.0
    """A collective that waits longer fails its rank; at least 20 times `train.hang_floor_s`, since it is the
    supervisor that ends the peers of a dead rank, and calls a hang."""

    @property
    def splits_backward(self) -> bool:
        """Whether gradients of weights are put off, which torch cannot do through compiled code."""
        return self.pp > 1 and self.pp_schedule == "zero_bubble"
