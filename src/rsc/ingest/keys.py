"""The data key of a new version, wrapped by the key of its data set and month."""

from __future__ import annotations

from datetime import timedelta
from itertools import count

from rsc.clock import Clock
from rsc.errors import KeyUnavailable
from rsc.keys.envelope import (
    Envelope,
    KeyProvider,
    data_kek_id,
    data_key_context,
    new_envelope,
    period_end,
    period_of,
)
from rsc.keys.secret import SecretKey
from rsc.review.policy import Policy


def new_data_key(
    provider: KeyProvider, *, name: str, policy: Policy, clock: Clock
) -> tuple[Envelope, SecretKey]:
    """A key for one version. Its KEK lasts to the end of the month plus the policy's retention.

    A KEK that was destroyed never comes back, and one that was made for a shorter retention ends too early:
    such data of the same month get the next one, `data/posts/2026-11.2` after `data/posts/2026-11`.
    """
    period = period_of(clock.now())
    expires = period_end(period) + timedelta(seconds=policy.retention_s)
    for attempt in count(1):
        kek_id = data_kek_id(name, period=period if attempt == 1 else f"{period}.{attempt}")
        try:
            kek = provider.create(kek_id, period=period, expires=expires)
        except KeyUnavailable as error:
            if error.facts.get("state") == "destroyed":
                continue
            raise
        if kek.expires is not None and kek.expires < expires:
            continue
        return new_envelope(provider, kek_id=kek_id, context=data_key_context(name), clock=clock)
    raise AssertionError("count() does not end")
