"""Validation during training: every `eval.every` steps, the same samples each time, on the mesh as it stands.

It leaves nothing behind: no gradients, no random numbers that a step would draw (each step seeds its own), no
place in the training data. So a run with it has the losses of one without, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import torch
import torch.distributed as dist

from rsc.train.engine import Engine
from rsc.train.loop import BatchSource
from rsc.train.seeds import stream_seed


@dataclass(frozen=True)
class Validator:
    engine: Engine
    open_source: Callable[[], BatchSource]
    """The validation split from its start, this rank's part of each batch."""
    num_batches: int
    every: int
    seed: int
    items_are_bytes: bool
    """Whether an item of the loss is a byte, so that nats per item say bits per byte."""

    def facts(self, step: int) -> dict[str, float]:
        """After `step` finished steps: what is due now, the same on every rank; nothing on other steps."""
        if step % self.every:
            return {}
        torch.manual_seed(
            stream_seed(self.seed, "validation")
        )  # hidden tokens are drawn when a batch is bound
        with closing(self.open_source()) as source:
            sums = [self.engine.evaluate(next(source)) for _ in range(self.num_batches)]
        mesh = self.engine.placed.mesh
        speaks = mesh.place("tp") == 0  # tensor-parallel ranks see the same items
        facts = [sum(column) * speaks for column in zip(*sums, strict=True)]
        message = torch.tensor(facts, dtype=torch.float64, device=mesh.device)
        dist.all_reduce(message)
        total, count = message.tolist()
        loss = total / count if count else math.nan
        return {
            "val_loss": loss,
            **({"val_bits_per_byte": loss / math.log(2)} if self.items_are_bytes else {}),
        }
