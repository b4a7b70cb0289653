from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import HashStore

from rsc.checkpoint.names import ROOT_FILE, folder_name
from rsc.checkpoint.read_counts import StoreReads
from rsc.cluster.launch.launcher import LocalLauncher
from rsc.cluster.sandbox import wrap
from rsc.cluster.sandbox.wrap import Level
from rsc.config import CipherChoice, Workspace
from rsc.control.admission import Admission, isolation_of
from rsc.control.controller import Controller
from rsc.control.init_from import find_parent
from rsc.errors import ConfigError, IsolationRefused, NotFinished
from rsc.export.card_facts import lineages
from rsc.export.weights import write_export
from rsc.keys.secret import SecretKey
from rsc.layers import to_toml
from rsc.loader.config import DataConfig
from rsc.models.build import build_model
from rsc.recipes.data_fit import SplitSamples
from rsc.recipes.recipe import Recipe, load_recipe
from rsc.release.agent.job_scope import Served
from rsc.release.record.run_origin import DataUsed, RunOrigin, used_before, used_in
from rsc.runs.folder import RunFolder, list_runs
from rsc.store.bulk.local import LocalStore
from rsc.store.format.schema import Field, Schema
from rsc.train.init_weights import agreed_step, inherited_by, inheriting, newest_step, parent_of
from tests.conftest import FakeClock


def recipe(*, init_from: str) -> Recipe:
    return load_recipe("language", overrides=["data.name=x", f"model.init_from={init_from}"]).recipe


def alone(choose: Callable[[], int]) -> int:
    return choose()


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
    files = LocalStore(run(tmp_path, "parent") / "checkpoints")
    with SecretKey.generate() as key, pytest.raises(NotFinished, match="no checkpoint to start from"):
        newest_step(files, run="parent", key=key)


def test_a_parent_that_trains_on_gives_every_rank_the_same_step() -> None:
    """Each look finds a newer checkpoint."""
    looks = iter([4, 8])
    store = HashStore()
    agreed = [agreed_step(lambda: next(looks), rank=rank, store=store) for rank in (0, 1)]
    assert agreed == [4, 4]


def exported(folder: Path, *, settings: list[str], said: dict[str, Any] | None = None) -> Path:
    """Open weights of an untrained toy."""
    config = load_recipe("language", overrides=["data.name=x", *settings]).recipe.model
    state = build_model(config, seed=3).state_dict()
    write_export(folder, config=config, state=state, context=32, settings=said)
    return folder


TOY = [
    "model.trunk.width=32",
    "model.trunk.num_layers=1",
    "model.trunk.num_heads=2",
    "model.trunk.mlp_width=48",
]


def test_open_weights_are_taken_over_by_our_names(tmp_path: Path) -> None:
    folder = exported(tmp_path / "open", settings=TOY)
    overrides = ["data.name=x", *TOY, f"model.init_from={folder}"]
    child = load_recipe("language", overrides=overrides).recipe
    assert parent_of(child, run=tmp_path / "run") == folder
    weights = inherited_by(child, run=tmp_path / "run", key=None, reads=StoreReads(), agree=alone)
    assert weights is not None
    for name, tensor in build_model(child.model, seed=3).state_dict().items():
        used = (
            tensor[: child.model.text.vocabulary] if "embedding" in name or name == "head.weight" else tensor
        )  # type: ignore[union-attr]
        torch.testing.assert_close(weights[name][: len(used)], used)


def test_open_weights_of_another_trunk_are_refused_with_the_settings_to_change(tmp_path: Path) -> None:
    folder = exported(tmp_path / "open", settings=[*TOY, "model.trunk.rope_base=500000.0"])
    overrides = ["data.name=x", *TOY, "model.trunk.width=64", f"model.init_from={folder}"]
    child = load_recipe("language", overrides=overrides).recipe
    with pytest.raises(ConfigError, match="another trunk") as caught:
        inherited_by(child, run=tmp_path / "run", key=None, reads=StoreReads(), agree=alone)
    assert (
        caught.value.hint
        == "set model.trunk.width=32 model.trunk.head_width=16 model.trunk.rope_base=500000.0"
    )


STRICT = {"data": {"name": "strict", "version": 1, "root_hash": "s" * 64}}


class OpenGate:
    """Admits everything; a key would be made after all checks."""

    def admit(self, data: DataConfig) -> Admission:
        return Admission(version=1, lineage={}, samples=SplitSamples(Schema((Field("text", "string"),))))

    def isolation(self, version: tuple[str, int], *, root_hash: str) -> Level:
        return "required" if version == ("strict", 1) else "none"

    def cipher(self, version: tuple[str, int], *, root_hash: str) -> CipherChoice:
        return "auto"

    def origin(self, run: str) -> RunOrigin:
        return RunOrigin(run, "language", "0" * 64, (DataUsed("strict", 1, "s" * 64),))

    def record_start(self, origin: RunOrigin) -> None:
        raise AssertionError("a run was made")

    def record_drive(self, run: str, *, isolation: str) -> None:
        raise AssertionError("a run went on")

    def make_run_key(self, run: RunFolder) -> None:
        raise AssertionError("a run was made")

    def serve(self, socket: Path, *, serves: Served) -> AbstractContextManager[None]:
        raise AssertionError("workers were about to start")


