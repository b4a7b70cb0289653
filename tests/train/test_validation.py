"""Validation during training disturbs nothing; TensorBoard files hold the numbers of our own lines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from rsc.events import read_lines
from rsc.models.cross_entropy import IGNORED
from rsc.models.tokenizer import ByteTokenizer, JsonTokenizer
from rsc.train.validate import text_bytes


def test_bytes_of_a_byte_tokenizer_are_its_tokens() -> None:
    targets_BL = torch.tensor([[104, 195, 182, 256], [IGNORED, 33, 256, 195]])
    assert text_bytes(targets_BL, tokenizer=ByteTokenizer(), separator=256) == 7


@pytest.fixture
def words(tmp_path: Path) -> JsonTokenizer:
    """Whole words with the space before them, as ids 1, 2, ...; 0 stands between documents."""
    pieces = ["<|endoftext|>", "\u2581to", "\u2581be", "\u2581sch\u00f6n"]
    inner = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({piece: number for number, piece in enumerate(pieces)}, pieces[0])
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    inner.decoder = tokenizers.decoders.Metaspace()
    (tmp_path / "tokenizer.json").write_text(inner.to_str())
    assert json.loads(inner.to_str())["model"]["vocab"][pieces[3]] == 3
    return JsonTokenizer(tmp_path / "tokenizer.json")


def test_bytes_of_other_tokens_are_those_of_the_decoded_text(words: JsonTokenizer) -> None:
    targets_BL = torch.tensor([[1, 2, 0, 3, IGNORED], [0, 0, 2, 1, 3]])
    texts = ["to be", "sch\u00f6n", "be to sch\u00f6n"]
    expected = sum(len(text.encode()) for text in texts) + 3
    assert text_bytes(targets_BL, tokenizer=words, separator=0) == expected


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
    lines = list(read_lines(run / "metrics" / "rank0.jsonl"))
    told = {line["step"]: line for line in lines if "val_loss" in line}
    assert sorted(told) == [3, 6, 9, 12]
    for line in told.values():
        assert 0 < line["val_bits_per_byte"] == pytest.approx(line["val_loss"] / math.log(2), rel=1e-4)
    assert told[12]["val_loss"] < told[3]["val_loss"]
    other = {line["step"]: line["val_loss"] for line in read_lines(run / "metrics" / "rank1.jsonl")
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
