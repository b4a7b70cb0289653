"""Signed notes and checkpoints: C2SP signed-note and tlog-checkpoint, with Ed25519.

A checkpoint is three lines (origin, tree size, root in base64), a blank line, and one signature line
per signer. Anybody with the verifier key (`name+hash+key`, one line of text) can check it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from rsc.errors import ConfigError, IntegrityError

_ED25519 = b"\x01"  # signed-note signature type: Ed25519 over the note text
_DASH = "\u2014"  # every signature line starts with an em dash and a space


@dataclass(frozen=True)
class Verifier:
    """Somebody's public key under a name without spaces or plus signs."""

    name: str
    public_key: bytes

    @property
    def key_hash(self) -> bytes:
        return self.key_hash_of(_ED25519)

    def key_hash_of(self, kind: bytes) -> bytes:
        """Four bytes that name the key in a signature line of that kind."""
        return hashlib.sha256(self.name.encode() + b"\n" + kind + self.public_key).digest()[:4]

    def to_text(self) -> str:
        """The `vkey` form of signed-note: one line that can be mailed, printed or compared by eye."""
        return f"{self.name}+{self.key_hash.hex()}+{_b64(_ED25519 + self.public_key)}"

    @classmethod
    def from_text(cls, text: str, *, kind: bytes = _ED25519) -> Verifier:
        """Raises ConfigError for text that is not an Ed25519 verifier key of that kind with its hash."""
        name, _, rest = text.strip().partition("+")
        key_hash, _, encoded = rest.partition("+")
        key = _unb64(encoded)
        verifier = cls(name=name, public_key=key[1:])
        if not name or key[:1] != kind or len(key) != 33 or verifier.key_hash_of(kind).hex() != key_hash:
            raise ConfigError(
                f"{text.strip()[:60]!r} is not a verifier key",
                hint="it is the line in the log's file log.vkey",
            )
        return verifier

    def is_valid(self, signature: bytes, *, text: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text)
        except InvalidSignature:
            return False
        return True


class Signer:
    """A name with its private key. Kept in a 0600 file; it signs log checkpoints and opens no data."""

    def __init__(self, name: str, *, private_key: Ed25519PrivateKey) -> None:
        self.verifier = Verifier(name=name, public_key=private_key.public_key().public_bytes_raw())
        self._private_key = private_key

    @classmethod
    def generate(cls, prefix: str) -> Signer:
        """A new key under the name `prefix/<8 hex of the public key>`: unique without naming the machine."""
        private_key = Ed25519PrivateKey.generate()
        return cls(
            f"{prefix}/{private_key.public_key().public_bytes_raw()[:4].hex()}", private_key=private_key
        )

    def to_text(self) -> str:
        return f"PRIVATE+KEY+{self.verifier.name}+{_b64(self._private_key.private_bytes_raw())}\n"

    @classmethod
    def from_text(cls, text: str) -> Signer:
        """Raises ConfigError for anything but what `to_text` wrote."""
        parts = text.strip().split("+", 3)
        seed = _unb64(parts[3]) if len(parts) == 4 and parts[:2] == ["PRIVATE", "KEY"] else b""
        if len(seed) != 32:
            raise ConfigError("the log's signing key file is damaged", hint="restore log.key from its backup")
        return cls(parts[2], private_key=Ed25519PrivateKey.from_private_bytes(seed))

    def sign_message(self, message: bytes) -> bytes:
        """A bare Ed25519 signature. The message must begin with a line that no note begins with."""
        return self._private_key.sign(message)

    def sign(self, text: bytes) -> bytes:
        """The signature line for `text`, which must end in a newline."""
        signature = self.verifier.key_hash + self._private_key.sign(text)
        return f"{_DASH} {self.verifier.name} {_b64(signature)}\n".encode()


@dataclass(frozen=True)
class TreeHead:
    """The state of a log at one moment: everything before `size` is fixed by `root`."""

    origin: str
    size: int
    root: bytes

    def text(self) -> bytes:
        return f"{self.origin}\n{self.size}\n{_b64(self.root)}\n".encode()

    def signed(self, signer: Signer) -> bytes:
        text = self.text()
        return text + b"\n" + signer.sign(text)


def open_checkpoint(note: bytes, *, verifier: Verifier) -> TreeHead:
    """Parse a signed checkpoint and check that `verifier` signed it.

    Raises IntegrityError (outcome `header`) when it is malformed or that signature is absent or wrong.
    """
    text, signatures = split_note(note)
    checkpoint = parse_checkpoint(note)
    if checkpoint.origin != verifier.name:
        raise IntegrityError(
            f"a checkpoint of {checkpoint.origin!r} was given where {verifier.name!r} is expected",
            outcome="header",
        )
    if not any(_is_by(verifier, name, signature, text) for name, signature in signatures):
        raise IntegrityError(
            f"checkpoint at size {checkpoint.size} is not signed by {verifier.name}", outcome="header"
        )
    return checkpoint


def parse_checkpoint(note: bytes) -> TreeHead:
    """The checkpoint in a signed note, signatures not looked at. Raises IntegrityError."""
    text, _ = split_note(note)
    lines = text.decode("utf-8", "replace").split("\n")
    if len(lines) == 4 and lines[1].isascii() and lines[1].isdigit():
        checkpoint = TreeHead(origin=lines[0], size=int(lines[1]), root=_unb64(lines[2]))
        if checkpoint.text() == text:
            return checkpoint
    raise IntegrityError("a checkpoint is not three lines of origin, size, root", outcome="header")


def split_note(note: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """(signed text, [(signer name, key hash + signature)]). Raises IntegrityError if it is no signed note."""
    text, blank, block = note.rpartition(b"\n\n")
    if not blank or not block.endswith(b"\n"):
        raise IntegrityError("a signed note needs a blank line and signature lines", outcome="header")
    return text + b"\n", list(_signature_lines(block))


def _signature_lines(block: bytes) -> Iterable[tuple[str, bytes]]:
    for line in block.decode("utf-8", "replace").split("\n")[:-1]:
        parts = line.split(" ")
        if len(parts) != 3 or parts[0] != _DASH:
            raise IntegrityError("a signature line is malformed", outcome="header")
        yield parts[1], _unb64(parts[2])


def _is_by(verifier: Verifier, name: str, signature: bytes, text: bytes) -> bool:
    is_ours = name == verifier.name and signature[:4] == verifier.key_hash
    return is_ours and verifier.is_valid(signature[4:], text=text)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str) -> bytes:
    """Decode strictly; what is not canonical base64 becomes the empty string, which no caller accepts."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return data if _b64(data) == text else b""
