"""`rsc verify`: every promise, checked again now; broken ones with since when and what data.

Changes of state are written to the audit log, so that "kept since" is a fact of the log.

Not covered: what docs/threat-model.md lists as not promised; between two checks a promise can break and
be mended again (run `rsc verify --watch` to narrow that).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from rsc.audit.log import AuditLog
from rsc.clock import Clock, parse_timestamp
from rsc.config import Workspace
from rsc.errors import IntegrityError, RscError
from rsc.release import promises
from rsc.release.promise import Promise, unknown, with_since
from rsc.release.promises import House
from rsc.release.retention import Providers
from rsc.release.whole import versions_whole

CHECKS: tuple[Callable[[House], Promise], ...] = (
    promises.no_plaintext,
    promises.reviews_valid,
    versions_whole,
    promises.keys_within_retention,
    promises.log_intact,
    promises.no_release_without_approval,
    promises.running_jobs_isolated,
    promises.files_private,
    promises.nothing_phones_out,
)


def verify(workspace: Workspace, *, providers: Providers, audit: AuditLog, clock: Clock) -> list[Promise]:
    """All promises in a fixed order. A check that cannot be made is `unknown`, never `kept`."""
    house = House(workspace, providers, audit, clock.now())
    rows = [_checked(check, house) for check in CHECKS]
    try:
        return _with_history(rows, audit=audit, now=house.now)
    except IntegrityError:
        return rows  # a damaged log takes no records; its own row says so


def _checked(check: Callable[[House], Promise], house: House) -> Promise:
    try:
        return check(house)
    except (RscError, OSError) as error:
        return unknown(check.__name__.replace("_", " "), f"cannot be checked: {error}".splitlines()[0])


def _with_history(rows: list[Promise], *, audit: AuditLog, now: datetime) -> list[Promise]:
    """Fill in `since` from the log, and log what changed."""
    last: dict[str, tuple[str, datetime]] = {}
    for entry in audit.entries():
        if entry["kind"] == "promise":
            last[entry["promise"]] = (entry["state"], parse_timestamp(entry["time"]))
    changed = [row for row in rows if last.get(row.name, ("", now))[0] != row.state]
    if changed:
        audit.append_many(
            {"kind": "promise", "promise": row.name, "state": row.state, "told": row.told} for row in changed
        )
    return [with_since(row, now if row in changed else last[row.name][1]) for row in rows]
