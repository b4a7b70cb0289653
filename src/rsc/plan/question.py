"""What is asked of `rsc plan run`: a recipe, or a number of parameters, with tokens or a loss. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rsc.errors import ConfigError
from rsc.plan.work import Shape, shape_of
from rsc.recipes.recipe import Recipe, load_recipe

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMBT])", re.IGNORECASE)
_POWER = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
TOKENS_PER_PARAMETER = 20.0
"""Of compute-optimal training (Hoffmann et al. 2022, arXiv:2203.15556)."""
_LOSS = {"floor": 1.69, "a": 406.4, "alpha": 0.34, "b": 410.7, "beta": 0.28}
"""Loss = floor + a / parameters^alpha + b / tokens^beta: approach 3 of the same paper, as printed there; for
its data and tokenizer."""
_PINNED = ("tp", "cp", "pp", "ep")


@dataclass(frozen=True)
class Question:
    name: str
    shape: Shape
    tokens: float
    batch: int
    """Sequences of a step."""
    source: str
    """Where the number of tokens is from."""
    pins: Mapping[str, Any] = field(default_factory=dict)
    """Axes that overrides of a recipe fix, as fields of search.Limits."""


def question(
    model: str,
    *,
    tokens: str = "",
    loss: float | None = None,
    batch_tokens: str = "",
    sequence: int | None = None,
    overrides: Sequence[str] = (),
) -> Question:
    """Raises ConfigError for a name that is neither recipe nor size, and for what contradicts itself."""
    if tokens and loss is not None:
        raise ConfigError("--tokens and --loss both say how long to train", hint="give one of them")
    size = _SIZE.fullmatch(model.strip())
    if size is None and re.fullmatch(r"\s*[\d.,]+\s*[A-Za-z]*\s*", model):
        raise ConfigError(
            f"{model!r} is no size", hint="write a number with K, M, B or T, such as 7B or 1.5T"
        )
    if size is not None and overrides:
        raise ConfigError(f"{overrides[0]}: {model} is a size, and settings belong to a recipe")
    _refuse_twice(overrides, tokens=tokens, loss=loss, batch=batch_tokens, sequence=sequence)
    shape, own_batch, own_tokens = (
        _of_size(float(size[1]) * _POWER[size[2].upper()], sequence=sequence or 8192)
        if size
        else _of_recipe(model, sequence=sequence, overrides=overrides)
    )
    length = int(shape.sequence)
    batch = _sequences(parse_count(batch_tokens, what="--batch") / length) if batch_tokens else own_batch
    if tokens:
        count, source = parse_count(tokens, what="--tokens"), "given"
    elif loss is not None:
        count, source = (
            tokens_for_loss(loss, parameters=float(shape.parameters)),
            "Chinchilla's law of the loss",
        )
    elif own_tokens:
        count, source = own_tokens, "the recipe's steps x batch x length"
    else:
        count = TOKENS_PER_PARAMETER * float(shape.active)
        source = f"{TOKENS_PER_PARAMETER:.0f} a parameter (arXiv:2203.15556)"
    return Question(model, shape, count, batch, source, _pins(overrides))


def _sequences(asked: float) -> int:
    """`16M` tokens of 8,192 are no whole number of sequences: then the roundest one within 5 % is meant."""
    if asked == int(asked):
        return int(asked)
    near = range(max(1, math.ceil(0.95 * asked)), max(1, math.floor(1.05 * asked)) + 1)
    return max(near, key=lambda count: (count & -count, -abs(count - asked)))


def _refuse_twice(
    overrides: Sequence[str], *, tokens: str, loss: float | None, batch: str, sequence: int | None
) -> None:
    """One thing that an option and a setting both say."""
    given = {each.partition("=")[0] for each in overrides}
    both = {
        "train.steps": ("--tokens or --loss", tokens or loss is not None),
        "train.batch_size": ("--batch", batch),
        "data.sequence_length": ("--sequence", sequence),
    }
    for key, (option, is_given) in both.items():
        if key in given and is_given:
            raise ConfigError(f"{key} and {option} say the same thing", hint="give one of them")


def _pins(overrides: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """`parallel.tp=4` fixes an axis; load_recipe() has checked that it is a number."""
    found = dict(each.split("=", 1) for each in overrides)
    return {axis: (int(found[f"parallel.{axis}"]),) for axis in _PINNED if f"parallel.{axis}" in found}


def parse_count(text: str, *, what: str) -> float:
    """`15.6T`, `4M`, `2e12`. Raises ConfigError."""
    found = _SIZE.fullmatch(text.strip())
    try:
        count = float(found[1]) * _POWER[found[2].upper()] if found else float(text)
    except ValueError:
        count = 0.0
    if not 1 <= count < 1e18:
        raise ConfigError(f"{what} {text!r} is no number of tokens", hint="write 300B, 15.6T or 2e12")
    return count


def tokens_for_loss(loss: float, *, parameters: float) -> float:
    """Raises ConfigError for a loss that no number of tokens reaches with so many parameters."""
    least = _LOSS["floor"] + _LOSS["a"] / parameters ** _LOSS["alpha"]
    if not loss > least:
        raise ConfigError(
            f"loss {loss:g}: a model of {parameters:.3g} parameters comes down to {least:.3f} at most",
            hint="plan a larger model, or a higher loss",
        )
    return float((_LOSS["b"] / (loss - least)) ** (1 / _LOSS["beta"]))


def _of_recipe(name: str, *, sequence: int | None, overrides: Sequence[str]) -> tuple[Shape, int, float]:
    recipe = load_recipe(name, overrides=["data.name=none", *overrides]).recipe
    shape = recipe_shape(recipe, sequence=sequence)
    batch = recipe.train.batch_size
    return shape, batch, float(recipe.train.steps * batch * shape.sequence)


def recipe_shape(recipe: Recipe, *, sequence: int | None = None) -> Shape:
    """Of what a recipe trains, at the length of its longest sample."""
    if recipe.is_packed_language:
        length = sequence or recipe.data.sequence_length
    else:
        length = sum(_positions(recipe.model))
    return shape_of(recipe.model, sequence=length)


def _positions(model: Any) -> list[int]:
    """Of the longest sample, by stem."""
    found = []
    if model.image is not None:
        found.append(model.image.num_positions)
    if model.audio is not None:
        found.append(model.audio.max_samples // model.audio.hop // model.audio.stack + 1)
    if model.text is not None:
        found.append(model.text.max_length)
    return found


def _of_size(parameters: float, *, sequence: int) -> tuple[Shape, int, float]:
    """A model in the proportions of Llama 3: 8 groups of keys, an MLP 3.5 times as wide, a head of 128, and a
    width about 110 times the layers; the pair that comes nearest to the size."""
    if not 1e7 <= parameters <= 1e14:
        raise ConfigError(
            f"a model of {parameters:.3g} parameters", hint="plan for 10M to 100T, or name a recipe"
        )
    vocabulary = 128_256 if parameters >= 1e9 else 32_000
    candidates = []
    for width in range(256, 131_072, 256 if parameters < 3e9 else 1024):
        heads = max(2, width // 128)
        groups = max(size for size in (1, 2, 4, 8) if heads % size == 0)
        one = Shape(1, width, heads, groups, 128, 3.5 * width, vocabulary, sequence)
        layers = round((parameters - float(one.edge_weights)) / float(one.block_weights) / 2) * 2
        if layers >= 2 and 60 <= width / layers <= 220:
            shape = Shape(layers, width, heads, groups, 128, 3.5 * width, vocabulary, sequence)
            miss = abs(float(shape.parameters) / parameters - 1) + 0.05 * abs(width / layers / 110 - 1)
            candidates.append((miss, shape))
    if not candidates:
        raise ConfigError(f"no plain shape has {parameters:.3g} parameters", hint="name a recipe instead")
    batch_tokens = min(16e6, max(0.5e6, 4e6 * (parameters / 8e9) ** 0.5))
    batch = 2 ** max(0, round(batch_tokens / sequence).bit_length() - 1)
    return min(candidates, key=lambda each: each[0])[1], batch, 0.0
