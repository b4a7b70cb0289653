"""What a rank writes about why it ends, and how its supervisor reads it. No torch here.

The file has its room before anything can go wrong: a full disk may be what it has to report.
"""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rsc.errors import RscError

_REPORT_BYTES = 4096  # one page of a file system; a reason has some hundred bytes


def error_file(run: Path, *, rank: int) -> Path:
    return run / "logs" / f"rank{rank}.error.json"


def reserve_error_file(run: Path, *, rank: int) -> None:
    """In the rank, at its start: an empty report."""
    path = error_file(run, rank=rank)
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.write_bytes(bytes(_REPORT_BYTES))


def write_error(run: Path, *, rank: int, error: BaseException, kind: str) -> None:
    """In the rank: leave the reason where the supervisor looks, under a word of docs/recovery.md.

    The message of a foreign exception stays in the log: it may quote data.
    """
    last = traceback.extract_tb(error.__traceback__)[-1:]
    facts = {
        "rank": rank,
        "error": type(error).__name__,
        "where": f"{Path(last[0].filename).name}:{last[0].lineno}" if last else "",
        "message": error.message if isinstance(error, RscError) else "",
        "hint": error.hint if isinstance(error, RscError) else None,
        "exit_code": error.exit_code if isinstance(error, RscError) else 1,
        "kind": kind,
    }
    fd = os.open(error_file(run, rank=rank), os.O_WRONLY | os.O_CREAT, 0o600)
    os.ftruncate(fd, os.write(fd, json.dumps(facts).encode()))
    os.close(fd)


def read_errors(run: Path, ranks: Iterable[int]) -> dict[int, dict[str, Any]]:
    """In the supervisor: what ended ranks wrote. A rank that was killed wrote nothing."""
    found = {}
    for rank in ranks:
        with contextlib.suppress(OSError, ValueError):
            found[rank] = json.loads(error_file(run, rank=rank).read_text())
    return found
