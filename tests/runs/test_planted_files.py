"""Whatever a worker puts into its run folder: no reader follows it out, waits for it, or falls over it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rsc.api.run_records import metrics_of
from rsc.checkpoint.replicas import Copies
from rsc.checkpoint.retention import finished, prune
from rsc.cli.main import run as rsc
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.control.init_from import find_parent
from rsc.errors import RscError
from rsc.evaluate.assess import kept_in
from rsc.evaluate.open_model import open_run
from rsc.events import EventLog, EventTail, last_lines, read_lines
from rsc.keys.secret import SecretKey
from rsc.layers import to_toml
from rsc.recipes.recipe import load_recipe, recipe_of
from rsc.release.lifecycle.run_keys import _remove
from rsc.release.lifecycle.trace import derived_runs
from rsc.release.record.log_record import Recorded
from rsc.release.record.run_origin import DataUsed, RunOrigin
from rsc.release.verify import run_folders
from rsc.release.verify.plaintext_search import plaintext_files
from rsc.runs.folder import RunFolder, RunState, find_run, list_runs
from rsc.runs.status import present
from rsc.store.bulk.untrusted import UntrustedStore
from rsc.untrusted import UntrustedFolder
from tests.checkpoint.test_checkpoint import save, writer_for

MARKER = "of-somebody-else-0f9c"
"""Stands in every file outside the run."""
RECIPE = load_recipe("language", overrides=["data.name=posts"])
MODEL = RECIPE.recipe.model
STEP = "checkpoints/step-00000005"
PLACES = (
    *("run.json", "resolved.toml", "key.json", "events.jsonl", "evaluation.json", "lock", "lock.gate"),
    *("logs", "logs/events.jsonl", "logs/rank0.log", "metrics", "metrics/rank0.jsonl"),
    *("metrics/precision.json", "checkpoints", STEP, f"{STEP}/root.rsc", f"{STEP}/rank-0000-a0.rsc"),
    *("checkpoints/step-00000007", "checkpoints/step-x", f"{STEP}/other.kek", "export"),
)

RECORDED = Recorded(runs={"r1": RunOrigin("r1", "language", "0" * 64, (DataUsed("posts", 1, "0" * 64),))})
WORST_PLACES = ("logs/events.jsonl", f"{STEP}/rank-0000-a0.rsc")


class Away:
    """Files that are none of the run's: a key, a folder of keys, a log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("key.kek", "keys/one.kek", "keys/root.rsc", "keys/rank0.log", "keys/events.jsonl"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(f'{{"time": "2026-11-21T09:00:00Z", "kind": "{MARKER}"}}\n')

    def state(self) -> dict[str, tuple[bytes, float, int]]:
        return {
            str(path): (path.read_bytes(), path.stat().st_mtime, stat.S_IMODE(path.stat().st_mode))
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


def a_link(place: Path, away: Away) -> None:
    place.symlink_to(away.folder / "key.kek")


def a_link_to_a_folder(place: Path, away: Away) -> None:
    place.symlink_to(away.folder / "keys")


def a_dangling_link(place: Path, away: Away) -> None:
    place.symlink_to(away.folder / "made.by.the.reader")


def a_link_to_itself(place: Path, away: Away) -> None:
    place.symlink_to(place)


def a_hard_link(place: Path, away: Away) -> None:
    os.link(away.folder / "key.kek", place)


def a_fifo(place: Path, away: Away) -> None:
    os.mkfifo(place)


def a_socket(place: Path, away: Away) -> None:
    with contextlib.chdir(place.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(place.name)


def a_device(place: Path, away: Away) -> None:
    try:
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero: it never ends
    except PermissionError:
        os.mkfifo(place)  # an ordinary user makes no devices


def a_folder(place: Path, away: Away) -> None:
    place.mkdir()
    (place / "x").write_bytes(b"x")


def a_sparse_file(place: Path, away: Away) -> None:
    with place.open("wb") as file:
        file.truncate(40 << 30)


def a_sparse_container(place: Path, away: Away) -> None:
    """It begins and ends as a container that says of itself that it has a table of 13 GB."""
    size, frames = 40 << 30, 1_700_000_000
    body = next(b for b in range(size - 32 - frames * 8 - 64 * 41_000, size) if _fits(b, frames, size))
    with place.open("wb") as file:
        file.write(b"\x89RSC\r\n\x1a\n")
        file.seek(size - 32)
        file.write(b"RSCend\r\n" + b"".join(n.to_bytes(8, "little") for n in (body, frames, size)))


def _fits(body: int, frames: int, size: int) -> bool:
    return body - (-body // (1 << 20)) * 32 + frames * 8 + 16 + 32 == size


def bytes_of_no_text(place: Path, away: Away) -> None:
    place.write_bytes(b"\xff\xfe\x00\x80" * 100 + b"\n")


def lines_of_other_kinds(place: Path, away: Away) -> None:
    odd: list[Any] = [None, [], {}, "x", -1, 1e400, float("nan"), True, 10**30, "\ud800\x1b[2J"]
    lines = [json.dumps(value) for value in odd]
    for kind in ("resumed", "failure", "checkpoint", "checkpoint_failed", "driven", "ended", "straggler"):
        for value in odd:
            facts = dict.fromkeys(
                ("step", "rank", "reason", "message", "own_s", "drove_s", "loss", "step_s"), value
            )
            lines.append(json.dumps({"time": "2026-11-21T09:00:00Z", "kind": kind, **facts}))
            lines.append(json.dumps({"time": value, "kind": kind}))
    place.write_text("\n".join([*lines, "[" * 100_000, "{", ""]))


PLANTS = (
    *(a_link, a_link_to_a_folder, a_dangling_link, a_link_to_itself, a_hard_link, a_fifo, a_socket, a_device),
    *(a_folder, a_sparse_file, a_sparse_container, bytes_of_no_text, lines_of_other_kinds),
)


class Place:
    def __init__(self, workspace: Workspace, run: RunFolder, key: SecretKey, store: Path) -> None:
        self.workspace, self.run, self.key, self.store = workspace, run, key, store

    def copies(self) -> Copies:
        return Copies(str(self.store), run=self.run.path, keep=1)

    def tail(self) -> list[dict[str, Any]]:
        tail = EventTail(self.run.path / "logs/events.jsonl", beneath=self.run.path)
        tail._offset = 0
        return tail.fresh()

    def write(self) -> None:
        log = EventLog(self.run.path / "events.jsonl", clock=SystemClock())
        log.append("driven")
        log.close()
        self.run.update(step=3)

    def hold(self) -> None:
        with self.run.locked():
            pass

    def put(self) -> None:
        store = UntrustedStore(self.run.path, "checkpoints")
        store.put("step-00000005/root.rsc", b"new")
        store.put_if_absent("step-00000005/rank-0001-a0.rsc", b"new")
        store.delete("step-00000005/root.rsc")
        list(store.walk(""))


READERS: dict[str, Callable[[Place], Any]] = {
    "told": lambda place: place.run.told(),
    "newest told": lambda place: place.run.told(newest=True),
    "metrics": lambda place: list(place.run.metrics()),
    "newest metrics": lambda place: list(place.run.metrics(newest=True)),
    "lines": lambda place: list(read_lines(place.run.path / "logs/events.jsonl", beneath=place.run.path)),
    "last lines": lambda place: last_lines(place.run.path / "logs/events.jsonl", beneath=place.run.path),
    "tail": Place.tail,
    "precision": lambda place: place.run.precision(),
    "record": lambda place: place.run.record(),
    "holder": lambda place: place.run.holder(),
    "hold": Place.hold,
    "list": lambda place: list_runs(place.workspace.runs),
    "find": lambda place: find_run(place.workspace.runs, "last"),
    "present": lambda place: present(place.run, now=SystemClock().now()),
    "parts": lambda place: place.run.parts_of_workers(),
    "recipe": lambda place: recipe_of(place.run),
    "evaluations": lambda place: kept_in(place.run.path),
    "write": Place.write,
    "put": Place.put,
    "steps": lambda place: finished(UntrustedStore(place.run.path, "checkpoints")),
    "prune": lambda place: prune(UntrustedStore(place.run.path, "checkpoints"), keep=1, keep_every=0),
    "push": lambda place: place.copies().push(5),
    "push newest": lambda place: place.copies().push_newest(),
    "push papers": lambda place: place.copies().push_papers(precision=place.run.precision()),
    "pull": lambda place: (place.copies().push_newest(), place.copies().pull()),
    "pull over it": lambda place: _pull_over(place),
    "parent": lambda place: find_parent(place.run.id, runs=place.workspace.runs, model=MODEL),
    "open model": lambda place: open_run(place.run, key=place.key),
    "trace": lambda place: list(derived_runs(place.workspace, {("posts", 1)}, recorded=RECORDED)),
    "plaintext": lambda place: plaintext_files(place.workspace),
    "remove": lambda place: _remove(UntrustedFolder(place.run.path), "checkpoints"),
    "rsc runs ls": lambda place: rsc(["runs", "ls"]),
    "rsc runs show": lambda place: rsc(["runs", "show", place.run.id]),
    "rsc runs show --json": lambda place: rsc(["runs", "show", place.run.id, "--json"]),
    "rsc runs logs": lambda place: rsc(["runs", "logs", place.run.id]),
    "rsc runs follow": lambda place: rsc(["runs", "follow", place.run.id]),
    "rsc runs compare": lambda place: rsc(["runs", "compare", place.run.id, place.run.id]),
    "figures": lambda place: metrics_of(place.run),
    "rsc runs stop": lambda place: rsc(["runs", "stop", place.run.id]),
}
WRITERS = {
    "hold",
    "write",
    "put",
    "prune",
    "push",
    "push newest",
    "push papers",
    "pull",
    "pull over it",
    "remove",
}


def _pull_over(place: Place) -> None:
    """What a good copy would be written into was planted after it was made."""
    whole = place.store / "whole"
    shutil.copytree(whole, place.store / place.run.id)
    place.copies().pull()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SecretKey]:
    """A workspace with one run that has a checkpoint, and a copy of it: copied for each case."""
    root, key = tmp_path_factory.mktemp("made"), SecretKey.generate()
    lineage = {"data": {"name": "posts", "version": 1}}
    run = RunFolder.create(
        root / "home/runs", recipe="language", steps=10, lineage=lineage, clock=SystemClock()
    )
    run.path.rename(run.path.with_name("r1"))
    run = RunFolder(run.path.with_name("r1"))
    run.update(id="r1", state=RunState.RUNNING)
    (run.path / "resolved.toml").write_text(to_toml(RECIPE.resolved))
    for name in ("key.json", "evaluation.json"):
        (run.path / name).write_text("{}")
    (run.path / "logs/rank0.log").write_text("began\n")
    (run.path / "metrics/precision.json").write_text('{"precision": "bf16", "reason": "measured"}')
    writer, _ = writer_for(run.path / "checkpoints", key)
    save(writer, step=5)
    Copies(str(root / "store"), run=run.path, keep=1).push(5)
    (root / "store/r1").rename(root / "store/whole")
    return root, key


@contextlib.contextmanager
def no_hang(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def cases() -> Iterator[Any]:
    """Each thing at the worst places, and a link at each place; all of it in slow runs."""
    for at in PLACES:
        for plant in PLANTS:
            is_quick = at in WORST_PLACES or plant is a_link
            marks = () if is_quick else (pytest.mark.slow,)
            yield pytest.param(at, plant, marks=marks, id=f"{plant.__name__}-{at}")


@pytest.mark.parametrize(("at", "plant"), list(cases()))
def test_no_reader_follows_waits_or_falls_over(
    made: tuple[Path, SecretKey],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    at: str,
    plant: Callable[[Path, Away], None],
) -> None:
    root, key = made
    away = Away(tmp_path / "away")
    before = away.state()
    monkeypatch.setenv("RSC_HOME", str(tmp_path / "home"))
    workspace = Workspace(tmp_path / "home")
    run = RunFolder(workspace.runs / "r1")
    place, is_fresh = Place(workspace, run, key, tmp_path / "store"), False
    for name, reader in READERS.items():
        if not is_fresh:
            for part in ("home", "store"):
                shutil.rmtree(tmp_path / part, ignore_errors=True)
                shutil.copytree(root / part, tmp_path / part)
            target = run.path / at
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
            plant(target, away)
        is_fresh = name not in WRITERS
        with no_hang(30):
            try:
                code = reader(place)
            except (RscError, FileNotFoundError) as error:
                code = error
        said = "".join(capsys.readouterr())
        assert away.state() == before, f"{name} changed what is none of the run's"
        assert MARKER not in f"{code}{said}", f"{name} read what is none of the run's"
        assert "defect" not in said, f"{name}: {said}"
        stolen = [
            path
            for path in (tmp_path / "store").rglob("*")
            if path.is_file() and MARKER.encode() in path.read_bytes()
        ]
        assert not stolen, f"{name} copied {stolen}"
        assert name.partition(" ")[0] != "rsc" or isinstance(code, int)


@pytest.mark.parametrize("plant", PLANTS[:8], ids=lambda plant: plant.__name__)
def test_verify_names_what_was_planted(workspace: Workspace, tmp_path: Path, plant: Any) -> None:
    (workspace.runs / "r1/metrics").mkdir(parents=True)
    (workspace.runs / "r1/metrics/rank0.jsonl").write_text("")
    house: Any = type("House", (), {"workspace": workspace})
    assert run_folders.run_folders_plain(house).state == "kept"
    plant(workspace.runs / "r1/metrics/found", Away(tmp_path / "away"))
    row = run_folders.run_folders_plain(house)
    assert row.state == "broken"
    assert row.told.startswith("runs/r1/metrics/found ")
