"""Language models: what follows each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rsc.models.tasks.task import TokenTask

if TYPE_CHECKING:
    from rsc.models.tasks.task import BatchSamples, Tensors


class NextToken(TokenTask):
    kind = "next_token"
    is_language = True

    def check(self, stems: Sequence[str]) -> None:
        super().check(stems)
        if not self.config.trunk.causal:
            raise ValueError("a next_token head needs trunk.causal = true, or it sees what it shall say")

    def targets(self, samples: BatchSamples) -> Tensors:
        """The token one further on. Packed batches come with theirs (loader/pack.py)."""
        import torch

        from rsc.models.cross_entropy import IGNORED

        tokens_BL, length_B = samples.inputs["tokens_BL"], samples.inputs["text_length_B"]
        is_past_BL = torch.arange(tokens_BL.shape[1]) >= length_B[:, None] - 1
        return {"targets_BL": tokens_BL.roll(-1, dims=1).masked_fill(is_past_BL, IGNORED)}
