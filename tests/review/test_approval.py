from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rsc.accounts import Account
from rsc.errors import ConfigError, GateRefused, ReviewMissing, ReviewRejected, ReviewVoid
from rsc.review.approval.enrolment import Enrolment, enrolment_of
from rsc.review.approval.identity import Identity, create_identity, known_identities, load_identity
from rsc.review.approval.verdict import Approval, approval_from_json, approve, reject, review_facts, status
from rsc.review.policy import Policy, default_policy, policy_to_toml

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TWO = default_policy()
ALONE = default_policy(single_person=True)


class FixedClock:
    def __init__(self, moment: datetime = NOW) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@pytest.fixture
def people(tmp_path: Path) -> dict[str, Identity]:
    return {name: create_identity(tmp_path, name=name) for name in ("ana", "ben", "cy")}


def facts(policy: Policy = TWO, **changes: bytes | str):
    parts = {"root_hash": "ab" * 32, "report": b"{}", "decisions": b"", "author": "ana", **changes}
    return review_facts(policy=policy_to_toml(policy), **parts)


def sign(identity: Identity, policy: Policy = TWO, *, at: datetime = NOW, **changes: bytes | str) -> Approval:
    return approve(
        facts(policy, **changes), policy=policy, identity=identity, note="looked", clock=FixedClock(at)
    )


def state(
    approvals: list[Approval], people: dict[str, Identity], policy: Policy = TWO, *, now=NOW, **changes
):
    return status(
        facts(policy, **changes),
        policy=policy,
        approvals=approvals,
        reviewers=enrolled(people),
        author_uid=None,
        now=now,
    )


UIDS = {"ana": 1001, "ben": 1002, "cy": 1003, "ben2": 1002, "ana2": 1001}


def enrolled(people: dict[str, Identity]) -> dict[str, Enrolment]:
    """Everybody under their own account, all countersigned by the first."""
    root = next(iter(people.values()))
    return {
        identity.public_key: enrolment_of(
            identity, account=Account(UIDS[name], name[:3].rstrip("2")), protection="passphrase"
        ).countersigned(root)
        for name, identity in people.items()
    }


def test_two_others_approve(people):
    one = sign(people["ben"])
    assert state([one], people).state == "in_review"
    both = state([one, sign(people["cy"])], people)
    assert (both.state, both.approvers, both.single_person) == ("approved", ("ben", "cy"), False)
    assert both.expires == "2026-03-31T12:00:00.000Z"


def test_author_cannot_approve_nor_be_counted(people):
    with pytest.raises(GateRefused, match="cannot approve"):
        sign(people["ana"])
    smuggled = sign(people["ana"], author="ben")  # signed as if somebody else had imported
    assert state([smuggled, sign(people["ben"])], people).state == "in_review"


def test_single_person_mode_is_said(people):
    approved = state([sign(people["ana"], ALONE)], people, ALONE)
    assert approved.state == "approved"
    assert approved.single_person


def test_same_person_twice_counts_once(people):
    assert state([sign(people["ben"]), sign(people["ben"])], people).state == "in_review"


def test_two_names_of_one_account_are_one_person(people, tmp_path):
    people["ben2"] = create_identity(tmp_path, name="ben2")
    both = [sign(people["ben"]), sign(people["ben2"])]
    found = state(both, people)
    assert (found.state, "one account counts once" in found.reason) == ("in_review", True)
    shared = TWO.model_copy(update={"shared_accounts": ("ben",)})
    assert state([sign(people[name], shared) for name in ("ben", "ben2")], people, shared).state == "approved"


def test_another_name_of_the_authors_account_is_the_author(people, tmp_path):
    """By the account that the import was logged for, and by that of the author's name."""
    people["ana2"] = create_identity(tmp_path, name="ana2")
    approvals = [sign(people["ana2"]), sign(people["ben"])]
    assert state(approvals, people).state == "in_review"
    about = {"policy": TWO, "reviewers": enrolled(people), "now": NOW}
    imported = facts(author="a name that nobody has")
    signed = [sign(people[name], author="a name that nobody has") for name in ("ben", "cy")]
    assert status(imported, approvals=signed, author_uid=1009, **about).state == "approved"
    assert status(imported, approvals=signed, author_uid=1002, **about).state == "in_review"


