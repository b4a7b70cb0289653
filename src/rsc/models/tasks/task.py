"""A task: all that differs between one kind of answer and another, from the rules of a recipe to the targets.

It is made from a model's settings and holds nothing else. A recipe is checked, fitted and planned without
torch, so only the methods that make tensors or modules import it. What an evaluation measures of the answers
is in evaluate/scorers, a scorer a task. Shapes: B batch, L positions, K classes, U symbols of an answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from rsc.errors import ConfigError
from rsc.layers import nearest

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rsc.models.config import HeadConfig, ModelConfig

    Tensors = Mapping[str, torch.Tensor]


Column = TypeVar("Column")


class RaggedTexts(Protocol):
    """A column of texts of any length, as the loader gives it (loader/ragged.py)."""

    def to_bytes(self) -> Sequence[bytes]: ...


@dataclass(frozen=True)
class BatchSamples:
    """Samples of a batch whose inputs are tensors already: what targets are made from."""

    columns: Mapping[str, torch.Tensor | RaggedTexts]
    """Fields as they were stored."""
    inputs: Tensors
    """By the names of models/build.py."""
    is_usable: torch.Tensor
    """Samples of which at least one input is there, bool [B]."""
    bad: Counter[str]
    """What was wrong, by the words of runs/sample_problems.py; targets add to it."""


class Task(ABC):
    """One subclass a kind. Class variables say what the rest of the house asks about a kind."""

    kind: ClassVar[str]
    is_language: ClassVar[bool] = False
    """Documents are packed end to end and every position answers what follows: the model continues text."""
    answers_tokens: ClassVar[bool] = False
    """The head scores the vocabulary at each position: tensor parallelism splits it, cp cuts the batch."""
    answers_field: ClassVar[bool] = False
    """The right answer is the sample's `head.field`, in words of `head.labels`: `rsc predict` says it."""
    compares_samples: ClassVar[bool] = False
    """A sample's loss depends on the others of its batch: the trunk runs once for each side of a pair."""
    least_labels: ClassVar[int] = 0
    pools_features: ClassVar[bool] = False
    """Whole samples are sorted by the mean of their features: smoothing, dropout and slices have meaning."""
    balances_classes: ClassVar[bool] = False
    """Exactly one label holds: classes can be balanced, and a bag of n-grams can be a second opinion."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    @property
    def head_config(self) -> HeadConfig:
        return self.config.head

    @abstractmethod
    def check(self, stems: Sequence[str]) -> None:
        """Raises ValueError, in words for the recipe, where stems or trunk do not serve this task."""

    def refused_axes(self) -> Iterator[tuple[str, str]]:
        """Axes of parallelism that this task does not allow, each with the reason."""
        return iter(())

    @property
    def answer_fields(self) -> tuple[str, ...]:
        """Fields of a sample that hold the answer."""
        return (self.head_config.field,) if self.answers_field else ()

    @property
    def answer_shape(self) -> tuple[int, ...] | None:
        """Of the answer where it is a tensor; None where it is a number or a text."""
        return None

    @abstractmethod
    def head_flops(self, length: int) -> int:
        """Forward and backward of the head on one sample of `length` positions (models/counts.py)."""

    @abstractmethod
    def head_weights(self) -> int:
        """Parameters of the head (models/counts.py)."""

    @abstractmethod
    def build_head(self) -> nn.Module: ...

    def targets(self, samples: BatchSamples) -> Tensors:
        """What the head compares its answers with, by the names of models/heads.py. A sample that cannot be
        used counts in no loss."""
        return {}

    def largest_targets(self, inputs: Tensors, *, rows: int) -> Tensors:
        """Targets of a batch as large as the settings allow, for dry runs."""
        return {}


class FieldTask(Task):
    """The answer is one of, some of, or a sequence of `head.labels`, from `head.field`."""

    answers_field = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._numbers = {label: number for number, label in enumerate(config.head.labels)}


class TokenTask(Task):
    """The answer is a token at each position."""

    answers_tokens = True

    def check(self, stems: Sequence[str]) -> None:
        text = self.config.text
        if list(stems) != ["text"] or text is None:
            raise ValueError(f"a {self.kind} head reads text alone, the stems are {', '.join(stems)}")
        if text.positions == "words":
            raise ValueError(f"a {self.kind} head answers by token: set text.positions = tokens")

    def refused_axes(self) -> Iterator[tuple[str, str]]:
        text = self.config.text
        if text is not None and (text.ngrams or text.words):
            yield "cp", "the batch itself is cut, and n-grams and words need the tokens before the cut"

    def head_flops(self, length: int) -> int:
        return 6 * length * self.config.trunk.width * (self.config.text.rows if self.config.text else 0)

    def head_weights(self) -> int:
        return self.config.trunk.width * (self.config.text.rows if self.config.text else 0)

    def build_head(self) -> nn.Module:
        from rsc.models.heads import TokenHead

        text = self.config.text
        assert text is not None, "check() refuses a token head without text"
        return TokenHead(width=self.config.trunk.width, rows=text.rows, vocabulary=text.vocabulary)

    def largest_targets(self, inputs: Tensors, *, rows: int) -> Tensors:
        import torch

        return {"targets_BL": torch.zeros_like(inputs["tokens_BL"])}


def values_of(column: torch.Tensor | RaggedTexts) -> Iterable[int | str]:
    """Each sample's answer as it was stored: a number or a text."""
    import torch

    if isinstance(column, torch.Tensor):
        return [int(value) for value in column.reshape(len(column)).tolist()]
    return [data.decode(errors="replace") for data in column.to_bytes()]


def column_of(columns: Mapping[str, Column], name: str) -> Column:
    """Raises ConfigError for a field that the batch has not."""
    if name not in columns:
        raise ConfigError(f"the batch has no field {name!r}", hint=nearest(name, columns, what="data.fields"))
    return columns[name]
