from __future__ import annotations

import lzma
import math

import pytest
import torch

from rsc.errors import DataError
from rsc.evaluate.language import Document, _windows, evaluate_language, xz_bits_per_byte
from rsc.models.build import Model, build_model
from rsc.models.config import SEPARATOR, ModelConfig, TextConfig, TrunkConfig
from rsc.models.heads import Want


@pytest.fixture(scope="module")
def model() -> Model:
    trunk = TrunkConfig(width=16, num_layers=1, num_heads=2, mlp_width=16)
    return build_model(ModelConfig(trunk=trunk, text=TextConfig(pad_to=1)), seed=4)


def document(text: str) -> Document:
    return Document(ids=[*text.encode(), SEPARATOR], size_bytes=len(text.encode()) + 1)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 7, 8, 9, 50])
def test_every_token_is_scored_once_with_half_a_window_behind_it(size: int) -> None:
    whole = Document(ids=list(range(100, 100 + size)), size_bytes=size)
    windows = list(_windows([whole], separator=SEPARATOR, context=8, stride=4))
    scored = [target for window in windows for target in window.targets[window.skip :]]
    assert scored == list(whole.ids)
    assert all(len(window.inputs) <= 8 and (window.skip >= 4 or window is windows[0]) for window in windows)
    assert windows[0].inputs[0] == SEPARATOR
    for window in windows:
        assert [*window.inputs[1:], window.targets[-1]] == list(window.targets)


def test_without_overlap_every_window_is_scored_whole() -> None:
    whole = Document(ids=list(range(100, 120)), size_bytes=20)
    windows = list(_windows([whole], separator=SEPARATOR, context=8, stride=8))
    assert [(len(window.inputs), window.skip) for window in windows] == [(8, 0), (8, 0), (4, 0)]


def test_short_documents_equal_scoring_them_alone(model: Model) -> None:
    texts = ["hello world", "a", "numbers 123"]
    report = evaluate_language(
        model, documents=map(document, texts), separator=SEPARATOR, context=32, batch_size=2
    )
    nats = 0.0
    for text in texts:
        ids = torch.tensor([[SEPARATOR, *text.encode(), SEPARATOR]])
        log_p = model({"tokens_BL": ids[:, :-1]}, Want.LOGITS)["logits"].detach().log_softmax(-1)
        nats -= float(log_p.gather(-1, ids[:, 1:, None]).sum())
    num_bytes = sum(map(len, texts)) + len(texts)
    assert report.num_bytes == report.num_tokens == num_bytes
    assert report.bits_per_byte.value == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-5)
    assert report.perplexity == pytest.approx(math.exp(nats / num_bytes), rel=1e-5)


def test_batch_size_does_not_matter(model: Model) -> None:
    texts = [f"document {i} " * (i + 1) for i in range(5)]
    values = {
        evaluate_language(
            model, documents=map(document, texts), separator=SEPARATOR, context=16, batch_size=size
        ).loss.value
        for size in (1, 3, 64)
    }
    assert max(values) - min(values) < 1e-6


def test_empty_split_is_named(model: Model) -> None:
    with pytest.raises(DataError, match="no document"):
        evaluate_language(model, documents=[], separator=SEPARATOR, context=8, batch_size=1)


def test_xz_reference_is_that_of_xz() -> None:
    assert xz_bits_per_byte([b"abc" * 100, b"xyz"]) == pytest.approx(
        8 * len(lzma.compress(b"abc" * 100 + b"\0xyz\0", preset=9)) / 305
    )
