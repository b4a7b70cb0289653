from __future__ import annotations

import base64
import hashlib
import os
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from crash_disk import CrashDisk
from hypothesis import given, settings
from hypothesis import strategies as st
from test_log import reference_root

from rsc.audit.log import AuditLog
from rsc.audit.merkle import leaf_hash
from rsc.audit.note import Signer, Verifier, open_checkpoint, parse_checkpoint
from rsc.audit.proof import check_consistency, consistency_proof, range_root
from rsc.audit.remote import COSIGNATURE, cosignature_message, send_checkpoint
from rsc.clock import SystemClock
from rsc.errors import ConfigError, IntegrityError, ResourceError

SIZE = 700


@pytest.fixture(scope="module")
def published():
    """A published log of two levels of tiles and its leaf hashes."""
    disk = CrashDisk()
    log = AuditLog.open_disk(disk, clock=SystemClock())
    log.append_many([{"kind": "k", "n": n, "time": ""} for n in range(SIZE)])
    log.checkpoint()
    return disk, [
        leaf_hash(b'{"time":"","kind":"k","n":%d,"uid":%d}' % (n, os.getuid())) for n in range(SIZE)
    ]


def test_a_range_of_leaves_has_the_root_of_rfc_6962(published):
    disk, leaves = published
    for first, last in (
        (0, 1),
        (0, SIZE),
        (512, 700),
        (256, 512),
        (696, 700),
        (699, 700),
        (0, 256),
        (0, 511),
    ):
        assert range_root(disk, first=first, last=last, size=SIZE) == reference_root(leaves[first:last])


@given(st.integers(min_value=0, max_value=SIZE))
@settings(max_examples=150, deadline=None)
def test_a_proof_from_any_earlier_size_is_accepted_and_a_wrong_one_is_not(published, old_size):
    disk, leaves = published
    old_root, root = reference_root(leaves[:old_size]), reference_root(leaves)
    proof = consistency_proof(disk, old_size=old_size, size=SIZE)
    facts = {"old_size": old_size, "old_root": old_root, "size": SIZE, "root": root}
    check_consistency(proof, **facts)
    other = hashlib.sha256(b"other").digest()
    wrong = [{**facts, "root": other}] if old_size > 0 else []
    wrong += [{**facts, "old_root": other}] if old_size else []
    for facts_then in wrong:
        with pytest.raises(IntegrityError):
            check_consistency(proof, **facts_then)
    for changed in ([*proof, other], proof[:-1], [other, *proof[1:]]):
        if changed != proof:
            with pytest.raises(IntegrityError):
                check_consistency(changed, **facts)


class WitnessServer(ThreadingHTTPServer):
    """A witness of one log, by the letter of tlog-witness: proof first, then the cosignature."""

    def __init__(self, log_key: Verifier) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.log_key = log_key
        self.signer = Signer.generate("witness.example")
        self.size, self.root = 0, b""
        self.lies = False
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/logs"

    @property
    def vkey(self) -> str:
        verifier = self.signer.verifier
        key = base64.b64encode(COSIGNATURE + verifier.public_key).decode()
        return f"{verifier.name}+{verifier.key_hash_of(COSIGNATURE).hex()}+{key}"


class _Handler(BaseHTTPRequestHandler):
    server: WitnessServer

    def log_message(self, *arguments) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head, _, note = body.partition(b"\n\n")
        lines = head.decode().split("\n")
        checkpoint = open_checkpoint(note, verifier=self.server.log_key)
        if lines[0] != f"old {self.server.size}":
            return self._answer(409, f"{self.server.size}\n".encode())
        try:
            check_consistency(
                [base64.b64decode(line) for line in lines[1:]],
                old_size=self.server.size,
                old_root=self.server.root,
                size=checkpoint.size,
                root=checkpoint.root,
            )
        except IntegrityError:
            return self._answer(422, b"the proof does not fit")
        self.server.size, self.server.root = checkpoint.size, checkpoint.root
        seen = int(time.time())
        message = cosignature_message(checkpoint, seen=seen + self.server.lies)
        verifier = self.server.signer.verifier
        signature = verifier.key_hash_of(COSIGNATURE) + struct.pack(">Q", seen)
        signature += self.server.signer.sign_message(message)
        return self._answer(200, f"\u2014 {verifier.name} {base64.b64encode(signature).decode()}\n".encode())

    def _answer(self, status: int, body: bytes) -> None:
        assert self.path == "/logs/add-checkpoint"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def log(tmp_path, clock) -> AuditLog:
    return AuditLog.open(tmp_path / "log", clock=clock)


@pytest.fixture
def witness(log):
    server = WitnessServer(log.verifier)
    yield server
    server.shutdown()
    server.server_close()


def offer(log: AuditLog, witness: WitnessServer):
    key = Verifier.from_text(witness.vkey, kind=COSIGNATURE)
    return send_checkpoint(log._disk, log.checkpoint(), url=witness.url, witness=key)


def test_a_witness_follows_the_log_by_proofs(log, witness):
    for count in (1, 5, 300, 0, 2):
        if count:
            log.append_many([{"kind": "k"}] * count)
        cosigned = offer(log, witness)
        assert witness.size == parse_checkpoint(cosigned.note).size
        open_checkpoint(cosigned.note, verifier=log.verifier)
    assert witness.size == 308


def test_a_log_that_was_cut_back_is_not_cosigned(log, witness):
    log.append("k")
    witness.size = 99
    with pytest.raises(IntegrityError, match="has seen 99 records, this log has 1"):
        offer(log, witness)


def test_a_log_that_was_rewritten_is_not_cosigned(log, witness):
    log.append_many([{"kind": "k"}] * 5)
    witness.size, witness.root = 3, bytes(32)
    with pytest.raises(IntegrityError, match=r"refused the checkpoint at 5 \(422\)"):
        offer(log, witness)


def test_a_cosignature_that_is_not_valid_is_refused(log, witness):
    log.append("k")
    witness.lies = True
    with pytest.raises(IntegrityError, match="no valid cosignature"):
        offer(log, witness)


def test_a_witness_that_is_away_is_said(log):
    log.append("k")
    stranger = Signer.generate("witness.example").verifier
    with pytest.raises(ResourceError, match="does not answer"):
        send_checkpoint(log._disk, log.checkpoint(), url="http://127.0.0.1:1", witness=stranger)
    with pytest.raises(ConfigError, match="not the address"):
        send_checkpoint(log._disk, log.checkpoint(), url="file:///etc/passwd", witness=stranger)
