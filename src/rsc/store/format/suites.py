"""The ciphers of the container (docs/format.md): what follows from the suite in a file's header.

Every suite derives its keys under labels of its own, and the header is associated data of every frame: with
another suite's number in its header a file opens nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from rsc.keys.aegis import Aegis256, has_aegis
from rsc.keys.secret import SecretKey

if TYPE_CHECKING:
    from rsc.config import CipherChoice  # pydantic would cost whoever only reads a tenth of a second

Buffer: TypeAlias = bytes | bytearray | memoryview
CipherName: TypeAlias = Literal["aes-256-gcm", "aegis-256"]

_MEASURED_S = 0.01  # for each suite
_MEASURED_BYTES = 256 << 10  # a frame, so that what is measured stays in the cache as a frame does
_TIMES_AS_FAST = 1.25  # what AEGIS must be to be chosen over the cipher that NIST approves


class Aead(Protocol):
    """Authenticated encryption under one key; the tag follows the text. Decryption raises InvalidTag."""

    def encrypt(self, nonce: bytes, data: Buffer, associated_data: bytes, /) -> bytes: ...

    def decrypt(self, nonce: bytes, data: Buffer, associated_data: bytes, /) -> bytes: ...

    def encrypt_into(self, nonce: bytes, data: Buffer, associated_data: bytes, buf: Buffer, /) -> int: ...

    def decrypt_into(self, nonce: bytes, data: Buffer, associated_data: bytes, buf: Buffer, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Suite:
    number: int
    cipher: CipherName
    label: bytes
    """What the HKDF labels of its keys begin with."""
    nonce_bytes: int
    tag_bytes: int
    aead: Callable[[SecretKey], Aead]
    """A cipher under the key. The key may be closed afterwards: the cipher keeps a copy until it is freed."""

    def nonce(self, counter: int, *, is_last: bool) -> bytes:
        """The counter big-endian, then one byte: 1 for the frame table and 0 for every other frame."""
        return counter.to_bytes(self.nonce_bytes - 1, "big") + (b"\x01" if is_last else b"\x00")


def _aegis(key: SecretKey) -> Aead:
    return Aegis256(SecretKey.from_buffer(bytearray(key.view)))


AES_256_GCM = Suite(1, "aes-256-gcm", b"rsc-container-1 ", nonce_bytes=12, tag_bytes=16, aead=SecretKey.aead)
AEGIS_256 = Suite(2, "aegis-256", b"rsc-container-1 aegis-256 ", nonce_bytes=32, tag_bytes=32, aead=_aegis)
SUITES = {suite.number: suite for suite in (AES_256_GCM, AEGIS_256)}
TAG_SIZES = frozenset(suite.tag_bytes for suite in SUITES.values())
MOST_TAG_BYTES = max(TAG_SIZES)


def suite_for(choice: CipherChoice) -> Suite:
    """The suite to write with on this machine; `auto` measures both for 20 ms in all.

    `auto` is AES-256-GCM unless AEGIS-256 is at least 1.25 times as fast here. Raises ConfigError for
    `aegis-256` on a machine that has none.
    """
    if choice == "auto":
        return _fastest() if has_aegis() else AES_256_GCM
    suite = next(suite for suite in SUITES.values() if suite.cipher == choice)
    with SecretKey.generate() as key:
        suite.aead(key)
    return suite


def rate_bytes_per_s(suite: Suite) -> float:
    """Bytes decrypted a second, from and into buffers that stay in the cache, as the loader reads frames."""
    with SecretKey.generate() as key:
        aead = suite.aead(key)
    nonce, header = suite.nonce(0, is_last=False), bytes(128)
    plain = memoryview(bytearray(_MEASURED_BYTES))
    sealed = memoryview(bytearray(_MEASURED_BYTES + suite.tag_bytes))
    aead.encrypt_into(nonce, plain, header, sealed)
    calls, started_s = 0, time.thread_time()
    while (elapsed_s := time.thread_time() - started_s) < _MEASURED_S:
        aead.decrypt_into(nonce, sealed, header, plain)
        calls += 1
    return calls * _MEASURED_BYTES / elapsed_s


def _fastest() -> Suite:
    is_faster = rate_bytes_per_s(AEGIS_256) >= _TIMES_AS_FAST * rate_bytes_per_s(AES_256_GCM)
    return AEGIS_256 if is_faster else AES_256_GCM
