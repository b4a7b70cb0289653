"""Data that a model can never be trained on is refused before there is a run."""

from __future__ import annotations

import pytest

from rsc.errors import ConfigError
from rsc.models.config import AudioConfig, HeadConfig, ImageConfig, ModelConfig, TextConfig, TrunkConfig
from rsc.recipes.data_fit import SplitSamples, check_fields, fields_of
from rsc.store.format.schema import Field, Schema

TRUNK = TrunkConfig(width=8, num_layers=1, num_heads=1, mlp_width=8)
CLASSES = HeadConfig(kind="classes", labels=("cat", "dog"))
PIXELS = ImageConfig(height=8, width=8)
LABEL = Field("label", "string")
SOUND = Field("audio", "tokens", "int16")


def config(head: HeadConfig = CLASSES, **stems: object) -> ModelConfig:
    trunk = TRUNK.model_copy(update={"causal": head.kind == "next_token"})
    return ModelConfig.model_validate({"trunk": trunk, "head": head, **stems})


def samples(*fields: Field, sample_rate: int | None = None) -> SplitSamples:
    return SplitSamples(Schema(fields), sample_rate=sample_rate)


@pytest.mark.parametrize(
    ("found", "model", "words"),
    [
        (samples(Field("picture", "bytes"), LABEL), config(image=PIXELS), "no field 'image'"),
        (samples(Field("image", "bytes")), config(image=PIXELS), "no field 'label'"),
        (
            samples(Field("image", "tensor", shape=(16, 16, 3)), LABEL),
            config(image=PIXELS),
            r"holds \[16, 16, 3\], the model wants \[8, 8, 3\]",
        ),
        (
            samples(SOUND, LABEL, sample_rate=16_000),
            config(audio=AudioConfig(sample_rate=8000)),
            "decoded at 16000 Hz, the model wants 8000",
        ),
        (
            samples(Field("post", "string")),
            config(HeadConfig(kind="next_token"), text=TextConfig()),
            "no field 'text'",
        ),
    ],
)
def test_what_never_fits(found: SplitSamples, model: ModelConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_fields(found, model=model, text_field="text")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("found", "model"),
    [
        (
            samples(Field("image", "tensor", shape=(8, 8, 3)), Field("label", "tensor", dtype="int64")),
            config(image=PIXELS),
        ),
        (samples(Field("image", "bytes"), LABEL), config(image=PIXELS)),
        (samples(SOUND, LABEL, sample_rate=8000), config(audio=AudioConfig(sample_rate=8000))),
        (samples(Field("audio", "bytes"), LABEL), config(audio=AudioConfig(sample_rate=8000))),
        (samples(Field("text", "string")), config(HeadConfig(kind="next_token"), text=TextConfig())),
    ],
)
def test_what_fits(found: SplitSamples, model: ModelConfig) -> None:
    check_fields(found, model=model, text_field="text")


def test_training_reads_the_fields_it_needs_and_no_others() -> None:
    assert fields_of(config(image=PIXELS, text=TextConfig())) == ("image", "text", "label")
    masked = HeadConfig(kind="masked_token")
    assert fields_of(config(masked, text=TextConfig(field="post"))) == ("post",)
