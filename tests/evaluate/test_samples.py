from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from rsc.errors import ConfigError, DataError
from rsc.evaluate.open_model import from_state
from rsc.evaluate.predict import predict
from rsc.evaluate.samples import evaluate_samples
from rsc.evaluate.scorers import read_symbols
from rsc.models.build import Model, build_model
from rsc.models.config import AudioConfig, HeadConfig, ImageConfig, ModelConfig, TextConfig, TrunkConfig
from rsc.models.heads import Want
from rsc.recipes.sections import EvalConfig
from rsc.store.format.columns import Columns, columns_from_records
from rsc.store.format.schema import Field, Schema
from rsc.train.batches.frame_batches import batches_of

TRUNK = TrunkConfig(width=16, num_layers=1, num_heads=2, mlp_width=16, causal=False)
TEXTS = Schema((Field("text", "string"), Field("label", "string"), Field("region", "string")))


def model_of(head: HeadConfig, **stems: Any) -> Model:
    return build_model(ModelConfig(trunk=TRUNK, head=head, **stems), seed=1)


def posts() -> list[dict[str, str]]:
    return [
        {
            "text": f"post {i} {'ain t' if i % 3 == 0 else ''}",
            "label": "ab"[i % 2],
            "region": "NS"[i % 4 // 2],
        }
        for i in range(30)
    ]


class Oracle(torch.nn.Module):
    """Stands for a model: says what a function of the batch says."""

    def __init__(self, model: Model, answer: Any) -> None:
        super().__init__()
        self.config, self._answer = model.config, answer
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch: dict[str, torch.Tensor], want: Want) -> dict[str, torch.Tensor]:
        assert want is Want.LOGITS
        return self._answer(batch)


def say_a(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"logits": torch.tensor([[2.0, 0.0]]).expand(len(batch["tokens_BL"]), 2)}


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        (EvalConfig(positive=("c",)), "eval.positive: 'c' is not one", "known names: a, b"),
        (EvalConfig(slice_columns=("regio",)), "the data has no field 'regio'", 'did you mean "region"?'),
    ],
)
def test_groups_that_are_not_in_the_data_are_told(config: EvalConfig, message: str, hint: str) -> None:
    oracle = Oracle(model_of(HeadConfig(kind="classes", labels=("a", "b")), text=TextConfig()), say_a)
    with pytest.raises(ConfigError, match=message) as caught:
        evaluate_samples(oracle, columns=[columns_from_records(TEXTS, posts())], config=config)  # type: ignore[arg-type]
    assert caught.value.hint == hint


def test_figures_of_a_model_that_always_says_a() -> None:
    oracle = Oracle(model_of(HeadConfig(kind="classes", labels=("a", "b")), text=TextConfig()), say_a)
    config = EvalConfig(
        batch_size=7, positive=("a",), slice_columns=("region",), slice_terms={"dialect": ("ain",)}
    )
    report = evaluate_samples(oracle, columns=[columns_from_records(TEXTS, posts())], config=config)  # type: ignore[arg-type]
    assert report.count == 30
    assert report.measures["accuracy"].value == 0.5
    assert report.measures["loss"].value == pytest.approx(math.log(1 + math.exp(-2)) + 1.0)
    assert report.confusion == [[15, 0], [15, 0]]
    assert report.per_class == {"a": pytest.approx(2 / 3), "b": 0.0}
    assert report.calibration is not None
    assert report.calibration.error == pytest.approx(1 / (1 + math.exp(-2)) - 0.5, abs=1e-6)
    rows = {row.group: row for row in report.slices}
    assert {name: row.count for name, row in rows.items()} == {
        "all": 30,
        "region=N": 16,
        "region=S": 14,
        "dialect": 10,
    }
    assert all(row.false_positive_rate.value == 1.0 for row in rows.values())
    assert all(row.false_negative_rate.value == 0.0 for row in rows.values())


def test_frames_and_batches_do_not_change_the_figures() -> None:
    model = model_of(HeadConfig(kind="classes", labels=("a", "b")), text=TextConfig())
    records = posts()
    whole = [columns_from_records(TEXTS, records)]
    parts = [columns_from_records(TEXTS, records[start : start + 4]) for start in range(0, 30, 4)]
    reports = [
        evaluate_samples(model, columns=columns, config=EvalConfig(batch_size=size))
        for columns, size in ((whole, 30), (whole, 3), (parts, 16))
    ]
    values = [report.measures["loss"].value for report in reports]
    assert values == pytest.approx([values[0]] * 3, rel=1e-4)


