"""What a version says about its own import: public facts in root.json, and sentences for the reviewer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rsc import __version__
from rsc.errors import ConfigError, DataError, GateRefused
from rsc.ingest.map_part import ImportPlan
from rsc.ingest.readers.source import Fingerprint
from rsc.ingest.sink import Totals
from rsc.review.policy import Policy
from rsc.review.public_text import public_value

FORMAT = "rsc-import-1"


def import_facts(
    plan: ImportPlan, *, source: str, author: str, totals: Totals, fingerprint: Fingerprint
) -> dict[str, Any]:
    """JSON values without personal text; the root hash binds them."""
    return {
        "format": FORMAT,
        "author": author,
        "rsc_version": __version__,
        "source": {
            "kind": plan.source.kind,
            "name": source,
            "num_files": fingerprint.num_files,
            "size_bytes": fingerprint.size_bytes,
        },
        "options": public_value(plan.options.model_dump(mode="json", exclude_defaults=True)),
        "holdout": plan.holdout,
        "holdout_key": plan.holdout_key,
        "records": {
            "read": totals.num_read,
            "stored": sum(totals.samples.values()),
            "dropped": totals.num_dropped,
            "quarantined": sum(totals.bad.values()),
            "left_out": sum(totals.left_out.values()),
        },
        "left_out": dict(totals.left_out),
        "quarantine": {"reasons": dict(totals.bad), "records": totals.bad_records},
        "notes": dict(totals.notes),
        "tokenizer": None
        if plan.tokenizer is None
        else {"vocabulary": plan.tokenizer.vocabulary, "sha256": plan.tokenizer.sha256},
        "text_field": "text" if any(item.name == "text" for item in plan.schema.fields) else None,
    }


def report_notes(plan: ImportPlan, *, totals: Totals) -> list[str]:
    """What a reviewer must read beside the counts."""
    notes = [f"{count} x {note}" for note, count in sorted(totals.notes.items())]
    notes += [f"{count} records left out by {reason}" for reason, count in sorted(totals.left_out.items())]
    if plan.selection.left_out.stop is not None:
        notes.append(
            f"the import ended at its limit of {plan.options.limit} records; nothing behind them was read"
        )
    if not plan.options.scan:
        notes.append(f"NOTHING was scanned (import without scan); the safeguard is: {plan.policy.safeguard}")
    unread = [item.name for item in plan.schema.fields if item.kind not in ("string", "bytes")]
    if unread and plan.options.scan:
        notes.append(f"not scanned, because they are not text: {', '.join(unread)}")
    if plan.bytes_fields and plan.options.scan:
        notes.append(f"bytes, scanned where they are text and nothing else: {', '.join(plan.bytes_fields)}")
    for name, medium in plan.source.media().items():
        notes.append(
            f"{medium} field {name!r}: what it shows or says was not looked at; see the policy's safeguard"
        )
    if totals.bad:
        notes.append(
            f"{sum(totals.bad.values())} records could not be read and lie in split quarantine, encrypted"
        )
    return notes


def require_safeguard(
    policy: Policy, *, media: dict[str, str], bytes_fields: Sequence[str] = (), scan: bool
) -> None:
    """Raises GateRefused when people in the data would be protected by nothing."""
    if policy.safeguard.strip() or (scan and not media and not bytes_fields):
        return
    if not scan:
        what = "text that is not scanned"
    elif media:
        what = f"{', '.join(sorted(set(media.values())))} content"
    else:
        what = f"the bytes in field {bytes_fields[0]!r} (some text in it may be found, the rest not)"
    raise GateRefused(
        f"the policy names no safeguard for {what}, which the gate does not look at",
        hint='say what protects people in it: --safeguard "..." or `safeguard` in the policy file',
    )


def require_region_field(policy: Policy, *, fields: Sequence[str]) -> None:
    """Raises ConfigError for a policy whose records do not have the field that names their country."""
    if policy.region_field and policy.region_field not in fields:
        raise ConfigError(
            f"the policy reads each record's country from the field {policy.region_field!r}, which no text "
            f"field of the source is called: {', '.join(sorted(fields)) or 'there is none'}",
            hint="name one of them as region_field, or a country as region",
        )


def require_records(totals: Totals, *, source: str, num_before: int = 0) -> None:
    """Raises DataError when nothing came through; `num_before` were there already."""
    if totals.samples.total() > num_before:
        return
    if totals.bad:
        reason, count = totals.bad.most_common(1)[0]
        raise DataError(
            f"none of the {totals.num_read} records of {source} could be read; "
            f"{count} x {reason}, first in record {totals.bad_records[0]}",
            hint="is it the right --format?",
        )
    if totals.left_out:
        reason, count = totals.left_out.most_common(1)[0]
        raise DataError(
            f"none of the {totals.num_read} records of {source} is left: {count} left out by {reason}",
            hint="look at the values with `rsc data show` of a set without this setting",
        )
    raise DataError(f"{source} left no record to store: {totals.num_read} were read",
                    hint="the policy may drop them all, or the source is blank")  # fmt: skip
