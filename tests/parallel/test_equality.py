"""Every axis, every pair and all five at once give the losses of one plain process, within 1e-5 relative.

The control (tests/parallel/job.py) has no mesh and no FSDP. Five steps with clipping in fp32: an error in
any gradient shows from the second loss on.
"""

from __future__ import annotations

import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.warm import warm

TOLERANCE = 1e-5
CLIP_NORM = 0.5
"""As in job.py."""
JOB = "tests.parallel.job"


def run(cases: list[dict[str, Any]]) -> dict[str, Any]:
    done = warm().run(JOB, json.dumps(cases), environment=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def control_name(case: dict[str, Any]) -> str:
    """As in job.py."""
    parts = [case.get("domain", "language"), "moe" if case.get("moe") else "dense"]
    return " ".join(["control", *parts, *([case["optimizer"]] if "optimizer" in case else [])])


def assert_equal(cases: list[dict[str, Any]]) -> None:
    found = run(sorted(cases, key=lambda case: case["world"]))
    assert all(answer["agree"] for answer in found.values()), "ranks report different losses"
    for case in cases:
        control, answer = found[control_name(case)], found[case["name"]]
        assert answer["losses"] == pytest.approx(control["losses"], rel=TOLERANCE), case["name"]
        # Later norms feel the rounding of all steps before; the first is clean.
        assert answer["norms"][0] == pytest.approx(control["norms"][0], rel=TOLERANCE), case["name"]
        assert "domain" in case or control["norms"][0] > CLIP_NORM, "clipping must have something to do"


FIVE = {"tp": 2, "pp": 2, "cp": 2}
"""Eight ranks hold tp 2 x pp 2 x cp 2. dp_shard is 1, but FSDP cuts weights over dp_shard x cp = 2, and ep 2
spreads experts over dp_shard x cp x tp. Sixteen ranks hold dp_shard 2 as well (below)."""


def test_all_five_axes_in_one_job_dense_and_moe() -> None:
    assert_equal(
        [
            {"name": "dense", "world": 8, "parallel": FIVE},
            {"name": "experts", "world": 8, "moe": True, "parallel": {**FIVE, "ep": 2}},
        ]
    )


SINGLE = {
    "fsdp": {},
    "tp": {"tp": 2},
    "cp": {"cp": 2},
    "pp": {"pp": 2},
    "pp interleaved": {"pp": 2, "pp_schedule": "interleaved"},
    "pp zero bubble": {"pp": 2, "pp_schedule": "zero_bubble"},
}


@pytest.mark.slow
def test_each_axis_alone() -> None:
    dense = [{"name": name, "world": 2, "parallel": degrees} for name, degrees in SINGLE.items()]
    experts = [
        {"name": f"{name} moe", "world": 2, "moe": True, "parallel": degrees}
        for name, degrees in [("ep", {"ep": 2}), ("tp", {"tp": 2}), ("cp", {"cp": 2}), ("pp", {"pp": 2})]
    ]
    one = [{"name": "one rank", "world": 1}, {"name": "one rank moe", "world": 1, "moe": True}]
    assert_equal(dense + experts + one)


DOMAIN_MESHES = {
    "fsdp": (2, {}),
    "tp": (2, {"tp": 2}),
    "cp": (2, {"cp": 2}),
    "pp": (2, {"pp": 2}),
    "ep": (2, {"ep": 2}),
    "dp tp": (4, {"tp": 2}),
    "dp_replicate cp": (4, {"dp_replicate": 2, "cp": 2}),
    "pp tp": (4, {"pp": 2, "tp": 2, "pp_schedule": "zero_bubble"}),
    "pp cp": (4, {"pp": 2, "cp": 2, "pp_schedule": "interleaved"}),
}
DOMAIN_PAIRS = {
    "vision": ("dp tp", "pp cp"),
    "speech": ("dp_replicate cp", "pp tp"),
    "ctc": ("dp tp", "pp cp"),
    "posts": ("dp_replicate cp", "pp tp"),
    "bag": ("dp tp", "pp tp"),
    "pairs": ("dp tp", "dp_replicate cp"),
    "masked": ("pp tp", "pp cp"),
}
"""Which pairs of axes each domain is tried on, beside every axis alone: each pair with three domains or more.
Language meets all pairs."""


def domain_cases(domain: str) -> list[dict[str, Any]]:
    """Pairs take no pipeline; hidden tokens are drawn anew by each data-parallel rank."""
    alone = {
        "pairs": ("fsdp", "tp", "cp", "ep"),
        "masked": ("tp", "cp", "pp"),
    }.get(domain, ("fsdp", "tp", "cp", "pp", "ep"))
    return [
        {"name": axes, "world": world, "parallel": degrees, "domain": domain, "moe": axes == "ep"}
        for axes, (world, degrees) in DOMAIN_MESHES.items()
        if axes in (*alone, *DOMAIN_PAIRS[domain])
    ]


@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAIN_PAIRS)
def test_every_axis_serves_every_domain(domain: str) -> None:
    """Classes, CTC, several labels, pairs, hidden tokens; images, sound, texts of uneven length."""
    assert_equal(domain_cases(domain))


