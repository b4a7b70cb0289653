"""Continue a text with a next-token model: greedy, or sampled with temperature and top-k.

Keys and values of what was read are kept (models/continuation.py), so that a new token costs one position.
When the context is full, the newer half of it is read again and becomes the past: one reading of half a
context per that many new tokens. Shapes: V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from rsc.errors import ConfigError
from rsc.models.build import Model
from rsc.models.continuation import Continuation


@dataclass(frozen=True)
class Sampling:
    temperature: float = 0.8
    """0 always takes the best token; 1 samples from the model's own distribution."""
    top_k: int = 0
    """Only the k best tokens can be drawn; 0: all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.temperature < math.inf) or self.top_k < 0:
            raise ConfigError(
                f"temperature {self.temperature} and top_k {self.top_k} must be finite and not negative",
                hint="temperature 0 takes the best token each time",
            )


@torch.no_grad()
def generate(
    model: Model,
    *,
    prompt: list[int],
    num_tokens: int,
    context: int,
    sampling: Sampling = Sampling(),
    stop: int | None = None,
) -> list[int]:
    """Ids that follow `prompt`, at most `num_tokens`, ending before `stop`.

    The model sees at least the last half of `context` ids, at most all of it. An empty prompt starts after
    `stop` (the separator). Raises ConfigError if both are missing.
    """
    if not prompt and stop is None:
        raise ConfigError("an empty prompt needs a tokenizer with a separator", hint="give a prompt")
    generator = torch.Generator().manual_seed(sampling.seed)
    ids = list(prompt) if prompt else [stop if stop is not None else 0]
    start, continuation = len(ids), Continuation(model)
    unread = ids[-context:]
    while len(ids) - start < num_tokens:
        if continuation.length + len(unread) > context:
            continuation.forget()
            unread = ids[-max(1, context // 2) :]
        token = draw(continuation.read(unread), sampling=sampling, generator=generator)
        if token == stop:
            break
        ids.append(token)
        unread = [token]
    return ids[start:]


def draw(logits_V: torch.Tensor, *, sampling: Sampling, generator: torch.Generator) -> int:
    """One id from float32 logits."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    scaled_V = logits_V / sampling.temperature
    if sampling.top_k:
        worst_kept = scaled_V.topk(min(sampling.top_k, len(scaled_V))).values[-1]
        scaled_V = scaled_V.masked_fill(scaled_V < worst_kept, float("-inf"))
    return int(torch.multinomial(scaled_V.softmax(-1), 1, generator=generator))
