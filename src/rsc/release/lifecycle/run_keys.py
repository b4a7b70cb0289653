"""The end of run keys: the keys of checkpoints, one KEK a month for all runs that began in it.

A checkpoint holds what training made of personal data, so its key does not live for ever: it goes
`run_retention` (keys/providers.toml, a year by default) after the end of its month, first the key, then
the checkpoints, then the proof by trying. Exports are plain files by their purpose and stay; so do metrics
and the run's record.

Not covered: exports and copies of them; a run that is still training when its key goes (its next
checkpoint cannot be opened again).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rsc.audit.log import AuditLog
from rsc.clock import Clock
from rsc.config import Workspace
from rsc.errors import DataError, IntegrityError, KeyUnavailable
from rsc.keys.envelope import Envelope, open_envelope, period_end, run_key_context
from rsc.keys.providers.configured import run_retention_s
from rsc.release.lifecycle.kek_index import Providers, active_keks
from rsc.untrusted import UntrustedFolder

_PREFIX = "runs/"


@dataclass(frozen=True, slots=True)
class OverdueRunKey:
    provider: str
    kek_id: str
    since: datetime


@dataclass(frozen=True, slots=True)
class EndedRunKey:
    kek_id: str
    runs: tuple[str, ...]
    freed_bytes: int
    opened_before: int
    """Runs whose key opened before its KEK was destroyed; afterwards none does, or the end is refused."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def overdue_run_keys(workspace: Workspace, *, providers: Providers, now: datetime) -> list[OverdueRunKey]:
    """Run keys that are there although their time is over."""
    kept_s = run_retention_s(workspace.keys)
    ends = [
        (place, period_end(info.period) + timedelta(seconds=kept_s))
        for place, info in active_keks(providers).items()
        if info.kek_id.startswith(_PREFIX)
    ]
    return [OverdueRunKey(*place, end) for place, end in ends if end <= now]


def sweep_run_keys(
    workspace: Workspace, *, providers: Providers, audit: AuditLog, clock: Clock, user: str
) -> list[EndedRunKey]:
    """End every overdue run key. Raises IntegrityError, and deletes nothing, when a run still opens."""
    late = overdue_run_keys(workspace, providers=providers, now=clock.now())
    return [
        _end(workspace, item, providers=providers, audit=audit, user=user)
        for item in sorted(late, key=lambda item: item.since)
    ]


def _end(
    workspace: Workspace, late: OverdueRunKey, *, providers: Providers, audit: AuditLog, user: str
) -> EndedRunKey:
    runs = list(_runs_under(workspace, late))
    before = sum(_opens(envelope, run.name, providers) for run, envelope in runs)
    providers[late.provider].destroy(late.kek_id)
    reason = f"past its retention since {late.since:%Y-%m-%d}"
    audit.append(
        "key_destroyed",
        provider=late.provider,
        kek_id=late.kek_id,
        user=user,
        reason=reason,
        state="destroyed",
    )
    still = [run.name for run, envelope in runs if _opens(envelope, run.name, providers)]
    if still:
        raise IntegrityError(
            f"the key {late.kek_id} was destroyed and the run {still[0]} still opens",
            hint="nothing was deleted; look at the key provider before you rely on it",
            outcome="no_key",
        )
    freed = sum(_remove(UntrustedFolder(run), "checkpoints") for run, _ in runs)
    ended = EndedRunKey(late.kek_id, tuple(run.name for run, _ in runs), freed, before)
    audit.append("run_keys_expired", user=user, reason=reason, **ended.to_json())
    return ended


def _runs_under(workspace: Workspace, late: OverdueRunKey) -> Iterator[tuple[Path, Envelope]]:
    for path in sorted(workspace.runs.glob("*/key.json")):
        envelope = Envelope.from_json(UntrustedFolder(path.parent).read("key.json"))
        if (envelope.provider, envelope.kek_id) == (late.provider, late.kek_id):
            yield path.parent, envelope


def _opens(envelope: Envelope, run: str, providers: Providers) -> bool:
    try:
        open_envelope(providers[envelope.provider], envelope, context=run_key_context(run)).close()
    except KeyUnavailable:
        return False
    return True


def _remove(run: UntrustedFolder, part: str) -> int:
    try:
        freed = run.size_bytes(part)
    except DataError:  # a link in its place: that goes, not what it leads to
        freed = 0
    with suppress(FileNotFoundError):
        run.remove_tree(part)
    return freed
