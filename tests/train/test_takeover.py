from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rsc.errors import ConfigError, NotFinished
from rsc.store.secret import SecretKey
from rsc.train.recipe import Recipe, load_recipe
from rsc.train.takeover import inheriting, parent_of, weights_of


def recipe(*, init_from: str) -> Recipe:
    return load_recipe("language", overrides=["data.name=x", f"model.init_from={init_from}"]).recipe


def run(folder: Path, name: str) -> Path:
    (folder / name / "checkpoints").mkdir(parents=True)
    (folder / name / "run.json").write_text(json.dumps({}))
    return folder / name


def test_weights_of_the_same_name_and_shape_are_taken_over() -> None:
    weights = {"trunk": torch.ones(2, 3), "head": torch.ones(4)}
    value = inheriting(lambda name, shape: torch.zeros(shape), weights=weights)
    assert value("trunk", torch.Size([2, 3])).all()
    assert not value("head", torch.Size([5])).any(), "a head of another size starts anew"
    assert not value("stem", torch.Size([2])).any()


def test_only_a_first_start_has_a_parent(tmp_path: Path) -> None:
    parent, child = run(tmp_path, "parent"), run(tmp_path, "child")
    assert parent_of(recipe(init_from="parent"), run=child) == parent
    assert parent_of(recipe(init_from=""), run=child) is None


@pytest.mark.parametrize("name", ["nobody", "../parent"])
def test_a_parent_that_is_no_run_is_refused(tmp_path: Path, name: str) -> None:
    run(tmp_path, "parent")
    with pytest.raises(ConfigError, match="there is no run"):
        parent_of(recipe(init_from=name), run=run(tmp_path / "runs", "child"))


def test_a_parent_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with SecretKey.generate() as key, pytest.raises(NotFinished, match="no checkpoint to start from"):
        weights_of(run(tmp_path, "parent"), key=key)
