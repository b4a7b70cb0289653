"""Which checkpoint a rank takes up when the newest cannot be read, and which snapshots it forgets."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import HashStore

from rsc.checkpoint.names import folder_name
from rsc.checkpoint.neighbours import Neighbours
from rsc.checkpoint.read_counts import StoreReads
from rsc.checkpoint.snapshot import SnapshotMemory, new_memory
from rsc.keys.secret import SecretKey
from rsc.store.bulk.local import LocalReader, LocalStore
from rsc.train.batches.batch_source import BatchSource
from rsc.train.engine.engine import Engine
from rsc.train.loop import TrainProgress
from rsc.train.restore import Restorer
from tests.checkpoint.test_checkpoint import RUN, Events, pieces_of, trained, writer_for


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one rank."""
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class BadSector(LocalStore):
    """Tensors of step 2 cannot be read; its root can."""

    def open(self, path: str, *, size_bytes: int | None = None) -> LocalReader:
        reader = super().open(path, size_bytes=size_bytes)
        if path.startswith(f"{folder_name(2)}/rank-"):
            os.dup2(os.open("/proc/self/mem", os.O_RDONLY), reader._fd)  # reading its first bytes gives EIO
        return reader


def restore(folder: LocalStore, *, key: SecretKey, memory: SnapshotMemory | None) -> tuple[int, Events]:
    """The step that a new process goes on at, and what it tells."""
    model, optimizer = trained(steps=0)
    engine = SimpleNamespace(
        placed=SimpleNamespace(modules=[model]),
        optimizer=optimizer,
        pieces=lambda: pieces_of(model, optimizer),
    )
    mesh: Any = SimpleNamespace(rank=0, device=torch.device("cpu"), layout="alone")
    source: Any = SimpleNamespace(load_state_dict=lambda _: None)
    events, progress = Events(), TrainProgress()
    snapshots = Neighbours(memory, None, carried=0, rank=0, world=1) if memory is not None else None
    restorer = Restorer(
        folder, snapshots, run=RUN, key=key, mesh=mesh, store=HashStore(), events=events, reads=StoreReads()
    )
    restorer.restore(cast(Engine, engine), source=cast(BatchSource, source), progress=progress)
    return progress.step, events


def save_two(folder: Path, key: SecretKey) -> nn.Module:
    writer, _ = writer_for(folder, key)
    model, optimizer = trained()
    for step in (1, 2):
        state = {"progress": TrainProgress(step=step).state_dict(), "loader": {}}
        writer.save(step=step, pieces=pieces_of(model, optimizer), state=state)
    writer.wait()
    return model


@pytest.mark.usefixtures("alone")
def test_a_bad_sector_costs_one_checkpoint_and_not_the_run(tmp_path: Path) -> None:
    key = SecretKey.generate()
    save_two(tmp_path, key)
    step, events = restore(BadSector(tmp_path), key=key, memory=None)
    assert step == 1
    assert events.kinds() == ["checkpoint_damaged", "resumed"]
    assert events.lines[0]["reason"] == os.strerror(errno.EIO)


@pytest.mark.usefixtures("alone")
def test_snapshots_of_a_way_that_was_given_up_are_forgotten(tmp_path: Path) -> None:
    """This rank has steps 1 and 3 of another layout, so all go back to the checkpoint of step 2."""
    descriptor = new_memory()
    if descriptor is None:
        pytest.skip("this system has no memfd")
    key, memory = SecretKey.generate(), SnapshotMemory(descriptor, rank=0)
    save_two(tmp_path, key)
    for step in (1, 3):
        memory.write(step=step, pieces=[], state={}, layout="another")
    assert restore(LocalStore(tmp_path), key=key, memory=memory)[0] == 2
    assert sorted(memory.steps()) == [-1, 1]
