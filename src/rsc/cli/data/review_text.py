"""What `rsc data review` and a signature print for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rsc.api.verdicts import Signed
from rsc.cli.data.text import SINGLE_PERSON, section, state_line
from rsc.cli.output import table


def review_text(record: Mapping[str, Any]) -> str:
    """The whole review for a person, most important first."""
    report = record["report"]
    lines = [
        state_line(record),
        _report_line(report),
        *section("found, by field and type", _found_table(report["by_field"])),
    ]
    if "score" in record:
        lines += section("against the truth", [_score_table(record["score"])])
    if "tables" in record:
        lines += section("rows that hide each other", _table_lines(record["tables"]))
    lines += section(
        "in context (what matched, masked -> what stands there now)",
        list(map(_sample_line, record["samples"])),
    )
    lines += section("not taken, in quarantine", _quarantine_lines(record["quarantine"]))
    lines += section("the policy", [f"  {line}" for line in policy_lines(record)])
    lines += section("notes", [f"  {note}" for note in report["notes"]])
    lines += ["", f"NOT looked for: {'; '.join(report['not_looked_for'])}"]
    return "\n".join(lines)


def _table_lines(tables: Mapping[str, Any]) -> list[str]:
    groups = (
        f"{tables['rows']:,} rows in {tables['groups']:,} groups, the smallest has {tables['smallest_group']}"
    )
    if tables["holds"]:
        return [f"  {groups}: the policy's k and l hold"]
    steps = [
        f"  coarsen {name}: {how}"
        for name, how in (tables["suggestion"] or {"columns": {}})["columns"].items()
    ]
    if tables["suggestion"] and tables["suggestion"]["rows_to_drop"]:
        steps.append(f"  then leave out {tables['suggestion']['rows_to_drop']:,} rows that still stand out")
    return [f"  {groups}: {tables['rows_below_k']:,} rows stand out, it cannot be approved so", *steps]


def policy_lines(record: Mapping[str, Any]) -> list[str]:
    remarks = [f"{remark['level']}: {remark['field']}: {remark['sentence']}" for remark in record["remarks"]]
    return [*record["policy"], *remarks]


def verdict_text(signed: Signed) -> str:
    done = {"approve": "approved", "reject": "rejected"}[signed.verdict]
    lines = [
        f"{signed.approver} {done} {signed.data} version {signed.version} (root {signed.root_hash[:16]})",
        f"state: {signed.state.replace('_', ' ')}, {signed.reason}",
    ]
    if signed.approved_until:
        lines.append(f"the approval counts until {signed.approved_until}")
    if signed.single_person:
        lines.append(SINGLE_PERSON)
    return "\n".join(lines)


def _report_line(report: Mapping[str, Any]) -> str:
    read = f"{report['records']:,} records, {report['characters']:,} characters scanned"
    return f"{read}, {report['findings']:,} findings, {report['dropped']:,} records dropped"


def _sample_line(item: Mapping[str, Any]) -> str:
    return f"  {item['type']:<15} record {item['record']}, {item['field']}: {item['context']}"


def _quarantine_lines(quarantine: Mapping[str, Any]) -> list[str]:
    first = quarantine["first"]
    more = quarantine["records"] - len(first)
    lines = [f"  {item['place']}: {item['reason']}" for item in first]
    return [*lines, f"  and {more:,} more"] if more else lines


def _found_table(by_field: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    rows = _found_rows(by_field)
    return [table(rows, header=("field", "type", "action", "count"))] if rows else []


def _found_rows(by_field: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[tuple[str, str, str, str]]:
    rows = [
        (field, kind, action, count)
        for field, kinds in by_field.items()
        for kind, actions in kinds.items()
        for action, count in actions.items()
    ]
    return [(*row[:3], f"{row[3]:,}") for row in sorted(rows, key=lambda row: -row[3])]


def _score_table(score: Mapping[str, Any]) -> str:
    rows = [
        (name, _rate(rates["recall"]), _rate(rates["typed"]), _rate(rates["precision"]))
        for name, rates in {**score["types"], "all": score["overall"]}.items()
    ]
    partial = _rate(score["overall"]["partial"])
    lines = table(rows, header=("type", "recall", "as the right type", "precision"))
    return f"{lines}\npartly found, which counts as a miss: {partial}"


def _rate(rate: Mapping[str, Any]) -> str:
    if rate["value"] is None:
        return "-"
    return f"{rate['value']:.3f} ({rate['low']:.3f}-{rate['high']:.3f}, n={rate['total']})"
