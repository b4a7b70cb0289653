from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.errors import ConfigError, IntegrityError, KeyUnavailable
from rsc.keys.envelope import (
    Envelope,
    check_kek_id,
    data_kek_id,
    new_envelope,
    open_envelope,
    period_end,
    period_of,
    rewrap,
)
from rsc.keys.providers.local import LocalKeyProvider
from rsc.keys.secret import SecretKey
from tests.conftest import FakeClock

KEK = "data/posts/2026-11"


def provider_in(folder: Path, clock: FakeClock, *, passphrase: bytearray | None = None) -> LocalKeyProvider:
    return LocalKeyProvider(folder, passphrase=passphrase, clock=clock, scrypt_log_n=4)


@pytest.fixture(params=[None, b"correct horse"], ids=["plain", "passphrase"])
def provider(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> LocalKeyProvider:
    passphrase = None if request.param is None else bytearray(request.param)
    made = provider_in(tmp_path / "keys", clock, passphrase=passphrase)
    made.create(KEK, period="2026-11")
    return made


def test_an_envelope_opens_to_the_same_key(provider: LocalKeyProvider) -> None:
    envelope, key = new_envelope(provider, kek_id=KEK, context=b"here")
    again = Envelope.from_json(envelope.to_json())
    assert again.wrapped == envelope.wrapped
    with key, open_envelope(provider, again, context=b"here") as opened:
        assert opened.matches(key)


def test_another_context_or_changed_bytes_do_not_open(provider: LocalKeyProvider) -> None:
    envelope, key = new_envelope(provider, kek_id=KEK, context=b"here")
    key.close()
    with pytest.raises(KeyUnavailable):
        provider.unwrap(KEK, envelope.wrapped, context=b"there")
    for position in range(len(envelope.wrapped)):
        changed = bytearray(envelope.wrapped)
        changed[position] ^= 1
        with pytest.raises(KeyUnavailable):
            provider.unwrap(KEK, bytes(changed), context=b"here")
    for length in (0, 31, 32, 79, 81):
        with pytest.raises(KeyUnavailable):
            provider.unwrap(KEK, envelope.wrapped.ljust(100)[:length], context=b"here")


def test_a_key_wrapped_under_one_kek_does_not_open_under_another(provider: LocalKeyProvider) -> None:
    provider.create("data/posts/2026-12", period="2026-12")
    envelope, key = new_envelope(provider, kek_id=KEK, context=b"here")
    key.close()
    with pytest.raises(KeyUnavailable):
        provider.unwrap("data/posts/2026-12", envelope.wrapped, context=b"here")


def test_destroy_leaves_a_dated_tombstone_and_no_key(provider: LocalKeyProvider, tmp_path: Path) -> None:
    envelope, key = new_envelope(provider, kek_id=KEK, context=b"here")
    key.close()
    info = provider.destroy(KEK)
    assert info.state == "destroyed"
    assert info.destroyed == datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
    assert [entry.state for entry in provider.list()] == ["destroyed"]
    assert not (tmp_path / "keys" / f"{KEK}.kek").exists()
    with pytest.raises(KeyUnavailable, match="destroyed on 2026-11-21"):
        open_envelope(provider, envelope, context=b"here")
    with pytest.raises(KeyUnavailable, match="destroyed"):
        provider.create(KEK, period="2026-11")
    assert provider.destroy(KEK) == info


def test_destroy_finishes_what_a_crash_left_after_the_tombstone(tmp_path: Path, clock: FakeClock) -> None:
    provider = provider_in(tmp_path, clock)
    provider.create(KEK, period="2026-11")
    record = (tmp_path / f"{KEK}.kek").read_bytes()
    provider.destroy(KEK)
    (tmp_path / f"{KEK}.kek").write_bytes(record)
    with pytest.raises(KeyUnavailable, match="destroyed"):
        provider.wrap(KEK, SecretKey.generate(), context=b"")
    provider.destroy(KEK)
    assert not (tmp_path / f"{KEK}.kek").exists()


def test_an_expired_kek_neither_wraps_nor_unwraps(tmp_path: Path, clock: FakeClock) -> None:
    provider = provider_in(tmp_path, clock)
    provider.create(KEK, period="2026-11", expires=clock.now() + timedelta(days=1))
    envelope, key = new_envelope(provider, kek_id=KEK, context=b"here", clock=clock)
    clock.advance(86_400)
    with key, pytest.raises(KeyUnavailable, match="expired at 2026-11-22"):
        provider.wrap(KEK, key, context=b"here")
    with pytest.raises(KeyUnavailable, match="expired"):
        open_envelope(provider, envelope, context=b"here")


def test_a_wrong_passphrase_is_key_unavailable(tmp_path: Path, clock: FakeClock) -> None:
    provider_in(tmp_path, clock, passphrase=bytearray(b"right")).create(KEK, period="2026-11")
    for passphrase in (bytearray(b"wrong"), None):
        with pytest.raises(KeyUnavailable):
            provider_in(tmp_path, clock, passphrase=passphrase).wrap(KEK, SecretKey.generate(), context=b"")


def test_a_passphrase_keeps_the_kek_out_of_the_folder(tmp_path: Path, clock: FakeClock) -> None:
    provider = provider_in(tmp_path, clock, passphrase=bytearray(b"right"))
    provider.create(KEK, period="2026-11")
    record = json.loads((tmp_path / f"{KEK}.kek").read_bytes())
    assert record["protection"] == "scrypt"
    assert b"right" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_files_are_private(provider: LocalKeyProvider, tmp_path: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert not list((tmp_path / "keys").rglob(".*"))


def test_create_twice_keeps_the_first(provider: LocalKeyProvider, clock: FakeClock) -> None:
    envelope, key = new_envelope(provider, kek_id=KEK, context=b"here")
    clock.advance(10)
    assert provider.create(KEK, period="2026-11").created == datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
    with key, open_envelope(provider, envelope, context=b"here") as opened:
        assert opened.matches(key)


def test_rotation_keeps_the_data_key(tmp_path: Path, clock: FakeClock) -> None:
    old, new = provider_in(tmp_path / "old", clock), provider_in(tmp_path / "new", clock)
    old.create(KEK, period="2026-11")
    new.create("data/posts/2026-12", period="2026-12")
    envelope, key = new_envelope(old, kek_id=KEK, context=b"here")
    moved = rewrap(old, envelope, kek_id="data/posts/2026-12", context=b"here", to=new)
    old.destroy(KEK)
    with key, open_envelope(new, moved, context=b"here") as opened:
        assert opened.matches(key)
    with pytest.raises(KeyUnavailable):
        open_envelope(old, envelope, context=b"here")


def test_an_envelope_of_another_provider_is_a_config_error(provider: LocalKeyProvider) -> None:
    envelope = Envelope("vault", kek_id=KEK, wrapped=b"", created=datetime(2026, 11, 21, tzinfo=UTC))
    with pytest.raises(ConfigError, match="vault"):
        open_envelope(provider, envelope, context=b"")


@given(st.binary(max_size=200) | st.text(max_size=200) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.dictionaries(
        st.sampled_from(["format", "provider", "kek_id", "wrapped", "created"]), inner, max_size=5
    )
).map(json.dumps))  # fmt: skip
def test_envelope_parsing_is_total(text: bytes | str) -> None:
    with pytest.raises(IntegrityError) as caught:
        Envelope.from_json(text)
    assert caught.value.facts["outcome"] == "header"


@pytest.mark.parametrize(
    "bad", ["", "/x", "x/", "a//b", "../x", "a/../b", "A", "a b", ".hidden", "a/.b", "x\n"]
)
def test_key_ids_cannot_leave_the_folder(bad: str, tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises(ConfigError):
        provider_in(tmp_path, clock).create(bad, period="2026-11")
    assert not list(tmp_path.iterdir())


def test_periods() -> None:
    assert period_of(datetime(2026, 12, 31, 23, 59, tzinfo=UTC)) == "2026-12"
    assert period_end("2026-12") == datetime(2027, 1, 1, tzinfo=UTC)
    assert period_end("2024-02") == datetime(2024, 3, 1, tzinfo=UTC)
    assert data_kek_id("posts", period="2026-11") == check_kek_id("data/posts/2026-11")
    with pytest.raises(ConfigError):
        period_end("2026-13")
