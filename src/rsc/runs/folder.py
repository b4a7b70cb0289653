"""One run as a folder: its name, its lock, its state, its lineage. No torch here.

    runs/<id>/  resolved.toml  run.json  key.json  events.jsonl  export/      read-only for workers
                metrics/  logs/  checkpoints/  tensorboard/  drill/           theirs to write

`run.json` is small and replaced whole (write, fsync, rename), so that a reader never sees half of it.
Only the controller that holds the lock writes it. What is recorded of a run's lineage so cannot be changed
by the code that it trains with: a sandbox shows the folder read-only, and the parts for workers writable.

Everything in the folder is opened beneath it, without links (rsc/untrusted.py), and of what workers report
only lines of known kinds with facts of their types are read (reports.py).

Not covered: workers that run without a sandbox, which write whatever their user may; whether what workers
report in their own parts (losses, metrics, their events) is true.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, TextIO

from rsc.clock import Clock, timestamp
from rsc.durable import replace_file
from rsc.errors import ConfigError, DataError
from rsc.events import EventLog, last_lines, read_lines
from rsc.runs.reports import is_event_of_controller, is_event_of_workers, is_metrics
from rsc.runs.worker_events import worker_event_files
from rsc.untrusted import UntrustedFolder

_PID_LETTERS = 20
_EVENTS_BYTES = 64 << 20  # half a million events, which are held in memory
_OF_WORKERS = ("metrics", "logs", "checkpoints", "tensorboard", "drill")
PRECISION = "metrics/precision.json"
"""Where rank 0 notes the number format of the run."""
PREDICTION = "prediction.json"
"""What the plan expected before the start; written once."""
NUMBER_FORMATS = ("fp32", "bf16", "float8")


class RunState(StrEnum):
    CREATED = "created"
    RUNNING = "running"
    FINISHED = "finished"
    INTERRUPTED = "interrupted"  # Ctrl-C, or the controller died: resume continues at the last checkpoint
    REQUEUE = "requeue"  # checkpointed on request
    FAILED = "failed"


@dataclass(frozen=True)
class RunRecord:
    """What `run.json` holds."""

    id: str
    recipe: str
    created: str
    state: RunState
    steps: int
    step: int = 0
    """Last step that every rank finished, as the supervisor saw it."""
    loss: float | None = None
    restarts: int = 0
    """Times the workers were started again after a failure."""
    resumed_at: int = 0
    """Step at which the last start of the workers began; 0 is the beginning."""
    reason: str = ""
    """Why the run is in its state, in one sentence; empty while all is well."""
    lineage: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @classmethod
    def create(
        cls, runs: Path, *, recipe: str, steps: int, lineage: dict[str, Any], clock: Clock
    ) -> RunFolder:
        """Make `<date>-<recipe>-<4 hex>` and its `run.json`. The random part makes two starts differ."""
        runs.mkdir(parents=True, exist_ok=True, mode=0o700)
        for _ in range(16):
            name = f"{clock.now():%Y-%m-%d}-{recipe}-{secrets.token_hex(2)}"
            try:
                (runs / name).mkdir(mode=0o700)
            except FileExistsError:
                continue
            break
        else:
            raise ConfigError(f"16 names of runs in {runs} were all taken", hint="remove old runs")
        run = cls(runs / name)
        run.parts_of_workers()
        run.write(
            RunRecord(
                id=name,
                recipe=recipe,
                created=timestamp(clock.now()),
                state=RunState.CREATED,
                steps=steps,
                lineage=lineage,
            )
        )
        return run

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def record(self) -> RunRecord:
        """Read `run.json`, but what a newer version noted there. Raises ConfigError if this is no run."""
        try:
            values = json.loads(self._files.read("run.json"))
            known = {each.name: values[each.name] for each in fields(RunRecord) if each.name in values}
            return RunRecord(**{**known, "state": RunState(values["state"])})
        except (OSError, ValueError, LookupError, TypeError, RecursionError, DataError):
            raise ConfigError(
                f"{self.path} is not a run: its run.json cannot be read",
                hint="list the others with `rsc runs ls`; restore run.json from a copy of the run",
            ) from None

    def write(self, record: RunRecord) -> None:
        replace_file(self.path / "run.json", json.dumps(asdict(record), indent=2).encode(), mode=0o644)

    def precision(self) -> str:
        """The number format that its workers agreed on; `unknown` where they have named none."""
        try:
            name = json.loads(self._files.read(PRECISION))["precision"]
        except (FileNotFoundError, ValueError, RecursionError, LookupError, TypeError):
            return "unknown"
        return name if name in NUMBER_FORMATS else "unknown"

    def prediction(self) -> dict[str, float | str | None] | None:
        """What was expected of it; None where nothing was kept, or what lies there is no prediction."""
        try:
            found = json.loads(self._files.read(PREDICTION))
        except (OSError, ValueError, RecursionError, DataError):
            return None
        if not isinstance(found, dict) or not all(_is_plain(value) for value in found.values()):
            return None
        return found

    def update(self, **changes: Any) -> RunRecord:
        """Replace some fields of the record; the caller holds the lock."""
        record = replace(self.record(), **changes)
        self.write(record)
        return record

    def parts_of_workers(self) -> list[Path]:
        """The folders that workers may write, made where they are missing. Raises DataError for a link."""
        for name in _OF_WORKERS:
            with self._files.folder(name, make=True):  # a link would show workers what it leads to
                pass
        return [self.path / name for name in _OF_WORKERS]

    def events(self, *, clock: Clock) -> EventLog:
        """Where the controller tells what happens; what a model card believes."""
        return EventLog(self._events, clock=clock)

    def told(self, *, newest: bool = False) -> list[dict[str, Any]]:
        """Everything that the controller and the workers told, by time; with `newest` the ends alone.

        Raises DataError where something else lies in the place of a file, or one is larger than events are.
        """
        read = last_lines if newest else partial(read_lines, limit_bytes=_EVENTS_BYTES)
        ours = filter(is_event_of_controller, read(self._events, beneath=self.path))
        theirs = [
            filter(is_event_of_workers, read(path, beneath=self.path))
            for path in worker_event_files(self.path)
        ]
        return list(heapq.merge(ours, *theirs, key=itemgetter("time")))

    def metrics(self, *, rank: int = 0, newest: bool = False) -> Iterator[dict[str, Any]]:
        """The lines that a rank wrote, in written order; with `newest` those at the end. Raises as `told`."""
        read = last_lines if newest else read_lines
        return filter(is_metrics, read(self.path / "metrics" / f"rank{rank}.jsonl", beneath=self.path))

    @property
    def _files(self) -> UntrustedFolder:
        return UntrustedFolder(self.path)

    @property
    def _events(self) -> Path:
        return self.path / "events.jsonl"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run: two trainings never write into one folder. Raises ConfigError with the holder's pid.

        The kernel drops the lock when its process ends, however it ends.
        """
        with self._opened("lock") as file:
            with self._gate(fcntl.LOCK_EX):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.seek(0)
                    holder = file.read(_PID_LETTERS)
                    raise ConfigError(
                        f"run {self.id} is being trained by process {holder}",
                        hint=f"stop it with `rsc runs stop {self.id}`, or start another run",
                        pid=holder,
                    ) from None
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
            yield

    def holder(self) -> int | None:
        """Process that holds the lock now, if any."""
        if not self._files.exists("lock"):
            return None
        with self._gate(fcntl.LOCK_SH), self._opened("lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                return int(file.read(_PID_LETTERS))
        return None

    @contextmanager
    def _gate(self, mode: int) -> Iterator[None]:
        """Who takes the lock and who asks for its holder wait for each other here, for microseconds.

        Without it a question, which tries the lock, could keep a training out, and an answer could be the pid
        that an earlier holder left: `rsc runs stop` would signal a stranger.
        """
        with self._opened("lock.gate") as gate:
            fcntl.flock(gate, mode)
            yield

    def _opened(self, name: str) -> TextIO:
        return os.fdopen(self._files.open_to_append(name), "a+")


def list_runs(runs: Path) -> list[RunFolder]:
    """Every run whose record can be read, oldest first: one bad file does not hide the others."""
    found = []
    for run in _folders(runs):
        with contextlib.suppress(ConfigError):
            found.append((run.record().created, run.id, run))
    return [run for *_, run in sorted(found, key=itemgetter(0, 1))]


def unreadable_runs(runs: Path) -> list[str]:
    """Names of the folders that `list_runs` leaves out, for the person to look at."""
    readable = {run.id for run in list_runs(runs)}
    return sorted(run.id for run in _folders(runs) if run.id not in readable)


def _folders(runs: Path) -> list[RunFolder]:
    return [RunFolder(path.parent) for path in runs.glob("*/run.json")]


def find_run(runs: Path, name: str) -> RunFolder:
    """The run with that id, a unique beginning or ending of one, or `last`. Raises ConfigError."""
    every = list_runs(runs)
    if name == "last" and every:
        return every[-1]
    exact = [run for run in every if run.id == name]
    found = exact or [run for run in every if run.id.startswith(name) or run.id.endswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(
            f"{name!r} fits {len(found)} runs: {', '.join(run.id for run in found)}",
            hint="write more of the id",
        )
    raise ConfigError(f"there is no run {name!r} in {runs}", hint="list them with `rsc runs ls`")


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str) or (_is_number(value) and math.isfinite(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)
