"""From what a user writes to a `BulkStore`: a folder, `s3://bucket/prefix`, `gs://...`, `az://...`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

from obstore.exceptions import BaseError
from obstore.store import MemoryStore, from_url

from rsc.errors import ConfigError
from rsc.store.bulk.interface import BulkStore
from rsc.store.bulk.local import LocalStore
from rsc.store.bulk.objects import ObjectStore

Location: TypeAlias = "Path | str | BulkStore"

# Set to true, these let a client speak HTTP: to a MinIO or a test server in the same machine or network.
_PLAIN_HTTP = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP")
# A request may take as long as a part of 8 MiB needs on a slow line; the client's own default is 30 s.
_CLIENT = {"timeout": "120s", "connect_timeout": "10s"}
# The client repeats requests that failed whole (it holds the parts of uploads); reads go on in objects.py.
_UPLOADS = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}
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
    try:
        options = {**_CLIENT, "allow_http": _allows_http(os.environ)}
        backend = from_url(location, client_options=options, retry_config=_UPLOADS)  # type: ignore[call-overload]
    except BaseError as error:
        hint = "name account, region and credentials in the environment; docs/tiers.md says how"
        told = str(error).partition("\n")[0]
        raise ConfigError(f"cannot use {location}: {told}", hint=hint) from None
    return ObjectStore(backend)


def _allows_http(environment: Mapping[str, str]) -> bool:
    """Options that we give replace all that the client would have read from the environment."""
    return any(environment.get(name, "").lower() in ("1", "true") for name in _PLAIN_HTTP)
