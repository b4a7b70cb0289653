"""Signals of the person, the scheduler or a lost terminal, passed to the supervisor through its stdin."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from dataclasses import dataclass

from rsc.recipes.sections import OnHangup
from rsc.runs.folder import RunFolder
from rsc.untrusted import UntrustedFolder

CONTROLLER_LOG = "controller.log"
"""File in a run: what its controller says where no terminal listens."""


@dataclass(frozen=True)
class Hangup:
    """What the loss of the terminal means for a run: its words go into a file from then on."""

    run: RunFolder
    wish: OnHangup

    def redirect(self) -> None:
        """Standard output and error into the run's folder; a terminal that is gone answers with errors."""
        log = UntrustedFolder(self.run.path).open_to_append(CONTROLLER_LOG)
        for number in (1, 2):
            os.dup2(log, number)
        os.close(log)


class Wishes:
    """Ctrl-C closes the supervisor's stdin: the workers end at once and the newest checkpoint stays. SIGTERM
    and SIGUSR1 write `stop`: checkpoint at the next step and leave. SIGHUP, the loss of the terminal, does
    that or nothing, as `train.on_hangup` says; where it is ignored (nohup) it stays so. A pipe keeps what
    comes before the supervisor listens.

    In another thread than the main one no signal arrives, and nothing is changed.
    """

    def __init__(self, hangup: Hangup | None = None) -> None:
        self.interrupted = False
        self.stop_requested = False
        self._hangup = hangup
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Wishes:
        handlers = {signal.SIGTERM: self._stop, signal.SIGUSR1: self._stop, signal.SIGINT: self._interrupt}
        if self._hangup is not None and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handlers[signal.SIGHUP] = self._hang_up
        if threading.current_thread() is not threading.main_thread():
            handlers = {}
        self._before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def attach(self, process: subprocess.Popen[str]) -> None:
        """Tell this supervisor from now on, and what was wished before."""
        self._process = process
        self._pass_on()

    def _stop(self, number: int, frame: object) -> None:
        self.stop_requested = True
        self._pass_on()

    def _interrupt(self, number: int, frame: object) -> None:
        self.interrupted = True
        self._pass_on()

    def _hang_up(self, number: int, frame: object) -> None:
        assert self._hangup is not None
        with contextlib.suppress(OSError):  # a full disk: the run matters more than its words
            self._hangup.redirect()
        if self._hangup.wish == "checkpoint":
            self._stop(number, frame)

    def _pass_on(self) -> None:
        stdin = self._process.stdin if self._process else None
        if stdin is None or stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            if self.interrupted:
                stdin.close()
            elif self.stop_requested:
                stdin.write("stop\n")
                stdin.flush()
