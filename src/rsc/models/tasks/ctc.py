"""Sequences of labels shorter than the positions (Graves et al. 2006): speech to words or letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rsc.models.tasks.task import FieldTask, column_of, values_of

if TYPE_CHECKING:
    from torch import nn

    from rsc.models.tasks.task import BatchSamples, Tensors


class Ctc(FieldTask):
    kind = "ctc"
    least_labels = 2

    def check(self, stems: Sequence[str]) -> None:
        if list(stems) != ["audio"]:
            raise ValueError(f"a ctc head reads audio alone, the stems are {', '.join(stems)}")

    def head_flops(self, length: int) -> int:
        return 6 * length * self.config.trunk.width * (len(self.head_config.labels) + 1)

    def head_weights(self) -> int:
        return (self.config.trunk.width + 1) * (len(self.head_config.labels) + 1)

    def build_head(self) -> nn.Module:
        from rsc.models.heads import CtcHead

        return CtcHead(self.head_config, width=self.config.trunk.width)

    def targets(self, samples: BatchSamples) -> Tensors:
        """Symbols of each answer, padded; a count of -1 where one is not among the labels."""
        import torch

        rows, counts = [], []
        texts = values_of(column_of(samples.columns, self.head_config.field))
        for text, is_usable in zip(texts, samples.is_usable.tolist(), strict=True):
            units = str(text).split() if self.head_config.unit == "words" else list(str(text))
            row = [self._numbers.get(unit, -1) + 1 for unit in units]
            samples.bad["label"] += 0 in row
            rows.append(row)
            counts.append(len(row) if is_usable and 0 not in row else -1)
        most = max(1, *map(len, rows))
        symbols_BU = torch.tensor([row + [0] * (most - len(row)) for row in rows])
        return {"symbols_BU": symbols_BU, "symbol_count_B": torch.tensor(counts)}

    def largest_targets(self, inputs: Tensors, *, rows: int) -> Tensors:
        import torch

        ones_B = torch.ones(rows, dtype=torch.int64)
        return {"symbols_BU": ones_B[:, None], "symbol_count_B": ones_B}
