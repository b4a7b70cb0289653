"""Each small recipe, at toy size, learns a rule in its data: stems, trunk, head, objective, optimiser."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rsc.layers import recipe_names
from rsc.loader.ragged import RaggedTensor
from rsc.models.build import build_model
from rsc.recipes.recipe import Recipe, load_recipe
from rsc.store.format.columns import Ragged
from rsc.train.batches.collate import Column
from rsc.train.batches.data_counts import add_counts, fill_counts, fresh_counts
from rsc.train.batches.sample_seeds import Draws as Seeds
from rsc.train.engine.loss import Objective
from rsc.train.engine.optimizers import build_optimizer, set_learning_rate

Draw = Callable[[np.random.Generator, int], dict[str, Column]]
SMALL = [
    "model.trunk.width=32",
    "model.trunk.num_layers=2",
    "model.trunk.num_heads=2",
    "model.trunk.mlp_width=48",
]


def column(samples: list[bytes] | list[np.ndarray], *, dtype: type = np.uint8) -> RaggedTensor:
    ragged = Ragged.from_list(samples, dtype=np.dtype(dtype))
    offsets = torch.from_numpy(ragged.offsets)
    return RaggedTensor(values=torch.from_numpy(ragged.values.copy()), offsets=offsets)


def strings(texts: list[str]) -> RaggedTensor:
    return column([text.encode() for text in texts])


def counting(generator: np.random.Generator, count: int) -> dict[str, Column]:
    """Packed text: each byte is the one before it plus 1, modulo 10."""
    start = generator.integers(0, 10, (count, 1))
    tokens = torch.from_numpy((start + np.arange(17)) % 10 + 48)
    ids = torch.zeros(count, 16, dtype=torch.int64)
    return {"tokens_BL": tokens[:, :-1], "targets_BL": tokens[:, 1:].clone(), "document_ids_BL": ids}


def shades(generator: np.random.Generator, count: int) -> dict[str, Column]:
    """Pictures: light ones are class 0, dark ones class 1."""
    label = generator.integers(0, 2, count)
    pixels = generator.integers(0, 100, (count, 16, 16, 3)) + 150 * (1 - label)[:, None, None, None]
    return {"image": torch.from_numpy(pixels.astype(np.uint8)), "label": torch.from_numpy(label)}


def tones(generator: np.random.Generator, count: int) -> dict[str, Column]:
    """Sound: a low tone is class 0, a high one class 1."""
    label = generator.integers(0, 2, count)
    sounds = [tone(int(k), generator) for k in label]
    return {"audio": column(sounds, dtype=np.int16), "label": strings([str(k) for k in label])}


def melodies(generator: np.random.Generator, count: int) -> dict[str, Column]:
    """Sound: two tones in a row, to be written down as words."""
    pairs = generator.integers(0, 2, (count, 2))
    sounds = [np.concatenate([tone(int(k), generator) for k in pair]) for pair in pairs]
    return {
        "audio": column(sounds, dtype=np.int16),
        "text": strings([" ".join(map(str, pair)) for pair in pairs]),
    }


def tone(kind: int, generator: np.random.Generator) -> np.ndarray:
    wave = np.sin(2 * np.pi * (400, 1500)[kind] * np.arange(1600) / 8000 + generator.uniform(0, 6))
    return (8000 * wave).astype(np.int16)


def posts(generator: np.random.Generator, count: int) -> dict[str, Column]:
    """Text: class 0 has the word "bad", class 1 has not."""
    label = generator.integers(0, 2, count)
    texts = ["a bad word" if k == 0 else "a fine word" for k in label]
    return {"text": strings(texts), "class": torch.from_numpy(label)}


def memes(generator: np.random.Generator, count: int) -> dict[str, Column]:
    """Harmful only when a dark picture goes with the word "it": neither input alone tells."""
    dark, it = generator.integers(0, 2, (2, count))
    pixels = generator.integers(0, 60, (count, 16, 16, 3)) + 190 * (1 - dark)[:, None, None, None]
    texts = strings(["look at it" if k else "look at me" for k in it])
    return {
        "image": torch.from_numpy(pixels.astype(np.uint8)),
        "text": texts,
        "label": torch.from_numpy(dark * it),
    }


PICTURES = ["model.image.height=16", "model.image.width=16", "model.image.conv_width=4"]
DOMAINS: dict[str, tuple[Draw, list[str]]] = {
    "language": (counting, []),
    "language-moe": (counting, ["model.trunk.moe.expert_width=16", "model.trunk.moe.num_experts=4"]),
    "vision": (shades, PICTURES),
    "speech": (tones, []),
    "speech-ctc": (melodies, []),
    "harmful-content": (posts, []),
    "harmful-content-pretrain": (posts, []),
    "harmful-content-multimodal": (memes, PICTURES),
}
STEPS = {"speech-ctc": 90, "harmful-content-multimodal": 90}


def toy(name: str) -> Recipe:
    settings = ["data.name=toy", "train.optimizer.learning_rate=5e-3", "train.optimizer.warmup_steps=5"]
    return load_recipe(name, overrides=[*settings, *SMALL, *DOMAINS[name][1]]).recipe


@pytest.mark.parametrize("name", DOMAINS)
def test_recipe_learns_the_rule_in_its_data(name: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    recipe, generator, draw = toy(name), np.random.default_rng(0), DOMAINS[name][0]
    model = build_model(recipe.model, seed=0)
    objective, steps = Objective(model), STEPS.get(name, 40)
    optimizer = build_optimizer(model, config=recipe.train.optimizer)
    counts = fresh_counts(recipe.model)
    add_counts(counts, objective.bind(draw(generator, 64), draws=Seeds(1)).batch, config=recipe.model)
    fill_counts([model], counts)
    losses = []
    for step in range(steps):
        set_learning_rate(optimizer, step=step, steps=steps, config=recipe.train.optimizer)
        record = objective(draw(generator, 16), draws=Seeds(0, first=16 * step))
        optimizer.zero_grad()
        (record.total / record.count).backward()
        optimizer.step()
        losses.append((record.total.detach() / record.count).item())
    assert np.mean(losses[-5:]) < 0.5 * losses[0], losses[:: max(1, steps // 8)]


def test_every_small_recipe_is_here() -> None:
    large = {name for name in recipe_names() if name.startswith(("llama-", "dense-", "moe-"))}
    assert set(DOMAINS) == set(recipe_names()) - large