def test_two_ranks_see_the_pictures_that_one_sees() -> None:
    """Mirrored and shifted by the sample, not by the rank; dropout too."""
    assert_equal([{"name": "fsdp", "world": 2, "domain": "crops"}])


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["language with drop", "crops", "blanks"])
def test_what_is_drawn_is_drawn_by_sample_on_every_axis(domain: str) -> None:
    cases = [
        {"name": "fsdp", "world": 2},
        {"name": "accumulate", "world": 2, "train": {"accumulate": 2}},
        {"name": "tp", "world": 2, "parallel": {"tp": 2}},
        {"name": "cp", "world": 2, "parallel": {"cp": 2}},
        {"name": "pp", "world": 2, "parallel": {"pp": 2}},
    ]
    assert_equal([{**case, "domain": domain} for case in cases])


@pytest.mark.slow
def test_each_pair_of_axes() -> None:
    axes = ("dp_replicate", "dp_shard", "tp", "cp", "pp")
    pairs = [{"name": f"{a} {b}", "world": 4, "parallel": {a: 2, b: 2}} for a, b in combinations(axes, 2)]
    with_experts = [
        {"name": f"ep {axis}", "world": 4, "moe": True, "parallel": {"ep": 2, axis: 2}}
        for axis in axes
        if axis != "dp_shard"
    ]
    with_experts.append({"name": "ep dp_shard", "world": 4, "moe": True, "parallel": {"ep": 2}})
    assert_equal(pairs + with_experts)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["interleaved", "zero_bubble"])
def test_schedules_with_other_axes(schedule: str) -> None:
    assert_equal(
        [
            {"name": "dp tp pp", "world": 8, "parallel": {"tp": 2, "pp": 2, "pp_schedule": schedule}},
            {
                "name": "dp cp pp ep",
                "world": 8,
                "moe": True,
                "parallel": {"cp": 2, "pp": 2, "ep": 4, "pp_schedule": schedule},
            },
        ]
    )


@pytest.mark.slow
def test_padding_moves_no_expert_on_any_mesh() -> None:
    """Meshes pad differently; were padding counted, the experts' balance would be another on each."""
    meshes: list[Mesh] = [(2, True, {"tp": 2}), (2, True, {"cp": 2}), (4, True, {"tp": 2, "cp": 2})]
    assert_equal(on_meshes(meshes, domain="posts", experts={"balance_rate": 0.05}))


@pytest.mark.slow
def test_sixteen_ranks_hold_every_axis_twice() -> None:
    """dp_shard 2 x cp 2 x tp 2 x pp 2, and ep 4 over dp_shard x cp x tp: no axis stands in for another."""
    axes = {"tp": 2, "pp": 2, "cp": 2}
    assert_equal(
        [
            {"name": "dense", "world": 16, "parallel": axes},
            {"name": "experts", "world": 16, "moe": True, "parallel": {**axes, "ep": 4}},
        ]
    )


Mesh = tuple[int, bool, dict[str, Any]]
"""World, experts or none, degrees."""


def on_meshes(meshes: list[Mesh], **settings: Any) -> list[dict[str, Any]]:
    return [
        {"name": f"{world} {moe} {axes}", "world": world, "moe": moe, "parallel": axes, **settings}
        for world, moe, axes in meshes
    ]


@pytest.mark.slow
def test_validation_between_steps_changes_nothing() -> None:
    meshes: list[Mesh] = [
        (1, False, {}),
        (2, False, {}),
        (2, True, {"tp": 2}),
        (2, False, {"pp": 2}),
        (2, True, {"pp": 2, "pp_schedule": "zero_bubble"}),
        (4, False, {"cp": 2, "pp": 2, "pp_schedule": "interleaved"}),
    ]
    assert_equal(on_meshes(meshes, validate=True))


