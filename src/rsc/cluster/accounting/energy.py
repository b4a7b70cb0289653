"""Energy a run took, from the machine's own meters: Intel and AMD packages through RAPL, NVIDIA GPUs through
NVML.

    with EnergyMeter(counters()) as meter:
        ...
    meter.used_wh, meter.source       # None, "" where no meter can be read

It is what the whole package or GPU took while the run went on, other work on it included. Not covered:
memory, disks, network, power supply, and meters that only root may read.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

POWERCAP = Path("/sys/class/powercap")
EVERY_S = 30.0  # a RAPL counter of 262 kJ wraps after 4 minutes at 1 kW


class Counter(Protocol):
    """A meter that only goes up, and starts again at 0 after `wraps_at_j`."""

    name: str
    wraps_at_j: float

    def read_j(self) -> float: ...


class RaplCounter:
    """One package. Raises OSError where it cannot be read (files of RAPL are root's since Linux 5.10)."""

    def __init__(self, zone: Path) -> None:
        self._file = zone / "energy_uj"
        self.name = "RAPL " + (zone / "name").read_text().strip()
        self.wraps_at_j = int((zone / "max_energy_range_uj").read_text()) / 1e6
        self.read_j()

    def read_j(self) -> float:
        return int(self._file.read_text()) / 1e6


class NvmlCounter:
    """One GPU, since its driver was loaded (nvmlDeviceGetTotalEnergyConsumption, in mJ)."""

    wraps_at_j = 2.0**64 / 1e3

    def __init__(self, library: Any, *, index: int) -> None:
        self.name = f"NVML GPU {index}"
        self._library, self._device = library, ctypes.c_void_p()
        _require(library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(self._device)))
        self.read_j()

    def read_j(self) -> float:
        used_mj = ctypes.c_ulonglong()
        _require(self._library.nvmlDeviceGetTotalEnergyConsumption(self._device, ctypes.byref(used_mj)))
        return used_mj.value / 1e3


class CounterSum:
    """What some counters add up to, look by look."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters = counters
        self._last = [counter.read_j() for counter in counters]

    def used_j(self) -> float:
        """Joules since the last look. A counter that wrapped twice in between has lost a round."""
        now, used_j = [counter.read_j() for counter in self._counters], 0.0
        for counter, before, after in zip(self._counters, self._last, now, strict=True):
            used_j += after - before if after >= before else after - before + counter.wraps_at_j
        self._last = now
        return used_j


class EnergyMeter:
    """Adds up counters from entry to exit, looking often enough to see each wrap."""

    def __init__(self, counters: Sequence[Counter], *, every_s: float = EVERY_S) -> None:
        self._counters, self._every_s = counters, every_s
        self._sum = CounterSum([])
        self._used_j = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="rsc-energy", daemon=True)

    @property
    def used_wh(self) -> float | None:
        return self._used_j / 3600 if self._counters else None

    @property
    def source(self) -> str:
        return ", ".join(counter.name for counter in self._counters)

    def look(self) -> None:
        """Add what was used since the last look."""
        self._used_j += self._sum.used_j()

    def __enter__(self) -> Self:
        self._sum = CounterSum(self._counters)
        if self._counters:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        if self._counters:
            self._thread.join()
            self.look()

    def _watch(self) -> None:
        while not self._is_over.wait(self._every_s):
            self.look()


def counters(powercap: Path = POWERCAP) -> list[Counter]:
    """Every meter of this machine that this user may read."""
    return cpu_counters(powercap) + gpu_counters()


def cpu_counters(powercap: Path = POWERCAP) -> list[Counter]:
    """CPU packages that this user may read."""
    found: list[Counter] = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") > 1:
            continue  # cores and memory are parts of their package
        try:
            found.append(RaplCounter(zone))
        except (OSError, ValueError):
            continue
    return found


def gpu_counters() -> list[Counter]:
    """NVIDIA GPUs whose driver counts their energy."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        _require(library.nvmlInit_v2())
        number = ctypes.c_uint()
        _require(library.nvmlDeviceGetCount_v2(ctypes.byref(number)))
        return [NvmlCounter(library, index=index) for index in range(number.value)]
    except (OSError, AttributeError):  # no driver, or one without that counter
        return []


def _require(status: int) -> None:
    if status:
        raise OSError(f"NVML status {status}")
