"""Who signs: an Ed25519 key pair per reviewer, kept in a folder of 0600 files.

    <folder>/<name>.key   private key, PKCS 8 PEM, optionally under a passphrase
    <folder>/<name>.pub   public key, 64 hexadecimal digits

Whether a key counts is not said here: it has to be enrolled (enrolment.py).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rsc.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


@dataclass(frozen=True, slots=True)
class Identity:
    """A reviewer who can sign. The private key does not show in `repr`."""

    name: str
    public_key: str
    _private_key: Ed25519PrivateKey

    def sign(self, message: bytes) -> str:
        return self._private_key.sign(message).hex()

    def sealed(self, passphrase: bytes) -> bytes:
        """The private key as PKCS 8 PEM under a passphrase."""
        protection = serialization.BestAvailableEncryption(passphrase)
        return self._private_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
        )

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, {self.public_key[:16]}...)"


def create_identity(folder: Path, *, name: str, passphrase: bytes | None = None) -> Identity:
    """Make and store a key pair. Raises ConfigError if the name is taken or unfit for a file name."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be a reviewer's name", hint="use letters, digits and . _ @ -")
    private_key = Ed25519PrivateKey.generate()
    protection = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    pem = private_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(folder / f"{name}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(
            f"reviewer {name!r} has a key already", hint=f"use it, or remove {folder / name}.key"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    identity = Identity(name, _public_hex(private_key), private_key)
    public = folder / f"{name}.pub"
    public.write_text(identity.public_key + "\n")
    public.chmod(0o644)  # whatever the umask: who can write it decides who may approve
    return identity


def is_protected(folder: Path, *, name: str) -> bool:
    """Whether the private key is under a passphrase. Raises ConfigError when there is none."""
    try:
        return b"ENCRYPTED" in (folder / f"{name}.key").read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read the key of reviewer {name!r} in {folder}: {error.strerror}",
            hint=f"known: {_names(folder)}",
        ) from None


def protect_identity(folder: Path, *, name: str, passphrase: bytes) -> None:
    """Put a key that has none under a passphrase; the file is replaced as a whole."""
    identity = load_identity(folder, name=name)
    sealed = identity.sealed(passphrase)
    staged = folder / f".{name}.key.{os.getpid()}"
    with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(sealed)
        file.flush()
        os.fsync(file.fileno())
    staged.rename(folder / f"{name}.key")


def load_identity(folder: Path, *, name: str, passphrase: bytes | None = None) -> Identity:
    """Raises ConfigError when there is no such key, it is readable by others, the passphrase is wrong, or
    the public key of this name is another one: what it signed would count for nothing."""
    path = folder / f"{name}.key"
    if not path.is_file():
        raise ConfigError(
            f"there is no key for reviewer {name!r} in {folder}", hint=f"known: {_names(folder)}"
        )
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path} is readable by others", hint=f"chmod 600 {path}")
    try:
        private_key = serialization.load_pem_private_key(path.read_bytes(), password=passphrase)
    except (ValueError, TypeError):
        raise ConfigError(
            f"{path} does not open", hint="is it the right passphrase? (--passphrase-file FILE)"
        ) from None
    if not isinstance(private_key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 key")
    identity = Identity(name, _public_hex(private_key), private_key)
    if known_identities(folder).get(identity.public_key) != name:
        raise ConfigError(
            f"{path} does not belong to the public key in {name}.pub",
            hint="restore both from one copy; or remove both, make a new key, and approve again",
        )
    return identity


def known_identities(folder: Path) -> dict[str, str]:
    """Public key -> name of everybody in the folder."""
    return {path.read_text().strip(): path.stem for path in sorted(folder.glob("*.pub"))}


def _public_hex(private_key: Ed25519PrivateKey) -> str:
    return private_key.public_key().public_bytes_raw().hex()


def _names(folder: Path) -> str:
    return ", ".join(known_identities(folder).values()) or "nobody"
