"""A source all the way into the store and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsc.audit.log import AuditLog
from rsc.clock import SystemClock
from rsc.config import Workspace
from rsc.errors import ConfigError, DataError, GateRefused, KeyUnavailable, ReviewRejected, RscError
from rsc.ingest.importer import import_columns, import_source
from rsc.keys.envelope import data_key_context, open_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.review.policy import Policy, default_policy, policy_to_toml
from rsc.store.dataset import Dataset, list_datasets

from .bringing import POLICY, bring_in, posts, stored


def test_what_was_found_is_redacted_and_told(workspace: Workspace, tmp_path: Path) -> None:
    result = bring_in(workspace, posts(tmp_path / "posts.jsonl"))
    assert (result.num_read, sum(result.splits.values())) == (200, 200)
    assert result.report.by_type() == {"email": 67}
    rows = {split: stored(workspace, split) for split in ("train", "validation")}
    assert sorted(row["id"] for split in rows.values() for row in split) == list(range(200))
    assert 5 < len(rows["validation"]) < 50
    findings = stored(workspace, "findings")
    assert len(findings) == 67
    for found in findings:
        row = rows[found["split"]][found["sample"]]
        assert row["id"] == found["record"]
        assert row["text"][found["redacted_start"] : found["redacted_end"]] == "[EMAIL]"
        assert row["text"][: found["redacted_start"]] == f"post {row['id']}: write to "
    subjects = {found["subject"] for found in findings}
    assert len(subjects) == 7


def test_facts_and_audit_hold_no_text(workspace: Workspace, tmp_path: Path) -> None:
    result = bring_in(workspace, posts(tmp_path / "posts.jsonl"))
    dataset = Dataset.open(workspace.data, name="posts")
    assert dataset.root_hash == result.ref.root_hash
    assert dataset.facts["author"] == "ada"
    assert dataset.facts["source"] == {
        "kind": "jsonl", "name": "posts.jsonl", "num_files": 1, "size_bytes": 8458,
    }  # fmt: skip
    assert dataset.verify().is_good
    entries = list(AuditLog.open(workspace.audit, clock=SystemClock()).entries())
    assert [(entry["kind"], entry["data"], entry["findings"]) for entry in entries] == [
        ("import", "posts", 67)
    ]


def test_no_plaintext_rests_anywhere(workspace: Workspace, tmp_path: Path) -> None:
    bring_in(workspace, posts(tmp_path / "posts.jsonl"))
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert len(files) > 5
    needles = (b"write to", b"example.org", b"post 17")
    assert [path for path in files if any(needle in path.read_bytes() for needle in needles)] == []


@pytest.mark.parametrize(
    ("of_workspace", "policy", "suite"),
    [
        ("aes-256-gcm", "auto", 1),
        ("aegis-256", "auto", 2),
        ("aegis-256", "fips", 1),
        ("aes-256-gcm", "aegis-256", 2),
    ],
)
def test_the_policy_s_cipher_goes_before_the_workspace_s(
    workspace: Workspace, tmp_path: Path, of_workspace: str, policy: str, suite: int
) -> None:
    (workspace.root / "config.toml").write_text(f"[store]\ncipher = '{of_workspace}'\n")
    pinned = default_policy(single_person=True).model_copy(update={"cipher": policy})
    bring_in(workspace, posts(tmp_path / "posts.jsonl", 30), policy=policy_to_toml(pinned), holdout=0)
    headers = {path.read_bytes()[8:12] for path in workspace.data.rglob("*.rsc")}
    assert headers == {bytes([1, 0, suite, 0])}
    assert Dataset.open(workspace.data, name="posts").verify().is_good
    assert sorted(row["id"] for row in stored(workspace, "train")) == list(range(30))


def test_bad_records_are_kept_encrypted(workspace: Workspace, tmp_path: Path) -> None:
    path = posts(tmp_path / "posts.jsonl", 20)
    path.write_text(path.read_text() + '{"id": 20, "text": "cut off\n')
    result = bring_in(workspace, path)
    assert sum(result.bad.values()) == 1
    assert result.bad_places == ("line 21",)
    assert stored(workspace, "quarantine")[0]["raw"] == b'{"id": 20, "text": "cut off'
    assert Dataset.open(workspace.data, name="posts").facts["records"] == {
        "read": 21, "stored": 20, "dropped": 0, "quarantined": 1, "left_out": 0,
    }  # fmt: skip


def test_drop_and_reject(workspace: Workspace, tmp_path: Path) -> None:
    path = posts(tmp_path / "posts.jsonl", 30)
    drop = Policy(single_person=True, required_approvers=1, actions={"email": "drop"})
    result = bring_in(workspace, path, policy=policy_to_toml(drop), holdout=0)
    assert result.splits == {"train": 20}
    assert {row["split"] for row in stored(workspace, "findings")} == {""}
    reject = Policy(single_person=True, required_approvers=1, actions={"email": "reject"})
    with pytest.raises(ReviewRejected, match='record 0, field "text": found email'):
        bring_in(workspace, path, policy=policy_to_toml(reject))
    assert list_datasets(workspace.data) == [("posts", [1])]


def test_duplicates_are_held_out_together(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_text("".join(json.dumps({"n": n, "text": f"text {n % 50}"}) + "\n" for n in range(1000)))
    bring_in(workspace, path, holdout=0.3)
    train = {row["text"] for row in stored(workspace, "train")}
    validation = {row["text"] for row in stored(workspace, "validation")}
    assert not train & validation
    assert 5 <= len(validation) <= 25


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_do_not_change_what_is_stored(workspace: Workspace, tmp_path: Path, processes: int) -> None:
    path = posts(tmp_path / "posts.jsonl", 2000)
    splits = ("train", "validation", "findings", "quarantine")
    first = bring_in(workspace, path, name="one", part_bytes=4096)
    second = bring_in(workspace, path, name="one", part_bytes=4096, num_processes=processes)
    assert (first.report, first.splits) == (second.report, second.splits)
    assert second.ref.version == 2
    two = {split: stored(workspace, split, name="one") for split in splits}
    Dataset.open(workspace.data, name="one", version=2).delete()
    one = {split: stored(workspace, split, name="one") for split in splits}
    for row in (*one["findings"], *two["findings"]):
        del row["subject"]  # keyed by each version's own key
    assert one == two


def test_a_source_that_changes_is_refused(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = posts(tmp_path / "posts.jsonl", 50)

    class Touching:
        def update(self, **_: int) -> None:
            path.write_text(path.read_text() + '{"id": 99, "text": "late"}\n')

        def finish(self) -> None:
            pass

    with pytest.raises(DataError, match="changed while it was being imported; nothing was committed"):
        bring_in(workspace, path, progress=Touching())
    assert list_datasets(workspace.data) == []
    assert [child.name for child in (workspace.data / "posts").iterdir()] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "does not look like JSON lines"),
        (b'{"text": "caf\xe9"}\n', "line 1 is not UTF-8"),
    ],
)
def test_hopeless_sources(workspace: Workspace, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "posts.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        bring_in(workspace, path)


def test_missing_file_names_the_nearest(workspace: Workspace, tmp_path: Path) -> None:
    posts(tmp_path / "posts.jsonl", 2)
    with pytest.raises(DataError, match="does not exist") as told:
        bring_in(workspace, tmp_path / "post.jsonl")
    assert "posts.jsonl" in str(told.value)


def test_a_name_with_a_slash(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a/b"):
        bring_in(workspace, posts(tmp_path / "posts.jsonl", 2), name="a/b")


def test_without_scan_a_safeguard_is_needed(workspace: Workspace, tmp_path: Path) -> None:
    path = posts(tmp_path / "posts.jsonl", 10)
    with pytest.raises(GateRefused, match="names no safeguard"):
        bring_in(workspace, path, scan=False)
    policy = policy_to_toml(Policy(single_person=True, required_approvers=1, safeguard="made up by a test"))
    result = bring_in(workspace, path, scan=False, policy=policy, holdout=0)
    assert "user0@example.org" in stored(workspace, "train")[0]["text"]
    assert any("NOTHING was scanned" in note for note in result.report.notes)


@pytest.mark.slow
def test_python_docs(workspace: Workspace) -> None:
    result = bring_in(workspace, "python-docs", name="pydocs")
    assert result.num_read > 3000
    origins = {row["origin"] for row in stored(workspace, "train", name="pydocs")}
    assert {"json.dumps", "pathlib.PurePath"} <= origins | {
        row["origin"] for row in stored(workspace, "validation", name="pydocs")
    }


def test_python_and_command_line_take_their_keys_from_the_configured_provider(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Vault first: nothing may fall back to a key in a file because the call did not name a provider."""
    token = tmp_path / "token"
    token.write_text("t")
    token.chmod(0o600)
    workspace.keys.mkdir(mode=0o700)
    settings = f'default = "vault"\n[vault]\nurl = "http://127.0.0.1:9"\ntoken_file = "{token}"\n'
    (workspace.keys / "providers.toml").write_text(settings)
    about = {"name": "posts", "workspace": workspace, "policy": POLICY, "author": "ada"}
    with pytest.raises(RscError, match="key service at"):
        import_source(posts(tmp_path / "posts.jsonl"), **about)
    with pytest.raises(RscError, match="key service at"):
        import_columns({"text": ["one"]}, **about)
    assert list_datasets(workspace.data) == []


def test_a_key_made_from_python_is_under_the_passphrase(workspace: Workspace, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    workspace.keys.mkdir(mode=0o700)
    (workspace.keys / "providers.toml").write_text(f'[local]\npassphrase_file = "{secret}"\n')
    import_columns({"text": ["one"]}, name="posts", workspace=workspace, policy=POLICY, author="ada")
    envelope = Dataset.open(workspace.data, name="posts").envelope()
    with pytest.raises(KeyUnavailable, match="sealed by a passphrase"):
        open_envelope(LocalKeyProvider(workspace.keys), envelope, context=data_key_context("posts"))
