"""Layouts: arithmetic, refusals with true hints, ranks and coordinates."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.errors import ConfigError
from rsc.parallel.choose import choose_layout
from rsc.parallel.config import ParallelConfig
from rsc.parallel.layout import Layout, ModelFacts, microbatches
from rsc.recipes.recipe import Recipe

FACTS = ModelFacts(num_blocks=8, batch_size=48, sequence_length=96, divisors=(("heads", 4),), num_experts=8)


def choose(world: int, *, facts: ModelFacts = FACTS, **degrees: Any) -> Layout:
    return choose_layout(ParallelConfig(**degrees), world=world, facts=facts)


def test_what_is_left_open_goes_to_dp_shard() -> None:
    layout = choose(8, tp=2)
    assert (layout.dp_shard, layout.world) == (4, 8)
    assert "dp_shard" in layout.why


def test_ranks_that_the_batch_cannot_use_go_to_other_axes() -> None:
    """12 samples, 8 ranks: 4 of them divide the batch, so tp takes the 2 that are left."""
    layout = choose(8, facts=replace(FACTS, batch_size=12))
    assert (layout.dp_shard, layout.tp) == (4, 2)
    assert "batch_size 12 does not divide by dp 8" in layout.why
    assert str(choose(7)) == "pp 7"


def advised(hint: str, *, world: int, facts: ModelFacts, degrees: dict[str, Any]) -> list[Layout]:
    """Do what each half of a hint says."""
    assert hint, "no hint"
    found = []
    for advice in hint.split(", or "):
        ranks = re.search(r"give the job (\d+) ranks", advice)
        settings = {name: int(value) for name, value in re.findall(r"([\w.]+)=(\d+)", advice)}
        sizes = {
            field: settings.pop(key, getattr(facts, field))
            for key, field in (
                ("train.batch_size", "batch_size"),
                ("data.sequence_length", "sequence_length"),
            )
        }
        asked = {**degrees, **{name.removeprefix("parallel."): value for name, value in settings.items()}}
        found.append(choose(int(ranks[1]) if ranks else world, facts=replace(facts, **sizes), **asked))
    return found


ODD = st.fixed_dictionaries(
    {},
    optional={axis: st.integers(1, 5) for axis in ("dp_replicate", "dp_shard", "cp", "tp", "pp", "ep")}
    | {"microbatches": st.integers(0, 5), "pp_schedule": st.sampled_from(["1f1b", "interleaved"])},
)


@given(
    degrees=ODD,
    world=st.integers(1, 24),
    batch=st.integers(1, 40),
    length=st.sampled_from([0, 30, 64, 96]),
    heads=st.sampled_from([1, 2, 3, 8]),
    blocks=st.sampled_from([1, 2, 6]),
    experts=st.sampled_from([0, 6, 8]),
    refuses_pp=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_every_hint_works(
    degrees: dict[str, Any],
    world: int,
    batch: int,
    length: int,
    heads: int,
    blocks: int,
    experts: int,
    refuses_pp: bool,
) -> None:
    facts = ModelFacts(
        num_blocks=blocks,
        batch_size=batch,
        sequence_length=length,
        divisors=(("heads", heads), ("mlp_width", 48)),
        num_experts=experts,
        refusals=(("pp", "it cannot"),) if refuses_pp else (),
    )
    hint = None
    try:
        layout = choose(world, facts=facts, **degrees)
    except ConfigError as error:
        hint = error.hint or ""
    found = [layout] if hint is None else advised(hint, world=world, facts=facts, degrees=degrees)
    assert hint is not None or found[0].world == world


@pytest.mark.parametrize(
    ("world", "degrees", "message", "hint"),
    [
        (8, {"tp": 8}, "tp 8 does not divide heads 4", "set parallel.tp=4"),
        (9, {"pp": 9}, "pp 9 makes 9 stages, the model has 8 blocks", "set parallel.pp=3"),
        (6, {"ep": 3, "dp_shard": 6}, "ep 3 does not divide 8 experts", "set parallel.ep=2"),
        (12, {"ep": 8}, "ep 8 does not divide dp_shard 12 x cp 1 x tp 1 = 12", "set parallel.ep=4"),
        (5, {"cp": 5}, "96 does not divide by 2 x cp 5 x tp 1 = 10", "set data.sequence_length=100"),
        (5, {"dp_shard": 5}, "batch_size 48 does not divide by dp 5", "set train.batch_size=50"),
        (2, {"pp": 2, "microbatches": 5}, "48 samples do not divide into 5", "set parallel.microbatches=0"),
        (3, {"tp": 2}, "tp 2 x pp 1 needs 2 ranks, the job has 3", "give the job 4 ranks"),
        (6, {"tp": 4}, "needs 4 ranks, the job has 6", "give the job 8 ranks, or give the job 4 ranks"),
        (7, {"tp": 2, "pp": 2}, "needs 4 ranks, the job has 7", "give the job 8 ranks"),
        (12, {"dp_shard": 4, "pp": 2}, "needs 8 ranks, the job has 12", "give the job 8 ranks"),
    ],
)
def test_refusals_say_the_arithmetic_and_a_hint_that_works(
    world: int, degrees: dict[str, Any], message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        choose(world, **degrees)
    assert message in caught.value.message
    assert (caught.value.hint or "").startswith(hint)
    assert advised(caught.value.hint or "", world=world, facts=FACTS, degrees=degrees)


def test_experts_need_experts() -> None:
    with pytest.raises(ConfigError, match="the model has no experts"):
        choose(2, facts=ModelFacts(num_blocks=2, batch_size=2), ep=2)


def test_coordinates_name_every_rank_once_and_tp_is_next_door() -> None:
    layout = Layout(dp_replicate=2, dp_shard=3, cp=2, tp=2, pp=2)
    places = [tuple(layout.coordinates(rank).items()) for rank in range(layout.world)]
    assert len(set(places)) == layout.world == 48
    assert layout.coordinates(1) == {"tp": 1, "cp": 0, "dp_shard": 0, "dp_replicate": 0, "pp": 0}
    assert layout.coordinates(24)["pp"] == 1
    assert {layout.dp_rank(rank) for rank in range(48)} == set(range(6))


def test_two_microbatches_per_stage_where_the_batch_has_them() -> None:
    layout = Layout(pp=4)
    assert microbatches(layout, config=ParallelConfig(pp=4), local_batch=32) == 8
    assert microbatches(layout, config=ParallelConfig(pp=4), local_batch=6) == 6
    assert microbatches(layout, config=ParallelConfig(pp=4, pp_schedule="interleaved"), local_batch=32) == 16
    assert microbatches(Layout(), config=ParallelConfig(), local_batch=32) == 1


TINY_LANGUAGE: dict[str, dict[str, Any]] = {
    "model": {
        "trunk": {"width": 8, "num_layers": 4, "num_heads": 2, "mlp_width": 8},
        "text": {},
        "head": {"kind": "next_token"},
    },
    "data": {"name": "none", "sequence_length": 32},
}


@pytest.mark.parametrize(
    ("change", "parallel", "message"),
    [
        ({"train": {"compile": "blocks"}}, {"pp": 2, "pp_schedule": "zero_bubble"}, "cannot be put off"),
        (
            {
                "model": {
                    **TINY_LANGUAGE["model"],
                    "text": {"ngrams": [2], "ngram_rows": 16, "ngram_width": 4},
                }
            },
            {"cp": 2},
            "cp 2: the batch itself is cut",
        ),
        (
            {
                "model": {
                    "trunk": {**TINY_LANGUAGE["model"]["trunk"], "causal": False},
                    "text": {},
                    "image": {},
                    "head": {"kind": "contrastive"},
                }
            },
            {"pp": 2},
            "pp 2: a contrastive head compares all samples",
        ),
    ],
)
def test_what_a_domain_does_not_allow_is_refused_with_the_reason(
    change: dict[str, Any], parallel: dict[str, Any], message: str
) -> None:
    recipe = Recipe.model_validate({**TINY_LANGUAGE, **change, "parallel": parallel})
    with pytest.raises(ConfigError, match=message) as caught:
        recipe.layout(world=2)
    assert caught.value.hint
