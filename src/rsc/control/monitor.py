"""What the controller does while workers train: hear the supervisor, show progress, pass signals on."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol, TextIO

from rsc.control.checkpoint_copier import Courier
from rsc.control.wishes import Wishes
from rsc.errors import DataError, Interrupted, RequeueMe
from rsc.events import EventLog
from rsc.runs.folder import RunRecord, RunState
from rsc.runs.reports import is_event_of_workers, spoken
from rsc.runs.sample_problems import meanings
from rsc.runs.worker_events import WorkerEventTail
from rsc.units import format_seconds
from rsc.untrusted import printable

_SANDBOX_S = 30.0  # for a sandbox to end after its supervisor has: some milliseconds, as a rule
_SIGNALLED = 128  # exit codes above it are signals, as a shell tells them
_LINE_LETTERS = 1 << 16  # reports have some hundred
_MOST_WORDS = 1000  # lines that a supervisor may write on stderr; usually it writes none
_WORDS_S = 2.0  # for the last of them, after its end
_MOST_ODD_KINDS = 10
_PLAIN_EVERY_S = 10.0  # a line per step would fill a batch job's log


class StepProgress(Protocol):
    """What shows the steps of a drive."""

    def show(self, *, step: int, loss: float, items: int, time_s: float) -> None:
        """A step that every rank finished. `items` counts from the start of the run."""
        ...

    def restart(self) -> None:
        """The workers start anew."""
        ...

    def close(self) -> None:
        """Something else is about to be said, or the drive ended."""
        ...


class ProgressLine:
    """`step 120/400  loss 2.345  12,345 items/s  ETA 1m 05s`: rewritten on a terminal, else now and then."""

    def __init__(self, *, steps: int, out: TextIO = sys.stderr, every_s: float = _PLAIN_EVERY_S) -> None:
        self._steps = steps
        self._out = out
        self._every_s = every_s
        self._is_terminal = out.isatty()
        self._first: tuple[int, int, float] | None = None
        self._last_s = -every_s
        self._is_open = False

    def show(self, *, step: int, loss: float, items: int, time_s: float) -> None:
        """`items` counts from the start of the run; the rate is over what was seen since the last start."""
        if self._first is None or step < self._first[0]:
            self._first = (step, items, time_s)
        if not self._is_terminal and time_s - self._last_s < self._every_s and step < self._steps:
            return
        self._last_s = time_s
        text = f"step {step}/{self._steps}  loss {loss:.4f}{self._rate(step, items, time_s)}"
        with contextlib.suppress(OSError):  # a terminal that is lost, or a full disk, stops no training
            self._out.write(f"\r\x1b[K{text}" if self._is_terminal else f"{text}\n")
            self._out.flush()
        self._is_open = self._is_terminal

    def restart(self) -> None:
        """The workers start anew: rates begin again."""
        self._first = None
        self.close()

    def close(self) -> None:
        """End the line, so that what follows starts on its own."""
        if self._is_open:
            with contextlib.suppress(OSError):
                self._out.write("\n")
            self._is_open = False

    def _rate(self, step: int, items: int, time_s: float) -> str:
        assert self._first is not None
        first_step, first_items, first_s = self._first
        elapsed_s = time_s - first_s
        if step == first_step or elapsed_s <= 0:
            return ""
        eta_s = (self._steps - step) * elapsed_s / (step - first_step)
        return f"  {(items - first_items) / elapsed_s:,.0f} items/s  ETA {format_seconds(eta_s)}"


@dataclass
class Watched:
    """What was heard of a run, as its controller knows it."""

    line: StepProgress
    say: Callable[[str], None]
    events: EventLog
    tail: WorkerEventTail
    courier: Courier | None = None
    """Copies checkpoints away, where the recipe says so."""
    step: int = 0
    loss: float | None = None
    restarts: int = 0
    resumed_at: int = 0
    reason: str = ""
    """Why the supervisor gave up, in its words; empty where it said nothing."""
    hint: str | None = None
    exit_code: int = 1
    is_supervisor_lost: bool = False
    """A signal ended it: memory ran out, or somebody killed it. Nothing is known to be wrong with the run."""
    steps: int = 1 << 53
    """Of the run: a report of a later one is none."""
    is_deaf: bool = False
    """Whether something else lies in the place of the workers' events."""
    odd_kinds: set[str] = field(default_factory=set)
    """Of events that are not as RSC writes them, each said once."""
    has_nonsense: bool = False
    """Whether the supervisor's pipe brought something else than reports."""
    started_s: float = field(default_factory=time.monotonic)

    def follow(self, process: subprocess.Popen[str], *, wishes: Wishes) -> None:
        """Read what the supervisor tells until it ends."""
        wishes.attach(process)
        words = threading.Thread(target=self._pass_on_words, args=[process.stderr], daemon=True)
        words.start()
        for text in _lines(process.stdout):
            report = _parse(text, steps=self.steps)
            if report is not None:
                self.hear(report, supervisor=process.pid)
            elif not self.has_nonsense:
                self.has_nonsense = True
                self.say("the supervisor wrote a line that is no report; such lines are dropped")
            self._hear_events()
        code = self._end_of(process)
        words.join(timeout=_WORDS_S)  # a process that outlives its supervisor can hold the pipe
        self._hear_events()
        told = code if code >= 0 else _SIGNALLED - code  # no shell or sandbox between says it so
        self.exit_code = Interrupted.exit_code if wishes.interrupted else told
        wanted = (0, RequeueMe.exit_code, Interrupted.exit_code)
        self.is_supervisor_lost = (
            self.exit_code > _SIGNALLED and not self.reason and self.exit_code not in wanted
        )
        if self.exit_code not in wanted and not self.reason:
            self.reason = f"the supervisor ended with code {code}; see the lines above"

    def _pass_on_words(self, stream: IO[str] | None) -> None:
        """What the supervisor, or a library inside it, writes on stderr: said line by line, up to a bound."""
        for number, text in enumerate(_lines(stream)):
            if number < _MOST_WORDS:
                self.say(printable(text.rstrip("\n"), keep=""))
            elif number == _MOST_WORDS:
                self.say(f"the supervisor wrote more than {_MOST_WORDS} lines; the rest is dropped")

    def _end_of(self, process: subprocess.Popen[str]) -> int:
        """Its exit code. The kernel keeps a sandbox for as long as it keeps a process in it: then the user
        hears what the supervisor said before, and waits for the kernel."""
        try:
            return process.wait(timeout=_SANDBOX_S)
        except subprocess.TimeoutExpired:
            self.line.close()
            self.say(
                f"the kernel holds a process of the run ({self.reason or 'its supervisor said nothing'})"
            )
            return process.wait()

    def hear(self, told: dict[str, Any], *, supervisor: int) -> None:
        match told.pop("kind"):
            case "progress":
                self.step, self.loss = told["step"], told["loss"]
                self.line.show(**told)
            case "worker":
                pid = outer_pid(told["pid"], ancestor=supervisor)
                self.events.append("worker", rank=told["rank"], pid=pid, attempt=told["attempt"])
            case "restart":
                self.restarts = told["restarts"]
                self.line.restart()
                reason = printable(told["reason"], keep="")
                self.say(
                    f"rank {told['rank']} failed at step {told['step']} ({reason}): "
                    f"restart {self.restarts} from the newest state"
                )
            case "started":
                self.resumed_at = told["step"]
            case "end":
                self.step = told["step"]
            case "failed":
                self.step, self.reason = told["step"], printable(told["reason"], keep="")
                self.hint = None if told["hint"] is None else printable(told["hint"], keep="")

    def _hear_events(self) -> None:
        """Durable checkpoints are copied. Failed ones do not end a run, but a crash now would cost more; of
        damaged ones the user hears, for each rank that met the damage; and of samples with problems."""
        try:
            fresh = self.tail.fresh() if not self.is_deaf else []
        except DataError as error:
            self.is_deaf, fresh = True, []
            self.line.close()
            self.say(f"events of the workers are no longer read: {error.message}")
        for event in fresh:
            if is_event_of_workers(event):
                self._hear_event({name: _one_line(value) for name, value in event.items()})
            elif event["kind"] not in self.odd_kinds and len(self.odd_kinds) < _MOST_ODD_KINDS:
                self.odd_kinds.add(event["kind"])
                self.line.close()
                self.say(f"an event of kind {event['kind']!r} is not as RSC writes it")

    def _hear_event(self, event: Mapping[str, Any]) -> None:
        if event["kind"] == "checkpoint" and self.courier is not None:
            self.courier.offer(int(event["step"]))
        if event["kind"] == "checkpoint_failed":
            self.line.close()
            self.say(f"checkpoint of step {event['step']} failed: {event['reason']}")
        if event["kind"] == "checkpoint_damaged":
            self.line.close()
            where = f"step {event['step']} cannot be read by rank {event['rank']}: {event['reason']}"
            self.say(f"checkpoint of {where}")
        if event["kind"] == "stopped_early":
            self.line.close()
            self.say(
                f"stopped early at step {event['step']}: no validation was better than that of step "
                f"{event['best_step']} (eval.patience)"
            )
        if event["kind"] == "problems":
            self.line.close()
            self.say(f"samples with something wrong, of those that rank 0 met: {event['counts']}")
            for line in meanings(event["counts"]):
                self.say(line)

    def changes(self, before: RunRecord) -> dict[str, Any]:
        """The fields of run.json that this drive changed."""
        states = {
            0: RunState.FINISHED,
            RequeueMe.exit_code: RunState.REQUEUE,
            Interrupted.exit_code: RunState.INTERRUPTED,
        }
        return {
            "state": states.get(self.exit_code, RunState.FAILED),
            "step": max(self.step, before.step) if self.exit_code else self.step,
            "loss": self.loss if self.loss is not None else before.loss,
            "restarts": before.restarts + self.restarts,
            "resumed_at": self.resumed_at,
            "reason": self.reason,
        }

    def close(self) -> None:
        self.line.close()
        if self.courier is not None:
            self.courier.close(finish=self.exit_code != Interrupted.exit_code)
        facts = {"exit_code": self.exit_code, "step": self.step, "reason": self.reason}
        self.events.append("ended", **facts, drove_s=round(time.monotonic() - self.started_s, 3))
        self.events.close()


def _lines(stream: IO[str] | None) -> Iterator[str]:
    """The lines of a pipe; one that is longer than any of ours comes in pieces, so that none fills memory."""
    while stream is not None and (text := stream.readline(_LINE_LETTERS)):
        yield text


def _parse(text: str, *, steps: int) -> dict[str, Any] | None:
    """A report of the supervisor, with the facts that RSC knows; None for anything else."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return spoken(told, steps=steps) if isinstance(told, dict) else None


def _one_line(value: Any) -> Any:
    return printable(value, keep="") if isinstance(value, str) else value


def outer_pid(pid: int, *, ancestor: int) -> int:
    """This machine's number of a process that has number `pid` inside the sandbox below `ancestor`.

    Where there is no sandbox, or no /proc, that is the same number.
    """
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            numbers = fields.get("NSpid", "").split()
            if len(numbers) > 1 and numbers[-1] == str(pid) and _is_below(int(numbers[0]), ancestor):
                return int(numbers[0])
    return pid


def _is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False
