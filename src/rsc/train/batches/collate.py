"""From a loader's batch (fields of samples) to a model's batch (padded tensors, named in models/build.py).

A sample that cannot be used is never a crash in the middle of a run: its answer is set aside, so that it
counts in no loss, and it is counted under one of the words of runs/sample_problems.py, which end up in the
metrics.
`STILL_USED` are cut or empty, and used as they are; a picture or a sound that cannot be read is absent.

Shapes that can never fit are found before there is a run (recipes/data_fit.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from rsc.errors import DataError
from rsc.loader.ragged import RaggedTensor
from rsc.models.config import AudioConfig, ImageConfig, ModelConfig, TextConfig
from rsc.models.decode import decode_audio, decode_image
from rsc.models.tasks.task import BatchSamples, column_of
from rsc.models.tokenizer import Tokenizer, open_tokenizer
from rsc.train.batches.sample_seeds import Draws

Column = torch.Tensor | RaggedTensor
STILL_USED = frozenset({"text_cut", "sound_cut", "text_empty"})


@dataclass
class Bound:
    """A model's batch, and what was wrong with the samples in it."""

    batch: dict[str, torch.Tensor]
    bad: Counter[str] = field(default_factory=Counter)


class Binder:
    """Binds batches for one model. Holds its tokenizer and its task, nothing that changes."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._tokenizer: Tokenizer | None = None if config.text is None else open_tokenizer(config.text)
        self._task = config.task

    def bind(
        self, columns: Mapping[str, Column], *, with_answers: bool = True, draws: Draws | None = None
    ) -> Bound:
        """Raises ConfigError for a field that is not there. Prediction asks for no answers; training, and
        whoever hides tokens, gives `draws`."""
        config = self._config
        bound = Bound({} if draws is None else {"draw_B": draws.of(len(next(iter(columns.values()))))})
        if config.image is not None:
            bound.batch |= bind_images(
                column_of(columns, config.image.field),
                is_good_B=columns.get(f"{config.image.field}_is_good"),
                config=config.image,
                bad=bound.bad,
            )
        if config.audio is not None:
            bound.batch |= bind_sounds(
                column_of(columns, config.audio.field), config=config.audio, bad=bound.bad
            )
        if config.text is not None:
            assert self._tokenizer is not None
            bound.batch |= bind_texts(
                column_of(columns, config.text.field),
                config=config.text,
                tokenizer=self._tokenizer,
                bad=bound.bad,
            )
        if with_answers:
            usable_B = _usable(bound.batch, config=config)
            bound.batch |= self._task.targets(BatchSamples(columns, bound.batch, usable_B, bad=bound.bad))
        return bound


def bind_texts(
    column: Column, *, config: TextConfig, tokenizer: Tokenizer, bad: Counter[str]
) -> dict[str, torch.Tensor]:
    """A separator and then the text's ids, padded at the end with separators."""
    start = tokenizer.separator if tokenizer.separator is not None else 0
    rows = []
    for sample in column:
        ids = _ids(sample, is_text=config.tokenizer != "bytes", tokenizer=tokenizer)
        bad["text_empty"] += not ids
        bad["text_cut"] += len(ids) > config.max_length - 1
        rows.append([start, *ids[: config.max_length - 1]])
    most = max(map(len, rows))
    tokens_BL = torch.full((len(rows), most), start, dtype=torch.int64)
    for row, ids in enumerate(rows):
        tokens_BL[row, : len(ids)] = torch.tensor(ids)
    return {"tokens_BL": tokens_BL, "text_length_B": torch.tensor([len(ids) for ids in rows])}


def bind_images(
    column: Column, *, config: ImageConfig, bad: Counter[str], is_good_B: Column | None = None
) -> dict[str, torch.Tensor]:
    """Pixels, and which samples have a picture at all. Training's pictures come decoded, and `is_good_B` says
    which could be (train/batches/loaders.py); evaluation's are decoded here."""
    shape = (config.height, config.width, config.channels)
    present_B = torch.ones(len(column), dtype=torch.bool)
    if isinstance(column, torch.Tensor):
        image_BHWC = column
        if isinstance(is_good_B, torch.Tensor):
            present_B &= is_good_B
    else:
        image_BHWC = torch.zeros(len(column), *shape, dtype=torch.uint8)
        for row, data in enumerate(column.to_bytes()):
            try:
                image_BHWC[row] = torch.from_numpy(decode_image(data, config=config).copy())
            except DataError:
                present_B[row] = False
    bad["picture"] += int((~present_B).sum())
    if image_BHWC.is_floating_point():
        image_BHWC, finite_B = _finite(image_BHWC, bad=bad)
        present_B &= finite_B
    return (
        {"image_BHWC": image_BHWC}
        if present_B.all()
        else {"image_BHWC": image_BHWC, "image_present_B": present_B}
    )


def bind_sounds(column: Column, *, config: AudioConfig, bad: Counter[str]) -> dict[str, torch.Tensor]:
    """Samples padded with silence, and their lengths; length 0 is no sound."""
    sounds = [_sound(sample, config=config) for sample in column]
    bad["sound"] += sum(not len(sound) for sound in sounds)
    bad["sound_cut"] += sum(len(sound) > config.max_samples for sound in sounds)
    sounds = [sound[: config.max_samples] for sound in sounds]
    length_B = torch.tensor([len(sound) for sound in sounds])
    audio_BS = torch.nn.utils.rnn.pad_sequence([*sounds, torch.zeros(1)], batch_first=True)[:-1]
    audio_BS, finite_B = _finite(audio_BS, bad=bad)
    return {"audio_BS": audio_BS, "audio_length_B": length_B * finite_B}


def _ids(sample: torch.Tensor, *, is_text: bool, tokenizer: Tokenizer) -> list[int]:
    """Bytes are ids already; text for another tokenizer is uint8, its ids are wider."""
    if is_text and sample.dtype == torch.uint8:
        return tokenizer.encode(bytes(sample.tolist()).decode(errors="replace"))
    return [int(value) for value in sample.tolist()]


def _sound(sample: torch.Tensor, *, config: AudioConfig) -> torch.Tensor:
    """Float samples in -1..1 at the model's rate; uint8 values are an encoded file."""
    if sample.dtype == torch.uint8:
        try:
            return torch.from_numpy(decode_audio(bytes(sample.numpy()), config=config))
        except DataError:
            return torch.zeros(0)
    return sample.float() / 32768 if sample.dtype == torch.int16 else sample.float()


def _usable(batch: Mapping[str, torch.Tensor], *, config: ModelConfig) -> torch.Tensor:
    """Samples of which at least one input is there, bool [B]. Text always is: it has its separator."""
    if "tokens_BL" in batch:
        return torch.ones(len(batch["tokens_BL"]), dtype=torch.bool)
    any_B = torch.zeros(len(next(iter(batch.values()))), dtype=torch.bool)
    if "image_BHWC" in batch:
        any_B |= batch.get("image_present_B", torch.ones_like(any_B))
    if "audio_BS" in batch:
        any_B |= batch["audio_length_B"] > 0
    return any_B


def _finite(values: torch.Tensor, *, bad: Counter[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """The values with rows that hold NaN or infinity set to 0, and which rows were fine [B]."""
    finite_B = values.flatten(1).isfinite().all(1)
    bad["not_finite"] += int((~finite_B).sum())
    shape = (-1, *[1] * (values.ndim - 1))
    return torch.where(finite_B.view(shape), values, torch.zeros_like(values)), finite_B
