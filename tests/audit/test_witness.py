"""A log that leaves the machine: copied, verified with the public key, held against a witness's memory."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path

import pytest

from rsc.audit.export import export_log, verify_folder
from rsc.audit.log import AuditLog
from rsc.audit.note import Signer
from rsc.audit.witness import Witness
from rsc.errors import ConfigError, IntegrityError


@pytest.fixture
def log(tmp_path: Path, clock) -> AuditLog:
    log = AuditLog.open(tmp_path / "log", clock=clock)
    log.append_many([{"kind": "k", "n": n} for n in range(300)])
    return log


def test_an_exported_log_is_verified_with_the_public_key_alone(log, tmp_path):
    export_log(log, source=tmp_path / "log", target=tmp_path / "copy")
    key = (tmp_path / "copy/log.vkey").read_text()
    report = verify_folder(tmp_path / "copy", key=key)
    assert (report.is_intact, report.size) == (True, 300)
    names = {path.name for path in (tmp_path / "copy").rglob("*")}
    assert not names & {"log.key", "tail", "lock"}
    with pytest.raises(ConfigError, match="exists"):
        export_log(log, source=tmp_path / "log", target=tmp_path / "copy")


def test_an_export_under_another_key_is_not_accepted(log, tmp_path):
    export_log(log, source=tmp_path / "log", target=tmp_path / "copy")
    stranger = Signer.generate("openrsc").verifier.to_text()
    report = verify_folder(tmp_path / "copy", key=stranger)
    assert [problem.where for problem in report.problems] == ["checkpoint"]


def test_a_changed_record_of_an_export_is_reported(log, tmp_path):
    export_log(log, source=tmp_path / "log", target=tmp_path / "copy")
    bundle = tmp_path / "copy/tile/entries/001.p/44"
    bundle.write_bytes(bundle.read_bytes().replace(b'"n":270', b'"n":999'))
    report = verify_folder(tmp_path / "copy", key=log.verifier.to_text())
    assert [problem.where for problem in report.problems] == ["record 270"]


def test_a_missing_tile_is_reported(log, tmp_path):
    export_log(log, source=tmp_path / "log", target=tmp_path / "copy")
    (tmp_path / "copy/tile/0/000").unlink()
    report = verify_folder(tmp_path / "copy", key=log.verifier.to_text())
    assert report.problems[0].where == "records 0-255"


def test_a_folder_that_is_no_log_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no checkpoint"):
        verify_folder(tmp_path, key="x+y")


def test_a_witness_accepts_a_growing_log_and_verification_passes_through_all_it_saw(log, tmp_path):
    witness = Witness(tmp_path / "witness.jsonl")
    for n in range(5):
        witness.add(log.checkpoint(), verifier=log.verifier)
        log.append("more", n=n)
    assert sorted(witness.known()) == [300, 301, 302, 303, 304]
    assert log.verify(known=witness.known()).is_intact


def test_a_log_that_was_cut_back_is_seen_by_the_witness_only(log, tmp_path, clock):
    earlier = tmp_path / "earlier"
    log.checkpoint()
    shutil.copytree(tmp_path / "log", earlier)
    log.append("release that somebody wants forgotten")
    witness = Witness(tmp_path / "witness.jsonl")
    witness.add(log.checkpoint(), verifier=log.verifier)
    cut = AuditLog.open(earlier, clock=clock)
    assert cut.verify().is_intact
    report = cut.verify(known=witness.known())
    assert [(problem.where, problem.what) for problem in report.problems] == [
        ("record 300", "the witness has seen these records; they are gone")
    ]
    with pytest.raises(IntegrityError, match="has seen 301"):
        witness.add(cut.checkpoint(), verifier=cut.verifier)


def test_a_rewritten_log_under_the_same_key_is_seen_by_the_witness_only(log, tmp_path, clock):
    """Whoever has the signing key can sign another history; the witness remembers the first."""
    witness = Witness(tmp_path / "witness.jsonl")
    witness.add(log.checkpoint(), verifier=log.verifier)
    forged = tmp_path / "forged"
    forged.mkdir()
    for name in ("log.key", "log.vkey"):
        shutil.copy(tmp_path / "log" / name, forged / name)
    (forged / "tail").touch()
    other = AuditLog.open(forged, clock=clock)
    other.append_many([{"kind": "k", "n": n + (n == 7)} for n in range(301)])
    assert other.verify().is_intact
    report = other.verify(known=witness.known())
    assert "differs from the witnessed checkpoint at 300" in report.problems[0].what
    other.checkpoint()
    smaller = AuditLog.open(forged, clock=clock)
    assert smaller.verifier == log.verifier


def test_two_logs_of_one_size_are_refused_by_the_witness(log, tmp_path, clock):
    witness = Witness(tmp_path / "witness.jsonl")
    witness.add(log.checkpoint(), verifier=log.verifier)
    forged = tmp_path / "forged"
    forged.mkdir()
    for name in ("log.key", "log.vkey"):
        shutil.copy(tmp_path / "log" / name, forged / name)
    (forged / "tail").touch()
    other = AuditLog.open(forged, clock=clock)
    other.append_many([{"kind": "other", "n": n} for n in range(300)])
    with pytest.raises(IntegrityError, match="two different logs of 300 records"):
        witness.add(other.checkpoint(), verifier=other.verifier)


def test_a_damaged_witness_file_is_said(tmp_path):
    (tmp_path / "w").write_text(json.dumps({"size": 1}) + "\n")
    with pytest.raises(IntegrityError, match="not a witness file"):
        Witness(tmp_path / "w").known()


def test_files_of_the_log_are_private(log, tmp_path):
    log.checkpoint()
    for path in [tmp_path / "log", *filter(Path.is_file, (tmp_path / "log").rglob("*"))]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
