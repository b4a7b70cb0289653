"""Envelope encryption: data keys wrapped by a key-encryption key (KEK) per data set and period.

A `KeyProvider` keeps KEKs and never shows them: it wraps and unwraps. `LocalKeyProvider` (local_keys.py)
keeps them in a folder; others talk to a token or a service. Destroying a period's KEK makes every data
key wrapped by it, and so every byte encrypted under those, unreadable wherever copies lie.

The envelope is a small public JSON file beside the data. Rotation (`rewrap`) replaces it and leaves the
data as it is, because the data key inside stays the same.

Not covered: a data key already released to a process; it lives there until that process wipes it.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from rsc.clock import Clock, SystemClock, parse_timestamp, timestamp
from rsc.errors import ConfigError, IntegrityError
from rsc.keys.secret import SecretKey

_PERIOD = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")
_KEK_ID = re.compile(r"[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*")


@dataclass(frozen=True, slots=True)
class KekInfo:
    """What a provider tells about a key-encryption key; a destroyed one stays listed."""

    kek_id: str
    period: str
    created: datetime
    expires: datetime | None
    state: Literal["active", "destroyed"]
    destroyed: datetime | None = None


class KeyProvider(Protocol):
    """Keeps KEKs. Every method raises KeyUnavailable where the key is unknown, expired or destroyed."""

    name: str

    @property
    def is_immediate(self) -> bool:
        """False when `unwrap` waits: for a network, a token, a memory-hard function."""
        ...

    def create(self, kek_id: str, *, period: str, expires: datetime | None = None) -> KekInfo:
        """Make a KEK, or return the one that exists under this id. A destroyed id cannot come back."""
        ...

    def wrap(self, kek_id: str, key: SecretKey, *, context: bytes) -> bytes: ...

    def unwrap(self, kek_id: str, wrapped: bytes, *, context: bytes) -> SecretKey:
        """The data key. `context` must be the bytes given to `wrap`."""
        ...

    def destroy(self, kek_id: str) -> KekInfo:
        """Make the KEK unusable for good. Calling it again finishes what a crash interrupted."""
        ...

    def list(self) -> list[KekInfo]: ...


@dataclass(frozen=True, slots=True)
class Envelope:
    """A wrapped data key: who can open it, under which KEK, and when it was wrapped. Holds no secret."""

    provider: str
    kek_id: str
    wrapped: bytes
    created: datetime

    def to_json(self) -> str:
        record = {
            "format": "rsc-envelope-1",
            "provider": self.provider,
            "kek_id": self.kek_id,
            "wrapped": base64.b64encode(self.wrapped).decode(),
            "created": timestamp(self.created),
        }
        return json.dumps(record, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Envelope:
        """Inverse of `to_json`. Raises IntegrityError (outcome `header`) for anything else."""
        try:
            record = json.loads(text)
            if record["format"] != "rsc-envelope-1":
                raise ValueError(record["format"])
            return cls(
                provider=str(record["provider"]),
                kek_id=check_kek_id(record["kek_id"]),
                wrapped=base64.b64decode(record["wrapped"], validate=True),
                created=parse_timestamp(record["created"]),
            )
        except (ValueError, KeyError, TypeError, ConfigError, RecursionError):
            raise IntegrityError(
                "key.json is not an envelope of format rsc-envelope-1", outcome="header"
            ) from None


def new_envelope(
    provider: KeyProvider, *, kek_id: str, context: bytes, clock: Clock | None = None
) -> tuple[Envelope, SecretKey]:
    """Make a data key and wrap it. The KEK must exist (`provider.create`). The caller closes the key."""
    key = SecretKey.generate()
    try:
        wrapped = provider.wrap(kek_id, key, context=context)
    except BaseException:
        key.close()
        raise
    created = (clock or SystemClock()).now()
    return Envelope(provider=provider.name, kek_id=kek_id, wrapped=wrapped, created=created), key


def open_envelope(provider: KeyProvider, envelope: Envelope, *, context: bytes) -> SecretKey:
    """Unwrap. Raises ConfigError for another provider's envelope, KeyUnavailable where the KEK is gone."""
    if provider.name != envelope.provider:
        raise ConfigError(
            f"this envelope belongs to key provider {envelope.provider!r}, asked was {provider.name!r}",
            hint=f"configure the provider {envelope.provider!r}",
        )
    return provider.unwrap(envelope.kek_id, envelope.wrapped, context=context)


def rewrap(
    provider: KeyProvider,
    envelope: Envelope,
    *,
    kek_id: str,
    context: bytes,
    to: KeyProvider | None = None,
    clock: Clock | None = None,
) -> Envelope:
    """Rotation: the same data key under another KEK (and, with `to`, another provider). Data stays as it is.

    The old KEK still opens copies of the old envelope until it is destroyed.
    """
    target = to or provider
    with open_envelope(provider, envelope, context=context) as key:
        wrapped = target.wrap(kek_id, key, context=context)
    created = (clock or SystemClock()).now()
    return Envelope(provider=target.name, kek_id=kek_id, wrapped=wrapped, created=created)


def period_of(moment: datetime) -> str:
    """The calendar month in UTC: `2026-11`."""
    return moment.astimezone(UTC).strftime("%Y-%m")


def period_end(period: str) -> datetime:
    """The first moment after the period. Raises ConfigError for anything but `YYYY-MM`."""
    match = _PERIOD.fullmatch(period)
    if match is None:
        raise ConfigError(f"{period!r} is not a period", hint="write a month such as 2026-11")
    first = datetime(int(match[1]), int(match[2]), 1, tzinfo=UTC)
    return (first + timedelta(days=31)).replace(day=1)


def data_kek_id(name: str, *, period: str) -> str:
    """KEK of a data set's versions imported in one period: `data/<name>/<period>`."""
    return check_kek_id(f"data/{name}/{period}")


def run_kek_id(*, period: str) -> str:
    """KEK of the run keys (checkpoints) of one period: `runs/<period>`."""
    return check_kek_id(f"runs/{period}")


def data_key_context(name: str) -> bytes:
    """What a data set's wrapped key is bound to, so that an envelope moved to another set does not open."""
    return f"rsc-data-key-1\n{name}\n".encode()


def run_key_context(run_id: str) -> bytes:
    """What a run's wrapped key is bound to."""
    return f"rsc-run-key-1\n{run_id}\n".encode()


def check_kek_id(kek_id: str) -> str:
    """The id itself. Raises ConfigError unless it is lower-case words joined by `/` (it becomes a path)."""
    if not isinstance(kek_id, str) or _KEK_ID.fullmatch(kek_id) is None:
        raise ConfigError(
            f"{kek_id!r} is not a key id", hint="use lower-case letters, digits, . _ - and / between"
        )
    return kek_id
