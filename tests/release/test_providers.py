"""One set of rules for every key provider, and what is particular to each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from vault_double import TOKEN, Transit

from rsc.errors import ConfigError, KeyUnavailable
from rsc.ingest.keys import new_data_key
from rsc.keys.envelope import data_key_context, open_envelope, period_end
from rsc.keys.providers.aws import AwsKmsProvider
from rsc.keys.providers.configured import configured_providers, default_provider
from rsc.keys.providers.local import LocalKeyProvider
from rsc.keys.providers.register import Register
from rsc.keys.providers.vault import VaultProvider
from rsc.keys.providers.wiping import wipe
from rsc.keys.secret import SecretKey
from rsc.release.lifecycle.expire import expire
from rsc.release.lifecycle.rotate import rotate
from rsc.review.policy import Policy
from rsc.store.dataset import Dataset
from rsc.store.staging import only_writer

SOFTHSM = [Path("/usr/lib/softhsm/libsofthsm2.so"), Path("/opt/homebrew/lib/softhsm/libsofthsm2.so")]
CONTEXT = b"rsc-data-key-1\nposts\n"


@pytest.fixture
def token(tmp_path, monkeypatch) -> dict:
    """A SoftHSM2 token of its own."""
    pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed (pip install 'openrsc[pkcs11]')")
    module = next((path for path in SOFTHSM if path.exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("SoftHSM2 is not installed (apt install softhsm2)")
    (tmp_path / "tokens").mkdir()
    settings = tmp_path / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {tmp_path / 'tokens'}\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(settings))
    init = ["softhsm2-util", "--init-token", "--free", "--label", "rsc", "--pin", "1234", "--so-pin", "5678"]
    subprocess.run(init, check=True, capture_output=True)
    return {"module": module, "token_label": "rsc", "pin": bytearray(b"1234")}


@pytest.fixture
def transit():
    server = Transit()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def make(request, tmp_path, clock):
    """A provider by name; SoftHSM2 loads its settings once a process, so its tests run in a child (below)."""

    def build(name: str):
        register = Register(tmp_path / f"{name}-register", clock=clock)
        if name == "local":
            return LocalKeyProvider(tmp_path / "keys", clock=clock)
        if name == "vault":
            server = request.getfixturevalue("transit")
            return VaultProvider(url=server.url, token=bytearray(TOKEN.encode()), register=register)
        boto3 = pytest.importorskip("boto3", reason="boto3 is not installed (pip install 'openrsc[aws]')")
        moto = pytest.importorskip("moto", reason="moto is not installed")
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            request.getfixturevalue("monkeypatch").setenv(variable, "testing")
        mock = moto.mock_aws()
        mock.start()
        request.addfinalizer(mock.stop)
        assert boto3
        return AwsKmsProvider(region="eu-central-1", register=register)

    return build


NAMES = ["local", "vault", "aws"]


@pytest.mark.parametrize("name", NAMES)
def test_a_wrapped_key_comes_back_under_its_context_only(make, name):
    check_round_trip(make(name))


def check_round_trip(provider) -> None:
    provider.create("data/posts/2026-11", period="2026-11")
    provider.create("data/talks/2026-11", period="2026-11")
    with SecretKey.generate() as key:
        wrapped = provider.wrap("data/posts/2026-11", key, context=CONTEXT)
        assert bytes(key.view) not in wrapped
        with provider.unwrap("data/posts/2026-11", wrapped, context=CONTEXT) as again:
            assert again.matches(key)
        for kek_id, context in (("data/posts/2026-11", b"talks"), ("data/talks/2026-11", CONTEXT)):
            with pytest.raises(KeyUnavailable):
                provider.unwrap(kek_id, wrapped, context=context)
        for changed in (wrapped[:-1], wrapped[:-1] + bytes([wrapped[-1] ^ 1]), b"", b"x" * 60):
            with pytest.raises(KeyUnavailable):
                provider.unwrap("data/posts/2026-11", changed, context=CONTEXT)


@pytest.mark.parametrize("name", NAMES)
def test_a_destroyed_key_stays_listed_and_never_comes_back(make, clock, name):
    check_destroy(make(name), clock)


def check_destroy(provider, clock) -> None:
    """What RSC itself guarantees for any provider; that the service forgets is checked per provider."""
    provider.create("data/posts/2026-11", period="2026-11", expires=clock.now() + timedelta(days=9))
    with SecretKey.generate() as key:
        wrapped = provider.wrap("data/posts/2026-11", key, context=CONTEXT)
    info = provider.destroy("data/posts/2026-11")
    assert (info.state, info.destroyed) == ("destroyed", clock.now())
    clock.advance(60)
    assert provider.destroy("data/posts/2026-11").destroyed == info.destroyed
    assert provider.list() == [info]
    for attempt in (
        lambda: provider.unwrap("data/posts/2026-11", wrapped, context=CONTEXT),
        lambda: provider.create("data/posts/2026-11", period="2026-11"),
    ):
        with pytest.raises(KeyUnavailable, match="was destroyed on 2026-11-21"):
            attempt()


@pytest.mark.parametrize("name", NAMES)
def test_an_expired_key_is_refused(make, clock, name):
    provider = make(name)
    provider.create("data/posts/2026-11", period="2026-11", expires=clock.now() + timedelta(days=1))
    with SecretKey.generate() as key:
        wrapped = provider.wrap("data/posts/2026-11", key, context=CONTEXT)
        clock.advance(86400)
        with pytest.raises(KeyUnavailable, match="expired"):
            provider.unwrap("data/posts/2026-11", wrapped, context=CONTEXT)


@pytest.mark.parametrize("name", NAMES)
def test_a_key_nobody_made_is_refused(make, name):
    provider = make(name)
    with SecretKey.generate() as key, pytest.raises(KeyUnavailable, match="there is no key"):
        provider.wrap("data/posts/2026-11", key, context=CONTEXT)


HSM_SCRIPT = """
import sys
from pathlib import Path
from runpy import run_path
sys.path.insert(0, {folder!r})
FakeClock = run_path({above!r} + "/conftest.py")["FakeClock"]
from test_providers import check_destroy, check_round_trip, check_token, check_wrong_pin
from rsc.keys.providers.pkcs11 import Pkcs11Provider
from rsc.keys.providers.register import Register
clock = FakeClock()
def make(number, pin=b"1234"):
    register = Register(Path({folder_of_register!r}) / str(number), clock=clock)
    pin = bytearray(pin)
    return Pkcs11Provider(module=Path({module!r}), token_label="rsc", pin=pin, register=register)
{call}
"""


@pytest.mark.parametrize(
    "call",
    [
        "check_round_trip(make(1))",
        "check_destroy(make(1), clock)",
        "check_token(make)",
        "check_wrong_pin(make(1, pin=b'0000'))",
    ],
)
def test_a_real_token_keeps_the_same_rules(token, tmp_path, call):
    here = Path(__file__).parent
    script = HSM_SCRIPT.format(
        folder=str(here),
        above=str(here.parent),
        folder_of_register=str(tmp_path / "register"),
        module=str(token["module"]),
        call=call,
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_token(make) -> None:
    """The key cannot be taken out of the token, and after `destroy` the token itself opens nothing."""
    import pkcs11

    provider = make(1)
    provider.create("data/posts/2026-11", period="2026-11")
    with SecretKey.generate() as key:
        wrapped = provider.wrap("data/posts/2026-11", key, context=CONTEXT)
    (kek,) = provider._open().get_objects({pkcs11.Attribute.LABEL: "data/posts/2026-11"})
    assert kek[pkcs11.Attribute.SENSITIVE]
    assert not kek[pkcs11.Attribute.EXTRACTABLE]
    with pytest.raises(pkcs11.exceptions.PKCS11Error):
        kek[pkcs11.Attribute.VALUE]
    provider.destroy("data/posts/2026-11")
    without_tombstone = make(2)
    without_tombstone._register.add(
        "data/posts/2026-11", period="2026-11", expires=None, service_name="data/posts/2026-11"
    )
    with pytest.raises(KeyUnavailable, match="the token has no key"):
        without_tombstone.unwrap("data/posts/2026-11", wrapped, context=CONTEXT)


def check_wrong_pin(provider) -> None:
    with pytest.raises(KeyUnavailable, match="cannot be opened"):
        provider.create("data/posts/2026-11", period="2026-11")


def test_after_destroy_the_vault_itself_opens_nothing(make, transit, tmp_path, clock):
    provider = make("vault")
    provider.create("data/posts/2026-11", period="2026-11")
    with SecretKey.generate() as key:
        wrapped = provider.wrap("data/posts/2026-11", key, context=CONTEXT)
    provider.destroy("data/posts/2026-11")
    assert not transit.keys
    other = Register(tmp_path / "without-tombstone", clock=clock)
    other.add("data/posts/2026-11", period="2026-11", expires=None, service_name="data_sposts_s2026-11")
    blind = VaultProvider(url=transit.url, token=bytearray(TOKEN.encode()), register=other)
    with pytest.raises(KeyUnavailable, match="encryption key not found"):
        blind.unwrap("data/posts/2026-11", wrapped, context=CONTEXT)


def test_a_vault_that_does_not_delete_is_caught(make, transit):
    provider = make("vault")
    provider.create("data/posts/2026-11", period="2026-11")
    transit.forgets_to_delete = True
    with pytest.raises(KeyUnavailable, match="did not delete"):
        provider.destroy("data/posts/2026-11")

    assert provider.list()[0].state == "active"
    with SecretKey.generate() as key, pytest.raises(KeyUnavailable, match="is not confirmed"):
        provider.wrap("data/posts/2026-11", key, context=CONTEXT)
    transit.forgets_to_delete = False
    assert provider.destroy("data/posts/2026-11").state == "destroyed"
    assert not transit.keys


def test_a_key_that_lives_elsewhere_is_not_said_to_be_gone(house, make, transit, tmp_path, clock):
    """After a change of [vault] url or mount the service has no such key, or another of that name."""
    house.add()
    providers = {"local": house.provider, "vault": make("vault")}
    rotate(house.workspace, "posts", providers=providers, audit=house.audit, user="ada", to="vault")
    keys, transit.keys = transit.keys, {}
    with pytest.raises(KeyUnavailable, match="nothing was destroyed"):
        providers["vault"].destroy("data/posts/2026-11")
    for keys_there in ({}, {name: {"secret": AESGCM(bytes(32)), "deletable": False} for name in keys}):
        transit.keys = keys_there
        with pytest.raises(KeyUnavailable, match="does not open before its end"):
            expire(house.workspace, "posts", providers=providers, audit=house.audit, user="ada")
        assert transit.keys == keys_there
    assert not house.logged("data_expired")
    transit.keys = keys
    expire(house.workspace, "posts", providers=providers, audit=house.audit, user="ada")
    assert not transit.keys


def test_a_vault_that_is_away_or_refuses_is_said(make, transit, tmp_path, clock):
    register = Register(tmp_path / "register", clock=clock)
    stranger = VaultProvider(url=transit.url, token=bytearray(b"wrong"), register=register)
    with pytest.raises(KeyUnavailable, match=r"refused .*\(403\): permission denied"):
        stranger.create("data/posts/2026-11", period="2026-11")
    gone = VaultProvider(url="http://127.0.0.1:1", token=bytearray(b"x"), register=register)
    with pytest.raises(KeyUnavailable, match="does not answer"):
        gone.create("data/posts/2026-11", period="2026-11")


def test_a_vault_address_that_sends_keys_in_the_open_is_refused(tmp_path, clock):
    register = Register(tmp_path, clock=clock)
    for url in ("http://vault.example.org:8200", "vault.example.org", "ftp://x"):
        with pytest.raises(ConfigError):
            VaultProvider(url=url, token=bytearray(b"x"), register=register)


def test_service_names_of_two_keys_never_meet():
    from rsc.keys.providers.vault import _service_name

    names = ["a/b", "a_b", "a_sb", "a/b_u", "a_ub", "a_/b"]
    valid = [name for name in names if not name.endswith("_/b")]
    assert len({_service_name(name) for name in valid}) == len(valid)


def test_wipe_overwrites_the_object():
    secret = bytes(bytearray(os.urandom(32)))
    wipe(secret)
    assert secret == bytes(32)


def test_rotation_keeps_data_and_review_and_ends_old_envelopes(house):
    house.add()
    house.add()
    house.approve()
    before = Dataset.open(house.workspace.data, name="posts")
    old_envelope, old_root = before.envelope(), before.root_hash
    done = rotate(
        house.workspace, "posts", providers={"local": house.provider}, audit=house.audit, user="ada"
    )
    assert (done.versions, done.old, done.new) == ((1, 2), ("data/posts/2026-11",), ("data/posts/2026-11.2",))
    after = Dataset.open(house.workspace.data, name="posts")
    assert after.root_hash == old_root
    assert house.state() == "approved"
    with open_envelope(house.provider, after.envelope(), context=data_key_context("posts")) as key:
        assert len(list(after.split("train", key=key).iterate())) == 1
    with pytest.raises(KeyUnavailable, match="destroyed"):
        open_envelope(house.provider, old_envelope, context=data_key_context("posts"))
    assert house.logged("key_rotated")[0]["new"] == "data/posts/2026-11.2"


def test_a_rotation_that_stopped_before_the_old_key_was_gone_is_finished(house, monkeypatch):
    """No envelope names that key any more; the log does."""
    house.add()
    fresh = {"providers": {"local": house.provider}, "audit": house.audit, "user": "ada"}

    def fail(*arguments, **options):
        raise KeyboardInterrupt

    for step in ("destroy", "wrap"):
        with monkeypatch.context() as patch:
            patch.setattr(house.provider, step, fail)
            with pytest.raises(KeyboardInterrupt):
                rotate(house.workspace, "posts", **fresh)
    done = rotate(house.workspace, "posts", **fresh)
    assert list(done.old) == [f"data/posts/2026-11{suffix}" for suffix in ("", ".2", ".3")]
    active = [info.kek_id for info in house.provider.list() if info.state == "active"]
    assert active == list(done.new) == ["data/posts/2026-11.4"]
    assert {entry["old"] for entry in house.logged("key_rotated")} == {*done.old} - {"data/posts/2026-11.3"}
    assert house.logged("key_destroyed")[0]["kek_id"] == "data/posts/2026-11.3"


def test_no_rotation_while_an_import_runs(house):
    """Its version would be left under the old key."""
    house.add()
    providers = {"local": house.provider}
    with only_writer(house.workspace.data / "posts"), pytest.raises(ConfigError, match="another import"):
        rotate(house.workspace, "posts", providers=providers, audit=house.audit, user="ada")
    with pytest.raises(ConfigError, match="no data set"):
        rotate(house.workspace, "nothing", providers=providers, audit=house.audit, user="ada")
    assert not (house.workspace.data / "nothing").exists()


def test_a_rotated_key_ends_when_the_old_one_did(house, make):
    """Whatever other keys of the month the target has."""
    house.add()
    vault = make("vault")
    ends = {name: house.clock.now() + timedelta(days=days) for name, days in (("long", 400), ("short", 40))}
    house.provider.create("data/letters/2026-11", period="2026-11", expires=ends["long"])
    vault.create("data/others/2026-11", period="2026-11", expires=ends["short"])
    house.add("letters")
    providers = {"local": house.provider, "vault": vault}
    rotate(house.workspace, "letters", providers=providers, audit=house.audit, user="ada", to="vault")
    assert {info.kek_id: info.expires for info in vault.list()} == {
        "data/letters/2026-11": ends["long"],
        "data/others/2026-11": ends["short"],
    }


def test_data_of_a_longer_retention_get_a_key_of_their_own(house):
    """The key of the month ends with the data it was made for."""
    opened = []
    for days in (7, 365, 30):
        policy = Policy(retention=f"{days}d")
        envelope, key = new_data_key(house.provider, name="posts", policy=policy, clock=house.clock)
        key.close()
        opened.append(envelope.kek_id)
        wanted = period_end("2026-11") + timedelta(days=days)
        (info,) = [info for info in house.provider.list() if info.kek_id == envelope.kek_id]
        assert info.expires >= wanted
    assert opened == ["data/posts/2026-11", "data/posts/2026-11.2", "data/posts/2026-11.2"]


def test_keys_move_from_the_folder_to_a_service_and_end_there(house, make):
    house.add()
    vault = make("vault")
    providers = {"local": house.provider, "vault": vault}
    rotate(house.workspace, "posts", providers=providers, audit=house.audit, user="ada", to="vault")
    assert Dataset.open(house.workspace.data, name="posts").envelope().provider == "vault"
    ended = expire(house.workspace, "posts", providers=providers, audit=house.audit, user="ada")
    assert [attempt.opened for attempt in (*ended.before, *ended.after)] == [True, False]


def test_expiry_on_a_simulated_kms_proves_only_our_own_refusal(house, make):
    """moto decrypts keys that are scheduled for deletion, so what refuses here is RSC's tombstone."""
    house.add()
    providers = {"local": house.provider, "aws": make("aws")}
    rotate(house.workspace, "posts", providers=providers, audit=house.audit, user="ada", to="aws")
    ended = expire(house.workspace, "posts", providers=providers, audit=house.audit, user="ada")
    assert "was destroyed on" in ended.after[0].told


