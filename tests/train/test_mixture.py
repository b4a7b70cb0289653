"""A mixture of two approved data sets through `rsc train`: keys, lineage, kill and resume."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from rsc.audit.log import AuditLog
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.loader.config import DataConfig
from rsc.release.lifecycle.trace import derived_runs
from rsc.release.record.log_record import replay
from tests.train.conftest import Rsc, topics

MIXED = (
    'data.mix_with=[{name="others", weight=2}]',
    "data.weight=1",
    "data.weight_changes=[{start=24, weights={topics=1, others=1}}]",
)


@pytest.fixture(scope="module")
def rsc_with_two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    rsc = Rsc(Workspace(tmp_path_factory.mktemp("workspace")))
    rsc.add_text(topics(60)[:30])
    rsc.add_text(topics(60)[30:], name="others", by="eve")
    return rsc


@pytest.mark.slow
def test_a_killed_mixture_goes_on_bit_equal_and_its_lineage_names_both_sets(rsc_with_two: Any) -> None:
    rsc = rsc_with_two
    whole = rsc.train(*MIXED)["run"]
    killed = rsc.train(*MIXED, "train.fail_at=rank=1,step=7,kind=sigkill")
    assert (killed["state"], killed["restarts"], killed["resumed_at"]) == ("finished", 1, 4)
    assert rsc.losses(killed["run"]) == rsc.losses(whole)
    assert rsc.losses(whole) != rsc.losses(rsc.train()["run"])
    lineage = json.loads((rsc.workspace.runs / whole / "run.json").read_text())["lineage"]
    assert lineage["data"]["name"] == "topics"
    assert [other["data"]["name"] for other in lineage["mixed"]] == ["others"]
    assert lineage["mixed"][0]["review"]["approvers"] == ["eve"]
    recorded = replay(AuditLog.open(rsc.workspace.audit, clock=SystemClock()).entries())
    derived = derived_runs(rsc.workspace, {("others", 1)}, recorded=recorded)
    traced = {(found.run, found.data) for found in derived}
    assert traced == {(whole, "others"), (killed["run"], "others")}


def test_a_mixture_with_one_unapproved_set_is_refused(rsc_with_two: Any) -> None:
    rsc = rsc_with_two
    rsc.add_text(["one", "two"], name="unread", approved=False)
    told = rsc.train('data.mix_with=[{name="unread"}]', expect=3)["stderr"]
    assert "ReviewMissing: unread is in review" in told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"mix_with": [{"name": "a"}]}, "twice"),
        ({"mix_with": [{"name": "b"}], "weight_changes": [{"start": 5, "weights": {"a": 1}}]}, "must name"),
        ({"mix_with": [{"name": "b", "weight": 0}], "weight": 0}, "above 0"),
        (
            {"weight_changes": [{"start": 9, "weights": {"a": 1}}, {"start": 5, "weights": {"a": 1}}]},
            "later than",
        ),
    ],
)
def test_mixtures_that_cannot_be_followed_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DataConfig.model_validate({"name": "a", **settings})


def test_each_set_of_a_mixture_has_a_configuration_of_its_own() -> None:
    config = DataConfig.model_validate(
        {
            "name": "a",
            "seed": 4,
            "mix_with": [{"name": "b", "version": 3, "weight": 2}],
            "weight_changes": [{"start": 100, "weights": {"a": 1, "b": 1}}],
        }
    )
    assert [(each.name, each.version, each.seed, each.mix_with) for each in config.sets] == [
        ("a", None, 4, ()),
        ("b", 3, 4, ()),
    ]
    assert config.weights == [(0, {"a": 1, "b": 2}), (100, {"a": 1, "b": 1})]
