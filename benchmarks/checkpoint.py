"""Seconds that a checkpoint holds training, and seconds until it is safe on disk, encryption included.

    python benchmarks/checkpoint.py [--json] [--quick] [--runs N] [--gib N] [--folder DIR]

Subjects: `rsc` (encrypted, authenticated, synced, beside training) and `rsc_sync`, the floors `memcpy` and
`plain_fsync`, and torch's own torch_save, dcp_save, dcp_async (thread). Each measurement is a process of its
own that saves three times and reports the third save. --quick takes 512 MiB; the default is 1 GiB, and then
the largest of 16, 8, 4 and 2 GiB for which memory (four copies), the disk (three) and ten minutes are enough.

`held_per_memcpy` and `durable_per_plain` are medians of the ratios of neighbouring measurements.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from harness import Options, Report, alternate, main, run_worker

SUBJECTS = ("rsc", "rsc_sync", "memcpy", "plain_fsync", "torch_save", "dcp_save", "dcp_async")
RATIOS = {"held_per_memcpy": ("held_s", "memcpy"), "durable_per_plain": ("durable_s", "plain_fsync")}
WORKER = Path(__file__).with_name("checkpoint_subject.py")
LARGE_GIB = (16, 8, 4, 2)
LARGE_S = 420.0  # of the ten minutes that a benchmark may take


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gib", type=float, help="size of the state (default 1 and 4; --quick 0.5)")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="folder on the disk to measure")


def run(options: Options) -> Report:
    report = Report()
    if options.arguments.gib:
        measure_size(report, options.arguments.gib, options=options, runs=options.runs)
    elif options.quick:
        measure_size(report, 0.5, options=options, runs=options.runs)
    else:
        started_s = time.monotonic()
        measure_size(report, 1.0, options=options, runs=options.runs)
        gib_s = (time.monotonic() - started_s) / options.runs
        measure_large(report, options=options, gib_s=gib_s)
    return report


def measure_large(report: Report, *, options: Options, gib_s: float) -> None:
    """The largest size that fits; why the larger ones do not. `gib_s`: seconds that 1 GiB took, once."""
    for gib in LARGE_GIB:
        reason = no_room_for(gib, folder=options.arguments.folder)
        if not reason and gib * gib_s > LARGE_S:
            reason = f"would take {gib * gib_s:.0f} s here"
        if not reason:
            return measure_size(report, gib, options=options, runs=1)
        report.skip(f"{gib}gib", reason=reason)


def measure_size(report: Report, gib: float, *, options: Options, runs: int) -> None:
    def measure(subject: str) -> dict[str, float]:
        command = [sys.executable, str(WORKER), subject, str(int(gib * 1024)), options.arguments.folder]
        return {name: float(value) for name, value in run_worker(command, timeout_s=300).items()}

    found = alternate(SUBJECTS, runs=runs, measure=measure)
    for subject, metrics in found.items():
        for name, (metric, floor) in RATIOS.items():
            if metric in metrics and subject != floor:
                pairs = zip(metrics[metric], found[floor][metric], strict=True)
                metrics[name] = [mine / theirs for mine, theirs in pairs]
        for metric, values in metrics.items():
            report.add(f"{gib:g}gib", metric=metric, subject=subject, values=values)


def no_room_for(gib: float, *, folder: str) -> str:
    """Why this size cannot be measured here; empty where it can. The state, its copy, and two files in the
    page cache are in memory; three files are on the disk for a moment."""
    memory = available_bytes() / 2**30
    disk = shutil.disk_usage(folder).free / 2**30
    if memory < 4 * gib:
        return f"needs {4 * gib:g} GiB of free memory, there are {memory:.1f}"
    return f"needs {3 * gib:g} GiB of disk, there are {disk:.1f}" if disk < 3 * gib else ""


def available_bytes() -> int:
    """Memory that the kernel would give away, its page cache included; free memory where it does not say."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    except OSError:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(lines["MemAvailable"].split()[0]) << 10


if __name__ == "__main__":
    main(__doc__ or "", run, default_runs=3, add_arguments=add_arguments)
