"""AEGIS-256 by libsodium, from and into buffers of the caller.

AEGIS: Wu and Preneel 2013 (SAC), a finalist of CAESAR; AEGIS-256 with a tag of 256 bits is described in
draft-irtf-cfrg-aegis-aead, and libsodium has it since 1.0.20. The functions are called through the compiled
module of PyNaCl, whose own Python calls return new `bytes`: for a frame of 256 KiB that costs more than the
cipher.

Not covered: the expanded state on the stack of libsodium.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from cryptography.exceptions import InvalidTag

from rsc.errors import ConfigError, KeyUnavailable
from rsc.extras import install_command
from rsc.keys.secret import SecretKey

Buffer = bytes | bytearray | memoryview

NONCE_BYTES = TAG_BYTES = 32


class Aegis256:
    """One key. The calls are those of `AESGCM` of `cryptography`, the tag follows the ciphertext.

    Takes over `key`, which is wiped when this object is freed. Safe to use from several threads. Raises
    ConfigError where libsodium is not installed, or is older than 1.0.20.
    """

    def __init__(self, key: SecretKey) -> None:
        sodium = _sodium()
        if isinstance(sodium, str):
            raise ConfigError(f"AEGIS-256 needs {sodium}", hint=install_command("aegis"))
        self._ffi, self._lib = sodium
        self._secret = key
        self._key = self._ffi.from_buffer("unsigned char[32]", key.view)

    def encrypt_into(self, nonce: bytes, data: Buffer, associated_data: bytes, buf: Buffer) -> int:
        """Write ciphertext and tag to `buf`, which must have exactly their length."""
        size = len(data) + TAG_BYTES
        out = self._output(buf, size, nonce)
        read = self._ffi.from_buffer
        self._lib.crypto_aead_aegis256_encrypt(
            out, self._ffi.NULL, read(data), len(data), read(associated_data), len(associated_data),
            self._ffi.NULL, read(nonce), self._key,
        )  # fmt: skip
        return size

    def decrypt_into(self, nonce: bytes, data: Buffer, associated_data: bytes, buf: Buffer) -> int:
        """Write the plaintext to `buf`, which must have exactly its length. Raises InvalidTag."""
        size = len(data) - TAG_BYTES
        if size < 0:
            raise InvalidTag
        out = self._output(buf, size, nonce)
        read = self._ffi.from_buffer
        failed = self._lib.crypto_aead_aegis256_decrypt(
            out, self._ffi.NULL, self._ffi.NULL, read(data), len(data),
            read(associated_data), len(associated_data), read(nonce), self._key,
        )  # fmt: skip
        if failed:
            raise InvalidTag
        return size

    def encrypt(self, nonce: bytes, data: Buffer, associated_data: bytes) -> bytes:
        sealed = bytearray(len(data) + TAG_BYTES)
        self.encrypt_into(nonce, data, associated_data, sealed)
        return bytes(sealed)

    def decrypt(self, nonce: bytes, data: Buffer, associated_data: bytes) -> bytes:
        """Raises InvalidTag."""
        plain = bytearray(max(0, len(data) - TAG_BYTES))
        self.decrypt_into(nonce, data, associated_data, plain)
        return bytes(plain)

    def _output(self, buf: Buffer, size: int, nonce: bytes) -> Any:
        """`buf` for C to write to; C checks no length."""
        if len(buf) != size or len(nonce) != NONCE_BYTES:
            raise ValueError(f"{len(buf)} bytes of output for {size}, a nonce of {len(nonce)} bytes")
        if self._secret.is_closed:
            raise KeyUnavailable("this key was closed and wiped", hint="ask the key agent for it again")
        return self._ffi.from_buffer(buf, require_writable=True)


def has_aegis() -> bool:
    """Whether this machine can use AEGIS-256."""
    return not isinstance(_sodium(), str)


@cache
def _sodium() -> tuple[Any, Any] | str:
    """PyNaCl's compiled module, once libsodium has chosen instructions for this CPU; or what is missing."""
    try:
        from nacl._sodium import ffi, lib
    except ImportError:
        return "PyNaCl, which is not installed"
    if not hasattr(lib, "crypto_aead_aegis256_encrypt"):
        return "libsodium 1.0.20, and the installed PyNaCl has an older one"
    return (ffi, lib) if lib.sodium_init() >= 0 else "libsodium, which does not start on this machine"
