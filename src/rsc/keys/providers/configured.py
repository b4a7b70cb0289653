"""Which key providers a workspace uses: `keys/providers.toml`; without that file the local folder alone.

    default = "pkcs11"                       # for new keys; envelopes name the provider that opens them
    run_retention = "365d"                   # keys of checkpoints go so long after the month they are of
    [local]
    passphrase_file = "/run/user/1000/rsc"   # 0600; or passphrase = "ask" at a terminal
    [pkcs11]
    module = "/usr/lib/softhsm/libsofthsm2.so"
    token = "rsc"
    pin_file = "/run/user/1000/rsc-pin"
    [vault]
    url = "https://vault.example.org:8200"
    token_file = "/run/vault-token"
    [aws]
    region = "eu-central-1"

Secrets are read from files that only their owner can read, never from the environment.
"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rsc.clock import Clock, SystemClock
from rsc.errors import ConfigError
from rsc.keys.envelope import KeyProvider
from rsc.keys.providers.aws import AwsKmsProvider
from rsc.keys.providers.local import LocalKeyProvider
from rsc.keys.providers.pkcs11 import Pkcs11Provider
from rsc.keys.providers.register import Register
from rsc.keys.providers.vault import VaultProvider
from rsc.toml import parse_toml
from rsc.units import parse_seconds


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LocalSection(_Section):
    passphrase: Literal["ask"] | None = None
    """`ask` asks for the passphrase of the key folder on the terminal, in each command that needs a key."""
    passphrase_file: Path | None = None
    """File (mode 0600) with that passphrase. Without either the key folder is protected by its mode alone."""


class Pkcs11Section(_Section):
    module: Path
    """PKCS#11 library of the token."""
    token: str
    """Label of the token."""
    pin_file: Path
    """File (mode 0600) with the token's PIN."""


class VaultSection(_Section):
    url: str
    """Address of Vault or OpenBao."""
    token_file: Path
    """File (mode 0600) with a token that may use the transit engine."""
    mount: str = "transit"
    """Where the transit engine is mounted."""
    ca_file: str | None = None
    """Certificates to trust in place of the system's."""


class AwsSection(_Section):
    region: str
    """AWS region of the keys."""
    profile: str | None = None
    """Profile of the AWS configuration; its default one if left out."""


class ProvidersConfig(_Section):
    """The file. `local` is always there, so that old envelopes open."""

    default: Annotated[str, Field(pattern="^(local|pkcs11|vault|aws)$")] = "local"
    """Where new keys are made: `local`, `pkcs11`, `vault` or `aws`. An envelope names its provider."""
    run_retention: str = "365d"
    """How long keys of checkpoints are kept after the end of the month they are of."""
    local: LocalSection = LocalSection()
    pkcs11: Pkcs11Section | None = None
    vault: VaultSection | None = None
    aws: AwsSection | None = None


def configured_providers(folder: Path, *, clock: Clock | None = None) -> dict[str, KeyProvider]:
    """Providers by the name that envelopes carry, the default one first; `folder` is the workspace's `keys`.

    Nothing is contacted yet. Raises ConfigError for a file that is not as above, and for a secret that
    others can read.
    """
    clock = clock or SystemClock()
    config = _read(folder / "providers.toml")
    found: dict[str, KeyProvider] = {"local": _local(folder, config.local, clock=clock)}
    if config.pkcs11 is not None:
        found["pkcs11"] = Pkcs11Provider(
            module=config.pkcs11.module,
            token_label=config.pkcs11.token,
            pin=read_secret(config.pkcs11.pin_file),
            register=Register(folder / ".pkcs11", clock=clock),
        )
    if config.vault is not None:
        found["vault"] = VaultProvider(
            url=config.vault.url,
            token=read_secret(config.vault.token_file),
            mount=config.vault.mount,
            ca_file=config.vault.ca_file,
            register=Register(folder / ".vault", clock=clock),
        )
    if config.aws is not None:
        register = Register(folder / ".aws", clock=clock)
        found["aws"] = AwsKmsProvider(region=config.aws.region, profile=config.aws.profile, register=register)
    if config.default not in found:
        raise ConfigError(f"providers.toml: default is {config.default}, which has no section")
    return dict(sorted(found.items(), key=lambda item: item[0] != config.default))


def run_retention_s(folder: Path) -> float:
    """How long keys of checkpoints are kept after their month. Raises ConfigError for no span of time."""
    return parse_seconds(_read(folder / "providers.toml").run_retention)


def default_provider(folder: Path, *, clock: Clock | None = None) -> KeyProvider:
    """The provider for new keys."""
    return next(iter(configured_providers(folder, clock=clock).values()))


def _read(path: Path) -> ProvidersConfig:
    try:
        return ProvidersConfig.model_validate(parse_toml(path.read_text(), name=str(path)))
    except FileNotFoundError:
        return ProvidersConfig()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(
            f"{path}: {where}: {problem['msg']}", hint="docs/keys.md lists the settings"
        ) from None


def _local(folder: Path, section: LocalSection, *, clock: Clock) -> LocalKeyProvider:
    passphrase = None
    if section.passphrase_file is not None:
        passphrase = read_secret(section.passphrase_file)
    elif section.passphrase == "ask":
        passphrase = bytearray(getpass.getpass("passphrase of the key folder: ").encode())
    return LocalKeyProvider(folder, passphrase=passphrase, clock=clock)


def read_secret(path: Path) -> bytearray:
    """First line of a secret's file. Raises ConfigError when it is not there or others can read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others", hint=f"chmod 600 {path}")
        with path.open("rb", buffering=0) as file:
            secret = bytearray(path.stat().st_size)
            file.readinto(secret)
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", hint="docs/keys.md says what it holds"
        ) from None
    return secret.split(b"\n", 1)[0]
