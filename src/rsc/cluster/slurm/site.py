"""The `cluster.toml` of a workspace: where runs start, and what a job asks for.

    on = "slurm"
    [slurm]
    partition = "batch"
    gpus_per_node = 8
    [environment]
    modules = ["cuda/12.8"]

`rsc cluster init` asks Slurm and writes it; `slurm.KEY=value` of a command goes above it. How many nodes a
job has is the recipe's: `cluster.nodes` and `cluster.spares`.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import time as time_of_day
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from rsc.cluster.slurm.duration import parse_duration_s
from rsc.errors import ConfigError
from rsc.layers import FrozenModel, Resolved, override, parse_as
from rsc.toml import parse_toml

FILE = "cluster.toml"

_WORD = r"^[A-Za-z0-9_.,:+@/=*&|!()\[\]-]*$"
"""What names of partitions, features, hosts and so on are made of: no blanks and no quotes, so none becomes
another option of the script."""
Place = Literal["slurm", "local"]


class JobSettings(FrozenModel):
    """What a job asks Slurm for. Empty and 0: what the site does by itself."""

    partition: str = Field(default="", pattern=_WORD)
    account: str = Field(default="", pattern=_WORD)
    qos: str = Field(default="", pattern=_WORD)
    time: str = Field(default="", pattern=_WORD)
    """The limit of one start, as Slurm writes times: `12:00:00`. A longer run goes on in a new start."""
    warn_s: int = Field(default=120, ge=10, le=65535)
    """Seconds before the limit at which the run writes a checkpoint; more than one checkpoint takes. Slurm
    may signal up to a minute early."""
    gpus_per_node: int = Field(default=0, ge=0)
    gpu_type: str = Field(default="", pattern=_WORD)
    cpus_per_node: int = Field(default=0, ge=0)
    memory: str = Field(default="", pattern=r"^([0-9]+[KMGT]?)?$")
    """Of each node, as `sbatch --mem` writes it: `64G`."""
    licenses: str = Field(default="", pattern=_WORD)
    constraint: str = Field(default="", pattern=_WORD)
    reservation: str = Field(default="", pattern=_WORD)
    exclude: str = Field(default="", pattern=_WORD)
    """Nodes to stay away from: `gpu[3,17-19]`."""
    switches: int = Field(default=0, ge=0)
    """The most leaf switches that the nodes may lie below (topology/tree)."""
    segment: int = Field(default=0, ge=0)
    """Nodes of a block that belong together (topology/block, Slurm 23.11 or newer)."""

    @field_validator("time", "memory", mode="before")
    @classmethod
    def _is_written_plainly(cls, value: object) -> object:
        """`time=12:00:00`, `time=90` and `memory=2000` are a time of day and numbers to TOML."""
        if isinstance(value, time_of_day):
            return value.isoformat()
        return str(value) if type(value) is int else value

    @field_validator("time")
    @classmethod
    def _is_a_time(cls, text: str) -> str:
        try:
            parse_duration_s(text)
        except ConfigError as error:
            raise ValueError(error.message) from None
        return text


class SiteEnvironment(FrozenModel):
    """What a job does before RSC starts: the script runs these lines as they are."""

    modules: tuple[str, ...] = ()
    """For `module load`."""
    setup: tuple[str, ...] = ()
    """Lines of bash."""


class Site(FrozenModel):
    """What `cluster.toml` says."""

    on: Place = "local"
    """Where `rsc train` starts runs without `--on`."""
    slurm: JobSettings = JobSettings()
    environment: SiteEnvironment = SiteEnvironment()

    def with_overrides(self, overrides: Iterable[str]) -> Site:
        """`slurm.key=value` of a command. Raises ConfigError."""
        asked = override(self.slurm, section="slurm", overrides=overrides)
        return self.model_copy(update={"slurm": asked})


def read_site(workspace: Path) -> Site:
    """Of a workspace; without the file runs start on this machine. Raises ConfigError."""
    path = workspace / FILE
    try:
        values = parse_toml(path.read_text(), name=str(path))
    except FileNotFoundError:
        return Site()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    return parse_as(Site, Resolved(name=str(path), values=values, provenance={}))