def test_unusable_samples_are_counted_and_left_out() -> None:
    model = model_of(HeadConfig(kind="classes", labels=("a", "b")), text=TextConfig())
    records = [*posts(), {"text": "x", "label": "c", "region": "N"}]
    report = evaluate_samples(model, columns=[columns_from_records(TEXTS, records)], config=EvalConfig())
    assert report.count == 30
    assert report.bad == {"label": 1}
    only_bad: list[Columns] = [columns_from_records(TEXTS, records[-1:])]
    with pytest.raises(DataError, match="no sample of the split could be used"):
        evaluate_samples(model, columns=only_bad, config=EvalConfig())


def test_several_labels_are_scored_one_by_one() -> None:
    schema = Schema((Field("text", "string"), Field("label", "tensor", shape=(2,))))
    records = [{"text": "x", "label": label} for label in ([1, 0], [0, 1], [1, 1], [0, 0])]
    head = HeadConfig(kind="multi_label", labels=("a", "b"))

    def answer(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"logits": torch.tensor([[1.0, -1.0]]).expand(len(batch["tokens_BL"]), 2)}

    oracle = Oracle(model_of(head, text=TextConfig()), answer)
    report = evaluate_samples(oracle, columns=[columns_from_records(schema, records)], config=EvalConfig())  # type: ignore[arg-type]
    assert report.measures["exact_match"].value == 0.25
    assert report.measures["label_accuracy"].value == 0.5
    assert report.per_class == {"a": pytest.approx(2 / 3), "b": 0.0}


def test_hidden_tokens_are_scored_alike_each_time() -> None:
    model = model_of(HeadConfig(kind="masked_token", mask_share=0.3), text=TextConfig())
    columns = [columns_from_records(TEXTS, posts())]
    state = torch.random.get_rng_state()
    first, again = (evaluate_samples(model, columns=columns, config=EvalConfig()) for _ in range(2))
    assert first == again
    assert first.measures["loss"].value == pytest.approx(math.log(257), abs=0.2)
    assert torch.equal(torch.random.get_rng_state(), state), "training's random stream is left alone"


def test_best_path_joins_repeats_and_drops_blanks() -> None:
    best = torch.tensor([[1, 1, 0, 1, 2, 2, 0, 2], [0, 0, 0, 2, 1, 0, 0, 0]])
    logits = torch.nn.functional.one_hot(best, 3).float()
    assert read_symbols(logits, lengths=torch.tensor([8, 4]), labels=("x", "y")) == ["x x y y", "y"]


def test_spoken_words_give_a_word_error_rate() -> None:
    schema = Schema((Field("audio", "tokens", dtype="int16"), Field("label", "string")))
    records = [{"audio": [1] * 2000, "label": "one two"}, {"audio": [1] * 2000, "label": "two"}]
    head = HeadConfig(kind="ctc", labels=("one", "two"))

    def answer(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        logits = torch.nn.functional.one_hot(torch.tensor([1, 0, 2]), 3).float()
        count = len(batch["audio_BS"])
        return {"logits": logits.expand(count, 3, 3), "lengths": torch.full((count,), 3)}

    oracle = Oracle(model_of(head, audio=AudioConfig(num_mels=8)), answer)
    report = evaluate_samples(oracle, columns=[columns_from_records(schema, records)], config=EvalConfig())  # type: ignore[arg-type]
    assert report.measures["word_error_rate"].value == pytest.approx(1 / 3)
    assert report.measures["exact_match"].value == 0.5


def test_batches_keep_every_sample_in_order() -> None:
    columns = columns_from_records(TEXTS, posts())
    texts = [data for batch in batches_of([columns], batch_size=7) for data in batch["text"].to_bytes()]  # type: ignore[union-attr]
    assert texts == [post["text"].encode() for post in posts()]


def trained(head: HeadConfig, **stems: Any) -> Any:
    model = model_of(head, **stems)
    return from_state("toy", config=model.config, state=model.state_dict(), context=16, separator=None)


def test_predict_text_lines_and_jsonl(tmp_path: Path) -> None:
    toy = trained(HeadConfig(kind="classes", labels=("a", "b")), text=TextConfig())
    lines, records = tmp_path / "posts.txt", tmp_path / "posts.jsonl"
    lines.write_text("first post\n\nsecond post\n")
    records.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("first post", "second post")))
    ours, same = list(predict(toy, source=str(lines))), list(predict(toy, source=str(records)))
    assert [p.probabilities for p in ours] == [p.probabilities for p in same]
    assert [(p.sample, p.place) for p in ours] == [(1, "posts.txt line 1"), (2, "posts.txt line 3")]
    assert ours[0].confidence == max(ours[0].probabilities.values())
    assert sum(ours[0].probabilities.values()) == pytest.approx(1.0, abs=1e-3)


