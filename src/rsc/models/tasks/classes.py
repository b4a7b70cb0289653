"""Sorting whole samples: into one of the labels, or any of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rsc.errors import ConfigError
from rsc.models.tasks.task import FieldTask, column_of, values_of

if TYPE_CHECKING:
    from torch import nn

    from rsc.models.tasks.task import BatchSamples, Tensors


class _Sorting(FieldTask):
    pools_features = True

    def check(self, stems: Sequence[str]) -> None:
        """Any stems will do."""

    def head_flops(self, length: int) -> int:
        """Read off the mean of the positions."""
        return 6 * self.config.trunk.width * len(self.head_config.labels)

    def head_weights(self) -> int:
        """With the bag's table and bias, where there is one."""
        classes, bag = len(self.head_config.labels), self.config.bag
        tables = bag.num_tables if bag is not None and self.balances_classes else 0
        table = tables * bag.rows + 1 if bag is not None and tables else 0
        return classes * (self.config.trunk.width + 1 + table)


class Classes(_Sorting):
    kind = "classes"
    least_labels = 2
    balances_classes = True

    def build_head(self) -> nn.Module:
        from rsc.models.heads import ClassHead

        return ClassHead(self.head_config, width=self.config.trunk.width, bag=self.config.bag)

    def targets(self, samples: BatchSamples) -> Tensors:
        import torch

        from rsc.models.cross_entropy import IGNORED

        column = column_of(samples.columns, self.head_config.field)
        label_B = torch.tensor([self._number(value, bad=samples.bad) for value in values_of(column)])
        return {"label_B": label_B.masked_fill(~samples.is_usable, IGNORED)}

    def _number(self, value: int | str, *, bad: Counter[str]) -> int:
        from rsc.models.cross_entropy import IGNORED

        if isinstance(value, str):
            value = self._numbers.get(value.strip(), -1)
        if 0 <= value < len(self._numbers):
            return value
        bad["label"] += 1
        return IGNORED

    def largest_targets(self, inputs: Tensors, *, rows: int) -> Tensors:
        import torch

        return {"label_B": torch.zeros(rows, dtype=torch.int64)}


class MultiLabel(_Sorting):
    kind = "multi_label"
    least_labels = 1

    @property
    def answer_shape(self) -> tuple[int, ...]:
        return (len(self.head_config.labels),)

    def build_head(self) -> nn.Module:
        from rsc.models.heads import MultiLabelHead

        return MultiLabelHead(self.head_config, width=self.config.trunk.width)

    def targets(self, samples: BatchSamples) -> Tensors:
        import torch

        column = column_of(samples.columns, self.head_config.field)
        if not isinstance(column, torch.Tensor) or tuple(column.shape[1:]) != self.answer_shape:
            wanted = f"{self.answer_shape[0]} numbers, one per label"
            raise ConfigError(f"field {self.head_config.field} must hold {wanted}")
        labels_BK = column.to(torch.int64)
        known_B = ((labels_BK == 0) | (labels_BK == 1)).all(1)
        samples.bad["label"] += int((~known_B).sum())
        return {"labels_BK": labels_BK.masked_fill(~(known_B & samples.is_usable)[:, None], -1)}

    def largest_targets(self, inputs: Tensors, *, rows: int) -> Tensors:
        import torch

        return {"labels_BK": torch.zeros(rows, *self.answer_shape, dtype=torch.int64)}
