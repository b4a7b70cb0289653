"""What is counted before the first step: the training split and nothing else, by any number of ranks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rsc.keys.secret import SecretKey
from rsc.models.build import Model, build_model
from rsc.recipes.recipe import Recipe
from rsc.store.bulk.local import LocalStore
from rsc.store.format.columns import Ragged
from rsc.store.format.schema import Field, Schema
from rsc.store.split_writer import SplitWriter
from rsc.store.splits import SplitPlace, SplitReader
from rsc.train.batches.data_counts import count_training_data, fresh_counts

KEY = bytes(range(32))
TEXTS = [f"post {number % 7} of {number}" for number in range(300)]
LABELS = ["rare" if number % 10 == 0 else "often" for number in range(299)] + ["unheard of"]
RECIPE = Recipe.model_validate(
    {
        "model": {
            "trunk": {"width": 16, "num_layers": 1, "num_heads": 2, "mlp_width": 16, "causal": False},
            "text": {"max_length": 32},
            "head": {"kind": "classes", "labels": ["rare", "often"], "balance": 1.0},
            "bag": {"ngrams": [2], "words": 1, "rows": 1024},
        },
        "data": {"name": "posts"},
    }
)


class Posts:
    """Stands for a data set's place; opening another split than `train` fails the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        schema = Schema((Field("text", "string"), Field("label", "string")))
        self._facts: dict[str, Any] = {"schema": schema, "key": SecretKey.from_buffer(bytearray(KEY))}
        writer = SplitWriter(self._place(), **self._facts, frame_bytes=512, shard_bytes=2000)
        writer.append({name: strings(values) for name, values in (("text", TEXTS), ("label", LABELS))})
        self._totals = writer.finish()

    def open(self, config: Any) -> Posts:
        assert config.name == "posts"
        return self

    def split(self, name: str, *, key: SecretKey) -> SplitReader:
        assert name == "train", "held-out data must not be counted"
        return SplitReader(self._place(), totals=self._totals, **self._facts)

    def _place(self) -> SplitPlace:
        return SplitPlace(LocalStore(self._folder), folder="v1", name="posts", version_id="0", split="train")


def strings(values: list[str]) -> Ragged:
    return Ragged.from_list([value.encode() for value in values], dtype=np.dtype(np.uint8))


def count(posts: Posts, *, rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    model, beats = build_model(RECIPE.model), []
    mesh: Any = SimpleNamespace(rank=rank, layout=SimpleNamespace(world=world), device=torch.device("cpu"))
    place: Any = posts
    key = SecretKey.from_buffer(bytearray(KEY))
    facts: dict[str, Any] = {"recipe": RECIPE, "data": place, "keys": {"posts": key}, "mesh": mesh}
    count_training_data([model], **facts, beat=lambda: beats.append(1))
    assert beats, "a long count must be seen to live"
    return buffers(model)


def buffers(model: Model) -> dict[str, torch.Tensor]:
    return {name: model.get_buffer(name) for name in fresh_counts(RECIPE.model)}


def test_classes_and_texts_of_the_training_split(tmp_path: Path) -> None:
    """A label that is not in the list is of no class, but its text is a text."""
    found = count(Posts(tmp_path))
    assert found["head.class_counts"].tolist() == [30, 269]
    assert found["head.bag.num_texts"].tolist() == [300]
    assert 300 in found["head.bag.texts_with"].tolist(), "`po` is in every post"


def test_a_model_that_counts_nothing_reads_nothing() -> None:
    plain = RECIPE.model_copy(
        update={
            "model": RECIPE.model.model_copy(
                update={"bag": None, "head": RECIPE.model.head.model_copy(update={"balance": 0.0})}
            )
        }
    )
    nothing: Any = None
    count_training_data(
        [], recipe=plain, data=nothing, keys={}, mesh=nothing, beat=lambda: pytest.fail("read")
    )


def one_of_two(rank: int, posts: Posts, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(count(posts, rank=rank, world=2), Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_count_what_one_does(tmp_path: Path) -> None:
    posts = Posts(tmp_path)
    assert posts.split("train", key=SecretKey.from_buffer(bytearray(KEY))).num_shards > 2
    mp.start_processes(one_of_two, args=(posts, str(tmp_path)), nprocs=2, start_method="fork")
    alone = count(posts)
    for rank in range(2):
        theirs = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.equal(theirs[name], value) for name, value in alone.items())
