"""Ctrl-C reaches every process of a terminal's group; these say which of them it may find, and when."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back for the milliseconds that must not leave half of something behind.

    By handlers, not by a blocked mask: a mask is one thread's, the signal takes any other thread, and Python
    then raises in the main thread all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal raises here
        return
    held: list[int] = []
    before = {number: signal.signal(number, lambda came, _: held.append(came)) for number in _STOPS}
    try:
        yield
    finally:
        for number, handler in reversed(before.items()):  # Ctrl-C last: it may raise at once
            signal.signal(number, handler)
        for came in held:
            signal.raise_signal(came)


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes spawned inside never see Ctrl-C, not even while Python starts: their parent decides.

    They inherit a mask. Spawning starts multiprocessing's resource tracker first, and that start unblocks
    SIGINT whatever was blocked before (Python 3.11, `ResourceTracker.ensure_running`): it has to run already.
    """
    resource_tracker.ensure_running()
    with uninterrupted():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
