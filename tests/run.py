"""What `./rsc test` runs: lint, types, tests; then, in words, what was skipped and how to enable it.

./rsc test                 ruff, mypy, the default tests
./rsc test --slow          the slow tests too
./rsc test tests/store     only these tests, without lint and types; other arguments go to pytest
"""

from __future__ import annotations

import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    slow = "--slow" in arguments
    selected = [argument for argument in arguments if argument != "--slow"]
    failed = [] if selected else [name for name, command in CHECKS.items() if not passes(name, command)]
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            f"--junit-xml={report}",
            *(selected or SPREAD),
        ]
        if not slow:
            command += ["-m", "not slow"]
        if not passes("pytest", command):
            failed.append("pytest")
        if report.exists():
            tell_skipped(report, slow=slow)
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed", flush=True)
    return 1 if failed else 0


SPREAD = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
"""Two workers, a file at a time, in the order of tests/conftest.py: the longest first."""

CHECKS = {
    "ruff check": [sys.executable, "-m", "ruff", "check", "."],
    "ruff format": [sys.executable, "-m", "ruff", "format", "--check", "--quiet", "."],
    "mypy": [sys.executable, "-m", "mypy"],
}


def passes(name: str, command: list[str]) -> bool:
    started = time.monotonic()
    print(f"== {name}", flush=True)
    code = subprocess.run(command, cwd=ROOT).returncode
    print(
        f"== {name}: {'ok' if code == 0 else f'failed (exit {code})'} in {time.monotonic() - started:.0f} s",
        flush=True,
    )
    return code == 0


def tell_skipped(report: Path, *, slow: bool) -> None:
    """Every reason for a skip, with how many tests it covers. A reason says how to enable them."""
    reasons = Counter(
        skip.get("message", "no reason given") for skip in ElementTree.parse(report).iter("skipped")
    )
    for reason, count in reasons.most_common():
        print(f"skipped {count}: {reason}")
    if not slow:
        print("not selected: tests marked slow; `./rsc test --slow` runs them")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
