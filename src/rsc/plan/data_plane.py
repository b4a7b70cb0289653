"""`rsc plan data`: what a corpus of some size needs on the way to its GPUs. No torch here.

Rates are those that this project's own store, scanner, index and key agent were measured at
(tables/data_plane.toml, dated); everything else is arithmetic on the question. A cache that holds a share of
a corpus read in shuffled order spares that share of the reads, from the second epoch on: the measured cache
comes to the optimum (benchmarks/cache.py).
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from rsc.errors import ConfigError
from rsc.units import format_bytes, format_seconds

KINDS = ("text", "tokens", "images")
_SHARD = 256 << 20
"""Bytes of a shard as the importer writes it."""
_SHARDS_A_RANK = 8
"""Below it the windows of ranks are few, and one slow shard holds all of them."""
_ENTRY = 64 * 256 / 255
"""Bytes of a shard in a manifest (docs/format.md): 64, in pages of 256, and its part of the pages above."""
_PERIOD_DAYS = 365 / 12
"""Of a key: data sets are imported under the key of their month."""
_MB = 1e6
_DAY = 86_400.0


@dataclass(frozen=True)
class DataQuestion:
    size: float
    """Bytes of the corpus."""
    gpus: int
    kind: str = "text"
    per_node: int = 8
    gpu_rate: float = 1e9
    """Bytes that a GPU takes a second. Meta's RSC gave 16 TB/s to 16,000."""
    bulk_rate: float | None = None
    """B/s of the bulk store; None: what is needed is asked of it."""
    set_size: float = 1e15
    """Bytes of a data set: what one approval signs for, and one key opens."""
    signatures: int = 2
    """Reviewers of a version."""
    keep_days: float = 365.0
    scan_cores: int | None = None
    """Default: 16 of each node."""


def measured() -> dict[str, Any]:
    return tomllib.loads(files("rsc.plan").joinpath("tables/data_plane.toml").read_text())


