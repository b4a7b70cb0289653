"""Ctrl-C before a command has begun: one line and exit code 130, wherever in the imports it comes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from rsc.cli.main import VERBS

INTERRUPTED_AT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
module, sys.argv = sys.argv[1], sys.argv[1:]

class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, AtImport())
from rsc.cli.start import main
main()
"""

PLACES = [("train", name) for name in ("rsc.cli.main", "typer", "rsc.errors", "pydantic", "rsc.config")]
PLACES += [(verb, f"rsc.cli.{entry.module}") for verb, entry in VERBS.items()]
PLACES += [("eval", "torch.nn")]


@pytest.mark.parametrize(("verb", "module"), PLACES)
def test_an_interrupt_among_the_imports_is_one_line(verb: str, module: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED_AT, module, verb, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "Interrupted: nothing was done\n"


@pytest.mark.parametrize("line", ["--version", "recipes ls"])
def test_where_interrupts_are_ignored_they_stay_so(line: str) -> None:
    """As in the background of a script."""
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"import sys\nsys.argv[1:] = {line.split()!r}\n"
        "import atexit\natexit.register(lambda: signal.raise_signal(signal.SIGINT))\n"
        "from rsc.cli.start import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_after_the_end_of_a_command_prints_nothing() -> None:
    code = (
        "import atexit, signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.argv[1:] = ['--version']\natexit.register(lambda: signal.raise_signal(signal.SIGINT))\n"
        "from rsc.cli.start import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
