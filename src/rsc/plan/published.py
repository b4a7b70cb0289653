"""Published runs as the planner's columns: one row of a file becomes all plans that its blanks allow.

A row says how a run was laid out; micro batch, virtual stages and recompute are often left out. Each blank
gets every usual value, and score.py takes the fastest that fits the memory, since people publish what they
tuned; the spread of the others goes into the interval. Outcome fields (times, rates, utilisation) are read by
`published_s` alone.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rsc.errors import ConfigError, DataError
from rsc.plan.machines import Accelerator, accelerator
from rsc.plan.memory import memory
from rsc.plan.work import Layouts, Machine, Shape

Row = Mapping[str, Any]

OUTCOMES = (
    *("step_time_s", "step_time_s_derived", "tokens_per_s_per_accel", "tokens_per_s_per_accel_derived"),
    *("tflops_per_accel", "mfu", "hfu", "peak_mem_gib", "accel_hours"),
)
_NEEDED = ("layers", "hidden", "seq", "global_batch", "n_accel", "accelerator")
_COUNTS = (
    *("layers", "hidden", "ffn", "heads", "kv_heads", "vocab", "experts", "experts_topk", "seq"),
    *("global_batch", "micro_batch", "tp", "pp", "vp", "cp", "ep", "dp", "n_accel"),
)
_LARGEST_COUNT = 10**9
_SHARD = {"ddp": 0, "zero1": 1, "zero2": 2, "zero3": 3, "fsdp": 3, "hsdp": 3}
_LEAN = 2.0
"""How far the memory may seem overfilled without whole blocks recomputed."""
_STACKS = {
    "megatron-deepspeed": 2022.0,
    "megatron-lm": 2022.0,
    "llm-foundry": 2023.8,
    "torchtitan": 2024.8,
    "maxtext": 2024.5,
    "levanter": 2024.5,
}
"""When software that does not give its date in its name was measured; by the dates of the published pages."""
_RECOMPUTE = {"none": 0, "selective": 1, "full": 2}


@dataclass(frozen=True)
class Cases:
    """Plans of all rows, one under the other; `row` says whose each is."""

    rows: list[Row]
    row: Any
    shape: Shape
    plan: Layouts
    machine: Machine

    def take(self, chosen: Any) -> Cases:
        """Some of the plans."""
        columns = (self.shape.take(chosen), self.plan.take(chosen), self.machine.take(chosen))
        return Cases(self.rows, self.row[chosen], *columns)


def read_rows(path: Path) -> list[Row]:
    """A JSON list of objects, or {"rows": [...]}. Raises ConfigError or DataError."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}") from None
    rows = found.get("rows") if isinstance(found, dict) else found
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: wanted a list of objects", hint="docs/plan.md lists the keys of a row")
    return list(rows)


def why_not(row: Row) -> str | None:
    """Why a row cannot be predicted; None where it can."""
    missing = [key for key in _NEEDED if not row.get(key)]
    if missing:
        return f"no {', '.join(missing)}"
    odd = [key for key in _COUNTS if row.get(key) is not None and not _is_count(row[key])]
    if odd:
        return f"{odd[0]} {str(row[odd[0]])[:40]!r} is no positive whole number"
    if not isinstance(row.get("recompute") or "", str):
        return "recompute is no word"
    try:
        accelerator(str(row["accelerator"]))
    except ConfigError as error:
        return error.message
    return None if _candidates(row) else "no micro batch divides its batch over its ranks"


def _is_count(value: Any) -> bool:
    whole = isinstance(value, int | float) and math.isfinite(value) and value == int(value)
    return whole and 0 <= value <= _LARGEST_COUNT  # a 0 counts as a blank


def published_s(row: Row) -> float | None:
    """None where nothing positive is printed."""
    for key in ("step_time_s", "step_time_s_derived"):
        value = row.get(key)
        if isinstance(value, int | float) and math.isfinite(value) and value > 0:
            return float(value)
    return None


def cases_of(rows: Sequence[Row]) -> Cases:
    """Rows that `why_not` has nothing against."""
    shapes, plans, machines, owner = [], [], [], []
    for number, row in enumerate(rows):
        shape, machine = _shape(row), _machine(row)
        found = _candidates(row)
        plans += found
        shapes += [shape] * len(found)
        machines += [machine] * len(found)
        owner += [number] * len(found)
    columns = [
        _columns(kind, each) for kind, each in ((Shape, shapes), (Layouts, plans), (Machine, machines))
    ]
    return _that_fit(Cases(list(rows), np.array(owner), *columns))


def _that_fit(cases: Cases) -> Cases:
    """Without plans that overfill the memory, where another of the same row does not.

    Blank recompute means whole blocks only where nothing less comes near: fused kernels save about half of
    what plain PyTorch saves, and recipes recompute single parts.
    """
    filled = memory(cases.shape, cases.plan).total / np.asarray(cases.machine.memory)
    fit = filled <= np.where(np.asarray(cases.plan.recompute) == 2, 1.0, _LEAN)
    blank = np.array([row.get("recompute") not in _RECOMPUTE for row in cases.rows])[cases.row]
    lighter = np.zeros(len(cases.rows), dtype=bool)
    np.logical_or.at(lighter, cases.row, fit & (np.asarray(cases.plan.recompute) < 2))
    fit &= ~(blank & lighter[cases.row] & (np.asarray(cases.plan.recompute) == 2))
    some = np.zeros(len(cases.rows), dtype=bool)
    np.logical_or.at(some, cases.row, fit)
    return cases.take(fit | ~some[cases.row])


def _columns(kind: Any, records: Iterable[Mapping[str, Any]]) -> Any:
    records = list(records)
    return kind(**{key: np.array([float(record[key]) for record in records]) for key in records[0]})


def bits_of(precision: Any) -> int:
    text = str(precision or "bf16").lower()
    return 4 if "fp4" in text else 8 if "fp8" in text or "float8" in text else 16


def _shape(row: Row) -> dict[str, Any]:
    width, layers = row["hidden"], row["layers"]
    heads = row.get("heads") or max(1, width // 128)
    has_experts = bool(row.get("experts") or row.get("experts_topk") or row.get("arch") == "moe")
    kv_heads = row.get("kv_heads")
    head_width = width / heads
    if has_experts:  # open models with experts have heads of 64 or 128 whatever their width
        head_width = 128 if width % (64 * heads) == 0 or head_width > 64 else 64
    shape = {
        "layers": layers,
        "width": width,
        "heads": heads,
        "kv_heads": kv_heads or heads,
        "head_width": head_width,
        "mlp_width": row.get("ffn") or 4 * width,
        "vocabulary": row.get("vocab") or 50_000,
        "sequence": row["seq"],
        "gated": bool(row.get("ffn_gated")),
        "tied": not row.get("ffn_gated") and not has_experts,  # as GPT and MPT are
        "experts": 0,
        "top_k": 0,
        "expert_width": 0,
        "latent": has_experts and bool(row.get("heads")) and not kv_heads,
    }
    return {**shape, **_experts(row, shape)} if has_experts else shape


def _experts(row: Row, shape: Mapping[str, Any]) -> dict[str, Any]:
    """Experts as wide as the parameters that the row gives leave room for."""
    count, width, layers = row.get("experts") or 128, shape["width"], shape["layers"]
    outside = Shape(**{**shape, "mlp_width": 0}).parameters
    wide = shape["mlp_width"]
    if row.get("params_b"):
        matrices = 3 if shape["gated"] else 2
        wide = max(64.0, (row["params_b"] * 1e9 - float(outside)) / (layers * count * matrices * width))
    return {"experts": count, "top_k": row.get("experts_topk") or 2, "expert_width": wide}


def _machine(row: Row) -> dict[str, Any]:
    device = accelerator(str(row["accelerator"]))
    bits = bits_of(row.get("precision"))
    return machine_facts(device, bits=bits, world=row["n_accel"], domain=_domain(row, device))


def _domain(row: Row, device: Accelerator) -> int:
    """Of the accelerator's table: rows that give 4 a node for H100 mean its host, not its links."""
    return device.domain


def machine_facts(
    device: Accelerator, *, bits: int, world: int, domain: int, scale_out: float | None = None
) -> dict[str, Any]:
    return {
        "peak": device.peak(16),
        "matmul": device.matmul(16),
        "matmul_narrow": device.matmul(bits),
        "memory": 1e9 * device.memory,
        "memory_rate": 1e12 * device.memory_rate,
        "scale_up": 1e9 * device.scale_up,
        "scale_out": 1e9 * (scale_out or device.scale_out),
        "domain": domain,
        "world": world,
    }


def _candidates(row: Row) -> list[dict[str, Any]]:
    known = {key: int(row.get(key) or 1) for key in ("tp", "pp", "cp", "ep")}
    dp = int(row.get("dp") or max(1, row["n_accel"] // (known["tp"] * known["pp"] * known["cp"])))
    batch, per_rank = row["global_batch"], row["global_batch"] / dp
    micros = (
        [row["micro_batch"]] if row.get("micro_batch") else [m for m in (1, 2, 4, 8) if per_rank % m == 0]
    )
    virtuals = [row["vp"]] if row.get("vp") or known["pp"] == 1 else _virtual(row["layers"], known["pp"])
    recomputes = [row.get("recompute")] if row.get("recompute") in _RECOMPUTE else list(_RECOMPUTE)
    fixed = {
        **known,
        "dp": dp,
        "batch": max(batch, dp * micros[0]) if micros else batch,
        "shard": _SHARD.get(str(row.get("dp_kind")).lower(), 1),
        "sequence_parallel": row.get("sequence_parallel") is not False and known["tp"] > 1,
        "bits": bits_of(row.get("precision")),
        "eager": "foundry" in str(row.get("software")).lower(),
        "age": max(0.0, stack_date(row) - accelerator(str(row["accelerator"])).released),
        "unfused": str(row.get("precision")).lower() == "fp16",
    }
    return [
        {**fixed, "micro": micro, "virtual": virtual or 1, "recompute": _RECOMPUTE[str(recompute)]}
        for micro, virtual, recompute in itertools.product(micros, virtuals, recomputes)
    ]


def stack_date(row: Row) -> float:
    """Year of the software: of a version such as 25.09, or a year, in its name; else of the table."""
    text = str(row.get("software") or "").lower()
    version = re.search(r"\b(2[0-9])\.(0[1-9]|1[0-2])\b", text)
    if version:
        return 2000 + int(version[1]) + (int(version[2]) - 0.5) / 12
    year = re.search(r"\b20[12][0-9]\b", text)
    if year:
        return int(year[0]) + 0.5
    return next((date for name, date in _STACKS.items() if name in text), 2024.5)


def _virtual(layers: int, pp: int) -> list[int]:
    each = -(-layers // pp)
    return [count for count in (1, 2, 3, 4, 5, 6, 8) if each % count == 0] or [1]
