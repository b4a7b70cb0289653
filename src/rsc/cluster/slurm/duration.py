"""Times as Slurm writes them: `minutes`, `minutes:seconds`, `h:m:s`, `days-h`, `days-h:m`, `days-h:m:s`."""

from __future__ import annotations

import re

from rsc.errors import ConfigError

_SHAPE = re.compile(r"(?:(\d{1,5})-)?(\d{1,8})(?::(\d{1,8}))?(?::(\d{1,8}))?", re.ASCII)
_NO_LIMIT = {"", "UNLIMITED", "INFINITE", "NONE", "N/A", "NOT_SET", "PARTITION_LIMIT", "INVALID"}


def parse_duration_s(text: str) -> int | None:
    """Seconds; None for no limit. Raises ConfigError for anything else."""
    if text.strip().upper() in _NO_LIMIT:
        return None
    found = _SHAPE.fullmatch(text.strip())
    if found is None:
        raise ConfigError(
            f"{text!r} is no time of Slurm",
            hint="for example 90 (minutes), 12:00:00, or 2-00:00:00 for two days",
        )
    days, *rest = found.groups()
    parts = [int(part) for part in rest if part is not None]
    if days is not None:
        hours, minutes, seconds = [*parts, 0, 0][:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, *[*parts, 0][:2]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + seconds


def format_duration(seconds: int) -> str:
    """`12:00:00`, `2-00:00:00`."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock
