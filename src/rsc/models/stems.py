"""Stems: one input each, turned into vectors of the trunk's width. Shapes: B batch, L positions, D width."""

from __future__ import annotations

import torch
from torch import nn

from rsc.models.config import TextConfig


class TextStem(nn.Module):
    """Token ids [B, L] -> [B, L, D] by a table. Rows from `vocabulary` on are padding."""

    def __init__(self, config: TextConfig, *, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.rows, width)

    def forward(self, tokens_BL: torch.Tensor) -> torch.Tensor:
        return self.embedding(tokens_BL)  # type: ignore[no-any-return]
