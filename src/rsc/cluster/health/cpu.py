"""What this CPU is, what it lacks for training, and what that means. No torch.

Where the kernel does not list features (macOS, a hidden /proc) nothing is said to be missing: training
measures what it needs to know (rsc/train/engine/precision.py).
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

_FEATURES = {
    "amx_bf16": "AMX bf16",
    "avx512_bf16": "AVX-512 bf16",
    "avx512f": "AVX-512",
    "avx2": "AVX2",
    "vaes": "VAES",
    "bf16": "bf16",  # the name on ARM
}
"""Flag in /proc/cpuinfo -> the name that people know, of what makes training or decryption faster."""

_BF16 = frozenset({"amx_bf16", "avx512_bf16", "bf16"})
_WANTED = {"x86_64": ("avx512f", "avx512_bf16", "amx_bf16"), "aarch64": ("bf16",)}
"""What the fastest CPUs of an architecture have for training."""


@dataclass(frozen=True)
class Cpu:
    model: str
    cores: int
    """That this process may use."""
    flags: frozenset[str]
    """As the kernel spells them; empty where it does not list them."""
    architecture: str

    @property
    def has(self) -> list[str]:
        return [name for flag, name in _FEATURES.items() if flag in self.flags]

    @property
    def lacks(self) -> list[str]:
        """Nothing where the kernel lists no features."""
        wanted = _WANTED.get(self.architecture, ()) if self.flags else ()
        return [_FEATURES[flag] for flag in wanted if flag not in self.flags]

    @property
    def emulates_bf16(self) -> bool:
        """Whether its features are known and bf16 is not among them. A product then takes 50 times as long as
        in fp32."""
        known = self.flags and self.architecture in _WANTED
        return bool(known) and not self.flags & _BF16

    @property
    def meaning(self) -> str:
        """What that means for training, in one clause."""
        if not self.flags:
            return "the kernel does not list its features: training measures whether bf16 is faster"
        if self.emulates_bf16:
            return (
                "trains in fp32, at about a quarter of the speed of a CPU with AMX"  # measured: 3.8 and 7.5
            )
        if self.architecture == "x86_64" and "amx_bf16" not in self.flags:
            return "trains in bf16, slower than a CPU with AMX"
        return "trains in bf16"

    def __str__(self) -> str:
        cores = f"{self.cores} core" + "s" * (self.cores != 1)
        has = f", with {_joined(self.has)}" if self.has else ""
        lacks = f", without {_joined(self.lacks)}" if self.lacks else ""
        return f"{cores} of {self.model}{has}{lacks}: {self.meaning}"


def this_cpu(cpuinfo: Path = Path("/proc/cpuinfo")) -> Cpu:
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    first: dict[str, str] = {}
    for name, _, value in (line.partition(":") for line in lines):
        first.setdefault(name.strip(), value.strip())
    model = first.get("model name") or platform.processor() or f"an unnamed {platform.machine()} CPU"
    flags = frozenset((first.get("flags") or first.get("Features") or "").split())
    return Cpu(model=model, cores=usable_cores(), flags=flags, architecture=platform.machine())


def usable_cores() -> int:
    """Cores that this process may run on, which a batch system or `taskset` can make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _joined(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
