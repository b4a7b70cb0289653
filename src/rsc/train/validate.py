"""Validation during training: every `eval.every` steps, the same samples each time, on the mesh as it stands.

It leaves nothing behind: no gradients, no random numbers that a step would draw (each sample has its own), no
place in the training data. So a run with it has the losses of one without, bit for bit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from rsc.models.cross_entropy import IGNORED
from rsc.models.tokenizer import ByteTokenizer, Tokenizer
from rsc.train.batches.batch_source import BatchSource
from rsc.train.batches.sample_seeds import Draws
from rsc.train.engine.engine import Engine, rows_of


@dataclass(frozen=True)
class Validator:
    engine: Engine
    open_source: Callable[[], BatchSource]
    """The validation split from its start, this rank's part of each batch."""
    num_batches: int
    every: int
    size_of: Callable[[torch.Tensor], int] | None
    """Bytes of text that targets [B, L] stand for, for bits per byte; None where answers are no text."""
    beat: Callable[[], None]
    """Called for every batch: a long validation is no hang."""

    def facts(self, step: int) -> dict[str, float]:
        """After `step` finished steps: what is due now, the same on every rank; nothing on other steps."""
        if step % self.every:
            return {}
        draws, sums = self.engine.draws("validation"), []
        with closing(self.open_source()) as source:
            for _ in range(self.num_batches):
                batch = next(source)
                sums.append(self._sums(batch, draws=draws))
                draws = draws.after(rows_of(batch))
                self.beat()
        mesh = self.engine.placed.mesh
        facts = [sum(column) for column in zip(*sums, strict=True)]
        message = torch.tensor(facts, dtype=torch.float64, device=mesh.device)
        dist.all_reduce(message)
        total, count, size_bytes = message.tolist()
        told = {"val_loss": total / count if count else math.nan}
        if size_bytes:
            told["val_bits_per_byte"] = total / size_bytes / math.log(2)
        return told

    def _sums(self, batch: Mapping[str, Any], *, draws: Draws) -> tuple[float, int, int]:
        """Loss, items and bytes of one batch, as far as this rank is the one to count them."""
        total, count = self.engine.evaluate(batch, draws=draws)
        mesh = self.engine.placed.mesh
        if mesh.place("tp"):  # tensor-parallel ranks see the same items
            total, count = 0.0, 0
        # Ranks that differ on any of these axes are given the same batch.
        is_first = not any(mesh.place(axis) for axis in ("tp", "cp", "pp"))
        size = self.size_of(batch["targets_BL"]) if self.size_of is not None and is_first else 0
        return total, count, size


def text_bytes(targets_BL: torch.Tensor, *, tokenizer: Tokenizer, separator: int) -> int:
    """Bytes of the text that these token ids stand for; a separator counts as one, as in `rsc eval`.

    Other tokens than bytes are decoded, each document of a row as one text: what a token writes depends on
    its neighbours. A character that the end of a row cuts in two counts as two marks of replacement.
    """
    if isinstance(tokenizer, ByteTokenizer):
        return int((targets_BL != IGNORED).sum())
    size = 0
    for row in targets_BL.tolist():
        for is_end, ids in itertools.groupby((i for i in row if i != IGNORED), key=separator.__eq__):
            held = list(ids)
            size += len(held) if is_end else len(tokenizer.decode(held).encode())
    return size
