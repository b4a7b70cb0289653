"""Validation during training disturbs nothing; TensorBoard files hold the numbers of our own lines."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
import torch
import torch.distributed as dist
from torch.distributed import HashStore

from rsc.events import read_lines
from rsc.models.cross_entropy import IGNORED
from rsc.models.tokenizer import ByteTokenizer
from rsc.tokenizer_json import JsonTokenizer, read_tokenizer
from rsc.train.validate import Validator, text_bytes


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
    return read_tokenizer(tmp_path / "tokenizer.json")


def test_bytes_of_other_tokens_are_those_of_the_decoded_text(words: JsonTokenizer) -> None:
    targets_BL = torch.tensor([[1, 2, 0, 3, IGNORED], [0, 0, 2, 1, 3]])
    texts = ["to be", "sch\u00f6n", "be to sch\u00f6n"]
    expected = sum(len(text.encode()) for text in texts) + 3
    assert text_bytes(targets_BL, tokenizer=words, separator=0) == expected


class Sources:
    """Batches without end."""

    def __next__(self) -> dict[str, torch.Tensor]:
        return {"targets_BL": torch.zeros(2, 3)}

    def close(self) -> None: ...


def test_a_validation_gives_a_sign_for_every_batch() -> None:
    """Else one that is longer than the patience with a step would be ended as a hang."""
    draws = SimpleNamespace(after=lambda _: draws)
    mesh = SimpleNamespace(place=lambda axis: 0, device=torch.device("cpu"))
    engine: Any = SimpleNamespace(
        draws=lambda _: draws, evaluate=lambda batch, draws: (3.0, 2), placed=SimpleNamespace(mesh=mesh)
    )
    sources: Any = Sources
    beats: list[int] = []
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        validator = Validator(
            engine, sources, num_batches=5, every=3, size_of=None, beat=lambda: beats.append(1)
        )
        assert validator.facts(3) == {"val_loss": 1.5}
    finally:
        dist.destroy_process_group()
    assert len(beats) == 5


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
