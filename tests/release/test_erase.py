"""Trace and erase a person, on data that went through the real import."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsc.errors import ConfigError, KeyUnavailable, ReviewVoid
from rsc.ingest.importer import import_source
from rsc.ingest.look import read_findings
from rsc.release import erase as erase_module
from rsc.release.erase import MARK, erase
from rsc.release.facts import data_facts
from rsc.release.request import KeyRequest
from rsc.release.trace import trace
from rsc.review.policy import Policy, policy_to_toml
from rsc.store.dataset import Dataset, list_versions
from rsc.store.keys import data_key_context, open_envelope
from rsc.store.staging import only_writer

POSTS = [
    "nothing here",
    "write to ada.lovelace@example.org please",
    "charles.babbage@example.net is my address",
    "again Ada.Lovelace@EXAMPLE.org, and charles.babbage@example.net",
    "the end",
] * 40


@pytest.fixture
def filled(house, tmp_path):
    """Posts imported and approved, and a run that trained on them, with a checkpoint and an export."""
    source = tmp_path / "posts.jsonl"
    lines = [json.dumps({"text": f"{text} #{number}"}) for number, text in enumerate(POSTS)]
    source.write_text(
        "\n".join([*lines, '{"text": broken ada.lovelace@example.org', '{"text": broken']) + "\n"
    )
    policy = policy_to_toml(Policy(single_person=True, required_approvers=1))
    import_source(
        source,
        name="posts",
        workspace=house.workspace,
        policy=policy,
        author="ada",
        provider=house.provider,
        clock=house.clock,
    )
    house.approve()
    run = house.workspace.runs / "2026-11-21-language-aaaa"
    for folder in ("checkpoints/step-00000010", "export"):
        (run / folder).mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"lineage": {"data": {"name": "posts", "version": 1}}}))
    return house


def records_of(house, version: int) -> list[str]:
    dataset = Dataset.open(house.workspace.data, name="posts", version=version)
    with open_envelope(house.provider, dataset.envelope(), context=data_key_context("posts")) as key:
        frames = [
            columns["text"]
            for split in ("train", "validation")
            if split in dataset.splits
            for columns in dataset.split(split, key=key).iterate()
        ]
        return [bytes(frame[row]).decode() for frame in frames for row in range(len(frame))]


def look_for(house, subject: str):
    return trace(house.workspace, subject, agent=house.agent, audit=house.audit, user="ada")


def forget(house, subject: str):
    return erase(
        house.workspace,
        subject,
        agent=house.agent,
        providers={"local": house.provider},
        audit=house.audit,
        clock=house.clock,
        user="ada",
    )


def test_trace_finds_every_spelling_and_everything_derived(filled):
    found = look_for(filled, "ADA.lovelace@example.org")
    assert len(found.hits) == 80
    assert {(hit.type, hit.data, hit.version) for hit in found.hits} == {("email", "posts", 1)}
    (run,) = found.runs
    assert run.checkpoints == ("step-00000010",)
    assert run.exports[0].endswith("export")
    assert not look_for(filled, "nobody@example.org").hits


def test_the_log_never_holds_the_subject(filled):
    look_for(filled, "ada.lovelace@example.org")
    forget(filled, "ada.lovelace@example.org")
    everything = json.dumps(list(filled.audit.entries())).lower()
    assert "lovelace" not in everything
    assert filled.logged("subject_traced")[0]["found"] == {"posts 1": 80}


def test_erase_removes_the_records_and_only_those(filled):
    before = records_of(filled, 1)
    gone = {number for number, text in enumerate(POSTS) if "lovelace" in text.lower()}
    done = forget(filled, "ada.lovelace@example.org")
    assert done.removed == {"posts": len(gone)}
    expected = [text for text in before if int(text.rpartition("#")[2]) not in gone]
    assert records_of(filled, 2) == expected
    assert len(before) - len(expected) == len(gone)
    assert not done.left.hits


def test_no_erasure_while_an_import_runs(filled):
    with only_writer(filled.workspace.data / "posts"), pytest.raises(ConfigError, match="another import"):
        forget(filled, "ada.lovelace@example.org")
    assert list_versions(filled.workspace.data, "posts") == [1]


def test_what_held_the_records_no_longer_opens(filled):
    done = forget(filled, "ada.lovelace@example.org")
    assert [attempt.opened for attempt in done.expired[0].after] == [False]
    with pytest.raises(KeyUnavailable):
        records_of(filled, 1)


def test_the_review_is_carried_and_training_goes_on(filled):
    forget(filled, "ada.lovelace@example.org")
    filled.agent.release(KeyRequest("train", "ada", data="posts")).close()
    dataset = Dataset.open(filled.workspace.data, name="posts")
    facts = data_facts(dataset, identities=filled.workspace.identities, now=filled.clock.now())
    assert facts.review.state == "approved"
    assert "carried over the removal of" in facts.review.reason
    assert (dataset.version, list_versions(filled.workspace.data, "posts")) == (2, [1, 2])


def test_an_erased_version_keeps_its_date(filled):
    first = Dataset.open(filled.workspace.data, name="posts").created
    filled.clock.advance(30 * 86400)
    forget(filled, "ada.lovelace@example.org")
    dataset = Dataset.open(filled.workspace.data, name="posts")
    facts = data_facts(dataset, identities=filled.workspace.identities, now=filled.clock.now())
    assert facts.created == first
    assert dataset.created > first


@pytest.mark.parametrize("changed", ["removed", "root_hash", "approved_root_hashes", "signature"])
def test_a_carry_that_was_changed_voids_the_review(filled, changed):
    forget(filled, "ada.lovelace@example.org")
    dataset = Dataset.open(filled.workspace.data, name="posts")
    carry = json.loads(dataset.read_review("carried.json"))
    carry[changed] = {"removed": {}, "approved_root_hashes": ["00" * 32]}.get(changed, "00" * 32)
    dataset.write_review("carried.json", json.dumps(carry).encode())
    with pytest.raises(ReviewVoid):
        filled.agent.release(KeyRequest("train", "ada", data="posts"))


def test_a_carry_of_another_version_does_not_count(filled):
    forget(filled, "ada.lovelace@example.org")
    filled.add("posts", period="2026-12")
    first, second = (Dataset.open(filled.workspace.data, name="posts", version=n) for n in (2, 3))
    for name in first.list_review():
        if name.startswith("approvals/") or name == "carried.json":
            second.write_review(name, first.read_review(name))
    with pytest.raises(ReviewVoid, match="does not belong to these bytes"):
        filled.agent.release(KeyRequest("train", "ada", data="posts"))


def test_findings_of_others_still_point_to_their_records(filled):
    forget(filled, "ada.lovelace@example.org")
    dataset = Dataset.open(filled.workspace.data, name="posts")
    with open_envelope(filled.provider, dataset.envelope(), context=data_key_context("posts")) as key:
        rows = list(read_findings(dataset, key=key))
        stored = {
            split: [
                bytes(columns["text"][row]).decode()
                for columns in dataset.split(split, key=key).iterate()
                for row in range(len(columns["text"]))
            ]
            for split in {row.split for row in rows}
        }
    assert len(rows) == 40
    for row in rows:
        text = stored[row.split][row.sample]
        assert text.endswith(f"#{row.record}")
        assert text[row.redacted_start : row.redacted_end] == "[EMAIL]"


def test_a_second_person_is_erased_from_what_is_left(filled):
    """The codes of the first import still find people in a version under a new data key."""
    forget(filled, "ada.lovelace@example.org")
    assert len(look_for(filled, "charles.babbage@example.net").hits) == 40
    done = forget(filled, "charles.babbage@example.net")
    assert done.removed == {"posts": 40}
    assert len(records_of(filled, 3)) == 80
    filled.agent.release(KeyRequest("train", "ada", data="posts")).close()


def test_a_quarantined_record_that_names_the_person_goes_too(filled):
    first = Dataset.open(filled.workspace.data, name="posts")
    assert first.splits["quarantine"].num_samples == 2
    forget(filled, "ada.lovelace@example.org")
    assert Dataset.open(filled.workspace.data, name="posts").splits["quarantine"].num_samples == 1


def test_runs_and_exports_are_marked(filled):
    done = forget(filled, "ada.lovelace@example.org")
    assert [run.run for run in done.marked] == ["2026-11-21-language-aaaa"]
    run = filled.workspace.runs / "2026-11-21-language-aaaa"
    for folder in (run, run / "export"):
        (mark,) = [json.loads(line) for line in (Path(folder) / MARK).read_text().splitlines()]
        assert (mark["kind"], mark["data"], mark["version"]) == ("data_erased", "posts", 1)
    assert filled.logged("model_marked")


def test_an_erase_that_was_interrupted_is_finished_by_another(filled, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(erase_module, "_expire", fail)
    with pytest.raises(KeyboardInterrupt):
        forget(filled, "ada.lovelace@example.org")
    monkeypatch.undo()
    monkeypatch.setenv("RSC_HOME", str(filled.workspace.root))
    assert list_versions(filled.workspace.data, "posts") == [1, 2]
    done = forget(filled, "ada.lovelace@example.org")
    assert not done.left.hits
    assert list_versions(filled.workspace.data, "posts") == [1, 2]
    with pytest.raises(KeyUnavailable):
        records_of(filled, 1)
    assert len(records_of(filled, 2)) == 120
