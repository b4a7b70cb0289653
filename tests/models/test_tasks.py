"""Tasks: each kind of head has one, and what it says of itself agrees with what it does."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest
import torch

from rsc.evaluate.scorers import LABEL_SCORERS, SCORERS
from rsc.models.config import HeadConfig, ModelConfig
from rsc.models.tasks.kinds import TASKS, task_of
from rsc.models.tasks.task import BatchSamples, Task

TEXT = {"vocabulary": 257, "max_length": 8, "pad_to": 64}
IMAGE = {"height": 8, "width": 8, "patch": 4}
MODELS = {
    "next_token": {"text": TEXT},
    "masked_token": {"text": TEXT, "causal": False},
    "classes": {"text": TEXT, "labels": ("cat", "dog")},
    "multi_label": {"image": IMAGE, "labels": ("cat", "dog", "fox")},
    "ctc": {"audio": {}, "labels": ("one", "two")},
    "contrastive": {"text": TEXT, "image": IMAGE},
}


def task(kind: str) -> Task:
    facts = dict(MODELS[kind])
    trunk = {
        "width": 16,
        "num_layers": 1,
        "num_heads": 2,
        "mlp_width": 32,
        "causal": facts.pop("causal", True),
    }
    head = {"kind": kind, "labels": facts.pop("labels", ())}
    return task_of(ModelConfig.model_validate({"trunk": trunk, "head": head, **facts}))


def test_every_kind_of_head_is_one_task_and_all_but_language_have_a_scorer():
    kinds = get_args(HeadConfig.model_fields["kind"].annotation)
    assert set(kinds) == TASKS.keys() == MODELS.keys()
    assert {kind for kind in kinds if not TASKS[kind].is_language} == SCORERS.keys()
    assert {kind for kind in kinds if TASKS[kind].answers_field} == LABEL_SCORERS.keys()


@pytest.mark.parametrize("kind", MODELS)
def test_the_largest_targets_are_named_and_shaped_as_real_ones(kind):
    one = task(kind)
    inputs = {
        "tokens_BL": torch.randint(256, (2, 8)),
        "text_length_B": torch.tensor([8, 8]),
        "draw_B": torch.tensor([1, 2]),
    }
    answers = {
        "classes": torch.tensor([0, 1]),
        "multi_label": torch.tensor([[0, 1, 1], [1, 0, 0]]),
        "ctc": Texts(b"one two", b"two"),
    }
    columns = {one.head_config.field: answers[kind]} if one.answers_field else {}
    samples = BatchSamples(columns, inputs, is_usable=torch.tensor([True, True]), bad=Counter())
    real = one.targets(samples)
    largest = one.largest_targets(inputs, rows=2)
    assert not +samples.bad
    assert largest.keys() == real.keys() - {"tokens_BL"}  # a masked input takes its input's place
    for name, value in largest.items():
        assert (value.dtype, value.ndim, len(value)) == (real[name].dtype, real[name].ndim, 2), name


@pytest.mark.parametrize("kind", MODELS)
def test_the_flops_of_a_head_are_those_of_its_weights(kind):
    """6 per weight of its matrices where they are used: at each position, or once on the mean."""
    one = task(kind)
    head = one.build_head()
    weights = sum(value.numel() for name, value in head.named_parameters() if value.ndim == 2)
    places = 8 if one.answers_tokens or kind == "ctc" else 1
    assert one.head_flops(8) == 6 * weights * places


class Texts:
    """A ragged column, as far as a task looks at it."""

    def __init__(self, *texts: bytes) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    def to_bytes(self) -> list[bytes]:
        return list(self._texts)
