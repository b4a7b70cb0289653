"""Which jobs of Slurm a run was: `job.json` in its folder, which workers can only read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rsc.durable import replace_file
from rsc.errors import DataError
from rsc.runs.folder import RunFolder
from rsc.untrusted import UntrustedFolder

_FILE = "job.json"
SCRIPT = "job.sh"


@dataclass(frozen=True)
class JobNote:
    ids: tuple[str, ...]
    """Oldest first; a requeued job keeps its id."""
    asked: dict[str, Any] = field(default_factory=dict)
    """What the run asks Slurm for, as it was started: a later start asks the same."""

    @property
    def newest(self) -> str:
        return self.ids[-1]


def read_job(run: RunFolder) -> JobNote | None:
    """None for a run that was never submitted. A file that is not as RSC writes it is none."""
    try:
        values = json.loads(UntrustedFolder(run.path).read(_FILE))
        ids, asked = values["ids"], values["asked"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError, DataError):
        return None
    if not isinstance(ids, list) or not ids or not isinstance(asked, dict):
        return None
    are_ids = all(isinstance(each, str) and each.isascii() and each.isdecimal() for each in ids)
    return JobNote(tuple(ids), asked) if are_ids else None


def note_job(run: RunFolder, job: str, *, asked: Mapping[str, Any] | None = None) -> None:
    """Add a job, unless it is the newest. Without `asked` what was asked before stays."""
    before = read_job(run) or JobNote(())
    if job in before.ids[-1:]:
        return
    note = JobNote((*before.ids, job), before.asked if asked is None else dict(asked))
    replace_file(run.path / _FILE, json.dumps(asdict(note)).encode(), mode=0o644)
