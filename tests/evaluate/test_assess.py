from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from rsc.evaluate.assess import assess
from rsc.evaluate.open_model import from_state
from rsc.models.build import build_model
from rsc.models.config import ModelConfig
from rsc.recipes.sections import EvalConfig
from rsc.store.format.columns import Columns, columns_from_records
from rsc.store.format.schema import Field, Schema
from rsc.store.splits import SplitReader

TEXTS = ["ab", "abcd", "abcdefgh", "abcdefghijklmnop", "a"]


class Frames:
    """A split of two frames, three texts in the first."""

    def iterate(self) -> Iterator[Columns]:
        schema = Schema((Field("text", "string"),))
        for some in (TEXTS[:3], TEXTS[3:]):
            yield columns_from_records(schema, [{"text": text} for text in some])


@pytest.mark.parametrize(
    ("max_batches", "read"), [(0, 5), (1, 2), (2, 4), (9, 5)], ids=["all", "in a frame", "across", "beyond"]
)
def test_no_more_batches_are_measured_than_the_setting_says(max_batches: int, read: int) -> None:
    trunk = {"width": 16, "num_layers": 1, "num_heads": 2, "mlp_width": 16}
    config = ModelConfig.model_validate({"trunk": trunk, "text": {}, "head": {"kind": "next_token"}})
    trained = from_state(
        "toy", config=config, state=build_model(config).state_dict(), context=8, separator=None
    )
    place: dict[str, Any] = {"data": "texts", "version": 1, "split": "validation"}
    limits = EvalConfig(max_batches=max_batches, batch_size=2)
    found = assess(trained, reader=cast(SplitReader, Frames()), config=limits, **place)
    assert found.count == sum(len(text) + 1 for text in TEXTS[:read])
