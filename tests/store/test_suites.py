"""Which cipher a machine writes with."""

from __future__ import annotations

import pytest

from rsc.errors import ConfigError
from rsc.keys.secret import SecretKey
from rsc.store.format import suites
from rsc.store.format.suites import AEGIS_256, AES_256_GCM, SUITES, Suite, rate_bytes_per_s, suite_for


@pytest.mark.parametrize(
    ("aes", "aegis", "chosen"),
    [(2.5e9, 7.8e9, AEGIS_256), (13e9, 8e9, AES_256_GCM), (8e9, 9.9e9, AES_256_GCM), (8e9, 10e9, AEGIS_256)],
)
def test_auto_takes_aegis_where_it_is_a_quarter_faster(
    monkeypatch: pytest.MonkeyPatch, aes: float, aegis: float, chosen: Suite
) -> None:
    rates = {AES_256_GCM: aes, AEGIS_256: aegis}
    monkeypatch.setattr(suites, "rate_bytes_per_s", rates.__getitem__)
    assert suite_for("auto") is chosen
    assert suite_for("aes-256-gcm") is AES_256_GCM
    assert suite_for("aegis-256") is AEGIS_256


def test_a_machine_without_aegis_writes_aes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites, "has_aegis", lambda: False)
    assert suite_for("auto") is AES_256_GCM


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.cipher)
def test_a_rate_is_measured(suite: Suite) -> None:
    assert rate_bytes_per_s(suite) > 0


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.cipher)
def test_a_cipher_outlives_its_key(suite: Suite) -> None:
    with SecretKey.generate() as key:
        aead = suite.aead(key)
    nonce = suite.nonce(0, is_last=False)
    assert aead.decrypt(nonce, aead.encrypt(nonce, b"plain", b""), b"") == b"plain"


def test_a_pinned_cipher_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(key: SecretKey) -> None:
        raise ConfigError("AEGIS-256 needs PyNaCl, which is not installed")

    monkeypatch.setattr(suites, "Aegis256", missing)
    with pytest.raises(ConfigError, match="PyNaCl"):
        suite_for("aegis-256")
