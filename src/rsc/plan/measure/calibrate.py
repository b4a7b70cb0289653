"""`rsc plan calibrate`: measure this machine and write it as a cluster file.

Under Slurm it measures the node that it runs on (`srun --nodes=1 --ntasks=1 --exclusive rsc plan calibrate`).
Rates are the best of a few repeats, since a machine that does something else meanwhile only makes them worse.

Not covered: links between nodes, whose rate stays that of the table; power, which no sensor is asked for.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from rsc.errors import ConfigError
from rsc.plan.machines import Accelerator, accelerator
from rsc.plan.measure.collectives import all_reduce_rates
from rsc.plan.measure.disk import disk_rates
from rsc.plan.measure.kernels import attention_rate, copy_rate, matmul_sweep

_LINK_OF_NODES = 25.0
"""GB/s between nodes of a machine that the table does not know; nothing here measures it."""


def calibrate_machine(*, scratch: Path, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The content of a cluster file; takes half a minute, seconds when `quick`. `scratch` is a folder on the
    disk to be measured. Raises ConfigError where it cannot be written."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    say(f"measuring {_name(device)}: products")
    products = matmul_sweep(device, quick=quick)
    say("attention and memory")
    attention, memory_rate = attention_rate(device, quick=quick), copy_rate(device, quick=quick)
    say(f"disk of {scratch}")
    disk = disk_rates(scratch, quick=quick)
    say("messages between processes")
    count = max(2, torch.cuda.device_count()) if device.type == "cuda" else 2
    links = all_reduce_rates(device, count=count, quick=quick)
    measured = {
        "date": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
        "matmul_flops_per_s": {str(size): rate for size, rate in products.items()},
        "attention_flops_per_s": attention,
        "copy_bytes_per_s": memory_rate,
        "disk_write_bytes_per_s": disk.write,
        "disk_read_bytes_per_s": disk.read,
        "all_reduce_bytes_per_s": {str(size): rate for size, rate in links.items()},
    }
    best_link = max(links.values(), default=1e9)
    return {
        "accelerator": _name(device),
        "nodes": 1,
        "per_node": torch.cuda.device_count() if device.type == "cuda" else 1,
        "storage_rate": disk.write / 1e9,
        "device": _device(device, max(products.values()), memory_rate=memory_rate, link=best_link),
        "measured": measured,
    }


def _device(device: torch.device, best: float, *, memory_rate: float, link: float) -> dict[str, Any]:
    """Measured rates; what cannot be measured here comes from the table where it knows the device."""
    known = _known(device)
    here = {
        "memory_rate": memory_rate / 1e12,
        "memory": _memory_bytes(device) / 1e9,
        "scale_up": link / 1e9,
        "source": "measured by rsc plan calibrate; power is assumed where the table has no such device",
    }
    if known is not None:
        # The sheet's peak stays: utilisation is a share of it. Links of one device alone were not measured.
        links = {} if torch.cuda.device_count() > 1 else {"scale_up": known.scale_up}
        rates = {"matmul_bf16": min(best / 1e12, known.bf16)}
        return {**known.model_dump(exclude_none=True), **here, **rates, **links}
    domain = max(1, torch.cuda.device_count()) if device.type == "cuda" else 1
    return {
        **here,
        "bf16": best / 1e12,
        "matmul_bf16": best / 1e12,
        "scale_out": _LINK_OF_NODES,
        "domain": domain,
        "power_w": 300.0 if device.type == "cuda" else 100.0,
        "released": 2020.0,
        "is_host": device.type == "cpu",
    }


def _known(device: torch.device) -> Accelerator | None:
    if device.type == "cpu":
        return None
    try:
        return accelerator("-".join(torch.cuda.get_device_name(device).split()[1:2]))
    except ConfigError:
        return None


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _memory_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
