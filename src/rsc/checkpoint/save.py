"""Write checkpoints beside training: copy the state (held), then encrypt, write, fsync, commit (not held).

    training thread   pieces -> staging buffer                      one memcpy of the local state
    writer thread     frames -> rank file -> fsync -> announce      every rank
    writer of rank 0  all announced -> root -> retention            the checkpoint exists when its root does

A checkpoint that fails (disk full, a rank's error) is dropped, told in the events, and the run goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Protocol

from rsc.checkpoint.commit_barrier import Meeting
from rsc.checkpoint.format import (
    FRAME_BYTES,
    BoxEntry,
    CheckpointRoot,
    FileRecord,
    context_of,
    encode_index,
    encode_root,
    merkle_root,
    plan_entries,
    stream_bytes,
)
from rsc.checkpoint.host_buffer import Staging
from rsc.checkpoint.names import ROOT_FILE, folder_name, rank_file
from rsc.checkpoint.retention import finished, prune
from rsc.checkpoint.shards import Piece
from rsc.errors import ResourceError, RscError
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import BulkStore
from rsc.store.format.container import ContainerWriter
from rsc.store.format.suites import AES_256_GCM, Suite

_WITHOUT_A_WORD = "its writer ended by an error that is in the log"  # until the writer says otherwise


class Events(Protocol):
    def append(self, kind: str, **facts: Any) -> None: ...


class CheckpointWriter:
    """Saves the state of one rank; every rank of the job has one and calls it at the same steps."""

    def __init__(
        self,
        store: BulkStore,
        *,
        run: str,
        key: SecretKey,
        suite: Suite = AES_256_GCM,
        rank: int,
        attempt: str,
        meeting: Meeting,
        events: Events,
        keep: int,
        keep_every: int = 0,
        damaged: Iterable[int] = (),
        pinned: bool = False,
        stopwatch_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._run = run
        self._key = key
        self._suite = suite
        self._rank = rank
        self._attempt = attempt
        self._meeting = meeting
        self._events = events
        self._retention = {"keep": keep, "keep_every": keep_every}
        self.damaged = set(damaged)
        """Steps that this start could not read."""
        self.best: int | None = None
        """The step to keep whatever is newer."""
        self._stopwatch_s = stopwatch_s
        self._staging = Staging(pinned=pinned)
        self._thread: threading.Thread | None = None
        self.failure = ""
        """Why the newest checkpoint failed, on rank 0, after `wait`; empty after one that stands."""

    def prepare(self, pieces: Sequence[Piece]) -> None:
        """Make and touch the staging buffer in the background: the first save is as fast as the others."""
        size_bytes = stream_bytes(plan_entries(pieces))
        self._start(lambda: self._staging.reserve(size_bytes))

    def save(self, *, step: int, pieces: Sequence[Piece], state: Mapping[str, Any]) -> float:
        """Copy the state and write it in the background. Returns the seconds that training was held.

        `state` holds JSON values, the same on every rank. Waits for the checkpoint before, if it is
        still being written.
        """
        started = self._stopwatch_s()
        self.wait()
        entries = plan_entries(pieces)
        self._staging.fill(pieces, entries)
        held_s = self._stopwatch_s() - started
        if self._rank == 0:
            self.failure = _WITHOUT_A_WORD
        self._start(lambda: self._write(step=step, entries=entries, state=dict(state), held_s=held_s))
        return held_s

    def wait(self) -> None:
        """Return when nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _start(self, work: Callable[[], None]) -> None:
        self.wait()
        self._thread = threading.Thread(target=work, name="checkpoint-writer", daemon=True)
        self._thread.start()

    def _write(self, *, step: int, entries: list[BoxEntry], state: dict[str, Any], held_s: float) -> None:
        topic = f"checkpoint/{self._attempt}/{step}"
        started = self._stopwatch_s()
        try:
            facts = asdict(self._write_file(step=step, entries=entries))
        except (OSError, RscError) as error:
            facts = {"error": _reason(error)}
        self._meeting.announce(topic, rank=self._rank, facts=facts)
        if self._rank != 0:
            return
        try:
            root = self._commit(self._meeting.collect(topic), step=step, state=state)
        except (OSError, RscError) as error:
            self.failure = _reason(error)
            self._events.append("checkpoint_failed", step=step, reason=self.failure)
            self._remove_parts(step)
            return
        timing = {"held_s": round(held_s, 6), "durable_s": round(self._stopwatch_s() - started, 6)}
        self.failure = ""
        self._events.append(
            "checkpoint", step=step, size_bytes=root.size_bytes, root=root.merkle_root, **timing
        )
        self.damaged.discard(step)  # it was written anew
        best = set() if self.best is None else {self.best}
        prune(self._store, **self._retention, besides=self.damaged | best)

    def _remove_parts(self, step: int) -> None:
        """What other ranks wrote of a checkpoint that failed would keep a full disk full."""
        with suppress(OSError, RscError):
            if step not in finished(self._store):
                self._store.delete_folder(folder_name(step))

    def _write_file(self, *, step: int, entries: list[BoxEntry]) -> FileRecord:
        stream = self._staging.stream(stream_bytes(entries))
        frames = [stream[start : start + FRAME_BYTES] for start in range(0, len(stream), FRAME_BYTES)]
        name = rank_file(self._rank, attempt=self._attempt)
        return self._put_container(name, step=step, frames=[*frames, encode_index(entries)])

    def _commit(
        self, answers: Sequence[dict[str, Any]], *, step: int, state: dict[str, Any]
    ) -> CheckpointRoot:
        failed = {rank: facts["error"] for rank, facts in enumerate(answers) if "error" in facts}
        for rank, reason in failed.items():
            raise ResourceError(f"rank {rank}: {reason}", rank=rank)
        files = tuple(FileRecord(**facts) for facts in answers)
        root = CheckpointRoot(self._run, step, len(files), state, files, merkle_root(files))
        self._put_container(ROOT_FILE, step=step, frames=[encode_root(root)])
        return root

    def _put_container(self, name: str, *, step: int, frames: Sequence[bytes | memoryview]) -> FileRecord:
        file = self._store.create(f"{folder_name(step)}/{name}")
        context = context_of(run=self._run, step=step, file=name)
        writer = ContainerWriter(file, key=self._key, context=context, suite=self._suite)
        try:
            for frame in frames:
                writer.write_frame(frame, num_samples=1)
            record = writer.finish()
            file.commit()
        finally:
            writer.discard()
            file.discard()
        return FileRecord(name, record.digest.hex(), record.size_bytes)


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, RscError) else f"{type(error).__name__}: {error}"