def test_one_rejection_beats_approvals(people):
    against = reject(facts(), policy=TWO, identity=people["ana"], note="names in it", clock=FixedClock())
    found = state([sign(people["ben"]), sign(people["cy"]), against], people)
    assert found.state == "rejected"
    with pytest.raises(ReviewRejected):
        found.require(data="posts")


@pytest.mark.parametrize(
    "change", [{"root_hash": "cd" * 32}, {"report": b"{ }"}, {"decisions": b"x"}, {"author": "dan"}]
)
def test_any_changed_part_voids(people, change):
    found = state([sign(people["ben"]), sign(people["cy"])], people, **change)
    assert found.state == "void"
    with pytest.raises(ReviewVoid):
        found.require(data="posts")


def test_every_changed_byte_of_the_policy_voids(people):
    content = policy_to_toml(TWO)
    approvals = [sign(people["ben"]), sign(people["cy"])]
    about = {"reviewers": enrolled(people), "author_uid": None}
    for position in range(0, len(content), 7):
        changed = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        now_facts = review_facts(
            root_hash="ab" * 32, report=b"{}", policy=changed, decisions=b"", author="ana"
        )
        assert status(now_facts, policy=TWO, approvals=approvals, now=NOW, **about).state == "void"


def test_approvals_expire_to_the_second(people):
    approvals = [sign(people["ben"]), sign(people["cy"], at=NOW - timedelta(days=1))]
    last = NOW + timedelta(days=29)
    assert state(approvals, people, now=last - timedelta(seconds=1)).state == "approved"
    assert state(approvals, people, now=last).state == "expired"


def test_an_approval_from_the_future_does_not_count(people):
    early = NOW - timedelta(hours=1)
    assert state([sign(people["ben"]), sign(people["cy"])], people, now=early).state != "approved"


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Approval)])
def test_no_field_can_be_changed_after_signing(people, name):
    signed = sign(people["ben"])
    value = getattr(signed, name)
    forged = dataclasses.replace(
        signed, **{name: (not value) if isinstance(value, bool) else value[:-1] + "0"}
    )
    if forged != signed:
        assert not forged.is_signed()


def test_unknown_key_or_borrowed_name_counts_for_nothing(people, tmp_path):
    stranger = create_identity(tmp_path / "elsewhere", name="ben")
    assert state([sign(stranger), sign(people["cy"])], people).state == "in_review"


def test_nothing_signed_is_review_missing(people):
    with pytest.raises(ReviewMissing, match="2 more approvals needed"):
        state([], people).require(data="posts")


def test_json_round_trip_and_garbage(people):
    signed = sign(people["ben"])
    assert approval_from_json(signed.to_json()) == signed
    for garbage in (b"", b"[]", b"{}", b"\xff", signed.to_json()[:-9], b'{"verdict": 1}'):
        with pytest.raises(ReviewVoid):
            approval_from_json(garbage)


def test_identity_files(tmp_path):
    made = create_identity(tmp_path, name="ana", passphrase=b"correct")
    assert (tmp_path / "ana.key").stat().st_mode & 0o777 == 0o600
    assert known_identities(tmp_path) == {made.public_key: "ana"}
    assert load_identity(tmp_path, name="ana", passphrase=b"correct").public_key == made.public_key
    assert "PrivateKey" not in repr(made)
    with pytest.raises(ConfigError, match="does not open"):
        load_identity(tmp_path, name="ana", passphrase=b"wrong")
    with pytest.raises(ConfigError, match="has a key already"):
        create_identity(tmp_path, name="ana")
    with pytest.raises(ConfigError, match="cannot be"):
        create_identity(tmp_path, name="../ana")
    (tmp_path / "ana.key").chmod(0o644)
    with pytest.raises(ConfigError, match="readable by others"):
        load_identity(tmp_path, name="ana", passphrase=b"correct")
