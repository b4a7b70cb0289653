"""What every benchmark shares: rows of one form, facts of the machine, a table or JSON.

    python benchmarks/NAME.py [--json] [--quick] [--runs N]

A benchmark measures `rsc` and its peers or controls as further *subjects* of the same case and metric, in
the same call, alternating, so that what disturbs the machine disturbs all of them. The value is the median;
whoever reads it forms the ratio. A peer that is not installed is named under "skipped".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from cryptography.hazmat.backends.openssl.backend import backend

_LIBRARIES = ("torch", "numpy", "cryptography", "pynacl")  # the last brings a libsodium of its own
_CPU_FLAGS = ("aes", "vaes", "vpclmulqdq", "avx2", "avx512f", "avx512_bf16", "amx_tile")


@dataclass(frozen=True)
class Row:
    """One figure: `value` is the median of `runs` measurements between `min` and `max`."""

    case: str
    metric: str
    subject: str
    value: float
    min: float
    max: float
    runs: int


@dataclass(frozen=True)
class Options:
    quick: bool
    runs: int
    arguments: argparse.Namespace


@dataclass
class Report:
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, case: str, *, metric: str, subject: str, values: Sequence[float]) -> None:
        """Add the figure of some measurements. Nothing for none."""
        if values:
            middle = statistics.median(values)
            self.rows.append(Row(case, metric, subject, middle, min(values), max(values), len(values)))

    def skip(self, subject: str, *, reason: str) -> None:
        """Name a subject that could not be measured, and why."""
        self.skipped[subject] = reason


def alternate(
    subjects: Iterable[str],
    *,
    runs: int,
    measure: Callable[[str], Mapping[str, float]],
    may_fail: Collection[str] = (),
    failed: Callable[[str, str], None] = lambda subject, reason: None,
) -> dict[str, dict[str, list[float]]]:
    """Measure every subject once, then every subject again, `runs` times: {subject: {metric: values}}.

    A subject of `may_fail` that raises RuntimeError is left out, and `failed` gets its name and the reason.
    """
    found: dict[str, dict[str, list[float]]] = {}
    names = list(subjects)
    for _ in range(runs):
        for subject in list(names):
            try:
                measured = measure(subject)
            except RuntimeError as error:
                if subject not in may_fail:
                    raise
                names.remove(subject)
                found.pop(subject, None)
                failed(subject, str(error).strip().splitlines()[-1])
                continue
            for metric, value in measured.items():
                found.setdefault(subject, {}).setdefault(metric, []).append(value)
    return found


def run_worker(command: Sequence[str], *, timeout_s: float) -> dict[str, Any]:
    """Run one measurement in a process of its own and return the JSON object of its last line.

    Raises RuntimeError with the end of its log when it fails, and when it takes longer than `timeout_s`.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{' '.join(command[-4:])}: not done after {timeout_s:g} s") from None
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[-4:])}: exit {done.returncode}: {done.stderr[-600:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main(
    description: str,
    run: Callable[[Options], Report],
    *,
    default_runs: int = 5,
    quick_runs: int = 2,
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    """The command line of a benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="small corpora and few runs")
    parser.add_argument(
        "--runs", type=int, help=f"measurements of each figure (default {default_runs}, quick {quick_runs})"
    )
    if add_arguments:
        add_arguments(parser)
    arguments = parser.parse_args()
    runs = arguments.runs or (quick_runs if arguments.quick else default_runs)
    report = run(Options(quick=arguments.quick, runs=runs, arguments=arguments))
    print(to_json(report) if arguments.json else to_table(report))


def to_json(report: Report) -> str:
    return json.dumps(
        {
            "machine": machine(),
            "rows": [asdict(row) for row in report.rows],
            "skipped": report.skipped,
            "notes": report.notes,
        },
        indent=1,
    )


def to_table(report: Report) -> str:
    """Cases and metrics in the order measured, subjects below each other."""
    header = ("case", "metric", "subject", "median", "min", "max", "runs")
    lines = [header] + [
        (
            row.case,
            row.metric,
            row.subject,
            *(f"{v:.4g}" for v in (row.value, row.min, row.max)),
            str(row.runs),
        )
        for row in report.rows
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    text += [f"skipped {name}: {reason}" for name, reason in report.skipped.items()]
    text += [f"note: {note}" for note in report.notes]
    facts = machine()
    text.append(", ".join(f"{name} {value}" for name, value in facts.items()))
    return "\n".join(text)


def machine() -> dict[str, Any]:
    """What a reader needs to compare: processor, memory, load, versions, command, time."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", *sys.argv]),
        "cpu": _cpu_line("model name") or platform.processor(),
        "cpu_flags": " ".join(flag for flag in _CPU_FLAGS if flag in _cpu_line("flags").split()),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_1m": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
        "openssl": backend.openssl_version_text(),
    }


def _cpu_line(name: str) -> str:
    """What /proc/cpuinfo says of the first core; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
