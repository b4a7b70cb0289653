"""Validation during training disturbs nothing; TensorBoard files hold the numbers of our own lines."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rsc.train.metrics import read_metrics


@pytest.mark.slow
def test_a_run_with_validation_has_the_losses_of_one_without(
    rsc_with_text: Any, whole: dict[int, float]
) -> None:
    """Killed once on the way: resumed losses and validations are those of the whole run too."""
    pytest.importorskip("tensorboardX")
    result = rsc_with_text.train(
        "eval.every=3",
        "eval.every_batches=2",
        "eval.split=train",
        "train.tensorboard=true",
        "train.fail_at=rank=1,step=7,kind=sigkill",
    )
    assert result["restarts"] == 1
    assert rsc_with_text.losses(result["run"]) == whole
    run = rsc_with_text.workspace.runs / result["run"]
    lines = list(read_metrics(run / "metrics" / "rank0.jsonl"))
    told = {line["step"]: line for line in lines if "val_loss" in line}
    assert sorted(told) == [3, 6, 9, 12]
    for line in told.values():
        assert 0 < line["val_bits_per_byte"] == pytest.approx(line["val_loss"] / math.log(2), rel=1e-4)
    assert told[12]["val_loss"] < told[3]["val_loss"]
    other = {line["step"]: line["val_loss"] for line in read_metrics(run / "metrics" / "rank1.jsonl")
             if "val_loss" in line}  # fmt: skip
    assert other == {step: line["val_loss"] for step, line in told.items()}
    assert all(0 < line["mfu"] < 2 and line["flops"] > 0 for line in lines)
    assert all(
        line["data_s"] + line["communication_s"] + line["compute_s"]
        == pytest.approx(line["step_s"], rel=0.01)
        for line in lines
        if line["compute_s"]
    )
    assert any((run / "tensorboard").iterdir())
    (peak, *_) = rsc_with_text.events_of(result["run"], "peak")
    assert "measured" in peak["source"]
