"""Where `rsc` and `python -m rsc` begin: Ctrl-C among the imports ends in one line, not in a traceback.

Imports take most of the first second, and code that is being imported may swallow KeyboardInterrupt or print
it. Nothing has been done by then, so the process can leave at once. This file imports next to nothing itself.

Not covered: the 30 ms in which Python itself starts.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

_INTERRUPTED = 130  # Interrupted.exit_code, whose module is not imported yet


def main() -> None:
    """Entry point of the `rsc` command. Always ends in SystemExit with a code of docs/exit-codes.md."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # ignored in the background of a script
        signal.signal(signal.SIGINT, _leave)
    from rsc.cli.main import main as run_command

    run_command()


def raise_interrupts() -> None:
    """From now on Ctrl-C is KeyboardInterrupt again: the command has begun."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"Interrupted: nothing was done\n")
    os._exit(_INTERRUPTED)
