"""Layouts: arithmetic, refusals with true hints, ranks and coordinates."""

from __future__ import annotations

import re
from math import lcm, prod
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.errors import ConfigError
from rsc.parallel.config import ParallelConfig
from rsc.parallel.layout import Layout, ModelFacts, choose_layout, microbatches

FACTS = ModelFacts(num_blocks=8, batch_size=48, sequence_length=96, divisors=(("heads", 4),), num_experts=8)

ANYTHING = ModelFacts(num_blocks=720, batch_size=lcm(*range(1, 1000)))
"""A model and a batch that any layout divides."""


def choose(world: int, *, facts: ModelFacts = FACTS, **degrees: Any) -> Layout:
    return choose_layout(ParallelConfig(**degrees), world=world, facts=facts)


def test_what_is_left_open_goes_to_dp_shard() -> None:
    layout = choose(8, tp=2)
    assert (layout.dp_shard, layout.world) == (4, 8)
    assert "dp_shard" in layout.why


@given(
    degrees=st.fixed_dictionaries({axis: st.integers(1, 5) for axis in ("dp_replicate", "cp", "tp", "pp")}),
    world=st.integers(1, 64),
)
def test_the_hint_of_an_impossible_world_is_true(degrees: dict[str, int], world: int) -> None:
    others = prod(degrees.values())
    if world % others == 0:
        assert choose(world, facts=ANYTHING, **degrees).world == world
        return
    with pytest.raises(ConfigError, match=f"the job has {world}\n") as caught:
        choose(world, facts=ANYTHING, **degrees)
    hint = caught.value.hint or ""
    enough = re.search(r"give the job (\d+) ranks", hint)
    assert enough is not None
    assert choose(int(enough[1]), facts=ANYTHING, **degrees).world == int(enough[1])
    advice = {name: int(value) for name, value in re.findall(r"parallel\.(\w+)=(\d+)", hint)}
    assert choose(world, facts=ANYTHING, **{**degrees, **advice}).world == world


@pytest.mark.parametrize(
    ("degrees", "message", "advice"),
    [
        ({"tp": 8}, "tp 8 does not divide heads 4", "parallel.tp=4"),
        ({"pp": 9}, "pp 9 makes 9 stages, the model has 8 blocks", "parallel.pp=8"),
        ({"ep": 3, "dp_shard": 6}, "ep 3 does not divide 8 experts", "parallel.ep=2"),
        ({"ep": 8, "dp_shard": 12}, "ep 8 does not divide dp_shard 12 x cp 1 x tp 1 = 12", "parallel.ep=4"),
        ({"cp": 5}, "does not divide by 2 x cp 5", "data.sequence_length=100"),
        ({"dp_shard": 5}, "batch_size 48 does not divide by dp 5", "train.batch_size=50"),
        (
            {"pp": 2, "microbatches": 5},
            "48 samples do not divide into 5 microbatches",
            "parallel.microbatches=4",
        ),
    ],
)
def test_refusals_say_the_arithmetic_and_a_hint_that_works(
    degrees: dict[str, int], message: str, advice: str
) -> None:
    world = 1
    for axis, degree in degrees.items():
        world *= degree if axis not in ("ep", "microbatches") else 1
    with pytest.raises(ConfigError) as caught:
        choose(world, **degrees)
    assert message in caught.value.message
    assert caught.value.hint == f"set {advice}"
    axis, value = advice.removeprefix("parallel.").split("=")
    if advice.startswith("parallel"):
        fixed = choose(
            world // degrees.get(axis, 1) * int(value) if axis in ("tp", "pp") else world,
            **{**degrees, axis: int(value)},
        )
        assert fixed.world >= 1


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
