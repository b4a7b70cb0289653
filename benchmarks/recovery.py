"""Seconds from the loss of a worker to the next step of the whole job, and steps done again.

    python benchmarks/recovery.py [--json] [--quick] [--runs N]

Case `sigkill`: one of two workers is killed; `hang`: one stops stepping (its detection time,
train.hang_floor_s = 2, is in the figure). Subjects: `rsc` goes on from its encrypted checkpoint,
`rsc_snapshot` from a snapshot in memory every 5 steps, `torchrun_checkpoint` is torchrun --max-restarts over
a plain FSDP2 loop with torch's distributed checkpoint (recovery_peer.py), looking at its workers every 0.1 s.
Checkpoints every 10 steps, killed at step 28.

`snapshot_s`: CPU seconds of a snapshot; `snapshot_share`: that over those of the 5 steps it is for, rank 0.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

from harness import Options, Report, alternate, main

STEPS, EVERY, KILL_AT, SNAPSHOT_EVERY = 40, 10, 28, 5
_PEER_S = 180  # it takes 10 s where nothing else runs, 50 s on a machine three times too small
PEER = Path(__file__).with_name("recovery_peer.py")
SMALL = (
    "parallel.workers=2",
    "model.trunk.width=128",
    "data.sequence_length=128",
    "data.name=pydocs",
    "train.threads=1",
    "train.precision=fp32",
    f"train.steps={STEPS}",
    f"checkpoint.every={EVERY}",
    "train.hang_floor_s=2",
)


def rsc(*arguments: str, home: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "rsc", *arguments],
        env={**os.environ, "RSC_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(f"rsc {arguments[0]}: exit {done.returncode}: {done.stderr[-600:]}")
    return done.stdout


def measure_rsc(kind: str, *, home: Path, snapshot_every: int) -> dict[str, float]:
    drill = f"train.fail_at=rank=1,step={KILL_AT},kind={kind}"
    told = rsc(
        "train", "language", *SMALL, drill, f"train.snapshot_every={snapshot_every}", "--json", home=home
    )
    run = Path(json.loads(told)["path"])
    events = [json.loads(line) for line in (run / "logs" / "events.jsonl").read_text().splitlines()]
    lost_at = next(event["time"] for event in events if event["kind"] == "fault_injected")
    steps = [json.loads(line) for line in (run / "metrics" / "rank0.jsonl").read_text().splitlines()]
    found = recovery([(line["step"], seconds(line["time"])) for line in steps], lost_s=seconds(lost_at))
    taken = [event for event in events if event["kind"] == "snapshots" and event["rank"] == 0]
    if taken:
        own_s = statistics.median(line["step_s"] - line["communication_s"] for line in steps)
        found["snapshot_s"] = taken[0]["cpu_s"] / taken[0]["count"]
        found["snapshot_share"] = found["snapshot_s"] / SNAPSHOT_EVERY / own_s
    return found


def measure_torchrun(*, folder: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        torchrun = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "--max-restarts=3",
            "--monitor-interval=0.1",
        ]
        command = [*torchrun, str(PEER), own, str(STEPS), str(EVERY), str(KILL_AT)]
        subprocess.run(command, check=True, capture_output=True, timeout=_PEER_S)
        lines = {rank: [json.loads(line) for line in Path(own, f"rank{rank}.jsonl").read_text().splitlines()]
                 for rank in (0, 1)}  # fmt: skip
    lost_s = next(line["time_s"] for line in lines[1] if line["kind"] == "kill")
    return recovery([(line["step"], line["time_s"]) for line in lines[0]], lost_s=lost_s)


def why_not_torchrun(folder: Path) -> str:
    """One trial: why the peer cannot be measured here; empty when it can."""
    try:
        measure_torchrun(folder=folder)
    except subprocess.TimeoutExpired:
        return f"its {STEPS} steps with one kill did not end within {_PEER_S} s"
    except subprocess.CalledProcessError as error:
        told = error.stderr or b""
        lines = [line for line in told.decode(errors="replace").splitlines() if "Error: " in line]
        return f"did not come back after the kill: {lines[0] if lines else error}"
    return ""


def recovery(steps: list[tuple[int, float]], *, lost_s: float) -> dict[str, float]:
    """From (step, time it ended) in the order of time, and when the worker was lost.

    The job is back at the first step that was done before, or at the step of the loss if none was.
    """
    pairs = pairwise(steps)
    back = next(now for before, now in pairs if now[0] <= before[0] or now[0] == KILL_AT)
    return {"seconds": back[1] - lost_s, "steps_lost": KILL_AT - back[0]}


def seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def run(options: Options) -> Report:
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        rsc("data", "import", "python-docs", "--name", "pydocs", home=home)
        rsc("data", "approve", "pydocs", "--note", "documentation that ships with Python", home=home)
        for kind in ("sigkill", "hang"):
            subjects: dict[str, Callable[[], dict[str, float]]] = {
                "rsc": partial(measure_rsc, kind, home=home, snapshot_every=0),
                "rsc_snapshot": partial(measure_rsc, kind, home=home, snapshot_every=SNAPSHOT_EVERY),
            }
            if kind == "sigkill" and (reason := why_not_torchrun(home)):
                report.skip("torchrun_checkpoint", reason=reason)
            elif kind == "sigkill":
                subjects["torchrun_checkpoint"] = partial(measure_torchrun, folder=home)
            found = alternate(subjects, runs=options.runs, measure=lambda name, ways=subjects: ways[name]())
            for subject, metrics in found.items():
                for metric, values in metrics.items():
                    report.add(kind, metric=metric, subject=subject, values=values)
    report.skip(
        "torchrun_checkpoint in hang", reason="torchrun waits for the collective's own timeout, 30 minutes"
    )
    report.skip("node", reason="needs two machines")
    return report


if __name__ == "__main__":
    main(__doc__ or "", run, default_runs=3)
