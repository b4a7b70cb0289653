"""A version appears whole or not at all, wherever the process, the power or the disk gives up."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from rsc.errors import ResourceError
from rsc.keys.envelope import Envelope
from rsc.keys.secret import SecretKey
from rsc.store.bulk.local import LocalStore
from rsc.store.dataset import Dataset, DatasetWriter, list_versions
from rsc.store.format.columns import Columns, concatenate_columns
from rsc.store.format.schema import Field, Schema
from rsc.store.staging import list_unfinished
from tests.conftest import FakeClock
from tests.store.conftest import SCHEMA, assert_equal, make_columns
from tests.store.faulty_disk import Fault, FaultyDisk, Killed

Enveloped = tuple[Envelope, SecretKey]
COLUMNS = make_columns(24)


def write(
    store: LocalStore, enveloped: Enveloped, clock: FakeClock, *, checkpoint: bool = False, stop: bool = False
) -> None:
    """Two splits of some shards; halfway a checkpoint, or the end."""
    writer = DatasetWriter.create(
        store,
        name="posts",
        schemas={"train": SCHEMA, "validation": SCHEMA},
        key=enveloped[1],
        envelope=enveloped[0],
        clock=clock,
        frame_bytes=400,
        shard_bytes=900,
    )
    writer.append("train", COLUMNS)
    if checkpoint:
        writer.checkpoint({"line": 60})
    if stop:
        return
    writer.append("validation", COLUMNS)
    writer.commit(policy=b"policy", report=b"report", facts={})


def num_calls(
    folder: Path, enveloped: Enveloped, clock: FakeClock, *, checkpoint: bool = False, stop: bool = False
) -> int:
    disk = FaultyDisk()
    write(LocalStore(folder, disk=disk), enveloped, clock, checkpoint=checkpoint, stop=stop)
    return disk.calls


def assert_whole(folder: Path, key: SecretKey, *, version: int) -> None:
    dataset = Dataset.open(folder, name="posts", version=version)
    assert dataset.verify(key=key).is_good
    for split in ("train", "validation"):
        assert_equal(concatenate_columns(list(dataset.split(split, key=key).iterate())), COLUMNS)


@pytest.mark.parametrize(
    "fault", ["kill", "power, names kept", "power, names lost", "power, names older lost"]
)
def test_killed_at_every_call(fault: str, tmp_path: Path, enveloped: Enveloped, clock: FakeClock) -> None:
    total = num_calls(tmp_path / "count", enveloped, clock)
    assert total > 50
    published = 0
    for call in range(total):
        folder = tmp_path / str(call)
        disk = FaultyDisk(fail_at=call, fault="kill")
        with pytest.raises(Killed):
            write(LocalStore(folder, disk=disk), enveloped, clock)
        if fault != "kill":
            disk.lose_unsynced(names=fault.removeprefix("power, names "))  # type: ignore[arg-type]
        versions = list_versions(folder, "posts")
        assert versions in ([], [1]), call
        for version in versions:
            assert_whole(folder, enveloped[1], version=version)
        published += len(versions)
        for unfinished in list_unfinished(LocalStore(folder, disk=FaultyDisk()), "posts"):
            unfinished.remove()
        write(LocalStore(folder, disk=FaultyDisk()), enveloped, clock)
        assert_whole(folder, enveloped[1], version=len(versions) + 1)
    assert published < 3  # only a kill after the publishing rename leaves a version


def test_a_full_disk_is_a_resource_error_and_leaves_nothing(
    tmp_path: Path, enveloped: Enveloped, clock: FakeClock
) -> None:
    total = num_calls(tmp_path / "count", enveloped, clock)
    failed = 0
    for call in range(total):
        folder = tmp_path / str(call)
        disk = FaultyDisk(fail_at=call, fault="full")
        # Calls that need no space (renames, syncs of folders) succeed, so the last few faults are not met.
        with suppress(ResourceError):
            write(LocalStore(folder, disk=disk), enveloped, clock)
            assert_whole(folder, enveloped[1], version=1)
            continue
        failed += 1
        assert [path for path in folder.rglob("*") if path.is_file()] == [], call
    assert failed > 30
    with pytest.raises(ResourceError, match="No space left") as caught:
        write(LocalStore(tmp_path / "full", disk=FaultyDisk(fail_at=20, fault="full")), enveloped, clock)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("fault", ["kill", "full"])
def test_resume_goes_on_from_the_checkpoint(
    fault: Fault, tmp_path: Path, enveloped: Enveloped, clock: FakeClock
) -> None:
    """Stop at every call after the checkpoint: resume finds it, and the version is as if never stopped."""
    total = num_calls(tmp_path / "count", enveloped, clock, checkpoint=True)
    first = num_calls(tmp_path / "begun", enveloped, clock, checkpoint=True, stop=True)
    resumed = lost = 0
    for call in range(first, total):
        folder = tmp_path / str(call)
        disk = FaultyDisk(fail_at=call, fault=fault)
        with suppress(Killed, ResourceError):
            write(LocalStore(folder, disk=disk), enveloped, clock, checkpoint=True)
        for unfinished in list_unfinished(LocalStore(folder, disk=FaultyDisk()), "posts"):
            progress = unfinished.progress()
            if progress is None:
                unfinished.remove()
                lost += 1
                continue
            assert progress.position == {"line": 60}
            writer = DatasetWriter.resume(
                unfinished, key=enveloped[1], clock=clock, frame_bytes=400, shard_bytes=900
            )
            writer.append("validation", COLUMNS)
            writer.commit(policy=b"policy", report=b"report", facts={})
            assert_whole(folder, enveloped[1], version=1)
            left = [path.name for path in (folder / "posts").rglob("*") if path.name.startswith(".")]
            assert left == []
            resumed += 1
    assert resumed > 10
    assert lost <= (0 if fault == "full" else 2), (
        "only a kill between the last two calls loses the checkpoint"
    )


@pytest.mark.parametrize("fault", ["kill", "power", "full"])
def test_shards_of_many_writes(fault: Fault, tmp_path: Path, enveloped: Enveloped, clock: FakeClock) -> None:
    """Shards of 9 MiB, which go to the disk in pieces and past its cache: cut anywhere, they are no data."""
    columns: Columns = {"pixels": np.arange(20 << 20, dtype=np.uint32).astype(np.uint8).reshape(80, -1)}
    schema = Schema((Field("pixels", "tensor", "uint8", (256 << 10,)),))

    def write_pixels(disk: FaultyDisk, folder: Path) -> None:
        writer = DatasetWriter.create(
            LocalStore(folder, disk=disk), name="posts", schemas={"train": schema}, key=enveloped[1],
            envelope=enveloped[0], clock=clock, shard_bytes=9 << 20,
        )  # fmt: skip
        writer.append("train", columns)
        writer.checkpoint({})
        writer.append("train", columns)
        writer.commit(policy=b"", report=b"", facts={})

    counting = FaultyDisk()
    write_pixels(counting, tmp_path / "count")
    calls = range(0, counting.calls, 5)
    for call in calls:
        folder = tmp_path / "one"
        disk = FaultyDisk(fail_at=call, fault="kill" if fault == "power" else fault)
        with suppress(Killed, ResourceError):
            write_pixels(disk, folder)
        if fault == "power":
            disk.lose_unsynced(names="lost")
        for unfinished in list_unfinished(LocalStore(folder), "posts"):
            if unfinished.progress() is None:
                unfinished.remove()
                continue
            writer = DatasetWriter.resume(unfinished, key=enveloped[1], clock=clock)
            writer.append("train", columns)
            writer.commit(policy=b"", report=b"", facts={})
        for version in list_versions(folder, "posts"):
            dataset = Dataset.open(folder, name="posts", version=version)
            assert dataset.verify(key=enveloped[1]).is_good
            assert dataset.splits["train"].num_samples == 160
        shutil.rmtree(folder, ignore_errors=True)
    assert len(calls) > 8


def test_an_append_after_the_checkpoint_is_dropped_by_resume(
    tmp_path: Path, enveloped: Enveloped, clock: FakeClock
) -> None:
    for _ in range(2):  # the second pass resumes, and is suspended and resumed again
        found = list_unfinished(tmp_path, "posts")
        if found:
            writer = DatasetWriter.resume(found[0], key=enveloped[1], clock=clock, frame_bytes=600)
        else:
            writer = DatasetWriter.create(
                tmp_path, name="posts", schemas={"train": SCHEMA, "validation": SCHEMA}, key=enveloped[1],
                envelope=enveloped[0], clock=clock, frame_bytes=600,
            )  # fmt: skip
            writer.append("train", COLUMNS)
            writer.checkpoint({})
        writer.append("train", make_columns(50))
        writer.suspend()
    writer = DatasetWriter.resume(list_unfinished(tmp_path, "posts")[0], key=enveloped[1], clock=clock)
    writer.append("validation", COLUMNS)
    writer.commit(policy=b"", report=b"", facts={})
    assert_whole(tmp_path, enveloped[1], version=1)


def test_real_kill_9(tmp_path: Path, enveloped: Enveloped, clock: FakeClock) -> None:
    """The same with a process of its own and a real signal, at a few calls."""

    class Suicide(FaultyDisk):
        def _step(self, *, needs_space: bool) -> None:
            try:
                super()._step(needs_space=needs_space)
            except Killed:
                os.kill(os.getpid(), signal.SIGKILL)

    total = num_calls(tmp_path / "count", enveloped, clock)
    for call in range(3, total, total // 6):
        folder = tmp_path / str(call)
        child = os.fork()
        if child == 0:
            write(LocalStore(folder, disk=Suicide(fail_at=call)), enveloped, clock)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
        assert list_versions(folder, "posts") == []


def test_two_writers_get_two_versions(tmp_path: Path, enveloped: Enveloped, clock: FakeClock) -> None:
    """Both start before either commits."""
    writers = [
        DatasetWriter.create(
            tmp_path,
            name="posts",
            schemas={"train": SCHEMA},
            key=enveloped[1],
            envelope=enveloped[0],
            clock=clock,
        )
        for _ in range(2)
    ]
    versions = []
    for writer in writers:
        writer.append("train", COLUMNS)
        versions.append(writer.commit(policy=b"", report=b"", facts={}).version)
    assert versions == list_versions(tmp_path, "posts") == [1, 2]


def test_a_mapped_store_reads_the_same(tmp_path: Path, enveloped: Enveloped, clock: FakeClock) -> None:
    write(LocalStore(tmp_path), enveloped, clock)
    dataset = Dataset.open(LocalStore(tmp_path, mapped=True), name="posts")
    columns: Columns = concatenate_columns(list(dataset.split("train", key=enveloped[1]).iterate()))
    assert_equal(columns, COLUMNS)
