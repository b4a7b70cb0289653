"""Save, damage, load: one process. Other meshes: tests/parallel/test_equality.py."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._C._distributed_c10d import HashStore

from rsc.checkpoint.commit_barrier import Meeting
from rsc.checkpoint.load import Checkpoint, Damaged, checkpoints, materialise, newest_good
from rsc.checkpoint.names import folder_name
from rsc.checkpoint.read_counts import StoreReads
from rsc.checkpoint.retention import finished, remove_leftovers, to_delete
from rsc.checkpoint.save import CheckpointWriter
from rsc.checkpoint.shards import Piece, state_pieces
from rsc.errors import IntegrityError
from rsc.keys.secret import SecretKey
from rsc.parallel.boxes import Box
from rsc.store.bulk.local import LocalReader, LocalStore, RealDisk
from rsc.store.format.suites import AES_256_GCM, SUITES, Suite

RUN = "2026-11-21-language-0001"


class Events:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def append(self, kind: str, **facts: Any) -> None:
        self.lines.append({"kind": kind, **facts})

    def kinds(self) -> list[str]:
        return [line["kind"] for line in self.lines]


def trained(*, steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small model after some steps, so that the optimiser remembers something."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 33), nn.Tanh(), nn.Linear(33, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    advance(model, optimizer, steps=steps)
    return model, optimizer


def advance(model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        torch.manual_seed(100 + step)
        loss = model(torch.randn(5, 7)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def pieces_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Piece]:
    return state_pieces([model], [optimizer], is_writer=lambda _: True)


def writer_for(
    folder: Path,
    key: SecretKey,
    *,
    disk: RealDisk | None = None,
    keep: int = 9,
    suite: Suite = AES_256_GCM,
) -> tuple[CheckpointWriter, Events]:
    events = Events()
    writer = CheckpointWriter(
        LocalStore(folder, disk=disk),
        run=RUN,
        key=key,
        suite=suite,
        rank=0,
        attempt="a0",
        meeting=Meeting(HashStore(), world=1),
        events=events,
        keep=keep,
    )
    return writer, events


def save(writer: CheckpointWriter, *, step: int, steps: int = 2) -> tuple[nn.Module, torch.optim.Optimizer]:
    model, optimizer = trained(steps=steps)
    writer.save(step=step, pieces=pieces_of(model, optimizer), state={"tokens": 10 * step})
    writer.wait()
    return model, optimizer


def load(checkpoint: Checkpoint) -> tuple[nn.Module, torch.optim.Optimizer]:
    model, optimizer = trained(steps=0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    materialise([optimizer], names=names, shapes=checkpoint.shapes())
    checkpoint.read_into(pieces_of(model, optimizer))
    return model, optimizer


@pytest.fixture
def key() -> SecretKey:
    return SecretKey.generate()


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.cipher)
def test_training_goes_on_bit_equal_after_a_load(tmp_path: Path, key: SecretKey, suite: Suite) -> None:
    writer, events = writer_for(tmp_path, key, suite=suite)
    model, optimizer = save(writer, step=2)
    checkpoint = newest_good(LocalStore(tmp_path), run=RUN, key=key)
    assert checkpoint is not None
    assert checkpoint.root.state == {"tokens": 20}
    restored = load(checkpoint)
    assert advance(*restored, steps=3) == advance(model, optimizer, steps=3)
    assert events.kinds() == ["checkpoint"]


def test_every_byte_that_is_read_of_a_checkpoint_is_counted(tmp_path: Path, key: SecretKey) -> None:
    writer, _ = writer_for(tmp_path, key)
    save(writer, step=2)
    reads = StoreReads()
    store = reads.of(LocalStore(tmp_path))
    assert finished(store) == [2]
    assert reads.facts() == {"store_files_read": 0, "store_bytes_read": 0}
    load(Checkpoint(store, step=2, run=RUN, key=key))
    stored = sum(path.stat().st_size for path in (tmp_path / folder_name(2)).iterdir())
    assert reads.num_files == 4  # the root; the tensors' file for its size, its index, its tensors
    assert stored <= reads.size_bytes < 4 * stored, "a frame is read once, not for each of its boxes"


def test_boxes_that_share_frames_and_cross_them_come_back(tmp_path: Path, key: SecretKey) -> None:
    """Frames hold 1 MiB: small boxes before, between and behind ones of 1.9 and exactly 1 MiB."""
    writer, _ = writer_for(tmp_path, key)
    sizes = (3, 500_000, 7, 1 << 18, 5, 1, 500_000, 9)

    def pieces(fill: bool) -> list[Piece]:
        made = [torch.randn(size) if fill else torch.zeros(size) for size in sizes]
        return [
            Piece(f"w{number}", (len(one),), Box((0,), (len(one),)), one, is_ours=True)
            for number, one in enumerate(made)
        ]

    saved, loaded = pieces(True), pieces(False)
    writer.save(step=1, pieces=saved, state={})
    writer.wait()
    Checkpoint(LocalStore(tmp_path), step=1, run=RUN, key=key).read_into(loaded)
    assert all(torch.equal(one.tensor, other.tensor) for one, other in zip(saved, loaded, strict=True))


def test_state_is_what_it_was_when_save_returned(tmp_path: Path, key: SecretKey) -> None:
    writer, _ = writer_for(tmp_path, key)
    model, optimizer = trained()
    before = [parameter.clone() for parameter in model.parameters()]
    writer.save(step=2, pieces=pieces_of(model, optimizer), state={})
    advance(model, optimizer, steps=5)
    writer.wait()
    checkpoint = newest_good(LocalStore(tmp_path), run=RUN, key=key)
    assert checkpoint is not None
    restored, _ = load(checkpoint)
    assert all(map(torch.equal, restored.parameters(), before))


def test_no_weight_is_found_in_the_files(tmp_path: Path, key: SecretKey) -> None:
    writer, _ = writer_for(tmp_path, key)
    model, _ = save(writer, step=1)
    needles = [parameter.detach().numpy().tobytes()[:32] for parameter in model.parameters()]
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert len(written) > 1000
    assert not any(needle in written for needle in needles)
    assert b"tokens" not in written


def test_every_flipped_byte_is_noticed_and_the_checkpoint_before_is_used(
    tmp_path: Path, key: SecretKey
) -> None:
    writer, _ = writer_for(tmp_path, key)
    save(writer, step=1)
    save(writer, step=2)
    files = sorted((tmp_path / folder_name(2)).iterdir())
    for path in files:
        good = path.read_bytes()
        for place in range(0, len(good), max(1, len(good) // 37)):
            path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
            steps = list(loadable_steps(tmp_path, key))
            assert steps == [1], f"byte {place} of {path.name}"
        path.write_bytes(good)
    assert list(loadable_steps(tmp_path, key)) == [2, 1]


def loadable_steps(folder: Path, key: SecretKey) -> list[int]:
    steps = []
    for item in checkpoints(LocalStore(folder), run=RUN, key=key):
        try:
            if isinstance(item, Checkpoint):
                load(item)
                steps.append(item.step)
        except IntegrityError:
            continue
    return steps


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_truncated_file_is_damaged(tmp_path: Path, key: SecretKey, cut: int) -> None:
    writer, _ = writer_for(tmp_path, key)
    save(writer, step=2)
    path = next((tmp_path / folder_name(2)).glob("rank-*"))
    path.write_bytes(path.read_bytes()[:-cut])
    found = list(checkpoints(LocalStore(tmp_path), run=RUN, key=key))
    assert [type(item) for item in found] == [Damaged]


def test_files_of_another_step_do_not_fit(tmp_path: Path, key: SecretKey) -> None:
    writer, _ = writer_for(tmp_path, key)
    save(writer, step=1)
    (tmp_path / folder_name(1)).rename(tmp_path / folder_name(7))
    assert newest_good(LocalStore(tmp_path), run=RUN, key=key) is None


def test_another_key_and_another_run_read_nothing(tmp_path: Path, key: SecretKey) -> None:
    writer, _ = writer_for(tmp_path, key)
    save(writer, step=1)
    assert newest_good(LocalStore(tmp_path), run=RUN, key=SecretKey.generate()) is None
    assert newest_good(LocalStore(tmp_path), run="another", key=key) is None


class FullDisk(RealDisk):
    def write(self, fd: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")


def test_full_disk_drops_the_checkpoint_and_nothing_else(tmp_path: Path, key: SecretKey) -> None:
    save(writer_for(tmp_path, key)[0], step=1)
    writer, events = writer_for(tmp_path, key, disk=FullDisk())
    save(writer, step=2)
    assert events.kinds() == ["checkpoint_failed"]
    assert "No space left" in events.lines[0]["reason"]
    assert finished(LocalStore(tmp_path)) == [1]


def test_a_writer_that_ends_without_a_word_has_failed(
    tmp_path: Path, key: SecretKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an error that is no disk's: a run must not count it as its last checkpoint."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    writer, events = writer_for(tmp_path, key)
    with monkeypatch.context() as broken:
        broken.setattr(writer, "_write_file", lambda **_: {}["a bug"])
        save(writer, step=1)
    assert "in the log" in writer.failure
    save(writer, step=2)
    assert (writer.failure, events.kinds()) == ("", ["checkpoint"])


class BadSector(LocalStore):
    """The root of step 2 cannot be read."""

    def open(self, path: str, *, size_bytes: int | None = None) -> LocalReader:
        if path == f"{folder_name(2)}/root.rsc":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().open(path, size_bytes=size_bytes)


def test_a_bad_sector_is_a_damaged_checkpoint(tmp_path: Path, key: SecretKey) -> None:
    writer, _ = writer_for(tmp_path, key)
    save(writer, step=1)
    save(writer, step=2)
    newest, before = checkpoints(BadSector(tmp_path), run=RUN, key=key)
    assert newest == Damaged(2, "Input/output error")
    assert isinstance(before, Checkpoint)
    assert before.step == 1


def test_unfinished_checkpoint_does_not_count_and_is_cleared(tmp_path: Path, key: SecretKey) -> None:
    writer, _ = writer_for(tmp_path, key)
    save(writer, step=1)
    save(writer, step=2)
    (tmp_path / folder_name(2) / "root.rsc").unlink()
    assert finished(LocalStore(tmp_path)) == [1]
    remove_leftovers(LocalStore(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [folder_name(1)]


def test_retention_keeps_the_newest_and_the_round_steps() -> None:
    assert to_delete(range(10, 100, 10), keep=2, keep_every=40) == [10, 20, 30, 50, 60, 70]
    assert to_delete([5], keep=1, keep_every=0) == []


def test_writer_prunes_after_each_commit(tmp_path: Path, key: SecretKey) -> None:
    writer, _ = writer_for(tmp_path, key, keep=2)
    for step in (1, 2, 3, 4):
        save(writer, step=step)
    assert finished(LocalStore(tmp_path)) == [3, 4]


def test_missing_tensor_is_an_error_not_a_zero(tmp_path: Path, key: SecretKey) -> None:
    writer, _ = writer_for(tmp_path, key)
    save(writer, step=1)
    checkpoint = newest_good(LocalStore(tmp_path), run=RUN, key=key)
    assert checkpoint is not None
    stranger = Piece("model/9.weight", (2,), Box((0,), (2,)), torch.zeros(2), is_ours=True)
    with pytest.raises(IntegrityError, match=r"lacks 1 tensors, first model/9\.weight"):
        checkpoint.read_into([stranger])


def test_same_step_saved_again_replaces_the_first(tmp_path: Path, key: SecretKey) -> None:
    save(writer_for(tmp_path, key)[0], step=2, steps=2)
    model, _ = save(writer_for(tmp_path, key)[0], step=2, steps=5)
    checkpoint = newest_good(LocalStore(tmp_path), run=RUN, key=key)
    assert checkpoint is not None
    assert all(map(torch.equal, load(checkpoint)[0].parameters(), model.parameters()))


def test_a_damaged_checkpoint_does_not_push_out_the_good_one_before_it(
    tmp_path: Path, key: SecretKey
) -> None:
    """Step 3 could not be read at this start: 2 stays for as long as nothing newer is known to be good."""
    writer, _ = writer_for(tmp_path, key, keep=2)
    for step in (1, 2, 3):
        save(writer, step=step)
    again, _ = writer_for(tmp_path, key, keep=2)
    again.damaged = {3}
    save(again, step=4)
    assert finished(LocalStore(tmp_path)) == [2, 3, 4]
    save(again, step=3)
    save(again, step=5)
    assert finished(LocalStore(tmp_path)) == [4, 5], "step 3 was written anew and counts again"


def test_the_best_step_stays_whatever_is_newer(tmp_path: Path, key: SecretKey) -> None:
    writer, _ = writer_for(tmp_path, key, keep=1)
    for step in (1, 2, 3, 4):
        writer.best = min(step, 2)
        save(writer, step=step)
    assert finished(LocalStore(tmp_path)) == [2, 4]
