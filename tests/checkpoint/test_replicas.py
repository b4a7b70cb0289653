"""Copies of a run: complete or absent, first come first committed, back on another machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsc.checkpoint import replicas
from rsc.checkpoint.names import folder_name
from rsc.checkpoint.replicas import Copies, Pulled, fetch_run
from rsc.checkpoint.retention import finished
from rsc.errors import ConfigError
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import BulkStore, RandomAccess
from rsc.store.bulk.local import LocalStore
from tests.checkpoint.test_checkpoint import RUN, loadable_steps, save, writer_for


@pytest.fixture
def key() -> SecretKey:
    return SecretKey.generate()


def a_run(runs: Path, key: SecretKey, *, steps: tuple[int, ...]) -> Path:
    """A run folder with papers and checkpoints."""
    run = runs / RUN
    (run / "checkpoints").mkdir(parents=True)
    for paper in ("resolved.toml", "key.json"):
        (run / paper).write_text(paper)
    (run / "run.json").write_text(json.dumps({"id": RUN, "state": "running", "reason": ""}))
    writer, _ = writer_for(run / "checkpoints", key)
    for step in steps:
        save(writer, step=step)
    return run


def copies_of(run: Path, *, store: Path, keep: int = 2) -> Copies:
    return Copies(str(store), run=run, keep=keep)


def steps_in(folder: Path) -> list[int]:
    return finished(LocalStore(folder))


def damage(checkpoints: Path, *, step: int, file: str = "rank-*") -> Path:
    """One bit in a file of a checkpoint."""
    damaged = next((checkpoints / folder_name(step)).glob(file))
    data = bytearray(damaged.read_bytes())
    data[130] ^= 1
    damaged.write_bytes(data)
    return damaged


def test_another_machine_goes_on_from_the_newest_copy(tmp_path: Path, key: SecretKey) -> None:
    store, run = tmp_path / "store", a_run(tmp_path / "here", key, steps=(1, 2))
    ours = copies_of(run, store=store)
    assert ours.push(1)
    assert ours.push(2)
    ours.push_papers()
    other = fetch_run(f"{store}/{RUN}", runs=tmp_path / "there")
    record = json.loads((other / "run.json").read_text())
    assert (record["state"], record["reason"]) == ("interrupted", "it ran on another machine")
    assert (other / "key.json").read_text() == "key.json"
    assert copies_of(other, store=store).pull() == Pulled(2)
    assert loadable_steps(other / "checkpoints", key) == [2]
    assert copies_of(other, store=store).pull() == Pulled(), "what is here already is not fetched again"


def test_a_copy_without_its_root_does_not_exist(tmp_path: Path, key: SecretKey) -> None:
    store, run = tmp_path / "store", a_run(tmp_path / "here", key, steps=(1, 2))
    ours = copies_of(run, store=store)
    ours.push(1)
    ours.push(2)
    (store / RUN / "checkpoints" / folder_name(2) / "root.rsc").unlink()
    (tmp_path / "there" / RUN).mkdir(parents=True)
    assert copies_of(tmp_path / "there" / RUN, store=store).pull() == Pulled(1)


def test_a_damaged_copy_is_noticed_without_a_key_and_the_one_before_is_taken(
    tmp_path: Path, key: SecretKey
) -> None:
    store, run = tmp_path / "store", a_run(tmp_path / "here", key, steps=(1, 2))
    ours = copies_of(run, store=store)
    ours.push(1)
    ours.push(2)
    damage(store / RUN / "checkpoints", step=2)
    other = tmp_path / "there" / RUN
    other.mkdir(parents=True)
    assert copies_of(other, store=store).pull() == Pulled(1, damaged_copies=(2,))
    assert loadable_steps(other / "checkpoints", key) == [1]


def test_retention_holds_in_the_store_too(tmp_path: Path, key: SecretKey) -> None:
    store, run = tmp_path / "store", a_run(tmp_path / "here", key, steps=(1, 2, 3))
    ours = copies_of(run, store=store, keep=2)
    assert [ours.push(step) for step in (1, 2, 3)] == [True] * 3
    assert steps_in(store / RUN / "checkpoints") == [2, 3]


def test_of_two_machines_the_first_commits_and_nothing_is_mixed(tmp_path: Path, key: SecretKey) -> None:
    store = tmp_path / "store"
    here, there = (a_run(tmp_path / place, key, steps=(1,)) for place in ("here", "there"))
    assert copies_of(here, store=store).push(1)
    assert not copies_of(there, store=store).push(1), "another root is there: the same step of another writer"
    assert copies_of(here, store=store).push(1), "ours again is no conflict"
    assert steps_in(store / RUN / "checkpoints") == [1]


def test_a_copy_that_failed_is_made_up_for(tmp_path: Path, key: SecretKey) -> None:
    store, run = tmp_path / "store", a_run(tmp_path / "here", key, steps=(1, 2))
    ours = copies_of(run, store=store)
    ours.push(1)
    assert ours.push_newest() == 2
    assert ours.push_newest() is None
    with pytest.raises(FileNotFoundError):
        ours.push(7)


def test_a_checkpoint_that_is_pruned_while_a_slow_store_takes_it_is_copied_whole(
    tmp_path: Path, key: SecretKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = tmp_path / "store", a_run(tmp_path / "here", key, steps=(1,))
    ours = copies_of(run, store=store)
    copy = replicas._copy

    def after_retention(source: RandomAccess, target: BulkStore, path: str) -> None:
        LocalStore(run / "checkpoints").delete_folder(folder_name(1))
        copy(source, target, path)

    monkeypatch.setattr(replicas, "_copy", after_retention)
    assert ours.push(1)
    assert steps_in(run / "checkpoints") == []
    assert loadable_steps(store / RUN / "checkpoints", key) == [1]


def pushed(tmp_path: Path, key: SecretKey, *, steps: tuple[int, ...] = (1, 2)) -> tuple[Path, Path]:
    """A run whose checkpoints are here and in the store: their folders."""
    store, run = tmp_path / "store", a_run(tmp_path / "here", key, steps=steps)
    ours = copies_of(run, store=store)
    assert all(ours.push(step) for step in steps)
    return run / "checkpoints", store / RUN / "checkpoints"


@pytest.mark.parametrize("file", ["rank-*", "root.rsc"])
def test_a_copy_of_the_same_step_is_better_than_an_older_checkpoint_here(
    tmp_path: Path, key: SecretKey, file: str
) -> None:
    here, _ = pushed(tmp_path, key)
    damage(here, step=2, file=file)
    assert copies_of(here.parent, store=tmp_path / "store").pull() == Pulled(2, damaged_here=(2,))
    assert loadable_steps(here, key) == [2, 1]


def test_a_file_that_is_gone_here_is_fetched(tmp_path: Path, key: SecretKey) -> None:
    here, _ = pushed(tmp_path, key)
    next((here / folder_name(2)).glob("rank-*")).unlink()
    assert copies_of(here.parent, store=tmp_path / "store").pull() == Pulled(2, damaged_here=(2,))
    assert loadable_steps(here, key) == [2, 1]


def test_what_is_whole_here_is_never_replaced_by_a_damaged_copy(tmp_path: Path, key: SecretKey) -> None:
    """Here the root is damaged, in the store the rank's file: together they are whole."""
    here, there = pushed(tmp_path, key)
    damage(here, step=2, file="root.rsc")
    damage(there, step=2)
    assert copies_of(here.parent, store=tmp_path / "store").pull().step == 2
    assert loadable_steps(here, key) == [2, 1]


