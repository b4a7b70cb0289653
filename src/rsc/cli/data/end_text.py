"""What `rsc data expire erase trace` print for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rsc.cli.output import table
from rsc.units import format_bytes


def expired_text(record: Mapping[str, Any]) -> str:
    proof = record["proof"]
    opened = (
        f"{proof['opened_before']} opened before, {proof['opened_after']} of {proof['tried_after']} after"
    )
    return "\n".join(
        [
            f"{record['data']}: versions {', '.join(map(str, record['versions']))} ended",
            f"keys destroyed: {', '.join(record['kek_ids']) or 'none were left'}",
            f"bytes removed: {format_bytes(record['freed_bytes'])}",
            f"proof, by trying a copy kept aside: {opened}",
            *(f"  {told}" for told in proof["told"]),
        ]
    )


def trace_text(record: Mapping[str, Any]) -> str:
    hits, runs = record["hits"], record["runs"]
    places = Counter((hit["data"], hit["version"], hit["split"] or "dropped at import") for hit in hits)
    rows = [(data, f"v{version}", split, count) for (data, version, split), count in places.items()]
    lines = [
        f"{len(hits)} findings in {len({(hit['data'], hit['version']) for hit in hits})} versions",
        *([table(rows, header=("data set", "version", "split", "findings"))] if rows else []),
        *(line for run in runs for line in _run_lines(run)),
        *_not_searched(record),
    ]
    return "\n".join(lines)


def erased_text(record: Mapping[str, Any]) -> str:
    lines = [f"{name}: {count} records removed" for name, count in record["removed"].items()]
    lines += [f"wrote {ref['name']} version {ref['version']} without them" for ref in record["written"]]
    lines += [
        f"ended {ended['name']} version {', '.join(map(str, ended['versions']))}: keys destroyed"
        for ended in record["expired"]
    ]
    lines += [f"marked: {line}" for run in record["marked"] for line in _run_lines(run)]
    lines += [
        f"marked as not searched: {line}" for run in record["marked_unsearched"] for line in _run_lines(run)
    ]
    if not record["removed"]:
        lines.insert(0, "nothing was found about this person in what could be searched")
    left = record["left"]
    where = " in what could be searched" if left["closed"] or left["runs_unrecorded"] else ""
    lines.append(f"a second search finds {len(left['hits'])} findings{where}")
    return "\n".join([*lines, *_not_searched(left)])


def _not_searched(record: Mapping[str, Any]) -> list[str]:
    """What the search says nothing about."""
    return [
        *(f"not searched: {closed}" for closed in record["closed"]),
        *(f"not searched: the data of {_run_line(run)}" for run in record["runs_on_closed"]),
        *(
            f"not searched: what run {run} was trained on is not recorded (`rsc audit attest`)"
            for run in record["runs_unrecorded"]
        ),
    ]


def _run_lines(run: Mapping[str, Any]) -> list[str]:
    gone = set(run["exports_gone"])
    places = [
        f"  export {place}" + (" (not there any more: look for where it was moved)" if place in gone else "")
        for place in run["exports"]
    ]
    return [_run_line(run), *places]


def _run_line(run: Mapping[str, Any]) -> str:
    derived = f"{len(run['checkpoints'])} checkpoints, {len(run['exports'])} exports"
    return f"run {run['run']} was trained on {run['data']} version {run['version']} ({derived})"
