"""Numbers with their units, to and from the text people write."""

from __future__ import annotations

import re

from rsc.errors import ConfigError

_BYTES = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGTPE", start=1):
    _BYTES[f"{_letter}B"] = 1000**_power
    _BYTES[f"{_letter}iB"] = 1024**_power
    _BYTES[_letter] = 1024**_power

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_QUANTITY = re.compile(r"\s*([0-9]{1,40}(?:\.[0-9]{1,40})?)\s*([A-Za-z]*)\s*")  # a float holds so many


def parse_bytes(text: str) -> int:
    """`"64 MiB"` -> 67108864. SI units are powers of 1000; `K M G` alone are powers of 1024, as in Slurm.

    Raises ConfigError for a unit that is not one of them.
    """
    value, unit = _split(text, what="size", units=_BYTES)
    return round(value * _BYTES[unit])


def parse_seconds(text: str) -> float:
    """`"90d"` -> 7776000.0. Units: s m h d w. Raises ConfigError otherwise."""
    value, unit = _split(text, what="duration", units=_SECONDS)
    return value * _SECONDS[unit]


def format_bytes(size_bytes: float) -> str:
    """Binary units with three significant digits: `1.23 GiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} EiB"


def format_seconds(seconds: float) -> str:
    """`0.25 s`, `12 s`, `3m 05s`, `2h 10m`, `4d 3h`, `90d`: two units at most, none that is zero."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        parts = f"{whole // 60}m", f"{whole % 60:02d}s"
    elif whole < 86400:
        parts = f"{whole // 3600}h", f"{whole % 3600 // 60:02d}m"
    else:
        parts = f"{whole // 86400}d", f"{whole % 86400 // 3600}h"
    return parts[0] if parts[1] in ("00s", "00m", "0h") else " ".join(parts)


def _split(text: str, *, what: str, units: dict[str, float] | dict[str, int]) -> tuple[float, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        known = ", ".join(unit for unit in units if unit)
        raise ConfigError(f"{text!r} is not a {what}", hint=f"write a number and one of: {known}")
    return float(match[1]), match[2]