def test_of_a_step_that_is_damaged_in_both_places_nothing_is_taken(tmp_path: Path, key: SecretKey) -> None:
    here, there = pushed(tmp_path, key)
    damage(here, step=2)
    damage(there, step=2)
    found = copies_of(here.parent, store=tmp_path / "store").pull()
    assert found == Pulled(None, damaged_here=(2,), damaged_copies=(2,))
    assert loadable_steps(here, key) == [1]


def test_a_step_that_another_writer_committed_replaces_a_damaged_one_whole(
    tmp_path: Path, key: SecretKey
) -> None:
    store = tmp_path / "store"
    here, there = (a_run(tmp_path / place, key, steps=(1,)) for place in ("here", "there"))
    assert copies_of(there, store=store).push(1)
    damage(here / "checkpoints", step=1)
    assert copies_of(here, store=store).pull() == Pulled(1, damaged_here=(1,))
    assert loadable_steps(here / "checkpoints", key) == [1]
    assert len(list((here / "checkpoints" / folder_name(1)).iterdir())) == 2, "nothing of the other is left"


def test_a_damaged_checkpoint_is_not_copied_over_good_ones(tmp_path: Path, key: SecretKey) -> None:
    """With `keep = 1` the last good one would go for it."""
    store, run = tmp_path / "store", a_run(tmp_path / "here", key, steps=(1, 2))
    ours = copies_of(run, store=store, keep=1)
    ours.push(1)
    damage(run / "checkpoints", step=2)
    assert ours.pull() == Pulled(None, damaged_here=(2,))
    assert ours.push_newest() is None
    assert loadable_steps(store / RUN / "checkpoints", key) == [1]


def test_there_must_be_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no copy of a run at"):
        fetch_run(f"{tmp_path}/nothing", runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
