"""Hand a checkpoint to a witness on the network: C2SP tlog-witness, `add-checkpoint`.

    POST <url>/add-checkpoint
        old 300                  the size that the witness has seen last
        <hash in base64>         consistency proof, one hash a line
        <empty line>
        <signed checkpoint>
    200 and a cosignature line | 409 and the size that the witness has seen

The witness sees origins, sizes and hashes, nothing of the records. Its cosignature (C2SP
tlog-cosignature, `cosignature/v1`) says that it saw this checkpoint at a time and none that contradicts it.
"""

from __future__ import annotations

import base64
import struct
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime

from rsc.audit.disk import LogDisk
from rsc.audit.note import TreeHead, Verifier, parse_checkpoint, split_note
from rsc.audit.proof import consistency_proof
from rsc.errors import ConfigError, IntegrityError, ResourceError

COSIGNATURE = b"\x04"  # signed-note signature type: timestamped Ed25519 cosignature
_TIMEOUT_S = 20.0
_CONFLICT = 409


@dataclass(frozen=True)
class Cosigned:
    """A checkpoint with the witness's signature line under it, and when it saw it."""

    note: bytes
    seen: datetime


def send_checkpoint(disk: LogDisk, note: bytes, *, url: str, witness: Verifier) -> Cosigned:
    """Offer the published checkpoint, with a proof from what the witness knows to it.

    Raises ResourceError when it does not answer, IntegrityError when it refuses or its cosignature is not
    valid.
    """
    checkpoint = parse_checkpoint(note)
    status, answer = _post(url, _body(disk, checkpoint, note, old_size=checkpoint.size))
    if status == _CONFLICT:
        old_size = _known_size(answer, checkpoint)
        status, answer = _post(url, _body(disk, checkpoint, note, old_size=old_size))
    if status != 200:
        raise IntegrityError(
            f"the witness refused the checkpoint at {checkpoint.size} ({status}): {answer[:200]!r}",
            hint="ask whoever runs the witness; it may not know this log's key, or has seen another log",
            outcome="frame",
        )
    return _cosigned(note, answer, witness=witness)


def cosignature_message(checkpoint: TreeHead, *, seen: int) -> bytes:
    """What a witness signs: a header with the time, then the checkpoint's text."""
    return f"cosignature/v1\ntime {seen}\n".encode() + checkpoint.text()


def _body(disk: LogDisk, checkpoint: TreeHead, note: bytes, *, old_size: int) -> bytes:
    proof = consistency_proof(disk, old_size=old_size, size=checkpoint.size)
    lines = [f"old {old_size}", *(base64.b64encode(node).decode() for node in proof), "", ""]
    return "\n".join(lines).encode() + note


def _known_size(answer: bytes, checkpoint: TreeHead) -> int:
    text = answer.decode("ascii", "replace").strip()
    if not text.isdigit() or int(text) > checkpoint.size:
        raise IntegrityError(
            f"the witness has seen {text[:40] or 'nothing'} records, this log has {checkpoint.size}",
            hint="the log was cut back since the witness saw it",
            outcome="truncated",
        )
    return int(text)


def _post(url: str, body: bytes) -> tuple[int, bytes]:
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"{url!r} is not the address of a witness", hint="https://HOST/PATH")
    request = urllib.request.Request(f"{url.rstrip('/')}/add-checkpoint", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        raise ResourceError(f"the witness at {url} does not answer: {error}") from None


def _cosigned(note: bytes, answer: bytes, *, witness: Verifier) -> Cosigned:
    """Check the signature lines of the answer against the witness's key."""
    checkpoint = parse_checkpoint(note)
    _, signatures = split_note(b"\n\n" + answer)
    for name, signature in signatures:
        if name != witness.name or signature[:4] != witness.key_hash_of(COSIGNATURE):
            continue
        (seen,) = struct.unpack(">Q", signature[4:12])
        if witness.is_valid(signature[12:], text=cosignature_message(checkpoint, seen=seen)):
            return Cosigned(note + answer, datetime.fromtimestamp(seen, UTC))
    raise IntegrityError(f"the answer holds no valid cosignature of {witness.name}", outcome="header")
