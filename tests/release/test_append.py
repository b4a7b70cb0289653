"""A source is added to a data set: nothing of either half is lost, no approval carries over, and a person is
found and erased in both halves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rsc.errors import ConfigError, DataError, ResourceError
from rsc.events import read_lines
from rsc.ingest.append import Base
from rsc.ingest.config import ImportOptions
from rsc.ingest.importer import import_source
from rsc.ingest.inspect import read_findings, read_quarantine
from rsc.ingest.progress import Silent
from rsc.keys.envelope import data_key_context, open_envelope
from rsc.release.agent.facts import collected
from rsc.release.lifecycle.erase import MARK
from rsc.release.lifecycle.subject import find_subject, subject_key
from rsc.release.record.log_record import replay
from rsc.review.policy import Policy, policy_to_toml
from rsc.store.dataset import Dataset, list_versions
from tests.release.test_erase import forget, look_for, train

RULES = policy_to_toml(Policy(single_person=True, required_approvers=1))
ADA, BOB = "ada.lovelace@example.org", "bob@example.net"


def lines(texts: list[str]) -> list[str]:
    return [json.dumps({"text": text, "n": number}) for number, text in enumerate(texts)]


OLD = [*lines([f"old {n} of {ADA if n % 3 == 0 else 'nobody'}" for n in range(60)]), "", "{broken"]
NEW = ["", *lines([f"new {n} of {(ADA, BOB, 'nobody')[n % 3]}" for n in range(45)]), "{broken too", "[1]"]


def bring(house, rows: list[str], *, base: Base | None = None, name: str = "posts", **settings: Any):
    source = house.workspace.root / "source.jsonl"
    if not source.exists() or source.read_text() != "\n".join(rows) + "\n":  # else it is the same source
        source.write_text("\n".join(rows) + "\n")
    call = {"policy": RULES, "author": "ada", "clock": house.clock}
    call |= {key: settings.pop(key) for key in ("policy", "progress", "checkpoint_bytes") if key in settings}
    options = ImportOptions(**{"holdout": 0.2, **settings})
    return import_source(source, name=name, workspace=house.workspace, options=options, base=base, **call)


def opened(house, version: int | None = None):
    dataset = Dataset.open(house.workspace.data, name="posts", version=version)
    return dataset, open_envelope(house.provider, dataset.envelope(), context=data_key_context("posts"))


def add(house, rows: list[str], **settings: Any):
    dataset, key = opened(house)
    with key, subject_key(dataset, key=key) as codes_key:
        return bring(house, rows, base=Base(dataset, key, codes_key), **settings)


def texts_of(house, version: int, split: str = "train") -> list[str]:
    dataset, key = opened(house, version)
    with key:
        frames = [columns["text"] for columns in dataset.split(split, key=key).iterate()]
        return [bytes(frame[row]).decode() for frame in frames for row in range(len(frame))]


@pytest.fixture
def added(house):
    bring(house, OLD)
    house.approve()
    train(house, "2026-11-21-language-aaaa", data="posts")
    house.clock.advance(3600 * 24 * 40)  # into another month, whose keys would last longer
    return add(house, NEW)


def test_the_new_version_holds_both_halves_and_is_reviewed_anew(house, added):
    bring(house, NEW, name="alone")
    for split in ("train", "validation"):
        alone = Dataset.open(house.workspace.data, name="alone")
        with open_envelope(house.provider, alone.envelope(), context=data_key_context("alone")) as key:
            frames = [columns["text"] for columns in alone.split(split, key=key).iterate()]
        new = [bytes(frame[row]).decode() for frame in frames for row in range(len(frame))]
        assert texts_of(house, 2, split) == [*texts_of(house, 1, split), *new]
    assert house.state() == "in_review"
    dataset, key = opened(house)
    assert dataset.facts["records"] == {
        "read": 61 + 47, "stored": 105, "dropped": 0, "quarantined": 3, "left_out": 0,
    }  # fmt: skip
    assert added.report.records == 105
    assert added.report.by_type() == {"email": 20 + 30}
    assert any("60 records come from version 1" in note for note in added.report.notes)
    with key:
        raws = [bytes(record.raw) for record in read_quarantine(dataset, key=key)]
    assert raws == [b"{broken", b"{broken too", b"[1]"]


def test_every_finding_of_both_halves_points_to_its_text(house, added):
    dataset, key = opened(house)
    with key:
        findings = list(read_findings(dataset, key=key))
    texts = {split: texts_of(house, 2, split) for split in ("train", "validation")}
    assert len(findings) == 50
    for found in findings:
        text = texts[found.split][found.sample]
        assert text[found.redacted_start : found.redacted_end] == "[EMAIL]"
    assert len({found.record for found in findings}) == 50


def test_what_is_added_lives_no_longer_than_the_set(house, added):
    (old, key_1), (new, key_2) = opened(house, 1), opened(house, 2)
    key_1.close()
    key_2.close()
    assert new.envelope().kek_id == old.envelope().kek_id
    assert collected(new) == collected(old)


def test_a_person_is_found_and_erased_in_both_halves(house, added):
    house.approve()
    found = look_for(house, ADA)
    assert {hit.version for hit in found.hits} == {1, 2}
    assert sum(hit.version == 2 for hit in found.hits) == 20 + 15
    erased = forget(house, ADA)
    assert erased.left.hits == ()
    assert {told.name for told in erased.expired} == {"posts"}
    assert len(erased.left.closed) == 2, "the keys of both versions are gone"
    kept = [*texts_of(house, 3), *texts_of(house, 3, "validation")]
    assert len(kept) == 105 - 35
    dataset, key = opened(house)
    with key:
        assert len(find_subject(dataset, key=key, subject=BOB)) == 15
    run = house.workspace.runs / "2026-11-21-language-aaaa"
    assert [mark["kind"] for mark in read_lines(run / MARK)] == ["data_erased"]


def test_a_run_on_the_older_half_is_derived_when_only_the_new_version_can_be_searched(house, added):
    recorded = replay(house.audit.entries())
    assert recorded.ancestors(("posts", 2)) == [("posts", 1)]
    assert recorded.verdicts_on(Dataset.open(house.workspace.data, name="posts").root_hash) == {}


def test_a_set_can_be_added_to_again_and_after_an_erasure(house, added):
    house.approve()
    forget(house, BOB)
    add(house, lines(["third part"]))
    assert len([*texts_of(house, 4), *texts_of(house, 4, "validation")]) == 105 - 15 + 1
    assert {hit.version for hit in look_for(house, ADA).hits} == {1, 3, 4}


def test_what_would_be_stored_otherwise_is_refused_and_leaves_nothing(house):
    bring(house, OLD)
    for rows, settings, match in (
        ([json.dumps({"text": "a", "n": "word"})], {}, "field 'n'"),
        ([json.dumps({"text": "a"})], {}, "field 'n'"),
        ([json.dumps({"text": "a", "n": 1, "more": 2})], {}, "field 'more'"),
        (
            NEW,
            {"policy": policy_to_toml(Policy(single_person=True, required_approvers=1, retention="1d"))},
            "policy is another one",
        ),
    ):
        with pytest.raises(ConfigError, match=match):
            add(house, rows, **settings)
    with pytest.raises(DataError):
        add(house, ["{broken"])
    with pytest.raises(DataError, match="none of the"):
        add(house, NEW, where={"n": "999"})
    assert list_versions(house.workspace.data, "posts") == [1]
    assert not [path.name for path in (house.workspace.data / "posts").iterdir() if path.name.startswith(".")]


def test_a_version_that_came_meanwhile_is_not_lost(house):
    bring(house, OLD)
    dataset, key = opened(house)
    with key, subject_key(dataset, key=key) as codes_key:
        bring(house, NEW)
        with pytest.raises(DataError, match="has version 2 now"):
            bring(house, NEW, base=Base(dataset, key, codes_key))


class StopsAt(Silent):
    """Breaks off after so many updates."""

    def __init__(self, updates: int) -> None:
        self.left = updates

    def update(self, **_: Any) -> None:
        self.left -= 1
        if not self.left:
            raise ResourceError("the disk is full")


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_an_interrupted_addition_goes_on_and_stores_nothing_twice(house, updates):
    bring(house, OLD)
    settings: dict[str, Any] = {"part_bytes": 1024, "checkpoint_bytes": 1}
    with pytest.raises(ResourceError):
        add(house, NEW, progress=StopsAt(updates), **settings)
    resumed = add(house, NEW, **settings)
    assert (resumed.num_resumed > 0) == (updates > 1)
    assert len([*texts_of(house, 2), *texts_of(house, 2, "validation")]) == 105
    dataset, key = opened(house)
    with key:
        findings = list(read_findings(dataset, key=key))
    assert (len(findings), len({found.record for found in findings})) == (50, 50)
    assert dataset.facts["records"]["read"] == 108
