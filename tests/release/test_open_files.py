"""`rsc verify` searches all files for what the gate found and for planted values; papers end with data."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rsc.audit.log import AuditLog
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.keys.providers.local import LocalKeyProvider
from rsc.release.lifecycle.expire import expire
from rsc.release.verify.checks import VerifyContext as Checked
from rsc.release.verify.checks import reviews_valid
from rsc.release.verify.completeness import versions_whole
from rsc.release.verify.open_files import nothing_found_lies_open, papers_end_with_data, planted_values
from rsc.release.verify.promise import Promise
from rsc.store.dataset import Dataset
from tests.ingest.bringing import bring_in

MAIL, PHONE, OTHER = "kim.novak@example.com", "212-555-0177", "somebody.else@example.org"
NAME = "Erika Mustermann"  # nothing that the scanner looks for


def checked(workspace: Workspace, *, planted: tuple[str, ...] = ()) -> Checked:
    clock = SystemClock()
    providers = {"local": LocalKeyProvider(workspace.keys, clock=clock)}
    audit = AuditLog.open(workspace.audit, clock=clock)
    return Checked(workspace, providers, audit, clock.now(), planted=planted)


@pytest.fixture
def people(workspace: Workspace, tmp_path: Path) -> Workspace:
    """A data set whose names of fields, file and notes hold a name that no rule finds."""
    source = tmp_path / f"{NAME.lower().replace(' ', '-')}.jsonl"
    rows = [{"text": f"write to {MAIL} or {PHONE}", "erika_mustermann": row} for row in range(20)]
    source.write_text("\n".join(map(json.dumps, rows)) + '\n{"broken')
    bring_in(workspace, source)
    return workspace


def end(workspace: Workspace) -> None:
    house = checked(workspace)
    expire(workspace, "posts", providers=house.providers, audit=house.audit, user="ada")


def broken(row: Promise) -> list[str]:
    return [breach.what for breach in row.breaches]


PLACES = ("runs/r1/metrics/notes.txt", "cache/plans/x", "export.md", "data/posts/v0001/review/decisions.json")


@pytest.mark.parametrize(
    ("place", "value"),
    list(zip(PLACES, [MAIL, PHONE, "Kim.Novak@Example.com", "(212) 555 0177"], strict=True)),
)
def test_what_the_gate_found_is_found_again_in_any_file(people: Workspace, place: str, value: str) -> None:
    assert nothing_found_lies_open(checked(people)).state == "kept"
    path = people.root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"see {OTHER}\n" * 100 + f"and call {value} today\n")
    row = nothing_found_lies_open(checked(people))
    assert (row.state, row.data) == ("broken", ("posts",))
    assert broken(row)[0].startswith(place)
    assert value not in row.told


def test_values_of_other_people_are_none_that_the_gate_found(people: Workspace) -> None:
    (people.root / "note.txt").write_text(f"{OTHER} runs this machine")
    row = nothing_found_lies_open(checked(people))
    assert row.state == "kept"
    assert "values in them looked up" in row.told


@pytest.mark.parametrize(
    "write",
    [
        str.encode,
        str.upper,
        lambda text: text.encode("utf-16"),
        lambda text: json.dumps(text).encode(),
        lambda text: base64.b64encode(b"ab" + text.encode() + b"c"),
        lambda text: text.encode().hex(),
    ],
)
def test_planted_values_are_found_however_they_are_written(
    people: Workspace, write: Callable[[str], bytes | str]
) -> None:
    before = (1 << 20) - 7  # across the border of two pieces
    planted = ("Grüße aus Köln", NAME)
    assert planted_values(checked(people, planted=planted)).state == "kept"
    content = write(planted[0])
    blob = (
        b"\x89RSC\r\n\x1a\n" + b"\1" * before + (content if isinstance(content, bytes) else content.encode())
    )
    (people.data / "posts/v0001/train/000000007.rsc").write_bytes(blob)
    row = planted_values(checked(people, planted=planted))
    assert broken(row) == ["data/posts/v0001/train/000000007.rsc holds planted value 1"]


def test_papers_end_with_their_data(people: Workspace) -> None:
    folder = people.data / "posts"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert any(b"erika_mustermann" in content for content in before.values())
    end(people)
    for spelling in ("erika", "Mustermann", "example.com", "212-555"):
        found = [path for path in people.root.rglob("*") if path.is_file()
                 and spelling.lower().encode() in path.read_bytes().lower()]  # fmt: skip
        assert not found, spelling
    house = checked(people)
    for row in (papers_end_with_data(house), versions_whole(house), reviews_valid(house)):
        assert row.state == "kept", row.told
    assert reviews_valid(house).told == "1 ended"
    ended = Dataset.open(people.data, name="posts")
    assert ended.facts["records"]["read"] == 21
    end(people)  # again, as after a crash
    assert papers_end_with_data(checked(people)).state == "kept"
    assert Dataset.open(people.data, name="posts").root_hash == ended.root_hash


def test_papers_that_come_back_are_said(people: Workspace) -> None:
    root = people.data / "posts/v0001/root.json"
    before = root.read_bytes()
    end(people)
    root.write_bytes(before)
    assert "still has words of its source" in papers_end_with_data(checked(people)).told
    end(people)
    assert papers_end_with_data(checked(people)).state == "kept"


def test_a_root_that_only_says_that_it_ended_is_no_root(people: Workspace) -> None:
    """Somebody gives a living version the papers of an ended one, to have its shards exchanged."""
    dataset = Dataset.open(people.data, name="posts")
    dataset.end_papers(report=b"{}")
    assert versions_whole(checked(people)).state == "broken"
    assert reviews_valid(checked(people)).state == "broken"
