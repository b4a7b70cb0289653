"""Ctrl-C never reaches a spawned worker, whichever of them it is."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rsc.interrupts import uninterrupted

CHILDREN = """
import signal
from multiprocessing import get_context
from rsc.interrupts import deaf_children

def tell(pipe):
    pipe.send(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))

if __name__ == "__main__":
    context = get_context("spawn")
    with deaf_children():
        for _ in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=tell, args=(theirs,))
            process.start()
            print(ours.recv())
            process.join()
    print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


def test_every_child_is_deaf_and_the_parent_is_not(tmp_path: Path) -> None:
    script = tmp_path / "children.py"  # its own interpreter: here the resource tracker may run already
    script.write_text(CHILDREN)
    told = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["True", "True", "False"], told.stderr


def test_an_interrupt_waits_until_the_end() -> None:
    finished: list[bool] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in background
    try:
        with pytest.raises(KeyboardInterrupt):
            _interrupt_and_go_on(finished)
    finally:
        signal.signal(signal.SIGINT, before)
    assert finished


@uninterrupted()
def _interrupt_and_go_on(finished: list[bool]) -> None:
    signal.raise_signal(signal.SIGINT)
    finished.append(True)
