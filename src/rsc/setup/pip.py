"""The pip of one environment: run it quietly, and list the wheels that its configuration offers.

pip's own configuration decides what is asked: index, extra indexes, wheel folders, constraints, proxy,
certificates. Nothing here reads those files. pip is run and its answer is read, so every setting means what
it means to `pip install`.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FOUND = re.compile(r"^\s*Found link (\S+).*, version: (\S+)$", re.MULTILINE)
SILENT = re.compile(r"^\s*Could not fetch URL (\S+): (?!404)", re.MULTILINE)
READ = re.compile(r'^\s*(?:Getting page file:|\S+ "(?:GET|HEAD) .* HTTP/[\d.]+" \d)', re.MULTILINE)
IGNORED = re.compile(r"^Ignoring indexes: ", re.MULTILINE)
"""Lines of `pip index versions -vv`, the same words from pip 22.0 to 26.2 (tests/setup/recorded)."""

INSTALL = ("install", "--quiet", "--no-compile")
"""Python compiles a module at its first import. Compiling all of torch takes 20 s, most of it unused."""

ELSEWHERE = """
import json, sys
from pip._vendor.packaging import markers
here, there = markers.default_environment, json.loads(sys.argv.pop(1))
markers.default_environment = lambda: {**here(), **there}
from pip._internal.cli.main import main
sys.exit(main())
"""
"""pip with the environment markers of another machine. Its own `--platform` chooses among wheels and leaves
markers as they are here (pypa/pip#11664): on Linux it asks for packages that macOS does not need."""

SILENCE_S = 15
"""How long an index may stay silent while offers are listed: pip's own default for any request."""


@dataclass(frozen=True)
class PipAnswer:
    """How one pip command ended. `code` is None where it was stopped because its time was over."""

    code: int | None
    output: str

    @property
    def reason(self) -> str:
        """Why it failed, in one line: the first error of pip, which names packages and versions."""
        if self.code is None:
            return "no answer in time"
        lines = (line.partition("ERROR: ")[2] for line in self.output.splitlines())
        return next((line for line in lines if line), f"pip ended with exit code {self.code}")


@dataclass(frozen=True)
class Offer:
    """One wheel that fits the interpreter and the machine. A password in `url` is masked by pip."""

    version: str
    url: str

    @property
    def label(self) -> str:
        """`cpu` of 2.13.0+cpu and of 2.13.0+cpu.cxx11.abi; empty without a label."""
        return self.version.partition("+")[2].partition(".")[0]

    @property
    def requirement(self) -> str:
        """What makes pip take exactly this wheel. `==` would also take 2.13.0+cu130 for 2.13.0."""
        return self.url if self.url.startswith("file:") else f"torch==={self.version}"


def release_of(version: str) -> tuple[int, ...]:
    """(2, 13, 0) of 2.13.0+cpu."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("+")[0]))


@dataclass(frozen=True)
class Listing:
    """What pip would choose from, the newest first."""

    offers: tuple[Offer, ...]
    silent: tuple[str, ...]
    """Pages of indexes that could not be read, other than because they do not have the project."""
    is_index_read: bool
    """At least one index answered, or lies in a local folder."""
    is_offline: bool
    """pip is set to use no index (`no-index`)."""
    is_cut_short: bool
    """The time was over before pip had asked everywhere."""

    @classmethod
    def read(cls, answer: PipAnswer) -> Listing:
        """From what `pip index versions -vv` printed."""
        offers = {Offer(version, url) for url, version in FOUND.findall(answer.output)}
        newest_first = sorted(offers, key=lambda offer: (release_of(offer.version), offer.url), reverse=True)
        return cls(
            offers=tuple(newest_first),
            silent=tuple(SILENT.findall(answer.output)),
            is_index_read=bool(READ.search(answer.output)),
            is_offline=bool(IGNORED.search(answer.output)),
            is_cut_short=answer.code is None,
        )


class Pip:
    """`log` takes all that pip prints, for somebody who looks for the cause of a failure.

    `markers` are values of environment markers on another machine, to resolve dependencies for it.
    """

    def __init__(
        self,
        python: Path,
        environment: Mapping[str, str],
        *,
        log: Path,
        markers: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        # -P: a folder with a pip.py in which the command was typed is nothing to import from
        pip = ["-c", ELSEWHERE, json.dumps(dict(markers))] if markers else ["-m", "pip"]
        self._command = [str(python), "-P", *pip, "--no-input", "--disable-pip-version-check"]
        kept = {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
        self._environment = {**kept, "PIP_USER": "0", "PIP_NO_COLOR": "1"}

    def ask_no_index(self, wheels: Path | None = None) -> None:
        """From here on only wheel folders are read: `wheels`, else those of pip's configuration."""
        self._environment["PIP_NO_INDEX"] = "1"
        if wheels is not None:
            self._environment["PIP_FIND_LINKS"] = wheels.absolute().as_uri()  # pip splits a path at spaces

    def wait_briefly(self) -> None:
        """One of several indexes is silent: pip would wait for it again with every package."""
        self._environment |= {"PIP_RETRIES": "0", "PIP_DEFAULT_TIMEOUT": "5"}

    def run(self, *arguments: str, limit_s: float | None = None) -> PipAnswer:
        answer = self._run(arguments, limit_s)
        with self.log.open("a") as log:
            log.write(f"$ pip {shlex.join(arguments)}\n{answer.output}\n")
        return answer

    def _run(self, arguments: Sequence[str], limit_s: float | None) -> PipAnswer:
        try:
            done = subprocess.run(
                [*self._command, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=limit_s,
            )
        except subprocess.TimeoutExpired as late:
            return PipAnswer(None, (late.output or b"").decode(errors="replace"))
        return PipAnswer(done.returncode, done.stdout.decode(errors="replace"))

    def offers(self, project: str, *options: str, limit_s: float | None = None) -> Listing:
        """Every wheel of `project` that fits, whatever constraints say about it."""
        quick = ("--retries", "1", "--timeout", str(SILENCE_S))
        return Listing.read(
            self.run("index", "versions", "-vvvv", *quick, *options, project, limit_s=limit_s)
        )
