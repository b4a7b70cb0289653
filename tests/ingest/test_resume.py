"""Interrupted imports: nothing twice, nothing lost, nothing left behind."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.errors import ConfigError, DataError, KeyUnavailable, ResourceError
from rsc.ingest import workers
from rsc.ingest.map_part import ImportPlan
from rsc.keys.providers.local import LocalKeyProvider
from rsc.store.bulk import local
from rsc.store.dataset import Dataset, list_datasets
from rsc.store.staging import list_unfinished, only_writer

from .bringing import SAFE, bring_in, posts, stored

SPLITS = ("train", "validation", "findings", "quarantine")
SMALL = {"part_bytes": 2048, "checkpoint_bytes": 8192}


class StopAfter:
    """A progress that interrupts like Ctrl-C after so many parts."""

    def __init__(self, parts: int) -> None:
        self.left = parts + 1  # the first update says where it begins

    def update(self, **_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt

    def finish(self) -> None:
        pass


def shape(workspace: Workspace, version: int) -> dict[str, tuple[int, int]]:
    dataset = Dataset.open(workspace.data, name="posts", version=version)
    return {name: (split.num_samples, split.num_shards) for name, split in dataset.splits.items()}


def everything(workspace: Workspace, version: int) -> dict[str, list[dict[str, Any]]]:
    rows = {split: stored(workspace, split, version=version) for split in SPLITS}
    for row in rows["findings"]:
        del row["subject"]  # keyed by each version's own key
    return rows


@pytest.mark.parametrize("parts", [1, 3, 4, 5, 11])
def test_after_ctrl_c_the_same_command_goes_on(workspace: Workspace, tmp_path: Path, parts: int) -> None:
    path = posts(tmp_path / "posts.jsonl", 800)
    path.write_text(path.read_text() + "not json\n")
    with pytest.raises(KeyboardInterrupt):
        bring_in(workspace, path, **SMALL, progress=StopAfter(parts))
    assert list_datasets(workspace.data) == []
    resumed = bring_in(workspace, path, **SMALL)
    assert (resumed.num_resumed > 0) == (parts > 4)  # four parts of 2 KiB fill a checkpoint of 8 KiB
    whole = bring_in(workspace, path, **SMALL)
    assert whole.num_resumed == 0
    assert (resumed.report, resumed.splits, resumed.bad) == (whole.report, whole.splits, whole.bad)
    assert everything(workspace, 1) == everything(workspace, 2)
    assert shape(workspace, 1) == shape(workspace, 2)
    assert list_unfinished(workspace.data, "posts") == []


class Expire:
    """A progress during which somebody on another machine ends the key."""

    def __init__(self, keys: Path) -> None:
        self._keys = keys

    def update(self, **_: Any) -> None:
        provider = LocalKeyProvider(self._keys, clock=SystemClock())
        for info in provider.list():
            provider.destroy(info.kek_id)

    def finish(self) -> None:
        pass


def test_nothing_is_published_under_a_key_that_has_ended(workspace: Workspace, tmp_path: Path) -> None:
    path = posts(tmp_path / "posts.jsonl", 100)
    with pytest.raises(KeyUnavailable, match="was destroyed on"):
        bring_in(workspace, path, **SMALL, progress=Expire(workspace.keys))
    assert list_datasets(workspace.data) == []
    assert list_unfinished(workspace.data, "posts") == []


def test_after_sigkill_nothing_is_stored_twice(workspace: Workspace, tmp_path: Path) -> None:
    path = posts(tmp_path / "posts.jsonl", 800)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from ingest.bringing import bring_in\n"
        "from rsc.config import Workspace\n"
        "class Kill:\n"
        "    left = 7\n"
        "    def update(self, **_):\n"
        "        self.left -= 1\n"
        "        if not self.left: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    def finish(self): pass\n"
        f"home, source = {str(workspace.root)!r}, {str(path)!r}\n"
        f"bring_in(Workspace(Path(home)), Path(source), progress=Kill(), **{SMALL!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment)
    assert done.returncode == -signal.SIGKILL
    resumed = bring_in(workspace, path, **SMALL)
    assert resumed.num_resumed > 0
    rows = stored(workspace, "train") + stored(workspace, "validation")
    assert sorted(row["id"] for row in rows) == list(range(800))
    assert Dataset.open(workspace.data, name="posts").verify().is_good


def test_another_source_does_not_go_on_from_it(workspace: Workspace, tmp_path: Path) -> None:
    path = posts(tmp_path / "posts.jsonl", 400)
    with pytest.raises(KeyboardInterrupt):
        bring_in(workspace, path, **SMALL, progress=StopAfter(7))
    assert len(list_unfinished(workspace.data, "posts")) == 1
    result = bring_in(workspace, path, **SMALL, holdout=0.5)
    assert (result.num_resumed, result.num_read) == (0, 400)
    assert list_unfinished(workspace.data, "posts") == []


def test_a_destroyed_key_means_a_fresh_start(workspace: Workspace, tmp_path: Path) -> None:
    path = posts(tmp_path / "posts.jsonl", 400)
    with pytest.raises(KeyboardInterrupt):
        bring_in(workspace, path, **SMALL, progress=StopAfter(7))
    shutil.rmtree(workspace.keys)
    assert bring_in(workspace, path, **SMALL).num_resumed == 0


def test_only_one_import_at_a_time(workspace: Workspace, tmp_path: Path) -> None:
    with only_writer(workspace.data / "posts"), pytest.raises(ConfigError, match="another import into posts"):
        bring_in(workspace, posts(tmp_path / "posts.jsonl", 5))


@pytest.mark.parametrize("allowed_bytes", [0, 3000, 30_000, 60_000])
def test_a_full_disk_commits_nothing_and_the_next_try_works(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed_bytes: int
) -> None:
    path = posts(tmp_path / "posts.jsonl", 800)
    left = allowed_bytes
    real = local.RealDisk.write

    def write(self: local.RealDisk, fd: int, data: memoryview) -> int:
        nonlocal left
        if left < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= len(data)
        return real(self, fd, data)

    monkeypatch.setattr(local.RealDisk, "write", write)
    with pytest.raises(ResourceError, match="No space left") as told:
        bring_in(workspace, path, **SMALL)
    assert told.value.exit_code == 4
    assert "free space" in str(told.value)
    assert list_datasets(workspace.data) == []
    left = 10**9
    result = bring_in(workspace, path, **SMALL)
    assert result.num_read == 800
    assert sorted(row["id"] for split in SPLITS[:2] for row in stored(workspace, split)) == list(range(800))
    assert [child.name for child in (workspace.data / "posts").iterdir()] == ["v0001"]


def test_a_full_tmpfs(tmp_path: Path) -> None:
    """The real thing: a file system of 300 KiB in a user namespace of its own."""
    mount = tmp_path / "small"
    mount.mkdir()
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    probe = subprocess.run([*unshare, f"mount -t tmpfs -o size=300k none {mount}"], capture_output=True)
    if probe.returncode:
        pytest.skip("this kernel does not let users mount a tmpfs")
    source = posts(tmp_path / "posts.jsonl", 20_000)
    command = f"{sys.executable} -m rsc data import {source}; echo code $?; ls $RSC_HOME/data/posts"
    done = subprocess.run(
        [*unshare, f"mount -t tmpfs -o size=300k none {mount} && {command}"],
        capture_output=True,
        text=True,
        env={**os.environ, "RSC_HOME": str(mount / "home")},
    )
    assert done.stdout.splitlines() == ["code 4"]
    assert "No space left on device" in done.stderr


def test_an_error_in_the_source_leaves_nothing(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_bytes(
        b'{"text": "filler"}\n' * 300_000 + b'{"text": "caf\xe9"}\n'
    )  # beyond where types are found
    with pytest.raises(DataError, match="line 300001 is not UTF-8"):
        bring_in(workspace, path, scan=False, policy=SAFE)
    assert list((workspace.data / "posts").iterdir()) == []


def test_a_worker_that_dies_is_an_error_with_a_way_out(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[workers._Worker] = []
    start = workers._start

    def note_start(plan: ImportPlan) -> workers._Worker:
        started.append(start(plan))
        return started[-1]

    monkeypatch.setattr(workers, "_start", note_start)

    class KillWorkers:
        def update(self, **_: Any) -> None:
            for worker in started:
                worker.process.kill()

        def finish(self) -> None:
            pass

    path = posts(tmp_path / "posts.jsonl", 3000)
    with pytest.raises(ResourceError, match="a worker process died"):
        bring_in(workspace, path, part_bytes=2048, num_processes=2, progress=KillWorkers())
    assert bring_in(workspace, path).num_read == 3000
