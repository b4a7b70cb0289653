"""Trace and erase a person, on data that went through the real import."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from house import House
from power import PowerLoss, stop_at

from rsc.audit.log import AuditLog
from rsc.cli.data.end_text import erased_text, trace_text
from rsc.config import Workspace
from rsc.errors import ConfigError, KeyUnavailable, ReviewVoid
from rsc.events import EventLog, read_lines
from rsc.ingest.importer import import_source
from rsc.ingest.inspect import read_findings
from rsc.ingest.screen import FINDINGS
from rsc.keys.envelope import data_kek_id, data_key_context, new_envelope, open_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.release.agent.request import KeyRequest
from rsc.release.lifecycle import erase as erase_module
from rsc.release.lifecycle.erase import MARK, erase
from rsc.release.lifecycle.expire import expire
from rsc.release.lifecycle.subject import find_subject
from rsc.release.lifecycle.trace import trace
from rsc.review.policy import Policy, policy_to_toml
from rsc.review.redact import pseudonym
from rsc.store.bulk.local import LocalStore
from rsc.store.dataset import Dataset, DatasetWriter, list_versions
from rsc.store.format.columns import columns_from_records
from rsc.store.staging import StagedProgress, only_writer

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
    lines = [json.dumps({"text": f"{text} #{number}"}) for number, text in enumerate(POSTS)]
    lines += ['{"text": broken ada.lovelace@example.org', '{"text": broken']
    bring(house, "posts", lines=lines)
    train(house, "2026-11-21-language-aaaa", data="posts")
    return house


def bring(house, name: str, *, lines: list[str], rules: Policy | None = None) -> None:
    source = house.workspace.root / f"{name}.jsonl"
    source.write_text("\n".join(lines) + "\n")
    alone = {"single_person": True, "required_approvers": 1}
    import_source(
        source,
        name=name,
        workspace=house.workspace,
        policy=policy_to_toml((rules or Policy()).model_copy(update=alone)),
        author="ada",
        clock=house.clock,
    )
    source.unlink()
    house.approve(name)


def train(house, run: str, *, data: str, version: int = 1) -> None:
    """What a run leaves behind."""
    folder = house.workspace.runs / run
    for inside in ("checkpoints/step-00000010", "export"):
        (folder / inside).mkdir(parents=True)
    lineage = {"data": {"name": data, "version": version}}
    (folder / "run.json").write_text(json.dumps({"lineage": lineage}))
    house.add_run(run, lineage)


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


def test_runs_that_started_from_a_derived_run_are_derived(filled):
    parent = {"run": "2026-11-21-language-aaaa", "data": {"name": "posts", "version": 1}}
    other = {"data": {"name": "others", "version": 1}}
    lineages = {
        "b": {**other, "parent": parent},
        "c": {**other, "parent": {"run": "b", **other, "parent": parent}},
    }
    lineages["d"] = {**other, "parent": {"open_weights": "trunk", "sha256": {}}}
    lineages["e"] = {**other, "parent": {**lineages["d"]["parent"], "export_of": lineages["c"]}}
    for name, lineage in lineages.items():
        (filled.workspace.runs / name / "export").mkdir(parents=True)
        (filled.workspace.runs / name / "run.json").write_text(json.dumps({"lineage": lineage}))
        filled.add_run(name, lineage)
    derived = ["2026-11-21-language-aaaa", "b", "c", "e"]
    assert [run.run for run in look_for(filled, "ada.lovelace@example.org").runs] == derived
    forget(filled, "ada.lovelace@example.org")
    marked = sorted(path.parent.name for path in filled.workspace.runs.glob("*/" + MARK))
    assert marked == derived
    assert (filled.workspace.runs / "c" / "export" / MARK).exists()


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
    facts = filled.facts(dataset)
    assert facts.review.state == "approved"
    assert "carried over the removal of" in facts.review.reason
    assert (dataset.version, list_versions(filled.workspace.data, "posts")) == (2, [1, 2])


def test_an_erased_version_keeps_its_date(filled):
    first = Dataset.open(filled.workspace.data, name="posts").created
    filled.clock.advance(30 * 86400)
    forget(filled, "ada.lovelace@example.org")
    dataset = Dataset.open(filled.workspace.data, name="posts")
    facts = filled.facts(dataset)
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


def test_an_erase_that_stopped_between_two_data_sets_is_finished_by_anybodys(two_sets, monkeypatch):
    """What it was about to end stands in the log: with its key gone it cannot be found again."""
    expire, ended = erase_module._expire, []

    def fail_at_the_second(house, name, version):
        if ended:
            raise KeyboardInterrupt
        ended.append(expire(house, name, version))
        return ended[-1]

    monkeypatch.setattr(erase_module, "_expire", fail_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        forget(two_sets, "ada.lovelace@example.org")
    monkeypatch.setattr(erase_module, "_expire", expire)
    done = forget(two_sets, "nobody@example.org")
    assert done.removed == {"letters": 4, "posts": 4}
    _require_all_erased(two_sets)


def test_a_version_whose_folder_was_deleted_since_is_not_in_the_way(two_sets, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(erase_module, "_expire", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            forget(two_sets, "ada.lovelace@example.org")
    shutil.rmtree(two_sets.workspace.data / "letters")
    assert not forget(two_sets, "ada.lovelace@example.org").left.hits
    assert two_sets.state("posts") == "approved"


STEPS: list[tuple[type, str]] = [
    (DatasetWriter, "commit"),
    (Dataset, "write_review"),
    (Dataset, "replace_envelope"),
    (AuditLog, "append"),
    (EventLog, "append"),
    (LocalKeyProvider, "destroy"),
    (LocalStore, "delete_folder"),
]


@pytest.fixture
def two_sets(house):
    """One person in two data sets, with a run on each."""
    lines = [json.dumps({"text": text}) for text in POSTS[:10]]
    for name in ("letters", "posts"):
        bring(house, name, lines=lines)
        train(house, f"on-{name}", data=name)
    return house


@pytest.mark.slow
@pytest.mark.parametrize("is_after", [False, True])
def test_an_erase_that_stops_at_any_step_is_finished_by_another(two_sets, tmp_path, clock, is_after):
    """Runs are marked, the log knows all of it, and reviews are carried, wherever it stopped."""
    number, num_steps = 0, 99
    while number < num_steps:
        number += 1
        root = tmp_path / f"{is_after}-{number}"
        shutil.copytree(two_sets.workspace.root, root)
        house = House(Workspace(root), clock)
        with pytest.MonkeyPatch.context() as patch:
            steps = stop_at(patch, number, steps=STEPS, is_after=is_after)
            try:
                forget(house, "ada.lovelace@example.org")
                num_steps = len(steps)
            except PowerLoss:
                pass
        again = House(house.workspace, clock)
        done = forget(again, "ada.lovelace@example.org")
        assert not done.left.hits, steps
        _require_all_erased(again)
    assert num_steps > 20


def _require_all_erased(house) -> None:
    erased = house.logged("subject_erased")
    assert {run for entry in erased for run in entry["runs"]} == {"on-letters", "on-posts"}
    assert {name: n for entry in erased for name, n in entry["removed"].items()} == {"letters": 4, "posts": 4}
    assert [entry["began"] for entry in erased] == [e["index"] for e in house.logged("erasure_began")]
    for name in ("letters", "posts"):
        run = house.workspace.runs / f"on-{name}"
        assert len((run / MARK).read_text().splitlines()) == 1
        assert (run / "export" / MARK).exists()
        first = Dataset.open(house.workspace.data, name=name, version=1)
        with pytest.raises(KeyUnavailable):
            open_envelope(house.provider, first.envelope(), context=data_key_context(name))
        assert house.state(name) == "approved"
        carried = {entry["version"] for entry in house.logged("review_carried") if entry["data"] == name}
        assert carried == set(list_versions(house.workspace.data, name)) - {1}
        house.agent.release(KeyRequest("train", "ada", data=name)).close()


def test_an_import_that_can_go_on_is_in_the_way(filled):
    """Nobody can look through what it holds."""
    begun = filled.workspace.data / "posts" / ".staging-0011"
    begun.mkdir()
    (begun / "progress.json").write_bytes(StagedProgress({}, {}, {}).to_bytes())
    with pytest.raises(ConfigError, match="was stopped half-way") as refusal:
        forget(filled, "ada.lovelace@example.org")
    assert "delete that folder" in refusal.value.hint
    assert any("posts/.staging-0011: not finished" in told for told in look_for(filled, "ada").closed)


def test_a_person_that_a_model_found_is_found_again(house):
    """Names have no rule; a policy may name models that find them."""
    kek_id, context = data_kek_id("talks", period="2026-11"), data_key_context("talks")
    house.provider.create(kek_id, period="2026-11")
    envelope, key = new_envelope(house.provider, kek_id=kek_id, context=context, clock=house.clock)
    with key, key.derive(salt=b"", info=b"rsc-subject-1") as codes_key:
        row = {field.name: "" if field.kind == "string" else 0 for field in FINDINGS.fields}
        row |= {
            "type": "person",
            "subject": pseudonym("Ada Lovelace", type_name="person", key=codes_key.view),
        }
        writer = DatasetWriter.create(
            house.workspace.data,
            name="talks",
            schemas={"findings": FINDINGS},
            key=key,
            envelope=envelope,
            clock=house.clock,
        )
        with writer:
            writer.append("findings", columns_from_records(FINDINGS, [row]))
            writer.commit(policy=b"", report=b"", facts={})
    (hit,) = find_subject(
        Dataset.open(house.workspace.data, name="talks"),
        key=open_envelope(house.provider, envelope, context=context),
        subject="ada lovelace",
    )
    assert hit.type == "person"


def test_what_was_begun_and_cannot_go_on_is_removed(filled):
    begun = filled.workspace.data / "letters" / ".staging-0011"
    begun.mkdir(parents=True)
    forget(filled, "ada.lovelace@example.org")
    assert not begun.exists()


SPELLINGS = {
    "+1 212 555 0134": [
        "call 212-555-0134 soon",
        "ring (212) 555-0134 x12",
        "tel:+12125550134",
        "T 1-212-555-0134",
    ],
    "+36 1 234 5678": [
        "tel 06 1 234 5678",
        "+36-1-234-5678",
        "it is 0036.12345678",
        "no label: (1) 234-5678 x",
    ],
    "020 7946 0018": ["+44 (0)20 7946 0018", "ring 0044 20 7946 0018", "(020) 7946-0018"],
    "@ana_kim88": ["follow @Ana_Kim88 there", "see twitter.com/ana_kim88", "youtube.com/@ana_kim88/about"],
    "1984-03-07": ["born 7 March 1984", "DOB: 07.03.1984", "date of birth March 7, 1984"],
    "ana@xn--bcher-kva.example": ["write to ana@b\u00fccher.example", "mail Ana@B\u00dcCHER.example"],
    "Ana Kim": ["said ANA KIM again", "(Ana Kim)"],
}


@pytest.mark.parametrize("subject", SPELLINGS)
def test_every_spelling_goes_and_a_text_that_only_holds_letters_of_it_stays(house, subject):
    others = ["Anna Kimmel and Diana Kim", "call 646-555-0199", "born 8 April 1991", "@ana_kim99"]
    texts = [*SPELLINGS[subject], *others]
    bring(
        house,
        "posts",
        lines=[json.dumps({"text": f"{text}; row {place}"}) for place, text in enumerate(texts)],
    )
    before = records_of(house, 1)
    assert len(look_for(house, subject).hits) == len(SPELLINGS[subject])
    erased = forget(house, subject)
    assert erased.removed == {"posts": len(SPELLINGS[subject])}
    assert not erased.left.hits
    gone = {f"row {place}" for place in range(len(SPELLINGS[subject]))}
    assert records_of(house, 2) == [text for text in before if text.rpartition("; ")[2] not in gone]


def test_erasing_a_second_person_marks_the_runs_on_what_the_first_erasure_replaced(filled):
    """The run read both persons in version 1, of which version 2 is what the first erasure left."""
    first = "2026-11-21-language-aaaa"
    assert [run.run for run in forget(filled, "ada.lovelace@example.org").marked] == [first]
    train(filled, "2026-11-22-language-bbbb", data="posts", version=2)
    other = "charles.babbage@example.net"
    second = forget(filled, other)
    assert second.removed["posts"] > 0
    assert {(run.run, run.version) for run in second.marked} == {(first, 1), ("2026-11-22-language-bbbb", 2)}
    assert {run.run for run in forget(filled, other).marked} == set(), "nothing is left of them to find"


def test_what_cannot_be_searched_is_said_and_its_runs_are_marked_as_such(filled):
    """The letters have expired: whether the person was in them cannot be known any more."""
    bring(filled, "letters", lines=[json.dumps({"text": "write to ada.lovelace@example.org"})] * 3)
    train(filled, "on-letters", data="letters")
    expire(
        filled.workspace,
        "letters",
        providers={"local": filled.provider},
        audit=filled.audit,
        user="ada",
    )
    found = look_for(filled, "ada.lovelace@example.org")
    assert [closed.partition(":")[0] for closed in found.closed] == ["letters version 1"]
    assert [run.run for run in found.runs_on_closed] == ["on-letters"]
    done = forget(filled, "ada.lovelace@example.org")
    assert [run.run for run in done.marked_unsearched] == ["on-letters"]
    (mark,) = read_lines(filled.workspace.runs / "on-letters" / MARK)
    assert (mark["kind"], mark["data"]) == ("data_not_searched", "letters")
    told = erased_text(done.to_json())
    assert "a second search finds 0 findings in what could be searched" in told
    assert "not searched: letters version 1" in told
    shutil.rmtree(filled.workspace.data / "letters")
    gone = look_for(filled, "ada.lovelace@example.org")
    assert "letters version 1: it is not here any more" in gone.closed
    assert "on-letters" in {run.run for run in gone.runs_on_closed}


def test_exports_are_traced_to_where_they_were_written(filled, tmp_path):
    run, here, moved = "2026-11-21-language-aaaa", tmp_path / "export here", tmp_path / "moved"
    for place in (here, moved):
        place.mkdir()
        filled.audit.append("run_export_began", run=run, path=str(place), user="ada")
        filled.audit.append("exported", run=run, path=str(place), user="ada", sha256="0" * 64)
    killed = tmp_path / "killed"
    filled.audit.append("run_export_began", run=run, path=str(killed), user="ada")
    moved.rename(tmp_path / "elsewhere")
    (derived,) = look_for(filled, "ada.lovelace@example.org").runs
    assert {str(here), str(moved), str(killed)} < set(derived.exports)
    assert set(derived.exports_gone) == {str(moved), str(killed)}
    done = forget(filled, "ada.lovelace@example.org")
    assert (here / MARK).exists()
    assert not moved.exists(), "a folder that is gone is not made again"
    assert "not there any more" in erased_text(done.to_json())


def test_a_run_that_the_log_does_not_know_is_said_to_be_unknown(filled):
    (filled.workspace.runs / "stranger").mkdir()
    (filled.workspace.runs / "stranger" / "run.json").write_text('{"lineage": {}}')
    found = look_for(filled, "ada.lovelace@example.org")
    assert found.runs_unrecorded == ("stranger",)
    assert "what run stranger was trained on is not recorded" in trace_text(found.to_json())


@pytest.mark.parametrize("subject", ["9123 4567", "+65 9123 4567", "006591234567"])
def test_a_number_is_erased_in_the_spelling_of_its_country(house, subject):
    records = [
        ("SG", "mine: 9123 4567"), ("SG", "mine: +65 91234567"), ("SG", "mine: 6123 4567"),
        ("US", "mine: 0116591234567"), ("US", "mine: 207-946-0018"),
    ]  # fmt: skip
    lines = [json.dumps({"country": country, "text": text}) for country, text in records]
    bring(house, "posts", lines=lines, rules=Policy(region_field="country"))
    erased = forget(house, subject)
    assert erased.removed == {"posts": 3}
    assert not erased.left.hits


def test_a_policy_whose_records_name_no_country_is_refused(house):
    with pytest.raises(ConfigError, match="'country', which no text field"):
        bring(house, "posts", lines=[json.dumps({"text": "x"})], rules=Policy(region_field="country"))
