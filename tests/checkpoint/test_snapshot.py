"""Snapshots in memory: what was written last and whole comes back, bit for bit."""

from __future__ import annotations

import pytest
import torch

from rsc.checkpoint.shards import Piece
from rsc.checkpoint.snapshot import SnapshotMemory, new_memory
from rsc.parallel.boxes import Box


@pytest.fixture
def memory() -> SnapshotMemory:
    return fresh_memory()


def fresh_memory() -> SnapshotMemory:
    descriptor = new_memory()
    if descriptor is None:
        pytest.skip("this system has no memfd")
    return SnapshotMemory(descriptor, rank=0)


def pieces(*values: float) -> list[Piece]:
    shapes = [(3, 5), (0,), (), (70,)]
    made = [torch.full(shape, value) for shape, value in zip(shapes, (*values, *values), strict=False)]
    return [
        Piece(
            f"model/{place}",
            tuple(tensor.shape),
            Box((0,) * tensor.ndim, tuple(tensor.shape)),
            tensor,
            is_ours=True,
        )
        for place, tensor in enumerate(made)
    ]


def read(memory: SnapshotMemory, step: int) -> tuple[list[torch.Tensor], dict[str, int]]:
    snapshot = memory.find(step)
    target = pieces(0.0, 0.0)
    memory.read_into(snapshot, target)
    return [piece.tensor for piece in target], snapshot.state


def test_empty_memory_has_no_step(memory: SnapshotMemory) -> None:
    assert memory.steps() == [-1, -1]
    with pytest.raises(KeyError):
        memory.find(3)


def test_the_two_newest_come_back_and_a_new_process_sees_them(memory: SnapshotMemory) -> None:
    for step in range(1, 6):
        memory.write(
            step=step, pieces=pieces(float(step), -float(step)), state={"items": step}, layout="dp_shard 2"
        )
    assert sorted(memory.steps()) == [4, 5]
    other = SnapshotMemory(memory._descriptor, rank=0)
    for step in (4, 5):
        tensors, state = read(other, step)
        assert state == {"items": step}
        assert all(map(torch.equal, tensors, (piece.tensor for piece in pieces(float(step), -float(step)))))


def test_a_snapshot_cut_short_leaves_the_one_before(
    memory: SnapshotMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.write(step=1, pieces=pieces(1.0, 1.0), state={}, layout="")
    memory.write(step=2, pieces=pieces(2.0, 2.0), state={}, layout="")

    def die(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rsc.checkpoint.snapshot._copy", die)
    with pytest.raises(KeyboardInterrupt):
        memory.write(step=3, pieces=pieces(3.0, 3.0), state={}, layout="")
    monkeypatch.undo()
    assert sorted(memory.steps()) == [-1, 2]
    assert torch.equal(read(memory, 2)[0][0], torch.full((3, 5), 2.0))


def test_ranks_never_take_up_snapshots_of_two_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 1 dies while it writes step 9, both go back to 6, come to 9 again and die: 9 is the new one."""
    ranks = [fresh_memory(), fresh_memory()]

    def write(memory: SnapshotMemory, *, step: int, value: float) -> None:
        memory.write(step=step, pieces=pieces(value, value), state={}, layout="")

    for memory in ranks:
        write(memory, step=3, value=3.0)
        write(memory, step=6, value=6.0)
    write(ranks[0], step=9, value=-9.0)
    with monkeypatch.context() as dying:
        dying.setattr("rsc.checkpoint.snapshot._copy", lambda *_, **__: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            write(ranks[1], step=9, value=-9.0)
    for memory in ranks:
        memory.forget_after(6)
        assert sorted(memory.steps()) == [-1, 6]
        write(memory, step=9, value=9.0)
        assert sorted(memory.steps()) == [6, 9]
        assert torch.equal(read(memory, 9)[0][0], torch.full((3, 5), 9.0))


def test_other_tensors_are_refused(memory: SnapshotMemory) -> None:
    memory.write(step=1, pieces=pieces(1.0, 1.0), state={}, layout="")
    with pytest.raises(ValueError, match="other tensors"):
        memory.read_into(memory.find(1), pieces(1.0, 1.0)[:-1])
