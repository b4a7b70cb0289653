"""The best checkpoint by validation is kept, ends a training that learns no more, and can be asked for."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import TINY, Rsc

VALIDATED = [
    "train.steps=40",
    "eval.every=2",
    "eval.every_batches=1",
    "eval.patience=2",
    "checkpoint.keep_best=true",
    "checkpoint.keep=1",
    "train.optimizer.learning_rate=5.0",
    "train.optimizer.muon_learning_rate=5.0",
    "train.optimizer.schedule=constant",
]
"""A rate at which the loss soon rises."""


def test_best_early_stop_and_a_chosen_step(trained: Rsc, tmp_path: Path) -> None:
    rsc = trained.copy(tmp_path)
    done = rsc("train", "language", "data.name=posts", *TINY, *VALIDATED, "--json")
    run = json.loads(done.stdout)
    assert run["state"] == "finished"
    assert f"stopped early at step {run['step']}" in done.stderr
    assert run["step"] < 40
    lines = (Path(run["path"]) / "metrics" / "rank0.jsonl").read_text().splitlines()
    losses = {line["step"]: line["val_loss"] for line in map(json.loads, lines) if "val_loss" in line}
    best = min(losses, key=lambda step: losses[step])
    kept = {int(path.name.removeprefix("step-")) for path in (Path(run["path"]) / "checkpoints").iterdir()}
    assert kept == {best, run["step"]}

    exported = rsc.json("runs", "export", run["run"], "--step", "best", "--to", str(tmp_path / "best"))
    assert exported["step"] == best
    said = [
        rsc.json("generate", run["run"], "--step", step, "--temperature", "0") for step in ("best", str(best))
    ]
    assert said[0] == said[1]
    missing = rsc("eval", run["run"], "--step", "3", expect=2)
    assert f"it has: {best}, {run['step']}" in missing.stderr
