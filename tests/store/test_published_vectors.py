"""Published vectors of the primitives, through the calls that the container makes.

Wycheproof (github.com/C2SP/wycheproof) is not on PyPI: set RSC_WYCHEPROOF to a checkout. NIST's CAVP files
come with the package `cryptography_vectors`. RFC 5869's own example is written out below and always runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rsc.keys.secret import SecretKey
from tests.store.spec_reader import hkdf


@pytest.fixture(scope="module")
def wycheproof() -> Path:
    folder = os.environ.get("RSC_WYCHEPROOF")
    if not folder:
        pytest.skip("RSC_WYCHEPROOF is not set to a checkout of github.com/C2SP/wycheproof")
    return Path(folder) / "testvectors_v1"


def groups(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_bytes())["testGroups"]
    return found


def open_sealed(key: bytes, *, iv: bytes, aad: bytes, sealed: bytes) -> bytes | None:
    """Plaintext, or None where the tag is refused, by the call that reads frames."""
    plain = bytearray(len(sealed) - 16)
    with SecretKey.from_buffer(bytearray(key)) as secret:
        try:
            secret.aead().decrypt_into(iv, sealed, aad, plain)
        except InvalidTag:
            return None
    return bytes(plain)


def test_wycheproof_aes_256_gcm(wycheproof: Path) -> None:
    ran = 0
    for group in groups(wycheproof / "aes_gcm_test.json"):
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (256, 96, 128):
            continue
        for test in group["tests"]:
            key, iv, aad, message, text, tag = (
                bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
            )
            expected = message if test["result"] == "valid" else None
            assert open_sealed(key, iv=iv, aad=aad, sealed=text + tag) == expected, test["tcId"]
            ran += 1
    assert ran > 50


def test_wycheproof_hkdf_sha256(wycheproof: Path) -> None:
    """Those with a key of our length and enough output; derive gives the first 32 bytes."""
    ran = 0
    for group in groups(wycheproof / "hkdf_sha256_test.json"):
        for test in group["tests"]:
            key, salt, info, expected = (bytes.fromhex(test[name]) for name in ("ikm", "salt", "info", "okm"))
            if test["result"] != "valid" or len(expected) < 32:
                continue
            assert hkdf(key, salt, info) == expected[:32], test["tcId"]
            if len(key) == 32:
                with (
                    SecretKey.from_buffer(bytearray(key)) as secret,
                    secret.derive(salt=salt, info=info) as out,
                ):
                    assert bytes(out.view) == expected[:32], test["tcId"]
            ran += 1
    assert ran > 20


def cavp_cases(text: str) -> Iterator[dict[str, str]]:
    """Blocks of `name = value` lines with the bracketed sizes above them."""
    sizes: dict[str, str] = {}
    case: dict[str, str] = {}
    for line in (*text.splitlines(), ""):
        if line.startswith("["):
            name, _, value = line.strip("[]").partition(" = ")
            sizes[name] = value
        elif line.strip() and not line.startswith("#"):
            name, _, value = line.partition("=")
            case[name.strip()] = value.strip()
        elif case:
            yield {**sizes, **case}
            case = {}


@pytest.mark.skipif(
    find_spec("cryptography_vectors") is None, reason="the package cryptography_vectors is not installed"
)
def test_nist_cavp_aes_256_gcm() -> None:
    file = resources.files("cryptography_vectors") / "ciphers" / "AES" / "GCM" / "gcmDecrypt256.rsp"
    ran = 0
    for case in cavp_cases(file.read_text()):
        if (case["IVlen"], case["Taglen"]) != ("96", "128"):
            continue
        key, iv, aad, text, tag = (bytes.fromhex(case[name]) for name in ("Key", "IV", "AAD", "CT", "Tag"))
        expected = None if "FAIL" in case else bytes.fromhex(case["PT"])
        assert open_sealed(key, iv=iv, aad=aad, sealed=text + tag) == expected, case["Count"]
        ran += 1
    assert ran > 300


def test_rfc_5869_example_1() -> None:
    """Appendix A.1; its 22-byte key checks the page reader's and the library's HKDF."""
    key, salt, info = b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA))
    expected = bytes.fromhex(
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert hkdf(key, salt, info) == expected[:32]
    assert HKDF(algorithm=SHA256(), length=42, salt=salt, info=info).derive(key) == expected
