"""Key-encryption keys in a folder: the provider for a laptop, a test, or one trusted node.

    <folder>/<kek id>.kek         0600; JSON with the KEK, sealed under a passphrase where one is set
    <folder>/<kek id>.destroyed   what is left of a destroyed one: its id, period and dates
    <folder>/kdf.json             salt and cost of the passphrase's scrypt (RFC 7914)

A data key is wrapped with AES-256-GCM under HKDF(KEK, random salt): every wrap has its own AES key, so
the fixed nonce never repeats under one key (the uniqueness rule of NIST SP 800-38D section 8).

Not covered: without a passphrase, whoever reads the folder has the keys, backups of the folder included;
on flash and copy-on-write file systems the overwrite in `destroy` may leave old blocks behind (a
passphrase or a hardware token protects those); the dates in a key file, which whoever writes the folder can
change (when data has to end stands in its policy).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from rsc.clock import Clock, SystemClock, parse_timestamp, timestamp
from rsc.durable import create_file, sync_folder
from rsc.errors import KeyUnavailable
from rsc.keys.envelope import KekInfo, check_kek_id
from rsc.keys.providers.wiping import wipe
from rsc.keys.secret import KEY_BYTES, SecretKey

_SALT_BYTES = 32
_TAG_BYTES = 16
_SECRET = re.compile(rb'"secret": "([A-Za-z0-9+/=]*)"')
_ZERO_NONCE = bytes(12)  # one AES key per wrap, see above
_SCRYPT_LOG_N = 17  # 128 MiB and about 0.3 s; OWASP Password Storage Cheat Sheet, scrypt
_SCRYPT_R, _SCRYPT_P = 8, 1


def returned_keys(folder: Path) -> list[str]:
    """Ids of keys whose file lies beside the mark that they were destroyed: of a backup that was copied back,
    or of a destruction that was cut short. They open nothing here, and would elsewhere."""
    marks = [path for path in sorted(folder.rglob("*.destroyed")) if path.is_file()]
    keys = [mark.with_suffix(".kek") for mark in marks]
    return [
        key.with_suffix("").relative_to(folder).as_posix()
        for key in keys
        if key.is_symlink() or key.is_file()
    ]


class LocalKeyProvider:
    """See the module. `passphrase` is read at first use and stays the caller's to wipe."""

    name = "local"

    def __init__(
        self,
        folder: Path,
        *,
        passphrase: bytearray | None = None,
        clock: Clock | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
        scrypt_log_n: int = _SCRYPT_LOG_N,
    ) -> None:
        self._folder = folder
        self._passphrase = passphrase
        self._clock = clock or SystemClock()
        self._random_bytes = random_bytes
        self._scrypt_log_n = scrypt_log_n

    @property
    def is_immediate(self) -> bool:
        return self._passphrase is None  # else scrypt runs at each use

    def create(self, kek_id: str, *, period: str, expires: datetime | None = None) -> KekInfo:
        """Make the KEK durable before returning, or return the existing one unchanged."""
        if self._record_path(kek_id).exists() or self._tombstone_path(kek_id).exists():
            return _info(self._read_active(kek_id)[0])
        with SecretKey.generate() as kek:
            record: dict[str, Any] = {
                "format": "rsc-kek-1",
                "kek_id": kek_id,
                "period": period,
                "created": timestamp(self._clock.now()),
                "expires": None if expires is None else timestamp(expires),
                "protection": "none" if self._passphrase is None else "scrypt",
            }
            sealed = self._seal(kek, kek_id=kek_id)
        _write_new(self._record_path(kek_id), record, sealed=sealed)
        return _info(record)

    def wrap(self, kek_id: str, key: SecretKey, *, context: bytes) -> bytes:
        """salt (32) | AES-256-GCM ciphertext (32) | tag (16)."""
        with self._open_kek(kek_id) as kek:
            return _encrypt(
                kek, key.view, context=_bind(kek_id, context), salt=self._random_bytes(_SALT_BYTES)
            )

    def unwrap(self, kek_id: str, wrapped: bytes, *, context: bytes) -> SecretKey:
        with self._open_kek(kek_id) as kek:
            return _decrypt(kek, wrapped, context=_bind(kek_id, context), what=f"data key under {kek_id}")

    def destroy(self, kek_id: str) -> KekInfo:
        """Tombstone first (from then on the key is refused), overwrite, unlink; each step is synced."""
        record_path, tombstone_path = self._record_path(kek_id), self._tombstone_path(kek_id)
        if not tombstone_path.exists():
            record = _read(record_path, kek_id=kek_id)
            kept = {name: record[name] for name in ("format", "kek_id", "period", "created", "expires")}
            _write_new(tombstone_path, {**kept, "destroyed": timestamp(self._clock.now())})
        if record_path.exists():
            _overwrite(record_path, random_bytes=self._random_bytes)
            record_path.unlink()
            sync_folder(record_path.parent)
        return _info(_read(tombstone_path, kek_id=kek_id))

    def list(self) -> list[KekInfo]:
        """Every KEK ever made here, by id; destroyed ones with their date."""
        found = [*sorted(self._folder.rglob("*.kek")), *sorted(self._folder.rglob("*.destroyed"))]
        paths = {path.with_suffix(""): path for path in found if path.is_file()}  # a data set may be a.kek
        return [
            _info(_read(path, kek_id=place.relative_to(self._folder).as_posix()))
            for place, path in sorted(paths.items())
        ]

    def _record_path(self, kek_id: str) -> Path:
        return self._folder / f"{check_kek_id(kek_id)}.kek"

    def _tombstone_path(self, kek_id: str) -> Path:
        return self._folder / f"{check_kek_id(kek_id)}.destroyed"

    def _read_active(self, kek_id: str) -> tuple[dict[str, Any], bytearray]:
        """(record, sealed secret) of a key that may be used now; a tombstone beside it decides."""
        if os.path.lexists(f"{self._folder}/{check_kek_id(kek_id)}.destroyed"):
            info = _info(_read(self._tombstone_path(kek_id), kek_id=kek_id))
            raise KeyUnavailable(
                f"key {kek_id} was destroyed on {info.destroyed:%Y-%m-%d}", kek_id=kek_id, state="destroyed"
            )
        record, sealed = _read_with_secret(self._record_path(kek_id), kek_id=kek_id)
        expires = _info(record).expires
        if expires is not None and self._clock.now() >= expires:
            sealed[:] = bytes(len(sealed))
            raise KeyUnavailable(
                f"key {kek_id} expired at {timestamp(expires)}", kek_id=kek_id, state="expired"
            )
        return record, sealed

    @contextmanager
    def _open_kek(self, kek_id: str) -> Iterator[SecretKey]:
        record, sealed = self._read_active(kek_id)
        kek = self._unseal(sealed, kek_id=kek_id, protection=record["protection"])
        try:
            yield kek
        finally:
            kek.close()

    def _seal(self, kek: SecretKey, *, kek_id: str) -> bytearray:
        if self._passphrase is None:
            return bytearray(kek.view)
        with self._master() as master:
            salt = self._random_bytes(_SALT_BYTES)
            return bytearray(_encrypt(master, kek.view, context=_bind(kek_id, b"kek"), salt=salt))

    def _unseal(self, sealed: bytearray, *, kek_id: str, protection: str) -> SecretKey:
        if protection == "none":
            if len(sealed) != KEY_BYTES:
                raise KeyUnavailable(f"the file of key {kek_id} is damaged", kek_id=kek_id)
            return SecretKey.from_buffer(sealed)
        if self._passphrase is None:
            raise KeyUnavailable(
                f"key {kek_id} is sealed by a passphrase and none was given",
                hint="give the passphrase that was set when the key was made",
                kek_id=kek_id,
            )
        with self._master() as master:
            return _decrypt(
                master, bytes(sealed), context=_bind(kek_id, b"kek"), what=f"key {kek_id} (passphrase)"
            )

    def _master(self) -> SecretKey:
        """scrypt of the passphrase with the folder's salt; made at first use, about 0.3 s each time."""
        assert self._passphrase is not None, "only called in passphrase mode"
        path = self._folder / "kdf.json"
        if not path.exists():
            salt = base64.b64encode(self._random_bytes(_SALT_BYTES)).decode()
            _write_new(path, {"format": "rsc-kdf-1", "salt": salt, "log_n": self._scrypt_log_n})
        record = _read(path, kek_id="kdf")
        salt_bytes = base64.b64decode(record["salt"])
        kdf = Scrypt(salt=salt_bytes, length=KEY_BYTES, n=1 << record["log_n"], r=_SCRYPT_R, p=_SCRYPT_P)
        master = SecretKey()
        kdf.derive_into(self._passphrase, master.view)
        return master


