"""Whose random numbers a sample gets: those of its place in the step, on any mesh."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from rsc.models.sample_random import sample_seeds


@dataclass(frozen=True)
class Draws:
    """Seeds for the rows of one batch: row i is sample `first` + i * `stride` of what `seed` stands for."""

    seed: int
    first: int = 0
    stride: int = 1

    def of(self, rows: int) -> torch.Tensor:
        """`draw_B`, int64 [rows]."""
        return sample_seeds(self.seed, self.first + self.stride * torch.arange(rows))

    def after(self, rows: int) -> Draws:
        """For the batch behind one of so many rows on every rank."""
        return replace(self, first=self.first + self.stride * rows)
