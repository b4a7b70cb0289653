"""How long data may be kept: until the retention of its policy is over, counted from its import."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from rsc.audit.log import AuditLog
from rsc.clock import Clock
from rsc.config import Workspace
from rsc.errors import ConfigError, KeyUnavailable
from rsc.release.agent.facts import collected
from rsc.release.lifecycle.expire import Expired, expire
from rsc.release.lifecycle.kek_index import Providers, active_keks
from rsc.review.policy import parse_policy
from rsc.store.bulk.locations import Location
from rsc.store.cache.node_cache import NodeCache
from rsc.store.dataset import Dataset, list_datasets


@dataclass(frozen=True, slots=True)
class Overdue:
    """A version whose key is there although its policy's retention is over."""

    name: str
    version: int
    kek_id: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Swept:
    """What was ended, and what could not be now and why: an import into the same data set runs."""

    ended: tuple[Expired, ...]
    postponed: tuple[tuple[Overdue, str], ...]


def sweep(workspace: Workspace, *, providers: Providers, audit: AuditLog, clock: Clock, user: str) -> Swept:
    """End every version that is past the retention of its policy. Raises what `expire` raises, but for
    imports that run: the others are ended, and those named."""
    ended: list[Expired] = []
    postponed: list[tuple[Overdue, str]] = []
    for late in overdue(workspace, providers=providers, now=clock.now()):
        try:
            ended.append(
                expire(
                    workspace,
                    late.name,
                    providers=providers,
                    audit=audit,
                    user=user,
                    version=late.version,
                    reason=f"past its retention since {late.since:%Y-%m-%d}",
                )
            )
        except ConfigError as error:
            postponed.append((late, error.message))
    return Swept(tuple(ended), tuple(postponed))


def overdue(workspace: Workspace, *, providers: Providers, now: datetime) -> list[Overdue]:
    """Every key that is older than its policy allows: the number that has to be zero."""
    active = active_keks(providers)
    found = []
    for name, versions in list_datasets(workspace.bulk):
        for number in versions:
            dataset = Dataset.open(workspace.bulk, name=name, version=number)
            envelope = dataset.envelope()
            end = retained_until(dataset)
            if (envelope.provider, envelope.kek_id) in active and end <= now:
                found.append(Overdue(name, number, envelope.kek_id, end))
    return found


def retained_until(dataset: Dataset) -> datetime:
    """When the policy of a version says that its key must be gone."""
    policy = parse_policy(dataset.read_review("policy.toml") or b"")
    return collected(dataset) + timedelta(seconds=policy.retention_s)


def open_cached(location: Location, *, name: str, version: int | None = None, cache: NodeCache) -> Dataset:
    """A version whose shards are read through a node's cache, until the day on which its key must be gone.

    From then on the cache removes and refuses them (KeyUnavailable), on every node, with no word from here.
    """
    found = Dataset.open(location, name=name, version=version)
    return Dataset.open(
        location, name=name, version=found.version, cache=cache, expires=retained_until(found)
    )


def open_to_read(workspace: Workspace, *, name: str, version: int | None = None) -> Dataset:
    """A version whose samples will be read: out of an object store through the cache of this node. Raises
    KeyUnavailable for one that has ended."""
    found = Dataset.open(workspace.bulk, name=name, version=version)
    if found.is_ended:  # names of its fields are codes, so that nothing would be found to fit
        raise KeyUnavailable(
            f"{name} version {found.version} has ended: its key was destroyed",
            hint="import the data again if you may still keep it",
        )
    if isinstance(workspace.bulk, Path):
        return found
    cache = NodeCache(workspace.cache, limit_bytes=workspace.cache_bytes)
    return open_cached(workspace.bulk, name=name, version=version, cache=cache)