@pytest.mark.slow
def test_muon_makes_whole_matrices_orthogonal_on_any_mesh() -> None:
    """Parts are gathered first: an orthogonal part of a matrix is not a part of the orthogonal matrix."""
    meshes: list[Mesh] = [
        (2, False, {}),
        (3, False, {}),
        (2, False, {"tp": 2}),
        (2, False, {"pp": 2}),
        (8, False, {"tp": 2, "pp": 2}),
        (2, True, {"ep": 2}),
        (3, True, {}),
        (8, True, {"tp": 2, "pp": 2, "ep": 4}),
    ]
    assert_equal(on_meshes(meshes, optimizer="muon"))


@pytest.mark.slow
def test_muon_makes_filters_of_convolutions_orthogonal_on_any_mesh() -> None:
    """Four filters in parts over two and three ranks, and whole under tensor and pipeline parallelism."""
    meshes: list[tuple[int, dict[str, int]]] = [
        (1, {}),
        (2, {}),
        (3, {}),
        (2, {"tp": 2}),
        (2, {"pp": 2}),
        (4, {"dp_replicate": 2}),
    ]
    same = {"domain": "vision", "optimizer": "muon"}
    assert_equal(
        [{**same, "name": f"{world} {axes}", "world": world, "parallel": axes} for world, axes in meshes]
    )


@pytest.mark.slow
def test_recompute_and_accumulation_change_nothing() -> None:
    assert_equal(
        [
            {"name": "full", "world": 2, "train": {"recompute": "full"}},
            {
                "name": "cp pp full",
                "world": 4,
                "parallel": {"cp": 2, "pp": 2, "pp_schedule": "interleaved"},
                "train": {"recompute": "full", "accumulate": 2},
            },
            {
                "name": "tp pp accumulate",
                "world": 4,
                "moe": True,
                "parallel": {"tp": 2, "pp": 2, "pp_schedule": "zero_bubble"},
                "train": {"accumulate": 3},
            },
            {"name": "selective", "world": 2, "train": {"recompute": "selective"}},
            {"name": "accumulate", "world": 2, "train": {"accumulate": 3}},
            {"name": "tp full", "world": 2, "parallel": {"tp": 2}, "train": {"recompute": "full"}},
            {"name": "cp selective", "world": 2, "parallel": {"cp": 2}, "train": {"recompute": "selective"}},
            {
                "name": "pp full",
                "world": 2,
                "parallel": {"pp": 2},
                "train": {"recompute": "full", "accumulate": 2},
            },
            {
                "name": "ep full",
                "world": 2,
                "moe": True,
                "parallel": {"ep": 2},
                "train": {"recompute": "full"},
            },
        ]
    )


def test_state_moves_between_meshes_and_the_losses_go_on(tmp_path: Path) -> None:
    """dp2 x tp2 -> dp3 -> pp2 x ep2 -> one process, through encrypted checkpoints, against one whole run."""
    runners = [
        (4, {"tp": 2}, 0, 2),
        (3, {}, 2, 3),
        (4, {"pp": 2, "ep": 2}, 3, 4),
        (1, {}, 4, 5),
    ]
    cases = [
        {
            "name": f"{world} {parallel}",
            "world": world,
            "moe": True,
            "parallel": parallel,
            "relay": {"folder": str(tmp_path), "start": start, "stop": stop},
        }
        for world, parallel, start, stop in runners
    ]
    found = run(cases)
    losses = [loss for case in cases for loss in found[case["name"]]["losses"]]
    assert losses == pytest.approx(found["control language moe"]["losses"], rel=TOLERANCE)


@pytest.mark.slow
def test_bf16_and_float8_train_and_stay_near_fp32() -> None:
    """Other numbers on purpose: the losses fall, and stay within 2 % of fp32's."""
    cases = [
        {"name": "bf16", "world": 2, "train": {"precision": "bf16"}},
        {"name": "float8", "world": 2, "train": {"precision": "float8"}},
        {"name": "float8 tp", "world": 2, "parallel": {"tp": 2}, "train": {"precision": "float8"}},
        {
            "name": "float8 cp pp",
            "world": 4,
            "parallel": {"cp": 2, "pp": 2},
            "train": {"precision": "float8"},
        },
        {"name": "bf16 tp pp", "world": 4, "parallel": {"tp": 2, "pp": 2}, "train": {"precision": "bf16"}},
    ]
    found = run(cases)
    assert found["float8 tp"]["losses"] != found["bf16"]["losses"]
    control = found["control language dense"]["losses"]
    for case in cases:
        losses = found[case["name"]]["losses"]
        assert losses == pytest.approx(control, rel=0.02)
        assert losses != control
        assert losses[-1] < losses[0]
