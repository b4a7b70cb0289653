"""Which text goes with which image or sound (CLIP, arXiv:2103.00020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rsc.models.tasks.task import Task

if TYPE_CHECKING:
    from torch import nn


class Contrastive(Task):
    kind = "contrastive"
    compares_samples = True

    def check(self, stems: Sequence[str]) -> None:
        if len(stems) != 2 or "text" not in stems:
            raise ValueError(f"a contrastive head needs text and one other stem, got {', '.join(stems)}")

    def refused_axes(self) -> Iterator[tuple[str, str]]:
        yield "pp", "a contrastive head compares all samples of a batch, and microbatches never meet"

    def head_flops(self, length: int) -> int:
        """Both sides' projections of the mean."""
        return 6 * self.config.trunk.width * 2 * self.head_config.projection

    def head_weights(self) -> int:
        """Both projections and the temperature."""
        return 2 * self.config.trunk.width * self.head_config.projection + 1

    def build_head(self) -> nn.Module:
        from rsc.models.heads import ContrastiveHead

        return ContrastiveHead(self.head_config, width=self.config.trunk.width)
