"""Accelerators and clusters: shipped tables, and the user's own file. No torch here."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

from rsc.errors import ConfigError
from rsc.layers import FrozenModel, nearest
from rsc.toml import parse_toml

_MEASURED_SHARE = 0.75
"""Of the peak, where nobody measured the best matrix product: the middle of those who did, 0.51 to 0.87."""


class Accelerator(FrozenModel):
    """One device as a framework sees it. Rates in TFLOP/s, memory in GB and TB/s, links in GB/s one way."""

    bf16: PositiveFloat
    fp8: PositiveFloat | None = None
    fp4: PositiveFloat | None = None
    matmul_bf16: PositiveFloat | None = None
    matmul_fp8: PositiveFloat | None = None
    memory: PositiveFloat
    memory_rate: PositiveFloat
    scale_up: PositiveFloat
    scale_out: PositiveFloat
    domain: PositiveInt
    power_w: PositiveFloat
    released: PositiveFloat
    """Year in which people could first train on its architecture."""
    is_host: bool = False
    """The CPU of a machine: all ranks there share its rates, its memory and its power."""
    source: str

    def peak(self, bits: int) -> float:
        """FLOP/s of a number format; of the next wider one where the device lacks it."""
        narrow = {4: self.fp4, 8: self.fp8}.get(bits)
        if narrow is None and bits == 4:
            narrow = self.fp8
        return 1e12 * (narrow or self.bf16)

    def matmul(self, bits: int) -> float:
        """FLOP/s of the best measured product."""
        if bits == 16 or self.fp8 is None:
            return 1e12 * (self.matmul_bf16 or _MEASURED_SHARE * self.bf16)
        eight = self.matmul_fp8 or _MEASURED_SHARE * self.fp8
        return 1e12 * eight * (self.peak(bits) / self.peak(8))


class ClusterFile(FrozenModel):
    """A cluster file: what is bought. `rsc plan run --on FILE`."""

    accelerator: str
    """A name of `rsc plan machines`, or any name where [device] says what it is."""
    device: Accelerator | None = None
    """Rates of an accelerator that is not in the table, or was measured (`rsc plan calibrate`)."""
    measured: dict[str, Any] = Field(default_factory=dict)
    """What was measured and when: for people."""
    nodes: PositiveInt = 1
    per_node: PositiveInt = 8
    """Accelerators of a node: what fails together."""
    domain: PositiveInt | None = None
    """Accelerators that reach each other over the fast links; default: of the accelerator's table."""
    scale_out: PositiveFloat | None = None
    """GB/s one way that an accelerator has to other domains; default: of the accelerator's table."""
    oversubscription: Annotated[float, Field(ge=1.0)] = 1.0
    """Of the fabric between domains: 2 means that half the bandwidth is there when all send."""
    storage_rate: PositiveFloat | None = None
    """GB/s that the store gives and takes over all nodes; without it a checkpoint's time is unknown."""
    failures_per_1000_node_days: Annotated[float, Field(ge=0.0)] = 6.5
    """RSC-1 of arXiv:2410.21680 has 6.50, RSC-2 2.34; Llama 3's 419 interruptions in 54 days are 3.8."""
    restart_minutes: Annotated[float, Field(ge=0.0)] = 10.0
    """From a failure to the first new step: detection, exclusion, start, reading the checkpoint."""
    price_per_hour: Annotated[float, Field(ge=0.0)] | None = None
    """Of one accelerator, in your currency; without it cost is unknown."""
    pue: Annotated[float, Field(ge=1.0)] = 1.2
    """Energy of the site over energy of its computers; operators print 1.08 to 1.18, a survey 1.58."""
    host_power_w: Annotated[float, Field(ge=0.0)] = 275.0
    """Of one accelerator's share of hosts, fans and NICs: DGX H100 has 10.2 kW, less 8 x 700 W, at half."""
    power_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.76
    """Of the rated power while it trains (arXiv:2506.14551: 0.76)."""
    carbon_kg_per_kwh: Annotated[float, Field(ge=0.0)] | None = None
    """Of the grid; without it carbon is unknown."""


@dataclass(frozen=True)
class Cluster:
    config: ClusterFile
    device: Accelerator

    @property
    def size(self) -> int:
        return self.config.nodes * self.config.per_node

    @property
    def domain(self) -> int:
        return self.config.domain or self.device.domain

    @property
    def scale_out(self) -> float:
        """GB/s one way for one device."""
        return (self.config.scale_out or self.device.scale_out) / self.config.oversubscription


@cache
def accelerators() -> dict[str, Accelerator]:
    text = files("rsc.plan").joinpath("tables/accelerators.toml").read_text()
    return {name: Accelerator(**row) for name, row in tomllib.loads(text).items()}


def accelerator(name: str) -> Accelerator:
    """By its name, or by parts of it that mean one chip: `H100`, `A100-40GB`, `tpu v5e`. Raises ConfigError
    with the nearest name."""
    table = accelerators()
    if name in table:
        return table[name]
    fits = [known for known in table if _means(name, known)]
    chips = {_chip(known) for known in fits}
    if len(chips) == 1:
        return table[fits[0]]
    if fits:
        raise ConfigError(f"accelerator {name!r} may be any of {', '.join(fits)}", hint="name one of them")
    raise ConfigError(f"no accelerator {name!r} is known", hint=_nearest_chip(name))


def _means(name: str, known: str) -> bool:
    """Whether a name is the beginning of a known one, or all its parts are parts of it."""
    if not _folded(name):
        return False
    parts = re.split(r"[-_ ]+", name.lower())
    return _folded(known).startswith(_folded(name)) or set(parts) <= set(known.lower().split("-"))


def _chip(known: str) -> str:
    """`H100-SXM-80GB` -> `H100`, `TPU-v5e` -> `TPU-v5e`."""
    first = known.split("-")[0]
    return known if first == "TPU" else first


def _nearest_chip(name: str) -> str:
    """By chips first: `H1000` is near `H100`, though not near `H100-SXM-80GB`."""
    chips = {_folded(each): each for known in accelerators() for each in (_chip(known), known)}
    close = difflib.get_close_matches(_folded(name), chips, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{chips[close[0]]}"? `rsc plan machines` lists all'
    return f"known: {', '.join(accelerators())}; or write a cluster file (docs/plan.md)"


def _folded(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def cluster_of(name: str, *, count: int | None = None, price_per_hour: float | None = None) -> Cluster:
    """A cluster file (.toml), or an accelerator's name with a count. Raises ConfigError."""
    config = _read(Path(name)) if name.endswith(".toml") else ClusterFile(accelerator=name)
    changed: dict[str, object] = {}
    if count is not None:
        per_node = config.per_node if count % config.per_node == 0 else math.gcd(count, config.per_node)
        changed = {"nodes": count // per_node, "per_node": per_node}
    if price_per_hour is not None:
        changed["price_per_hour"] = price_per_hour
    config = ClusterFile(**{**config.model_dump(), **changed})
    return Cluster(config, config.device or accelerator(config.accelerator))


def _read(path: Path) -> ClusterFile:
    try:
        return ClusterFile(**parse_toml(path.read_text(), name=f"cluster file {path}"))
    except OSError as error:
        raise ConfigError(f"cluster file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"cluster file {path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        hint = nearest(key, ClusterFile.model_fields, what="docs/plan.md")
        raise ConfigError(f"cluster file {path}: {key}: {first['msg']}", hint=hint) from None
