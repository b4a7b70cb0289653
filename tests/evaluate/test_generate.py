from __future__ import annotations

import pytest
import torch

from rsc.errors import ConfigError
from rsc.evaluate.generate import Sampling, draw, generate
from rsc.models.build import Model, build_model
from rsc.models.config import SEPARATOR, ModelConfig, TextConfig, TrunkConfig
from rsc.models.heads import Want


@pytest.fixture(scope="module")
def model() -> Model:
    trunk = TrunkConfig(width=16, num_layers=1, num_heads=2, mlp_width=16)
    return build_model(ModelConfig(trunk=trunk, text=TextConfig()), seed=4)


def test_same_seed_same_text_other_seed_other_text(model: Model) -> None:
    texts = [
        generate(
            model, prompt=[65, 66], num_tokens=20, context=8, sampling=Sampling(temperature=1, seed=seed)
        )
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert all(0 <= token <= SEPARATOR for token in texts[0])


def test_greedy_is_the_argmax_and_ignores_the_seed() -> None:
    logits = torch.tensor([0.1, 3.0, 2.0])
    draws = {
        draw(logits, sampling=Sampling(temperature=0, seed=s), generator=torch.Generator().manual_seed(s))
        for s in range(5)
    }
    assert draws == {1}


def test_draws_follow_the_distribution_and_top_k_cuts_it() -> None:
    logits, generator = torch.tensor([1.0, 0.0, -1.0]), torch.Generator().manual_seed(0)
    counts = torch.zeros(3)
    for _ in range(3000):
        counts[draw(logits, sampling=Sampling(temperature=1), generator=generator)] += 1
    torch.testing.assert_close(counts / 3000, logits.softmax(-1), atol=0.03, rtol=0)
    kept = {draw(logits, sampling=Sampling(temperature=9, top_k=2), generator=generator) for _ in range(200)}
    assert kept == {0, 1}


def test_stops_at_the_separator(model: Model) -> None:
    first = generate(model, prompt=[65], num_tokens=1, context=8, sampling=Sampling(temperature=0))
    assert (
        generate(model, prompt=[65], num_tokens=9, context=8, sampling=Sampling(temperature=0), stop=first[0])
        == []
    )


def test_empty_prompt_starts_after_the_separator_or_is_refused(model: Model) -> None:
    assert len(generate(model, prompt=[], num_tokens=3, context=8, stop=SEPARATOR)) <= 3
    with pytest.raises(ConfigError, match="empty prompt"):
        generate(model, prompt=[], num_tokens=3, context=8)


def test_negative_temperature_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be finite and not negative"):
        Sampling(temperature=-1)


def test_what_is_kept_changes_no_word(model: Model) -> None:
    """Greedy, up to a full context: the same ids as running the whole text for each."""
    ids = [65, 66]
    with torch.no_grad():
        for _ in range(14):
            logits = model({"tokens_BL": torch.tensor([ids])}, Want.LOGITS)["logits"]
            ids.append(int(logits[0, -1].argmax()))
    made = generate(model, prompt=[65, 66], num_tokens=14, context=16, sampling=Sampling(temperature=0))
    assert [65, 66, *made] == ids


def test_a_full_context_goes_on_from_its_newer_half(model: Model) -> None:
    greedy = Sampling(temperature=0)
    made = generate(model, prompt=[1, 2, 3, 4, 5, 6, 7, 8], num_tokens=2, context=8, sampling=greedy)
    again = generate(model, prompt=[6, 7, 8, made[0]], num_tokens=1, context=8, sampling=greedy)
    assert made[1] == again[0]