def _bind(kek_id: str, context: bytes) -> bytes:
    return b"rsc-wrap-1\n" + kek_id.encode() + b"\n" + context


def _encrypt(key: SecretKey, plain: memoryview, *, context: bytes, salt: bytes) -> bytes:
    with key.derive(salt=salt, info=b"rsc-wrap-1") as once:
        return salt + once.aead().encrypt(_ZERO_NONCE, plain, context)


def _decrypt(key: SecretKey, sealed: bytes, *, context: bytes, what: str) -> SecretKey:
    opened = SecretKey()
    try:
        if len(sealed) != _SALT_BYTES + KEY_BYTES + _TAG_BYTES:
            raise InvalidTag
        with key.derive(salt=sealed[:_SALT_BYTES], info=b"rsc-wrap-1") as once:
            once.aead().decrypt_into(_ZERO_NONCE, sealed[_SALT_BYTES:], context, opened.view)
    except InvalidTag:
        opened.close()
        raise KeyUnavailable(
            f"{what} does not open: another key, another place, or changed bytes",
            hint="check that the envelope lies where it was written and that the key folder is the same",
        ) from None
    return opened


def _info(record: dict[str, Any]) -> KekInfo:
    destroyed = record.get("destroyed")
    return KekInfo(
        kek_id=record["kek_id"],
        period=record["period"],
        created=parse_timestamp(record["created"]),
        expires=None if record["expires"] is None else parse_timestamp(record["expires"]),
        state="active" if destroyed is None else "destroyed",
        destroyed=None if destroyed is None else parse_timestamp(destroyed),
    )


