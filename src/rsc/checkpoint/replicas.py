"""Copies of a run in a folder or object store: its durable checkpoints, and what a resume elsewhere needs.

    workers      write checkpoints to the run's folder; they have no network and no credentials
    controller   copies the finished files up, still encrypted; the root goes last, and only if absent
    elsewhere    `fetch_run` brings the papers, `pull` the newest checkpoint, and the run goes on

No key is here: what is copied is ciphertext, and every byte is authenticated by the ranks that load it.
Damage, here or on the way, shows by the block hashes: then the copy of that step is fetched, or the one
before is taken; nothing damaged is copied up when a run goes on. What workers wrote is opened beneath the
run's folder without links, and only containers are copied. No torch.

Not covered: damage in the few bytes behind the block hashes, the sealed table (the ranks see it, and take an
older checkpoint); metrics, events and logs stay on the machine that wrote them; two machines that go on with
one run at the same time waste one machine's work (the first to commit a step has it, nothing is ever mixed);
whoever may write to the store can delete its newest checkpoints, as on any disk.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

from rsc.checkpoint.names import ROOT_FILE, folder_name, is_checkpoint_file
from rsc.checkpoint.retention import finished, prune
from rsc.errors import ConfigError, IntegrityError
from rsc.store.bulk.interface import BulkStore, RandomAccess, read_all
from rsc.store.bulk.local import LocalStore
from rsc.store.bulk.locations import open_store
from rsc.store.bulk.untrusted import UntrustedStore
from rsc.store.format.container import MAGIC
from rsc.store.format.footer import Tail, bad_blocks, read_tail
from rsc.untrusted import SMALL_BYTES, UntrustedFolder

PAPERS = ("resolved.toml", "provenance.json", "prediction.json", "tokenizer.json", "key.json", "run.json")
_PRECISION = "metrics/precision.json"
_PIECE_BYTES = 8 << 20  # in memory at a time; also the part of an upload


@dataclass(frozen=True, slots=True)
class Pulled:
    """What `pull` brought, and which steps it found damaged on its way."""

    step: int | None = None
    damaged_here: tuple[int, ...] = ()
    damaged_copies: tuple[int, ...] = ()


class Copies:
    """The copies of one run, below `<folder>/<run id>/`. Not for two threads at a time."""

    def __init__(self, folder: str, *, run: Path, keep: int, keep_every: int = 0) -> None:
        """Raises ConfigError for a place that cannot be one."""
        self._run = run
        self._papers: BulkStore = open_store(f"{folder}/{run.name}")
        self._theirs: BulkStore = open_store(f"{folder}/{run.name}/checkpoints")
        self._ours = UntrustedStore(run, "checkpoints")
        self._keep, self._keep_every = keep, keep_every

    def push_papers(self, *, precision: str = "unknown") -> None:
        """Everything small that a resume needs; the key's envelope among them, which opens nothing alone.

        Of the workers' note about the number format goes what the caller knows of it, never its bytes.
        """
        folder = UntrustedFolder(self._run)
        for name in PAPERS:
            with suppress(FileNotFoundError):
                self._papers.put(name, folder.read(name))
        if precision != "unknown":
            self._papers.put(_PRECISION, json.dumps({"precision": precision}).encode())

    def push(self, step: int) -> bool:
        """Copy a checkpoint and apply retention. False: another machine has committed this step already.

        Raises FileNotFoundError when our own retention took it before, ResourceError when the store fails.
        """
        folder = folder_name(step)
        with ExitStack() as opened:
            sources = self._open_all(folder, opened)
            root = self._our_root(step)  # last: retention deletes it first
            if (committed := self._committed(step)) is not None:
                return committed == root
            for name, source in sources.items():
                _copy(source, self._theirs, f"{folder}/{name}")
        if not self._theirs.put_if_absent(f"{folder}/{ROOT_FILE}", root) and self._committed(step) != root:
            for name in sources:
                self._theirs.delete(f"{folder}/{name}")
            return False
        prune(self._theirs, keep=self._keep, keep_every=self._keep_every)
        return True

    def _open_all(self, folder: str, opened: ExitStack) -> dict[str, RandomAccess]:
        """The ranks' files, before the first is copied: one that is open can be read after retention took it,
        so a store that is slower than training still gets whole checkpoints."""
        names = [name for name in self._ours.children(folder) if name != ROOT_FILE]
        sources: dict[str, RandomAccess] = {
            name: opened.enter_context(closing(self._ours.open(f"{folder}/{name}"))) for name in names
        }
        for name, source in sources.items():
            _require_container(source, name=name)
        return sources

    def _our_root(self, step: int) -> bytes:
        source = self._ours.open(f"{folder_name(step)}/{ROOT_FILE}")
        try:
            _require_container(source, name=ROOT_FILE)
        except BaseException:
            source.close()
            raise
        return read_all(source)

    def _committed(self, step: int) -> bytes | None:
        """The root of a copy that is there."""
        try:
            return read_all(self._theirs.open(f"{folder_name(step)}/{ROOT_FILE}"))
        except FileNotFoundError:
            return None

    def push_newest(self) -> int | None:
        """Copy our newest checkpoint that is whole if the store has none as new; returns its step."""
        newest = max(finished(self._theirs), default=0)
        for step in reversed(finished(self._ours)):
            if step <= newest:
                return None
            if self._is_whole(step):
                return step if self.push(step) else None
        return None

    def pull(self) -> Pulled:
        """Bring the newest copy that is whole, unless what is here is as new and whole.

        Reads our newest checkpoint, every byte: when a run starts, its ranks are about to do the same.
        """
        ours, theirs = set(finished(self._ours)), set(finished(self._theirs))
        here: list[int] = []
        copies: list[int] = []
        for step in sorted(ours | theirs, reverse=True):
            if step in ours:
                if self._is_whole(step):
                    return Pulled(None, tuple(here), tuple(copies))
                here.append(step)
            if step in theirs:
                if self._pull(step):
                    return Pulled(step, tuple(here), tuple(copies))
                copies.append(step)
        return Pulled(None, tuple(here), tuple(copies))

    def _is_whole(self, step: int) -> bool:
        """Whether every file that belongs to a checkpoint here is here, and whole."""
        folder = folder_name(step)
        try:
            names = {*self._ours.children(folder), *self._names_in_copy(step)}
        except (IntegrityError, FileNotFoundError):
            return False
        return all(self._has_whole(f"{folder}/{name}") for name in names)

    def _names_in_copy(self, step: int) -> list[str]:
        """Files of a copy of our very checkpoint: our root tells them too, to whoever has the key."""
        folder = folder_name(step)
        root = self._our_root(step)
        return self._theirs.children(folder) if self._committed(step) == root else []

    def _has_whole(self, path: str) -> bool:
        """Whether a file is here, and each of its blocks has its hash."""
        try:
            _require_whole(self._ours.open(path))
        except (IntegrityError, OSError):  # missing, or in a bad sector
            return False
        return True

    def _pull(self, step: int) -> bool:
        """Bring what is not here whole, the root last; False where the copy is damaged too."""
        folder = folder_name(step)
        names = [name for name in self._theirs.children(folder) if name != ROOT_FILE]
        try:
            for name in names:
                if not self._has_whole(f"{folder}/{name}"):
                    self._fetch(f"{folder}/{name}")
            root = read_all(self._theirs.open(f"{folder}/{ROOT_FILE}"))
        except (IntegrityError, OSError):
            if step not in finished(self._ours):
                self._ours.delete_folder(folder)
            return False
        self._ours.put(f"{folder}/{ROOT_FILE}", root)
        for name in set(self._ours.children(folder)) - {*names, ROOT_FILE}:
            self._ours.delete(f"{folder}/{name}")  # of another writer of this step, whose root was here
        return True

    def _fetch(self, path: str) -> None:
        with closing(self._theirs.open(path)) as source:
            _copy(source, self._ours, path)
        _require_whole(self._ours.open(path))


def fetch_run(location: str, *, runs: Path) -> Path:
    """Make the folder of a run from its copy at `<folder>/<run id>`; what is here already stays as it is.

    Raises ConfigError where there is no such copy.
    """
    name = location.rstrip("/").rpartition("/")[2]
    run = runs / name
    if (run / "run.json").exists():
        return run
    store = open_store(location)
    found = {}
    for paper in (_PRECISION, *PAPERS):
        with suppress(FileNotFoundError):
            found[paper] = read_all(store.open(paper))
    if not found.keys() >= {"run.json", "key.json", "resolved.toml"}:
        raise ConfigError(
            f"there is no copy of a run at {location}", hint="give <checkpoint.folder>/<run id>"
        )
    for part in ("metrics", "logs", "checkpoints"):
        (run / part).mkdir(parents=True, exist_ok=True)
    run.chmod(0o700)
    ours = LocalStore(run)
    for paper in (_PRECISION, *PAPERS):  # the record goes last: a folder without one is no run
        if paper in found:
            ours.put(paper, _at_rest(found[paper]) if paper == "run.json" else found[paper])
    return run


def _at_rest(record: bytes) -> bytes:
    """A record as it is on a machine where nobody drives the run."""
    values = json.loads(record)
    if values["state"] in ("running", "created"):
        values |= {"state": "interrupted", "reason": "it ran on another machine"}
    return json.dumps(values, indent=2).encode()


def _copy(source: RandomAccess, target: BulkStore, path: str) -> None:
    file = target.create(path)
    try:
        buffer = memoryview(bytearray(min(_PIECE_BYTES, source.size_bytes)))
        for start in range(0, source.size_bytes, _PIECE_BYTES):
            piece = buffer[: min(_PIECE_BYTES, source.size_bytes - start)]
            source.read_into(start, piece)
            file.write(piece)
        file.commit()
    finally:
        file.discard()


def _require_container(source: RandomAccess, *, name: str) -> None:
    """A worker wrote it: what is no container of a checkpoint stays here. Raises IntegrityError."""
    if not is_checkpoint_file(name):
        raise IntegrityError(f"{name[:80]!r} is no file of a checkpoint", outcome="header")
    if name == ROOT_FILE and source.size_bytes > SMALL_BYTES:
        raise IntegrityError(f"{name} has {source.size_bytes:,} bytes", outcome="header")
    magic = bytearray(len(MAGIC))
    source.read_into(0, magic)
    if magic != MAGIC:
        raise IntegrityError(f"{name} is no container", outcome="header")
    _tail_of(source)


def _require_whole(source: RandomAccess) -> None:
    """Every block has its hash. Raises IntegrityError; forged bytes are for the ranks' keys to find."""
    try:
        for block in bad_blocks(source, _tail_of(source)):
            raise IntegrityError(f"block {block} differs from its hash", outcome="frame")
    finally:
        source.close()


def _tail_of(source: RandomAccess) -> Tail:
    """A tail that is longer than a checkpoint's (40 bytes a MiB) is not read into memory."""
    return read_tail(source, limit_bytes=max(1 << 20, source.size_bytes >> 10))
