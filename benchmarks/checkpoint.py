"""Seconds that a checkpoint holds training, and seconds until it is safe on disk, encryption included.

    python benchmarks/checkpoint.py [--json] [--quick] [--runs N] [--gib N] [--folder DIR]

Subjects: `rsc` (encrypted, authenticated, synced), the floors `memcpy` and `plain_fsync`, and torch's own
torch_save, dcp_save, dcp_async (thread). Each measurement is a process of its own that saves three times
and reports the third save. --quick takes 128 MiB; the default is 1 GiB.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from harness import Options, Report, alternate, main, run_worker

SUBJECTS = ("rsc", "memcpy", "plain_fsync", "torch_save", "dcp_save", "dcp_async")
WORKER = Path(__file__).with_name("checkpoint_subject.py")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gib", type=float, help="size of the state (default 1; --quick 0.125)")
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="folder on the disk to measure")


def run(options: Options) -> Report:
    gib = options.arguments.gib or (0.125 if options.quick else 1.0)
    case = f"{gib:g}gib"

    def measure(subject: str) -> dict[str, float]:
        command = [sys.executable, str(WORKER), subject, str(int(gib * 1024)), options.arguments.folder]
        return {name: float(value) for name, value in run_worker(command, timeout_s=900).items()}

    report = Report()
    for subject, metrics in alternate(SUBJECTS, runs=options.runs, measure=measure).items():
        for metric, values in metrics.items():
            report.add(case, metric=metric, subject=subject, values=values)
    return report


if __name__ == "__main__":
    main(__doc__ or "", run, add_arguments=add_arguments)