def _read(path: Path, *, kek_id: str) -> dict[str, Any]:
    """The public part of a key's file."""
    record, sealed = _read_with_secret(path, kek_id=kek_id)
    sealed[:] = bytes(len(sealed))
    return record


def _read_with_secret(path: Path, *, kek_id: str) -> tuple[dict[str, Any], bytearray]:
    """A key's file as (its public part, its sealed secret); no other copy of that is left in memory."""
    try:
        with path.open("rb", buffering=0) as file:
            content = bytearray(path.stat().st_size)
            file.readinto(content)
        sealed = _cut_secret(content)
        record: dict[str, Any] = json.loads(content)
    except FileNotFoundError:
        raise KeyUnavailable(
            f"there is no key {kek_id} in this key folder",
            hint="check which key folder is configured",
            kek_id=kek_id,
        ) from None
    except ValueError:
        raise KeyUnavailable(f"the file of key {kek_id} is damaged", kek_id=kek_id) from None
    return record, sealed


def _cut_secret(content: bytearray) -> bytearray:
    """Take the secret out of the text of a key's file, leaving as many letters A."""
    match = _SECRET.search(content)
    if match is None:
        return bytearray()
    start, end = match.span(1)
    with memoryview(content) as view:
        decoded = binascii.a2b_base64(view[start:end])
    content[start:end] = b"A" * (end - start)
    sealed = bytearray(decoded)
    wipe(decoded)
    return sealed


def _write_new(path: Path, record: dict[str, Any], *, sealed: bytearray | None = None) -> None:
    """Write a 0600 file that appears whole or not at all, and never over an existing one.

    With `sealed` it gets a secret, in base64; `sealed` is overwritten, and the text that held it.
    """
    text = _to_text(record, sealed=sealed)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        create_file(path, text)  # where another process made it first, its key is the key
    finally:
        text[:] = bytes(len(text))


def _to_text(record: dict[str, Any], *, sealed: bytearray | None) -> bytearray:
    if sealed is None:
        return bytearray(json.dumps(record, indent=1).encode() + b"\n")
    text = bytearray(json.dumps({**record, "secret": ""}, indent=1).encode() + b"\n")
    encoded = binascii.b2a_base64(sealed, newline=False)
    place = text.index(b'"secret": "') + len(b'"secret": "')
    text[place:place] = encoded
    wipe(encoded)
    sealed[:] = bytes(len(sealed))
    return text


def _overwrite(path: Path, *, random_bytes: Callable[[int], bytes]) -> None:
    with path.open("r+b", buffering=0) as file:
        file.write(random_bytes(path.stat().st_size))
        os.fsync(file.fileno())