def test_predict_a_picture_and_a_sound(tmp_path: Path) -> None:
    picture, sound = tmp_path / "p.jpg", tmp_path / "s.wav"
    Image.new("RGB", (50, 40), (200, 10, 10)).save(picture)
    soundfile.write(sound, np.zeros((400, 2)), 16000)
    seer = trained(HeadConfig(kind="classes", labels=("a", "b")), image=ImageConfig(height=8, width=8))
    hearer = trained(HeadConfig(kind="ctc", labels=("a", "b")), audio=AudioConfig(num_mels=8))
    assert next(predict(seer, source=str(picture))).answer in ("a", "b")
    assert next(predict(hearer, source=str(sound))).confidence is None
    broken = next(predict(seer, source=str(sound)))
    assert (broken.answer, broken.problems) == ("", ("picture",))
    (tmp_path / "posts.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match="'image' is all that the model reads"):
        next(predict(seer, source=str(tmp_path / "posts.jsonl")))


def test_predict_a_post_with_a_picture(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    (tmp_path / "p.png").write_bytes(file.getvalue())
    posts = tmp_path / "posts.jsonl"
    posts.write_text('{"text": "look", "image": "p.png"}\n{"text": "no picture"}\n')
    both = trained(
        HeadConfig(kind="classes", labels=("a", "b")), image=ImageConfig(height=8, width=8), text=TextConfig()
    )
    assert [p.problems for p in predict(both, source=str(posts))] == [(), ("picture",)]


@pytest.mark.parametrize(
    ("line", "told"),
    [('{"no": 1}', "has no field 'text'"), ("no", "is not JSON"), ("[1]", "is not a JSON object")],
)
def test_a_line_that_is_no_sample_is_named_and_the_hint_has_one_that_is(
    tmp_path: Path, line: str, told: str
) -> None:
    toy = trained(HeadConfig(kind="classes", labels=("a", "b")), text=TextConfig())
    file = tmp_path / "bad.jsonl"
    file.write_text(f'{{"text": null}}\n{line}\n')
    with pytest.raises(DataError, match=rf"bad\.jsonl line 2 .*{told}") as caught:
        list(predict(toy, source=str(file)))
    file.write_text((caught.value.hint or "").partition(": ")[2])
    assert len(list(predict(toy, source=str(file)))) == 1


def test_what_cannot_be_predicted_is_said(tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text("\n")
    toy = trained(HeadConfig(kind="classes", labels=("a", "b")), text=TextConfig())
    with pytest.raises(DataError, match="holds no sample"):
        list(predict(toy, source=str(file)))
    with pytest.raises(ConfigError, match=r"x\.text does not exist") as caught:
        list(predict(toy, source=str(tmp_path / "x.text")))
    assert caught.value.hint == f"did you mean {file}?"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty holds no files"):
        list(predict(toy, source=str(tmp_path / "empty")))
    (tmp_path / "posts.parquet").write_text("text\nfirst\n")
    with pytest.raises(ConfigError, match="neither text of one sample a line"):
        list(predict(toy, source=str(tmp_path / "posts.parquet")))
    causal = TRUNK.model_copy(update={"causal": True})
    writer = build_model(ModelConfig(trunk=causal, text=TextConfig()))
    speaker = from_state("toy", config=writer.config, state=writer.state_dict(), context=16, separator=None)
    with pytest.raises(ConfigError, match="next_token head and sorts no samples"):
        list(predict(speaker, source=str(file)))
