"""The largest batch a model may meet, of zeros: what dry runs and memory tests feed it."""

from __future__ import annotations

import torch

from rsc.models.config import ModelConfig


def largest_batch(config: ModelConfig, *, rows: int, sequence_length: int) -> dict[str, torch.Tensor]:
    """`rows` samples with answers, each as long as the settings allow; packed documents have
    `sequence_length` tokens. On torch's default device; keys are those of models/build.py."""
    batch = _inputs(config, rows=rows, sequence_length=sequence_length)
    return {**batch, **config.task.largest_targets(batch, rows=rows)}


def _inputs(config: ModelConfig, *, rows: int, sequence_length: int) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = {}
    if config.image is not None:
        image = config.image
        shape = (rows, image.height, image.width, image.channels)
        batch["image_BHWC"] = torch.zeros(shape, dtype=torch.uint8)
    if config.audio is not None:
        batch["audio_BS"] = torch.zeros(rows, config.audio.max_samples)
        batch["audio_length_B"] = torch.full((rows,), config.audio.max_samples)
    if config.text is not None and config.task.is_language:
        batch["tokens_BL"] = torch.zeros(rows, sequence_length, dtype=torch.int64)
        batch["document_ids_BL"] = torch.zeros(rows, sequence_length, dtype=torch.int64)
    elif config.text is not None:
        batch["tokens_BL"] = torch.zeros(rows, config.text.max_length, dtype=torch.int64)
        batch["text_length_B"] = torch.full((rows,), config.text.max_length)
    return batch
