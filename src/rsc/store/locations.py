"""From what a user writes to a `BulkStore`: a folder, `s3://bucket/prefix`, `gs://...`, `az://...`."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from obstore.store import MemoryStore, from_url

from rsc.errors import ConfigError
from rsc.store.files import BulkStore
from rsc.store.local import LocalStore
from rsc.store.objects import ObjectStore

Location: TypeAlias = "Path | str | BulkStore"

_REMOTE = ("s3", "gs", "az")


def open_store(location: Location) -> BulkStore:
    """A store object is used as it is. Each `memory://` is a new, empty store: keep the object to reopen it.

    Raises ConfigError for a scheme that we do not read.
    """
    if isinstance(location, Path):
        return LocalStore(location)
    if not isinstance(location, str):
        return location
    scheme, separator, rest = location.partition("://")
    if not separator:
        return LocalStore(Path(location))
    if scheme == "file":
        return LocalStore(Path(rest))
    if scheme == "memory":
        return ObjectStore(MemoryStore())
    if scheme not in _REMOTE:
        raise ConfigError(
            f"cannot read {scheme}:// locations", hint=f"use a folder or one of: {', '.join(_REMOTE)}, memory"
        )
    return ObjectStore(from_url(location))