def plan_data(ask: DataQuestion) -> dict[str, Any]:
    """Figures by part, and advice in sentences. Raises ConfigError for what nobody can plan."""
    _check(ask)
    rates, nodes = measured(), -(-ask.gpus // ask.per_node)
    return {
        "size_bytes": ask.size,
        "gpus": ask.gpus,
        "nodes": nodes,
        "kind": ask.kind,
        "measured": rates["measured"],
        "reading": _reading(ask, rates, nodes=nodes),
        "sharding": _sharding(ask, rates),
        "keys": _keys(ask, rates),
        "reviews": _reviews(ask),
        "scan": _scan(ask, rates, nodes=nodes),
    }


def _check(ask: DataQuestion) -> None:
    positive = {"--size": ask.size, "--gpus": ask.gpus, "--per-node": ask.per_node, "--rate": ask.gpu_rate}
    positive |= {"--set-size": ask.set_size, "--signatures": ask.signatures, "--keep-days": ask.keep_days}
    positive |= {
        "--bulk-rate": ask.bulk_rate or 1,
        "--scan-cores": 1 if ask.scan_cores is None else ask.scan_cores,
    }
    for option, value in positive.items():
        if not 0 < value < 1e24:  # NaN is not, and a whole number may be too large for a float
            raise ConfigError(f"{option} {str(value)[:40]}", hint="give a positive number below 1e24")
    if ask.kind not in KINDS:
        raise ConfigError(f"no kind of data {ask.kind!r} was measured", hint=f"one of {', '.join(KINDS)}")


def _reading(ask: DataQuestion, rates: dict[str, Any], *, nodes: int) -> dict[str, Any]:
    to_gpus = ask.gpus * ask.gpu_rate
    core = _MB * rates["loader"][f"{ask.kind}_mb_per_core_s"]
    bulk = min(ask.bulk_rate or to_gpus, to_gpus)
    cache = ask.size * (1 - bulk / to_gpus)
    return {
        "to_gpus_bytes_per_s": to_gpus,
        "node_bytes_per_s": ask.per_node * ask.gpu_rate,
        "bulk_bytes_per_s": bulk,
        "loader_cores_per_node": ask.per_node * ask.gpu_rate / core,
        "epoch_s": ask.size / to_gpus,
        "first_epoch_s": ask.size / bulk,
        "cache_bytes": cache,
        "cache_bytes_per_node": cache / nodes,
    }


def _sharding(ask: DataQuestion, rates: dict[str, Any]) -> dict[str, Any]:
    shards = math.ceil(ask.size / _SHARD)
    return {
        "shard_bytes": _SHARD,
        "shards": shards,
        "shards_per_gpu": shards / ask.gpus,
        "manifest_bytes": _ENTRY * shards,
        "open_s": rates["index"]["open_s"],
        "locate_s": rates["index"]["locate_s"],
        "reader_memory_bytes": _MB * rates["index"]["memory_mb"],
        "state_bytes": rates["index"]["state_bytes"],
    }


def _keys(ask: DataQuestion, rates: dict[str, Any]) -> dict[str, Any]:
    sets = math.ceil(ask.size / ask.set_size)
    periods = math.ceil(ask.keep_days / _PERIOD_DAYS)
    releases = sets * ask.gpus
    return {
        "data_sets": sets,
        "periods": periods,
        "alive": sets * periods,
        "destroyed_per_year": sets * 12,
        "releases_at_a_start": releases,
        "start_s": releases / rates["keys"]["releases_per_s"],
    }


def _reviews(ask: DataQuestion) -> dict[str, Any]:
    versions = math.ceil(ask.size / ask.set_size)
    return {"versions": versions, "signatures": versions * ask.signatures}


def _scan(ask: DataQuestion, rates: dict[str, Any], *, nodes: int) -> dict[str, Any]:
    """Text alone is scanned by these rates: what decoding pictures costs was not measured."""
    cores = ask.scan_cores or 16 * nodes
    if ask.kind == "images":
        return {"cores": cores, "core_hours": None, "core_hours_dense": None, "days": None}
    sealing = 1 / rates["import"]["text_mb_per_core_s"]
    sparse, dense = (
        ask.size / _MB * (1 / rates["scan"][f"{how}_mb_per_core_s"] + sealing) for how in ("sparse", "dense")
    )
    return {
        "cores": cores,
        "core_hours": sparse / 3600,
        "core_hours_dense": dense / 3600,
        "days": sparse / cores / _DAY,
    }


def to_text(found: dict[str, Any]) -> str:
    read, shards, keys, reviews, scan = (
        found[part] for part in ("reading", "sharding", "keys", "reviews", "scan")
    )
    size, first = format_bytes(found["size_bytes"]), format_seconds(read["first_epoch_s"])
    rates = [format_bytes(read[f"{who}_bytes_per_s"]) for who in ("to_gpus", "node", "bulk")]
    cache, of_node = format_bytes(read["cache_bytes"]), format_bytes(read["cache_bytes_per_node"])
    each, manifest = format_bytes(shards["shard_bytes"]), format_bytes(shards["manifest_bytes"])
    alive = f"{keys['alive']:,} alive ({keys['data_sets']:,} data sets x {keys['periods']:,} months)"
    start = f"{keys['releases_at_a_start']:,} releases, {format_seconds(keys['start_s'])} of one agent"
    lines = [
        f"{size} of {found['kind']} on {found['gpus']:,} GPUs, {found['nodes']:,} nodes",
        "",
        f"epoch     {format_seconds(read['epoch_s'])}; the first one {first}",
        "bandwidth {}/s to GPUs, {}/s a node, {}/s of the bulk store".format(*rates),
        f"cache     {cache} in all, {of_node} a node",
        f"loader    {read['loader_cores_per_node']:.2g} cores a node decrypt and shuffle",
        f"shards    {shards['shards']:,} of {each}, {shards['shards_per_gpu']:,.3g} a GPU",
        f"index     a manifest of {manifest}, opened in {1e3 * shards['open_s']:.2g} ms",
        f"keys      {alive}; a start takes {start}",
        f"reviews   {reviews['versions']:,} versions to approve, {reviews['signatures']:,} signatures",
        "scan      " + _scan_text(scan),
        "",
        *advice(found),
        f"rates measured {found['measured']} (rsc/plan/tables/data_plane.toml)",
    ]
    return "\n".join(lines)


def _scan_text(scan: dict[str, Any]) -> str:
    if scan["days"] is None:
        return "unknown: no rate of decoding pictures was measured"
    dense = f"{scan['core_hours_dense']:,.0f} where all lines hold findings"
    time = f"{format_seconds(_DAY * scan['days'])} on {scan['cores']:,} cores"
    return f"{scan['core_hours']:,.0f} core-hours ({dense}), {time}"


def advice(found: dict[str, Any]) -> list[str]:
    """What of it needs a decision, in sentences."""
    read, shards, keys, scan = (found[part] for part in ("reading", "sharding", "keys", "scan"))
    lines = []
    if shards["shards_per_gpu"] < _SHARDS_A_RANK:
        most = max(1, shards["shards"] // _SHARDS_A_RANK)
        lines.append(f"fewer than {_SHARDS_A_RANK} shards a GPU: up to {most:,} GPUs read it evenly")
    if keys["start_s"] > 600:
        agents = math.ceil(keys["start_s"] / 60)
        lines.append(f"a start waits for keys: run {agents:,} agents, or make data sets larger")
    if read["cache_bytes"]:
        lines.append("the cache pays from the second epoch on; one epoch reads all of it from the bulk store")
    if scan["days"] is not None and scan["days"] > 30:
        lines.append(
            f"scan with {math.ceil(scan['cores'] * scan['days'] / 30):,} cores to be done in 30 days"
        )
    return [*lines, ""] if lines else []
