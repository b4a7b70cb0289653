"""The base of what functions of this room return, and how notebooks show it.

Names of fields, reasons, logs and labels can hold what untrusted data or code put there: everything is
escaped, for the terminal and for HTML.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from rsc.hardening import harden_process, private_files
from rsc.untrusted import printable

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Record:
    """A frozen dataclass whose fields are the keys of the JSON."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)  # type: ignore[call-overload, no-any-return]


def entry(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """What each command begins with, for a function that may hold plaintext or keys: the process writes no
    core dump, cannot be read by others of its user, and makes no file that its group can write."""

    @wraps(function)
    def entered(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        harden_process()
        with private_files():
            return function(*args, **kwargs)

    return entered


def html_table(title: str, rows: Iterable[Sequence[Any]], *, header: Sequence[str] = ()) -> str:
    """A table for a notebook; every cell is text."""
    head = f"<tr>{''.join(f'<th>{_escaped(cell)}</th>' for cell in header)}</tr>" if header else ""
    lines = ("".join(f"<td>{_escaped(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><caption>{_escaped(title)}</caption>{head}{body}</table>"


def _escaped(cell: Any) -> str:
    return html.escape(printable(str(cell), keep=""))
