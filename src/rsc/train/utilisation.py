"""What a step cost against what the machine could do: FLOPs, MFU, memory, energy.

FLOPs are the model's own (models/counts.py). Peaks of GPUs are the makers' dense rates; a CPU's is one
matrix product, measured when the rank starts. Energy is read where the machine lets us: RAPL on Linux, NVML
on NVIDIA.

Not covered: energy of memory, fans and network; other jobs on the same node count into it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rsc.cluster.accounting.energy import Counter, CounterSum, cpu_counters, gpu_counters
from rsc.parallel.layout import Layout
from rsc.train.engine.precision import matmul_gflops

_TFLOPS = 1e12
_PEAKS: tuple[tuple[str, float, float], ...] = (
    ("B200", 2250.0, 1125.0),  # NVIDIA Blackwell architecture brief, HGX B200, dense
    ("H200", 989.0, 494.5),  # NVIDIA H200 data sheet, SXM, without sparsity
    ("H100 PCIe", 756.0, 378.0),  # NVIDIA H100 data sheet, PCIe
    ("H100", 989.0, 494.5),  # NVIDIA H100 data sheet, SXM
    ("A100", 312.0, 156.0),  # NVIDIA A100 data sheet
    ("L40S", 362.0, 183.0),  # NVIDIA L40S data sheet
    ("MI300X", 1307.0, 653.7),  # AMD Instinct MI300X data sheet
)
"""(part of the device's name, TFLOP/s in bf16, in fp32 by TF32 or XF32); the first that fits counts."""


@dataclass(frozen=True)
class Peak:
    flops_per_s: float
    source: str


def peak_of(device: torch.device, *, dtype: torch.dtype) -> Peak | None:
    """What this rank's device could do at most in `dtype`; None for a GPU that is not in the table."""
    if device.type == "cpu":
        rate = matmul_gflops(dtype) * 1e9
        return Peak(rate, f"one matrix product in {dtype} on this rank's threads, measured at its start")
    name = torch.cuda.get_device_name(device)
    for part, bf16, fp32 in _PEAKS:
        if part in name:
            rate = fp32 if dtype == torch.float32 else bf16
            return Peak(rate * _TFLOPS, f"data sheet of {part}, dense")
    return None


def meters_of(device: torch.device) -> list[Counter]:
    """Energy meters of what computes here: the GPUs of the node, or its CPU packages."""
    return gpu_counters() if device.type == "cuda" else cpu_counters()


class Gauge:
    """Reads the meters once per metrics line. One per rank; only the first of a node is given `meters`."""

    def __init__(
        self, *, device: torch.device, peak: Peak | None, layout: Layout, meters: Sequence[Counter] = ()
    ) -> None:
        self._device, self._peak = device, peak
        self._share = 1 / (layout.cp * layout.tp * layout.pp)
        self._energy = CounterSum(meters) if meters else None
        self.held_s = 0.0
        """Seconds that checkpoints and snapshots held this rank since the last line."""

    def facts(self, *, flops: float, step_s: float) -> dict[str, Any]:
        """`flops`: of the samples of this data-parallel rank; cp, tp and pp ranks share them evenly."""
        found: dict[str, Any] = {"flops": flops * self._share, "checkpoint_s": self.held_s}
        self.held_s = 0.0
        if self._peak is not None:
            found["mfu"] = flops * self._share / step_s / self._peak.flops_per_s
        if self._device.type == "cuda":
            found["gpu_bytes"] = torch.cuda.max_memory_allocated(self._device)
        if self._energy is not None:
            found["node_energy_j"] = self._energy.used_j()
        return found
