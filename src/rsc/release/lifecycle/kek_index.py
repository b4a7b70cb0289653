"""The key-encryption keys of data sets, over all key providers of a workspace."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count

from rsc.keys.envelope import KekInfo, KeyProvider, data_kek_id

Providers = Mapping[str, KeyProvider]


def active_keks(providers: Providers) -> dict[tuple[str, str], KekInfo]:
    """By provider and id: keys that moved to another provider can have one id in both."""
    return {
        (name, info.kek_id): info
        for name, provider in providers.items()
        for info in provider.list()
        if info.state == "active"
    }


def kek_info(provider: KeyProvider, kek_id: str) -> KekInfo:
    """What the provider says of a KEK that it has."""
    return next(info for info in provider.list() if info.kek_id == kek_id)


def new_kek(provider: KeyProvider, name: str, *, like: KekInfo) -> str:
    """Make a KEK that did not exist before, of the period and with the end of another:
    `data/posts/2026-11.2` where `data/posts/2026-11` was."""
    taken = {info.kek_id for info in provider.list()}
    for attempt in count(1):
        kek_id = data_kek_id(name, period=like.period if attempt == 1 else f"{like.period}.{attempt}")
        if kek_id not in taken:
            provider.create(kek_id, period=like.period, expires=like.expires)
            return kek_id
    raise AssertionError("count() does not end")
