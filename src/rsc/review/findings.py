"""What the scanner reports, the closed list of types, and how overlapping findings are settled."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from operator import attrgetter
from typing import NamedTuple

TYPES: dict[str, str] = {
    "email": "e-mail addresses, also spelled out",
    "phone": "telephone numbers of any country",
    "credit_card": "payment card numbers that pass the Luhn check",
    "iban": "bank accounts in IBAN form",
    "ssn": "US social security and taxpayer numbers",
    "national_id": "national identity, tax and health numbers with a check digit",
    "id_document": "passports, driving licences and accounts named as such in the text",
    "ip_address": "IPv4 and IPv6 addresses",
    "mac_address": "hardware addresses",
    "url_credentials": "URLs with a user name and password in them",
    "crypto_wallet": "crypto-currency addresses that pass their checksum",
    "date_of_birth": "dates said to be a birth date",
    "coordinates": "geographic positions",
    "handle": "account names written with @ or named as such",
    "street_address": "street addresses with a house number or post box",
    "secret": "passwords, tokens, private keys",
}

RECOGNISER_TYPES: dict[str, str] = {
    "person": "names of persons",
    "place": "names of places",
    "organisation": "names of organisations",
}
"""Types that no rule finds; a recogniser may be plugged in for them (recogniser.py)."""

NOT_LOOKED_FOR: tuple[str, ...] = (
    *RECOGNISER_TYPES.values(),
    "free descriptions that identify a person",
    "health, belief, politics, sexual life, ethnic origin",
    "dates other than birth dates",
    "vehicle plates",
    "faces, voices and writing inside pictures or recordings",
)


def not_looked_for(types: Collection[str]) -> tuple[str, ...]:
    """What is left of NOT_LOOKED_FOR where models look for these types."""
    found = {what for name, what in RECOGNISER_TYPES.items() if name in types}
    return tuple(what for what in NOT_LOOKED_FOR if what not in found)


class Finding(NamedTuple):
    """One match: half-open span [start, end) of the original text, in characters."""

    type: str
    start: int
    end: int
    rule: str


_PLACE = attrgetter("start", "end", "rule")


def settle(findings: Iterable[Finding], *, rank: dict[str, int]) -> list[Finding]:
    """Remove overlaps, sorted by start.

    Findings that touch the same characters form a cluster; inside it the best ranked rule wins (a
    checksum beats a shape), then the longer, then the earlier. Losers that overlap no winner stay.
    A cluster's outcome depends on its own members only, so a stream may settle cluster by cluster.
    """
    kept: list[Finding] = []
    cluster: list[Finding] = []
    cluster_end = -1
    for finding in sorted(findings, key=_PLACE):
        if finding.start >= cluster_end and cluster:
            kept += cluster if len(cluster) == 1 else _winners(cluster, rank=rank)
            cluster = []
        cluster.append(finding)
        cluster_end = max(cluster_end, finding.end)
    return kept + _winners(cluster, rank=rank)


def _winners(cluster: list[Finding], *, rank: dict[str, int]) -> list[Finding]:
    if len(cluster) < 2:
        return cluster
    best_first = sorted(cluster, key=lambda f: (rank[f.rule], f.start - f.end, f.start, f.rule))
    winners: list[Finding] = []
    for finding in best_first:
        if all(finding.end <= w.start or finding.start >= w.end for w in winners):
            winners.append(finding)
    return sorted(winners, key=lambda f: f.start)
