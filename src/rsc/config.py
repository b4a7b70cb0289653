"""Where things lie: `Workspace`.

What holds for a whole workspace stands in its `config.toml`, which may be absent:

    [data]
    location = "s3://bucket/sets"
    cache = "200 GiB"
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from rsc.errors import ConfigError
from rsc.layers import FrozenModel, Resolved, merge, parse_as
from rsc.toml import parse_toml
from rsc.units import parse_bytes


class DataSettings(FrozenModel):
    """Where the data sets of a workspace lie."""

    location: str = Field(default="", pattern=r"^(|/.*|[a-z0-9]+://.+)$")
    """`s3://bucket/prefix`, `gs://...`, `az://...`, or the absolute path of a folder; empty for the folder
    `data` of the workspace. Keys, log and identities stay in the workspace."""
    cache: str = "64 GiB"
    """What this node keeps of data in an object store, at most, in the folder `cache` of the workspace."""


CipherChoice = Literal["auto", "aes-256-gcm", "aegis-256"]


class StoreSettings(FrozenModel):
    """How a workspace writes what it encrypts."""

    cipher: CipherChoice = "auto"
    """Of new data and checkpoints. `auto` measures both ciphers for 20 ms and takes AES-256-GCM unless
    AEGIS-256 is at least 1.25 times as fast on the machine that writes. A policy may pin one. All data is
    read whatever this says."""


class AuditSettings(FrozenModel):
    """What keeps the log of a workspace honest."""

    witness: str = Field(default="", pattern=r"^(|/.*)$")
    """Absolute path of a witness's file (`rsc audit checkpoint --witness FILE`), kept where the workspace's
    owner cannot change it. No key is released while the log contradicts its newest checkpoint."""


class Settings(FrozenModel):
    """What `config.toml` of a workspace says."""

    data: DataSettings = DataSettings()
    store: StoreSettings = StoreSettings()
    audit: AuditSettings = AuditSettings()


_FOLDERS = ("data", "keys", "audit", "identities", "runs", "cache", "quickstart")
"""What RSC makes in a workspace. A root that holds nothing else is RSC's own to make private."""


@dataclass(frozen=True)
class Workspace:
    """The folder that holds data sets, keys, the audit log, identities and runs of one installation."""

    root: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Workspace:
        """`$RSC_HOME`, else `~/.rsc`. The folder is made on first use, readable by its owner only.

        One with wider permissions is made private, with a warning. Raises ConfigError where that may not be
        done: the folder belongs to somebody else, or holds other files too.
        """
        root = Path(environment.get("RSC_HOME") or Path.home() / ".rsc").absolute()
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_private(root)
        except OSError as error:
            raise ConfigError(
                f"cannot make the workspace {root}: {error.strerror}",
                hint="set RSC_HOME to a folder you can write",
            ) from None
        return cls(root)

    @cached_property
    def settings(self) -> Settings:
        """Of `config.toml`. Raises ConfigError for what it must not say."""
        return _read_settings(self.root / "config.toml")

    @property
    def data(self) -> Path:
        """The folder of data sets; where they lie elsewhere it holds only the locks of imports."""
        return self.root / "data"

    @cached_property
    def bulk(self) -> Path | str:
        """Where data sets lie, as a location of the store. Raises ConfigError where some lie in `data` and
        `config.toml` names another place: nobody would find them, nor end them in time."""
        location = self.settings.data.location
        if not location:
            return self.data
        left = sorted({path.parent.parent.name for path in self.data.glob("*/v*/root.json")})
        if left:
            raise ConfigError(
                f"config.toml has data sets in {location}, and {', '.join(left)} lie in {self.data}",
                hint=f"copy them there (they are encrypted) and remove them from {self.data}; or remove "
                "data.location",
            )
        return location if "://" in location else Path(location)

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def audit(self) -> Path:
        return self.root / "audit"

    @property
    def witness(self) -> Path | None:
        """The file of the log's witness, where one is configured."""
        return Path(self.settings.audit.witness) if self.settings.audit.witness else None

    @property
    def identities(self) -> Path:
        return self.root / "identities"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def cache_bytes(self) -> int:
        """The limit of the cache. Raises ConfigError for what is no size."""
        return parse_bytes(self.settings.data.cache)

    @property
    def runs(self) -> Path:
        return self.root / "runs"


def _make_private(root: Path) -> None:
    """Take the permissions of group and others from a workspace and its folders, as if they were made now.

    Told where others could come in: below a private root nobody could.
    """
    uid, was_open = os.getuid(), bool(root.stat().st_mode & 0o077)
    for folder in (root, *(root / name for name in _FOLDERS)):
        try:
            found = folder.stat()
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(found.st_mode)
        if not mode & 0o077 or not stat.S_ISDIR(found.st_mode):
            continue
        if found.st_uid != uid:
            raise ConfigError(
                f"the workspace folder {folder} is open to others (mode {mode:04o}) and belongs to another "
                f"user (number {found.st_uid})",
                hint="its owner runs: chmod go= " + str(folder),
            )
        if folder == root and not _is_workspace(root):
            raise ConfigError(
                f"{root} is open to others (mode {mode:04o}) and holds files that are not of a workspace",
                hint=f"set RSC_HOME to a folder for RSC alone, or run: chmod go= {root}",
            )
        folder.chmod(0o700)
        if was_open:
            log = logging.getLogger("rsc")
            log.warning("%s was open to others (mode %04o): made private (0700)", folder, mode)


def _is_workspace(root: Path) -> bool:
    """Whether a folder is empty, or one that RSC has worked in."""
    names = {path.name for path in root.iterdir()}
    return (root / "audit" / "log.vkey").exists() or names <= {*_FOLDERS, "config.toml", "cluster.toml"}


def _read_settings(path: Path) -> Settings:
    try:
        values = parse_toml(path.read_text(), name=str(path))
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    provenance: dict[str, str] = {}
    merge({}, values, origin=str(path), provenance=provenance, prefix="")
    return parse_as(Settings, Resolved(name=str(path), values=values, provenance=provenance))
