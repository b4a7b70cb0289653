"""Copies durable checkpoints away while the workers train on: one thread of the controller, newest first.

A copy that fails is told and never ends a run: the checkpoint on this machine stands, and the next one is
tried anew. No torch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from rsc.checkpoint.config import CheckpointConfig
from rsc.checkpoint.replicas import Copies
from rsc.errors import RscError
from rsc.events import EventLog
from rsc.runs.folder import RunFolder


class Courier:
    """`offer` steps as they become durable; `close` waits for the last one."""

    def __init__(self, copies: Copies, *, events: EventLog, say: Callable[[str], None]) -> None:
        self._copies = copies
        self._events = events
        self._say = say
        self._changed = threading.Condition()
        self._newest: int | None = None
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="courier", daemon=True)
        self._thread.start()

    def offer(self, step: int) -> None:
        """This checkpoint is durable here. One that waits is forgotten for it."""
        with self._changed:
            self._newest = step
            self._changed.notify()

    def close(self, *, finish: bool) -> None:
        """With `finish`, return when the newest checkpoint is copied or was tried; else drop what is left."""
        with self._changed:
            self._is_closing = True
            if not finish:
                self._newest = None
            self._changed.notify()
        if finish:
            self._thread.join()

    def _work(self) -> None:
        while (step := self._next()) is not None:
            try:
                if self._copies.push(step):
                    self._events.append("checkpoint_copied", step=step)
                else:
                    self._tell(step, "another machine has committed this step of the run")
            except FileNotFoundError:
                self._tell(step, "checkpoint.keep took it before the store was ready: a newer one follows")
            except (OSError, RscError) as error:
                self._tell(step, error.message if isinstance(error, RscError) else str(error))

    def _next(self) -> int | None:
        with self._changed:
            while self._newest is None and not self._is_closing:
                self._changed.wait()
            step, self._newest = self._newest, None
            return step

    def _tell(self, step: int, reason: str) -> None:
        self._events.append("checkpoint_copy_failed", step=step, reason=reason)
        self._say(f"checkpoint of step {step} was not copied: {reason}")


def open_copies(run: RunFolder, config: CheckpointConfig, *, say: Callable[[str], None]) -> Copies | None:
    """The run's copies, up to date in both directions, before any worker starts; None where none are kept.

    Raises ResourceError when the store does not answer: a run that should be safe elsewhere would not be.
    """
    if not config.folder:
        return None
    copies = Copies(config.folder, run=run.path, keep=config.keep, keep_every=config.keep_every)
    pulled = copies.pull()
    for bad in pulled.damaged_here:
        say(f"the checkpoint of step {bad} here is damaged")
    for bad in pulled.damaged_copies:
        say(f"the copy of step {bad} in {config.folder} is damaged; the one before is tried")
    if pulled.step is not None:
        say(f"checkpoint of step {pulled.step} fetched from {config.folder}")
    copies.push_newest()
    copies.push_papers(precision=run.precision())
    return copies


def send_papers(copies: Copies | None, *, precision: str, say: Callable[[str], None]) -> None:
    """The record as it ended. A store that does not answer now costs the word, not the run."""
    if copies is not None:
        try:
            copies.push_papers(precision=precision)
        except RscError as error:
            say(f"the run's record was not copied: {error.message}")
