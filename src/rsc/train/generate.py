"""Continue a text with a next-token model: greedy, or sampled with temperature and top-k.

Each new token runs the whole context again; there is no key/value cache, since the models trained
here are small and the context is at most the trained length. Shapes: L positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rsc.errors import ConfigError
from rsc.models.build import Model
from rsc.models.heads import Want


@dataclass(frozen=True)
class Sampling:
    temperature: float = 0.8
    """0 always takes the best token; 1 samples from the model's own distribution."""
    top_k: int = 0
    """Only the k best tokens can be drawn; 0: all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0:
            raise ConfigError(
                f"temperature {self.temperature} and top_k {self.top_k} must not be negative",
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

    The model sees the last `context` ids. An empty prompt starts after `stop` (the separator).
    Raises ConfigError if both are missing.
    """
    if not prompt and stop is None:
        raise ConfigError("an empty prompt needs a tokenizer with a separator", hint="give a prompt")
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(sampling.seed)
    ids = list(prompt) if prompt else [stop if stop is not None else 0]
    start = len(ids)
    while len(ids) - start < num_tokens:
        tokens_BL = torch.tensor([ids[-context:]], device=device)
        logits_V = model({"tokens_BL": tokens_BL}, Want.LOGITS)["logits"][0, -1].cpu()
        token = draw(logits_V, sampling=sampling, generator=generator)
        if token == stop:
            break
        ids.append(token)
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
