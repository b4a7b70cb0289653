from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rsc.clock import timestamp
from rsc.errors import IsolationRefused, KeyUnavailable, ReviewMissing, ReviewRejected, ReviewVoid
from rsc.release.agent.decision import LEASE_S, DataFacts, decide
from rsc.release.agent.request import KeyRequest
from rsc.review.approval.verdict import ReviewState
from rsc.review.policy import Policy

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
GOOD = {"is_ok": True, "findings": [{"name": "tcp 192.0.2.1", "is_ok": True, "detail": "ENETUNREACH"}]}
CLEAN = {
    "is_ok": True,
    "findings": [
        {"name": "core dumps", "is_ok": True, "detail": "off"},
        {"name": "memory is private", "is_ok": True, "detail": "yes"},
    ],
}


def facts(*, state: str = "approved", expires: datetime | None = None, **policy) -> DataFacts:
    rules = Policy(**{"single_person": True, "required_approvers": 1, **policy})
    review = ReviewState(state, "because", True, ("ada",), timestamp(expires) if expires else None)
    return DataFacts("posts", 1, "ab" * 32, NOW - timedelta(days=1), rules, review, True)


def request(purpose: str = "train", **changes) -> KeyRequest:
    base = KeyRequest(purpose, "ada", data="posts", version=1, isolation=GOOD, hygiene=CLEAN)
    return replace(base, **changes)


def verdict(asked: KeyRequest, found: DataFacts, *, outside=(), now=NOW):
    return decide(asked, facts=found, outside=outside, now=now)


@pytest.mark.parametrize("purpose", ["train", "evaluate", "export"])
def test_approved_data_is_released_for_the_purposes_of_its_policy(purpose):
    assert verdict(request(purpose), facts()).is_allowed
    refused = verdict(request(purpose), facts(purpose=tuple({"train", "evaluate", "export"} - {purpose})))
    assert not refused.is_allowed
    assert purpose in refused.reason


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("in_review", ReviewMissing),
        ("rejected", ReviewRejected),
        ("void", ReviewVoid),
        ("expired", ReviewVoid),
    ],
)
def test_only_an_approved_review_opens(state, error):
    refused = verdict(request(), facts(state=state))
    assert isinstance(refused.to_error(), error)
    assert verdict(request("review"), facts(state=state)).is_allowed == (state != "rejected")


def test_data_past_its_retention_is_refused_for_every_purpose():
    kept = facts(retention="1d")
    for purpose in ("train", "evaluate", "export", "review"):
        assert isinstance(verdict(request(purpose), kept).to_error(), KeyUnavailable)
        assert verdict(request(purpose), kept, now=NOW - timedelta(seconds=1)).is_allowed


def test_a_lease_ends_with_retention_and_with_the_approval():
    assert verdict(request(), facts()).lease_s == LEASE_S
    assert verdict(request(), facts(expires=NOW + timedelta(seconds=20))).lease_s == 20
    soon = facts(retention="1d", expires=NOW + timedelta(days=3))
    assert verdict(request(), soon, now=NOW - timedelta(seconds=5)).lease_s == 5


def test_the_policy_names_who_may_train():
    assert verdict(request(), facts(who_may_train=("ada",))).is_allowed
    assert not verdict(request(user="eve"), facts(who_may_train=("ada",))).is_allowed
    assert verdict(request("export", user="eve"), facts(who_may_train=("ada",))).is_allowed


BROKEN = {
    "no report": {"isolation": None},
    "a route": {
        "isolation": {"is_ok": False, "findings": [{"name": "tcp", "is_ok": False, "detail": "timeout"}]}
    },
    "an empty report": {"isolation": {"is_ok": True, "findings": []}},
    "a report that lies in its sum": {
        "isolation": {"is_ok": True, "findings": [{"name": "tcp", "is_ok": False, "detail": "open"}]}
    },
    "no hygiene": {"hygiene": None},
    "core dumps": {
        "hygiene": {
            "findings": [{"name": "core dumps", "is_ok": False, "detail": "limit 8"}, CLEAN["findings"][1]]
        }
    },
}


@pytest.mark.parametrize("what", BROKEN)
def test_required_isolation_refuses_what_is_not_proven(what):
    asked = request(**BROKEN[what])
    refused = verdict(asked, facts(isolation="required"))
    assert isinstance(refused.to_error(), IsolationRefused)
    assert refused.to_error().exit_code == 3
    allowed = verdict(asked, facts(isolation="best-effort"))
    assert allowed.is_allowed
    assert any("not isolated (best-effort)" in note for note in allowed.notes)


@pytest.mark.parametrize("outside", [None, ("it shares the agent's network",)])
def test_the_agents_own_look_beats_the_report(outside):
    assert verdict(request(), facts(isolation="required")).is_allowed
    refused = verdict(request(), facts(isolation="required"), outside=outside)
    assert isinstance(refused.to_error(), IsolationRefused)


def test_a_run_key_follows_the_isolation_of_its_data():
    run = KeyRequest("checkpoint", "ada", run="r1", data="posts")
    assert not verdict(run, facts(isolation="required"), outside=None).is_allowed
    assert verdict(run, facts(isolation="best-effort"), outside=None).is_allowed
    assert decide(replace(run, data=None), facts=None, outside=None, now=NOW).is_allowed
