"""Keys in a PKCS#11 token: a hardware security module, a smart card, or SoftHSM2.

The key-encryption key is made inside the token, marked sensitive and not extractable, and never leaves
it; data keys go in and come out of C_Encrypt and C_Decrypt with AES-256-GCM (PKCS#11 v2.40, 2.12.7), the
context as associated data.

Not covered: what the token's own software keeps (SoftHSM2 stores objects in files of its own); copies of a
data key inside the client library; more than 2^32 wraps under one key (random 96-bit nonces).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rsc.errors import ConfigError, KeyUnavailable
from rsc.extras import install_command
from rsc.keys.envelope import KekInfo
from rsc.keys.providers.register import Register
from rsc.keys.providers.wiping import wipe
from rsc.keys.secret import SecretKey

_NONCE_BYTES, _TAG_BITS = 12, 128


class Pkcs11Provider:
    name = "pkcs11"
    is_immediate = False

    def __init__(self, *, module: Path, token_label: str, pin: bytearray, register: Register) -> None:
        """`module` is the token's library; it is opened at first use. The PIN stays the caller's to wipe."""
        self._module = module
        self._token_label = token_label
        self._pin = pin
        self._register = register
        self._session: Any = None
        self._session_pid = -1

    def create(self, kek_id: str, *, period: str, expires: datetime | None = None) -> KekInfo:
        import pkcs11

        found = self._register.find(kek_id)
        if found is not None:
            self._register.require(kek_id)
            return found[0]
        never = {pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False}
        session = self._open()
        if not list(session.get_objects({pkcs11.Attribute.LABEL: kek_id})):
            session.generate_key(pkcs11.KeyType.AES, 256, label=kek_id, store=True, template=never)
        return self._register.add(kek_id, period=period, expires=expires, service_name=kek_id)

    def wrap(self, kek_id: str, key: SecretKey, *, context: bytes) -> bytes:
        """nonce (12) | ciphertext (32) | tag (16)."""
        import pkcs11

        nonce = os.urandom(_NONCE_BYTES)
        plain = bytes(key.view)
        try:
            with self._kek(kek_id) as kek:
                parameters = pkcs11.GCMParams(nonce, context, _TAG_BITS)
                sealed = kek.encrypt(plain, mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=parameters)
        finally:
            wipe(plain)
        return nonce + bytes(sealed)

    def unwrap(self, kek_id: str, wrapped: bytes, *, context: bytes) -> SecretKey:
        import pkcs11

        with self._kek(kek_id) as kek:
            parameters = pkcs11.GCMParams(wrapped[:_NONCE_BYTES], context, _TAG_BITS)
            plain = kek.decrypt(
                wrapped[_NONCE_BYTES:], mechanism=pkcs11.Mechanism.AES_GCM, mechanism_param=parameters
            )
            try:
                return SecretKey.from_buffer(bytearray(plain))
            finally:
                wipe(plain)

    def destroy(self, kek_id: str) -> KekInfo:
        """Refuse it here, destroy the object in the token, look, and only then put up the tombstone. Raises
        KeyUnavailable if the token still has it, and at the first call where the token never had it."""
        import pkcs11

        template = {pkcs11.Attribute.LABEL: kek_id}
        session = self._open()
        found = list(session.get_objects(template))
        service = f"the token {self._token_label!r}"
        self._register.begin_end(kek_id, is_there=bool(found), service=service)
        for kek in found:
            kek.destroy()
        if list(session.get_objects(template)):
            raise KeyUnavailable(f"the token did not destroy key {kek_id}", kek_id=kek_id)
        return self._register.bury(kek_id)

    def list(self) -> list[KekInfo]:
        return self._register.list()

    @contextmanager
    def _kek(self, kek_id: str) -> Iterator[Any]:
        import pkcs11

        label = self._register.require(kek_id)
        try:
            yield self._open().get_key(pkcs11.ObjectClass.SECRET_KEY, label=label)
        except pkcs11.exceptions.NoSuchKey:
            raise KeyUnavailable(f"the token has no key {kek_id}", kek_id=kek_id) from None
        except pkcs11.exceptions.PKCS11Error as error:
            raise KeyUnavailable(
                f"a data key under {kek_id} does not open: {type(error).__name__}",
                hint="check that the envelope lies where it was written and that the token is the same",
                kek_id=kek_id,
            ) from None

    def _open(self) -> Any:
        """The session of this process (tokens do not survive a fork). Raises ConfigError, KeyUnavailable."""
        if self._session is not None and self._session_pid == os.getpid():
            return self._session
        try:
            import pkcs11
        except ImportError:
            raise ConfigError("python-pkcs11 is not installed", hint=install_command("pkcs11")) from None
        try:
            token = pkcs11.lib(str(self._module)).get_token(token_label=self._token_label)
            try:
                self._session = token.open(rw=True, user_pin=self._pin.decode())
            except pkcs11.exceptions.UserAlreadyLoggedIn:
                self._session = token.open(rw=True)  # a login counts for the whole process (PKCS#11, 5.6)
        except (pkcs11.exceptions.PKCS11Error, RuntimeError) as error:
            raise KeyUnavailable(
                f"the token {self._token_label!r} cannot be opened: {type(error).__name__}",
                hint=f"check the module {self._module}, the token's label and the PIN",
            ) from None
        self._session_pid = os.getpid()
        return self._session
