"""AEGIS-256 through the calls that the container makes, against the vectors of its draft."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from cryptography.exceptions import InvalidTag

from rsc.errors import ConfigError, KeyUnavailable
from rsc.keys import aegis
from rsc.keys.aegis import Aegis256
from rsc.keys.secret import SecretKey

KEY, NONCE = "1001" + "00" * 30, "100002" + "00" * 29
EIGHT = "0001020304050607"
FOURTEEN = "f373079ed84b2709faee37358458"


class Vector(NamedTuple):
    ad: str
    message: str | None
    """None where the tag must be refused."""
    text: str
    tag: str
    key: str = KEY
    nonce: str = NONCE


# draft-irtf-cfrg-aegis-aead-18, appendix "AEGIS-256 Test Vectors" 1 to 9, with the tags of 256 bits
DRAFT = (
    Vector(
        "",
        "00" * 16,
        "754fc3d8c973246dcc6d741412a4b236",
        "1181a1d18091082bf0266f66297d167d2e68b845f61a3b0527d31fc7b7b89f13",
    ),
    Vector("", "", "", "6a348c930adbd654896e1666aad67de989ea75ebaa2b82fb588977b1ffec864a"),
    Vector(
        EIGHT,
        bytes(range(0x20)).hex(),
        "f373079ed84b2709faee373584585d60accd191db310ef5d8b11833df9dec711",
        "b7d28d0c3c0ebd409fd22b44160503073a547412da0854bfb9723020dab8da1a",
    ),
    Vector(
        EIGHT,
        bytes(range(0x0E)).hex(),
        FOURTEEN,
        "8c1cc703c81281bee3f6d9966e14948b4a175b2efbdc31e61a98b4465235c2d9",
    ),
    Vector(
        bytes(range(0x2A)).hex(),
        bytes(range(0x10, 0x38)).hex(),
        "57754a7d09963e7c787583a2e7b859bb24fa1e04d49fd550b2511a358e3bca252a9b1b8b30cc4a67",
        "a3aca270c006094d71c20e6910b5161c0826df233d08919a566ec2c05990f734",
    ),
    Vector(
        EIGHT,
        None,
        FOURTEEN,
        "8c1cc703c81281bee3f6d9966e14948b4a175b2efbdc31e61a98b4465235c2d9",
        key=NONCE,
        nonce=KEY,
    ),
    Vector(
        EIGHT,
        None,
        FOURTEEN[:-2] + "59",
        "8c1cc703c81281bee3f6d9966e14948b4a175b2efbdc31e61a98b4465235c2d9",
    ),
    Vector(
        EIGHT[:-2] + "08",
        None,
        FOURTEEN,
        "8c1cc703c81281bee3f6d9966e14948b4a175b2efbdc31e61a98b4465235c2d9",
    ),
    Vector(
        EIGHT,
        None,
        FOURTEEN,
        "8c1cc703c81281bee3f6d9966e14948b4a175b2efbdc31e61a98b4465235c2da",
    ),
)


def cipher(key: bytes = bytes(range(32))) -> Aegis256:
    return Aegis256(SecretKey.from_buffer(bytearray(key)))


@pytest.mark.parametrize("vector", DRAFT, ids=range(1, 10))
def test_draft_vector(vector: Vector) -> None:
    aead, nonce, ad = cipher(bytes.fromhex(vector.key)), bytes.fromhex(vector.nonce), bytes.fromhex(vector.ad)
    sealed = bytes.fromhex(vector.text + vector.tag)
    plain = bytearray(len(sealed) - 32)
    if vector.message is None:
        with pytest.raises(InvalidTag):
            aead.decrypt_into(nonce, sealed, ad, plain)
        return
    message, out = bytes.fromhex(vector.message), bytearray(len(sealed))
    assert aead.encrypt_into(nonce, message, ad, out) == len(sealed)
    assert bytes(out) == sealed == aead.encrypt(nonce, message, ad)
    assert aead.decrypt_into(nonce, sealed, ad, plain) == len(message)
    assert bytes(plain) == message == aead.decrypt(nonce, sealed, ad)


@pytest.mark.parametrize("size", [0, 1, 31])
def test_less_than_a_tag_is_refused(size: int) -> None:
    with pytest.raises(InvalidTag):
        cipher().decrypt(bytes(32), bytes(size), b"")


def test_a_buffer_of_another_length_is_not_written_to() -> None:
    """C would write behind its end."""
    aead, short = cipher(), bytearray(41)
    with pytest.raises(ValueError, match="41 bytes of output for 42"):
        aead.encrypt_into(bytes(32), bytes(10), b"", short)
    with pytest.raises(ValueError, match="41 bytes of output for 10"):
        aead.decrypt_into(bytes(32), aead.encrypt(bytes(32), bytes(10), b""), b"", short)
    with pytest.raises(ValueError, match="a nonce of 12 bytes"):
        aead.encrypt(bytes(12), b"", b"")
    assert short == bytes(41)
    with pytest.raises(BufferError):
        aead.encrypt_into(bytes(32), b"", b"", bytes(32))


def test_a_closed_key_encrypts_nothing() -> None:
    secret = SecretKey.generate()
    aead = Aegis256(secret)
    secret.close()
    with pytest.raises(KeyUnavailable, match="closed"):
        aead.encrypt(bytes(32), b"plain", b"")


def test_threads_share_a_cipher() -> None:
    aead = cipher()

    def round_trip(number: int) -> bool:
        nonce, plain = number.to_bytes(32, "big"), bytes([number]) * 100_000
        return aead.decrypt(nonce, aead.encrypt(nonce, plain, b"ad"), b"ad") == plain

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(round_trip, range(64)))


def test_without_the_library_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl._sodium", None)
    aegis._sodium.cache_clear()
    try:
        assert not aegis.has_aegis()
        with pytest.raises(ConfigError, match="PyNaCl, which is not installed") as caught:
            cipher()
        assert "pynacl>=1.6" in (caught.value.hint or "")
    finally:
        aegis._sodium.cache_clear()
