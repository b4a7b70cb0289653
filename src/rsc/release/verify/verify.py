"""`rsc verify`: every promise, checked again now; broken ones with since when and what data.

Changes of state are written to the audit log, so that "kept since" is a fact of the log. Every byte is read
where that is asked for; damage found then is told by every later call, until all was read again.

Not covered: what docs/threat-model.md lists as not promised; between two checks a promise can break and
be mended again (run `rsc verify --watch` to narrow that).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from rsc.audit.log import AuditLog
from rsc.clock import Clock, parse_timestamp
from rsc.config import Workspace
from rsc.errors import IntegrityError, RscError
from rsc.release.lifecycle.kek_index import Providers
from rsc.release.verify import checks, completeness, open_files, provenance, run_folders, running
from rsc.release.verify.checks import VerifyContext
from rsc.release.verify.promise import Promise, unknown, with_since
from rsc.store.verify import VerifyPart

CHECKS: tuple[Callable[[VerifyContext], Promise], ...] = (
    checks.no_plaintext,
    open_files.nothing_found_lies_open,
    open_files.papers_end_with_data,
    checks.reviews_valid,
    completeness.versions_whole,
    checks.keys_within_retention,
    checks.log_intact,
    checks.clock_not_behind_log,
    checks.no_release_without_approval,
    provenance.reviewers_enrolled,
    provenance.runs_recorded,
    provenance.code_as_pinned,
    checks.running_jobs_isolated,
    running.no_inherited_channel,
    running.leases_end_with_their_holders,
    checks.files_private,
    run_folders.run_folders_plain,
    checks.nothing_phones_out,
)


def verify(
    workspace: Workspace,
    *,
    providers: Providers,
    audit: AuditLog,
    clock: Clock,
    read: VerifyPart | None = None,
    planted: tuple[str, ...] = (),
) -> list[Promise]:
    """All promises in a fixed order. A check that cannot be made is `unknown`, never `kept`.

    `read`: also every byte of that part of the shards. `planted`: values to search for in every file.
    """
    house = VerifyContext(
        workspace, providers, audit, clock.now(), read=read or VerifyPart(), planted=planted
    )
    asked = [completeness.bytes_whole] * bool(read) + [open_files.planted_values] * bool(planted)
    rows = [_checked(check, house) for check in (*CHECKS, *asked)]
    try:
        last = house.recorded.promises
        rows = _with_standing_damage(rows, last=last, is_all_read=read is not None and read.is_all)
        return _with_history(rows, last=last, audit=audit, now=house.now)
    except IntegrityError:
        return rows  # a damaged log takes no records; its own row says so


def _checked(check: Callable[[VerifyContext], Promise], house: VerifyContext) -> Promise:
    try:
        return check(house)
    except (RscError, OSError) as error:
        return unknown(check.__name__.replace("_", " "), f"cannot be checked: {error}".splitlines()[0])


def _with_standing_damage(
    rows: list[Promise], *, last: Mapping[str, Mapping[str, Any]], is_all_read: bool
) -> list[Promise]:
    """Damage inside shards that was found before stands until everything was read and is whole: a call that
    reads nothing, or another part, says nothing against it."""
    said = last.get(completeness.BYTES_WHOLE, {})
    now = next((row.state for row in rows if row.name == completeness.BYTES_WHOLE), "unknown")
    if said.get("state") != "broken" or now == "broken" or (now == "kept" and is_all_read):
        return rows
    told = f"{said['told']} (found before; `rsc verify --read-data` looks again)"
    others = [row for row in rows if row.name != completeness.BYTES_WHOLE]
    return [*others, Promise(completeness.BYTES_WHOLE, "broken", told)]


def _with_history(
    rows: list[Promise], *, last: Mapping[str, Mapping[str, Any]], audit: AuditLog, now: datetime
) -> list[Promise]:
    """Fill in `since` from the log, and log what changed."""
    before = {name: (entry["state"], parse_timestamp(entry["time"])) for name, entry in last.items()}
    changed = [row for row in rows if before.get(row.name, ("", now))[0] != row.state]
    if changed:
        audit.append_many(
            {"kind": "promise", "promise": row.name, "state": row.state, "told": row.told} for row in changed
        )
    return [with_since(row, now if row in changed else before[row.name][1]) for row in rows]
