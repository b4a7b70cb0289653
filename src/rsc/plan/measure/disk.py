"""Rates of the disk under a folder."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rsc.errors import ConfigError

_BLOCK = 8 << 20


@dataclass(frozen=True)
class DiskRates:
    """B/s of one file."""

    write: float
    """Until it is durable."""
    read: float
    """After the kernel was asked to forget it; a file system that does not listen shows its cache."""


def disk_rates(folder: Path, *, quick: bool) -> DiskRates:
    """Raises ConfigError where the folder takes no file."""
    size = (32 << 20) if quick else (512 << 20)
    block = os.urandom(_BLOCK)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            start = time.perf_counter()
            for _ in range(size // _BLOCK):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            write_s = time.perf_counter() - start
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            start = time.perf_counter()
            while file.read(_BLOCK):
                pass
            read_s = time.perf_counter() - start
    except OSError as error:
        raise ConfigError(
            f"cannot measure the disk of {folder}: {error.strerror}",
            hint="name another folder with --scratch",
        ) from None
    return DiskRates(size / write_s, size / read_s)
