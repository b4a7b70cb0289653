"""What a person or a program sees: data on stdout, everything else on stderr.

`emit` prints the result of a read command (JSON, or a table made by the caller); `say` tells what
happens; `next_commands` ends an action. No colour, so output reads the same in a log. Whatever is printed for
people is escaped here: names, messages and logs can hold what untrusted code or data put there.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rsc.errors import ConfigError, Interrupted
from rsc.untrusted import printable

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]

Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask, and go on though a run is using what will be gone.")
]

JSON_FILE = "RSC_JSON_FILE"
"""Environment variable: a file that takes the JSON of a command whose text goes to the terminal."""


def emit(result: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Print `result` as one JSON document, or `text` for people. Both go to stdout.

    With RSC_JSON_FILE set the JSON goes to that file as well, so that a script can show a command to its
    reader and still use the result.
    """
    document = json.dumps(_strict({"schema": 1, **result}), indent=2, default=str, allow_nan=False)
    if os.environ.get(JSON_FILE):
        Path(os.environ[JSON_FILE]).write_text(document)
    if as_json:
        _print(document)
    elif text:
        _print(printable(text))


def _print(text: str) -> None:
    """On stdout, in ASCII where that takes nothing else. A reader that left (`| head -1`) is no failure."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: a figure that is none is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    return value


def say(message: str) -> None:
    """One line to the person, on stderr, so that stdout stays data."""
    with contextlib.suppress(OSError):  # a terminal that is lost takes no words and ends no command
        print(printable(message), file=sys.stderr, flush=True)


def next_commands(*commands: str | Sequence[str | Path], note: str = "") -> None:
    """The two or three commands that usually follow, on stderr, as a shell takes them: one that holds a path
    or another free word is given as words, which are quoted. `note` says who or where."""
    say("next:")
    for command in commands:
        words = command if isinstance(command, str) else shlex.join(map(str, command))
        say(f"  {words}" + (f"   # {note}" if note else ""))


def confirm(what: str, *, yes: bool) -> None:
    """Ask before what cannot be undone. Where no terminal can answer, the command was the answer.

    Raises Interrupted for anything but yes.
    """
    if yes or not sys.stdin.isatty():
        return
    print(printable(f"This will {what}. Go on? [y/N] ", keep=""), end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Interrupted("nothing was done")


def table(rows: Iterable[Sequence[Any]], *, header: Sequence[str]) -> str:
    """Plain aligned columns: reads without colour, in a log and at 80 characters."""
    lines = [[printable(str(cell), keep="") for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file with these permissions, whatever the umask. Raises ConfigError where there is one."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise ConfigError(f"{path} exists", hint="choose another name, or remove it first") from None
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(data)