def trained_run(runs: Path, *, settings: list[str], clock: FakeClock) -> RunFolder:
    """A run as it stands after a checkpoint, as far as a start of another one looks at it."""
    resolved = load_recipe("language", overrides=["data.name=x", *settings]).resolved
    run = RunFolder.create(runs, recipe="language", steps=1, lineage=STRICT, clock=clock)
    (run.path / "resolved.toml").write_text(to_toml(resolved))
    step = run.path / "checkpoints" / folder_name(1)
    step.mkdir(parents=True)
    (step / ROOT_FILE).write_bytes(b"")
    return run


def test_another_trunk_is_refused_before_a_run_is_made(tmp_path: Path, clock: FakeClock) -> None:
    folder = exported(tmp_path / "open", settings=[*TOY, "model.trunk.rope_base=500000.0"])
    loaded = load_recipe("language", overrides=["data.name=x", *TOY, f"model.init_from={folder}"])
    workspace = Workspace(tmp_path / "home")
    controller = Controller(workspace, gate=OpenGate(), launcher=LocalLauncher(), clock=clock, say=print)
    with pytest.raises(ConfigError, match=r"rope_base 500000\.0 \(the recipe has 10000"):
        controller.start(loaded)
    assert not workspace.runs.exists()


def test_a_parent_run_is_judged_by_its_recipe(tmp_path: Path, clock: FakeClock) -> None:
    run = trained_run(tmp_path, settings=[*TOY, "model.trunk.norm_eps=0.001"], clock=clock)
    ours = load_recipe("language", overrides=["data.name=x", *TOY]).recipe.model
    with pytest.raises(ConfigError, match="another trunk") as caught:
        find_parent(run.id, runs=tmp_path, model=ours)
    assert caught.value.hint == "set model.trunk.norm_eps=0.001"
    same = ours.model_copy(
        update={"trunk": ours.trunk.model_copy(update={"norm_eps": 0.001, "causal": False})}
    )
    found = find_parent("last", runs=tmp_path, model=same)
    assert found is not None
    assert found.lineage == {"run": run.id, **STRICT}


def test_a_parent_run_without_a_checkpoint_is_told_at_once(tmp_path: Path, clock: FakeClock) -> None:
    run = trained_run(tmp_path, settings=TOY, clock=clock)
    (run.path / "checkpoints" / folder_name(1) / ROOT_FILE).unlink()
    model = load_recipe("language", overrides=["data.name=x", *TOY]).recipe.model
    with pytest.raises(NotFinished, match="no checkpoint to start from"):
        find_parent(run.id, runs=tmp_path, model=model)


def test_a_folder_without_weights_is_no_parent(tmp_path: Path) -> None:
    model = load_recipe("language", overrides=["data.name=x", *TOY]).recipe.model
    with pytest.raises(ConfigError, match=r"holds no \.safetensors files"):
        find_parent(str(tmp_path), runs=tmp_path, model=model)
    assert find_parent("", runs=tmp_path, model=model) is None


def test_a_parent_that_asks_for_isolation_is_refused_before_a_run_is_made_where_there_is_none(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child's own data asks for none; the key agent would refuse its workers the parent's key."""
    monkeypatch.setattr(wrap, "_try", lambda argv, environment: "Operation not permitted")
    workspace = Workspace(tmp_path)
    parent = trained_run(workspace.runs, settings=TOY, clock=clock)
    loaded = load_recipe("language", overrides=["data.name=x", *TOY, f"model.init_from={parent.id}"])
    controller = Controller(workspace, gate=OpenGate(), launcher=LocalLauncher(), clock=clock, say=print)
    with pytest.raises(IsolationRefused, match="Operation not permitted"):
        controller.start(loaded, workers=1)
    assert [run.id for run in list_runs(workspace.runs)] == [parent.id]


def test_a_run_is_as_isolated_as_the_strictest_that_it_comes_from() -> None:
    mild, strict = DataUsed("mild", 1, "m" * 64), DataUsed("strict", 1, "s" * 64)
    about = {"run": "r1", "recipe": "language", "recipe_sha256": "0" * 64}
    assert isolation_of(OpenGate(), RunOrigin(**about, data=(mild,), inherited=(mild,))) == "none"
    assert isolation_of(OpenGate(), RunOrigin(**about, data=(mild,), exported=(strict,))) == "none"
    assert isolation_of(OpenGate(), RunOrigin(**about, data=(mild,), inherited=(strict,))) == "required"
    assert isolation_of(OpenGate(), RunOrigin(**about, data=(mild, strict))) == "required"


def test_an_export_of_a_run_that_is_here_brings_its_lineage(tmp_path: Path, clock: FakeClock) -> None:
    run = trained_run(tmp_path / "runs", settings=TOY, clock=clock)
    folder = exported(tmp_path / "open", settings=TOY, said={"run": run.id, "step": 1})
    model = load_recipe("language", overrides=["data.name=x", *TOY]).recipe.model
    ours = find_parent(str(folder), runs=tmp_path / "runs", model=model)
    elsewhere = find_parent(str(folder), runs=tmp_path / "others", model=model)
    assert ours is not None
    assert elsewhere is not None
    assert ours.lineage == {**elsewhere.lineage, "export_of": {"run": run.id, **STRICT}}
    child = {"data": {"name": "mild", "version": 1, "root_hash": "m" * 64}, "parent": ours.lineage}
    started = RunFolder.create(tmp_path / "runs", recipe="language", steps=1, lineage=child, clock=clock)
    assert [each["data"]["name"] for each in lineages(started)] == ["mild", "strict"]
    assert [each.place for each in used_in(child)] == [("mild", 1)]
    assert [each.place for each in used_before(child["parent"], through="export_of")] == [("strict", 1)]
    assert not list(used_before(child, through="parent")), (
        "what an export may be used for was decided with it"
    )
