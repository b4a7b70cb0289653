"""`rsc data` as a user types it: exit codes, JSON on stdout, words on stderr."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsc.accounts import this_account
from rsc.cli.main import run

Rsc = Callable[..., Any]


@pytest.fixture
def rsc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rsc:
    """Runs a command line in this process; returns (JSON of stdout or its text, text of stderr)."""
    monkeypatch.setenv("RSC_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOGNAME", "somebody else")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, expect: int = 0) -> tuple[Any, str]:
        code = run(list(arguments))
        told = capsys.readouterr()
        assert code == expect, told.err
        return (json.loads(told.out) if "--json" in arguments and told.out else told.out), told.err

    return call


@pytest.fixture
def posts(rsc: Rsc, tmp_path: Path) -> Path:
    rsc("data", "plant", "posts.jsonl", "--records", "200", "--seed", "1", "--truth", "truth.jsonl")
    return tmp_path / "posts.jsonl"


def test_from_a_file_to_an_approved_data_set(rsc: Rsc, posts: Path) -> None:
    imported, told = rsc("data", "import", "posts.jsonl", "--json")
    assert (imported["data"], imported["version"], imported["records"]) == ("posts", 1, 200)
    assert "single-person mode" in told
    assert "rsc data approve posts" in told
    review, _ = rsc("data", "review", "posts", "--truth", "truth.jsonl", "--json")
    assert review["state"] == "in_review"
    assert review["single_person"] is True
    assert 0.8 < review["score"]["recall"] <= 1
    assert 0.8 < review["score"]["precision"] <= 1
    assert review["report"]["by_type"] == imported["by_type"]
    assert all("[" in sample["context"] for sample in review["samples"])
    assert "names of persons" in review["report"]["not_looked_for"]
    _, told = rsc("data", "approve", "posts", "--note", "looked at it")
    assert f"state: approved, signed by {this_account().name}" in told
    listed, _ = rsc("data", "ls", "--json")
    assert [(item["data"], item["state"]) for item in listed["data"]] == [("posts", "approved")]
    _, told = rsc("data", "reject", "posts", "--note", "looked again")
    assert "state: rejected" in told
    rsc("data", "review", "posts", expect=3)


def test_texts_for_people_name_what_matters(rsc: Rsc, posts: Path) -> None:
    rsc("data", "import", "posts.jsonl")
    out, _ = rsc("data", "review", "posts", "--truth", "truth.jsonl")
    for words in (
        "in review",
        "found, by field and type",
        "against the truth",
        "in context",
        "NOT looked for",
    ):
        assert words in out
    out, _ = rsc("data", "show", "posts")
    assert "train" in out
    assert "data/posts/" in out
    assert "a frame is read once by 1;" in out
    assert "(full permutation: " in out
    out, _ = rsc("data", "policy", "posts")
    assert "is kept for" in out
    out, _ = rsc("data", "ls")
    assert "in review (single person)" in out


def test_lines_that_name_pictures_are_told_and_a_review_without_findings_shows_no_empty_table(
    rsc: Rsc, tmp_path: Path
) -> None:
    (tmp_path / "memes.jsonl").write_text('{"text": "look", "image": "a.jpg"}\n')
    _, told = rsc("data", "import", "memes.jsonl")
    assert "field image is text: JSON lines and tables hold no image" in told
    out, _ = rsc("data", "review", "memes")
    assert "found, by field and type" not in out


def test_verify_finds_a_changed_byte(rsc: Rsc, posts: Path, tmp_path: Path) -> None:
    rsc("data", "import", "posts.jsonl")
    good, _ = rsc("data", "verify", "posts", "--with-key", "--json")
    assert good["is_good"]
    assert good["frames_authenticated"] >= 3
    shard = next((tmp_path / "home/data/posts/v0001/train").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.chmod(0o600)
    shard.write_bytes(data)
    bad, _ = rsc("data", "verify", "posts", "--json", expect=1)
    assert bad["problems"][0]["outcome"] == "frame"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("missing.jsonl",), 2, "does not exist"),
        (("posts.jsonl", "--name", "a/b"), 2, "a/b"),
        (("posts.jsonl", "--holdout", "2"), 2, "holdout"),
        (("posts.jsonl", "recods=lines"), 2, 'did you mean "records"?'),
        (("posts.jsonl", "lines"), 2, "not key=value"),
        (("posts.jsonl", "--policy", "none.toml"), 2, "cannot read the policy none.toml"),
        (("posts.jsonl", "--text-field", "txt"), 2, "text"),
        (("posts.jsonl", "scan=false"), 3, "--safeguard"),
    ],
)
def test_bad_input(rsc: Rsc, posts: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    _, told = rsc("data", "import", *arguments, expect=code)
    assert words in told
    assert rsc("data", "ls", "--json")[0]["data"] == []


def test_a_second_import_is_a_second_version(rsc: Rsc, posts: Path) -> None:
    rsc("data", "import", "posts.jsonl")
    again, _ = rsc("data", "import", "posts.jsonl", "--json")
    assert again["version"] == 2


def test_the_truth_of_other_records_is_refused(rsc: Rsc, posts: Path, tmp_path: Path) -> None:
    rsc("data", "import", "posts.jsonl")
    (tmp_path / "short.jsonl").write_text("".join((tmp_path / "truth.jsonl").open().readlines()[:5]))
    _, told = rsc("data", "review", "posts", "--truth", "short.jsonl", expect=2)
    assert "has 5 records, the source of posts had 200" in told


def test_expire_destroys_proves_and_says_so(rsc: Rsc, posts: Path) -> None:
    rsc("data", "import", "posts.jsonl")
    ended, _ = rsc("data", "expire", "posts", "--json")
    assert ended["proof"]["opened_before"] == 1
    assert ended["proof"]["opened_after"] == 0
    assert "expired: key destroyed" in rsc("data", "ls")[0]
    rsc("data", "review", "posts", expect=3)
    again, _ = rsc("data", "import", "posts.jsonl", "--json")
    rsc("data", "review", again["data"])


def test_a_person_is_traced_and_erased(rsc: Rsc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": n, "text": f"write to user{n % 5}@example.org"} for n in range(50)]
    (tmp_path / "mail.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rsc("data", "import", "mail.jsonl")
    found, _ = rsc("data", "trace", "--subject", "User3@example.org", "--json")
    assert sorted(hit["record"] for hit in found["hits"]) == list(range(3, 50, 5))
    monkeypatch.setattr("sys.stdin", io.StringIO("user3@example.org\n"))
    told, _ = rsc("data", "erase", "--subject", "-")
    assert "mail: 10 records removed" in told
    assert "a second search finds 0 findings" in told
    assert rsc("data", "trace", "--subject", "user3@example.org", "--json")[0]["hits"] == []
    listed, _ = rsc("data", "ls", "--json")
    assert sum(listed["data"][0]["samples"][split] for split in ("train", "validation")) == 40
    rsc("data", "erase", "--subject", " ", expect=2)


def test_rows_that_stand_out_are_not_approved(rsc: Rsc, tmp_path: Path) -> None:
    rows = [{"text": f"note {n}", "town": "a" if n < 19 else "b"} for n in range(20)]
    (tmp_path / "notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "policy.toml").write_text(
        'single_person = true\nrequired_approvers = 1\n[tables]\nquasi_identifiers = ["town"]\nk = 3\n'
    )
    rsc("data", "import", "notes.jsonl", "--policy", "policy.toml")
    review, _ = rsc("data", "review", "notes", "--json")
    assert (review["tables"]["rows"], review["tables"]["rows_below_k"]) == (20, 1)
    assert "1 rows stand out" in rsc("data", "review", "notes")[0]
    _, told = rsc("data", "approve", "notes", expect=3)
    assert "stand out" in told


def test_ctrl_c_ends_with_130_and_publishes_nothing(rsc: Rsc, tmp_path: Path) -> None:
    (tmp_path / "posts.jsonl").write_text(
        "".join(json.dumps({"text": f"post {n}"}) + "\n" for n in range(100_000))
    )
    command = [
        sys.executable,
        "-m",
        "rsc",
        "data",
        "import",
        "posts.jsonl",
        "--processes",
        "2",
        "part_bytes=4096",
    ]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in the background
    )
    while process.poll() is None and not any(tmp_path.glob("home/data/posts/.staging-*/progress.json")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130, told
    assert "nothing was published" in told
    assert "Traceback" not in told
    assert rsc("data", "ls", "--json")[0]["data"] == []


def test_no_torch() -> None:
    code = "import sys, rsc.cli.data.verbs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_review_lists_what_was_not_taken(rsc: Rsc, tmp_path: Path) -> None:
    lines = [f'{{"text": "post {number}"}}' for number in range(110)]
    (tmp_path / "posts.jsonl").write_text("\n".join([*lines, "{", *["[]"] * 120]))
    rsc("data", "import", "posts.jsonl")
    review, _ = rsc("data", "review", "posts", "--json")
    assert review["quarantine"]["records"] == 121
    assert [item["place"] for item in review["quarantine"]["first"]] == [
        f"line {number}" for number in range(111, 211)
    ]
    text, _ = rsc("data", "review", "posts")
    assert "  line 111: not JSON: Expecting property name enclosed in double quotes at column 2\n" in text
    assert "  and 21 more\n" in text


def test_a_file_is_added_to_a_data_set_as_a_version_to_review(rsc: Rsc, posts: Path, tmp_path: Path) -> None:
    rsc("data", "import", "posts.jsonl")
    rsc("data", "approve", "posts", "--note", "looked at it")
    (tmp_path / "more.jsonl").write_text(
        '{"id": 900, "text": "mail mia@example.org"}\n{"id": 901, "text": "x"}\n'
    )
    imported, told = rsc("data", "import", "more.jsonl", "--name", "posts", "--append", "--json")
    assert (imported["version"], imported["records"], imported["appended_to"]) == (2, 2, 1)
    assert sum(imported["splits"].values()) == 202
    assert "added to version 1, whose records are counted there" in told
    shown, _ = rsc("data", "show", "posts", "--json")
    assert shown["state"] == "in_review"
    traced, _ = rsc("data", "trace", "--subject", "mia@example.org", "--json")
    assert {hit["version"] for hit in traced["hits"]} == {2}
    _, told = rsc("data", "import", "more.jsonl", "--name", "other", "--append", expect=2)
    assert "there is no data set other here" in told
    checked, _ = rsc("verify", "--json")
    assert checked["is_kept"]
