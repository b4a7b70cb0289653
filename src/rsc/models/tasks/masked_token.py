"""Masked-token models: which tokens were hidden (BERT, arXiv:1810.04805)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rsc.models.tasks.task import TokenTask

if TYPE_CHECKING:
    from rsc.models.tasks.task import BatchSamples, Tensors


class MaskedToken(TokenTask):
    kind = "masked_token"

    def check(self, stems: Sequence[str]) -> None:
        super().check(stems)
        if self.config.trunk.causal:
            raise ValueError("a masked_token head needs trunk.causal = false, to look at both sides")
        text = self.config.text
        if text is not None and text.rows == text.vocabulary:
            raise ValueError(
                "a masked_token head needs a padding row to stand for hidden tokens: raise text.pad_to"
            )

    def targets(self, samples: BatchSamples) -> Tensors:
        """The tokens that are hidden from the model now, drawn by sample; in their place stands the first
        padding row of the vocabulary."""
        import torch

        from rsc.models.cross_entropy import IGNORED
        from rsc.models.sample_random import Purpose, uniforms

        tokens_BL, length_B = samples.inputs["tokens_BL"], samples.inputs["text_length_B"]
        place_L = torch.arange(tokens_BL.shape[1])
        drawn_BL = uniforms(samples.inputs["draw_B"], place_L, purpose=Purpose.HIDE)
        hidden_BL = (drawn_BL < self.head_config.mask_share) & (place_L < length_B[:, None])
        assert self.config.text is not None, "check() refuses a token head without text"
        return {
            "tokens_BL": tokens_BL.masked_fill(hidden_BL, self.config.text.vocabulary),
            "targets_BL": tokens_BL.masked_fill(~hidden_BL, IGNORED),
        }