def test_without_a_file_the_folder_alone_is_used(tmp_path):
    assert list(configured_providers(tmp_path)) == ["local"]


def test_the_file_names_providers_and_the_default(tmp_path, transit):
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")
    (tmp_path / "providers.toml").write_text(
        f'default = "vault"\n[vault]\nurl = "{transit.url}"\ntoken_file = "{secret}"\n'
    )
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others"):
        configured_providers(tmp_path)
    secret.chmod(0o600)
    assert list(configured_providers(tmp_path)) == ["vault", "local"]
    default_provider(tmp_path).create("data/posts/2026-11", period="2026-11")
    assert "data_sposts_s2026-11" in transit.keys


@pytest.mark.parametrize(
    "text",
    ["default = 'vault'", "defautl = 'local'", "[vault]\nurl = 'x'", "x", "[local]\npassphrase = 'secret'"],
)
def test_a_file_that_is_wrong_is_refused(tmp_path, text):
    (tmp_path / "providers.toml").write_text(text)
    with pytest.raises(ConfigError):
        configured_providers(tmp_path)


def test_a_passphrase_file_seals_the_keys(tmp_path, clock):
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse\n")
    secret.chmod(0o600)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/providers.toml").write_text(f'[local]\npassphrase_file = "{secret}"\n')
    provider = configured_providers(tmp_path / "keys", clock=clock)["local"]
    provider.create("data/posts/2026-11", period="2026-11")
    with SecretKey.generate() as key:
        wrapped = provider.wrap("data/posts/2026-11", key, context=CONTEXT)
    with pytest.raises(KeyUnavailable, match="passphrase"):
        LocalKeyProvider(tmp_path / "keys", clock=clock).unwrap(
            "data/posts/2026-11", wrapped, context=CONTEXT
        )
