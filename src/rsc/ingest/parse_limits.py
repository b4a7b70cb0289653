"""What parsing a foreign file may cost: memory, CPU time, how much it unpacks to; and that it has no network.

The limits stop decompression bombs and decoders that are led astray. Memory is the kernel's RLIMIT_DATA,
which counts private memory and leaves out mapped files; a decoder that asks for more gets MemoryError. CPU
time is RLIMIT_CPU, set anew for each part; the kernel ends a worker that passes it. A part that passes a
limit is set aside by name, and the others go on; a source whose lists pass one is refused.

Not covered: the CPU time of lists of archives, footers of tables
and text, which the importing process reads itself, in bounded memory; systems without RLIMIT_DATA.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from rsc.errors import DataError
from rsc.units import format_bytes

PARSE_BYTES = 4 << 30  # the largest file of a record has 512 MiB; decoding takes a few times as much
PART_CPU_S = 900  # a part of 8 MiB takes half a second to scan, and some ten to decode as pictures
_FREE_BYTES = 64 << 20  # what any source may unpack to; a minute of scanning at worst
_MOST_TIMES = 250  # text packs to a tenth, logs to a fiftieth
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h


class LimitPassed(DataError):
    """Reading costs more than it may: the part is set aside by name, and the others go on."""


def require_ratio(unpacked_bytes: int, *, source_bytes: int, num_files: int = 1) -> None:
    """Raises LimitPassed for a source that unpacks to much more than it is. Columns in memory have none."""
    if source_bytes and unpacked_bytes > max(num_files * _FREE_BYTES, _MOST_TIMES * source_bytes):
        sizes = f"{format_bytes(source_bytes)} and unpacks to over {format_bytes(unpacked_bytes)}"
        raise LimitPassed(
            f"the source has {sizes}: a decompression bomb, or a file of one value",
            hint="unpack it yourself and import what comes out",
        )


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Inside, this process may take PARSE_BYTES more than it has; LimitPassed where it asks for more."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    if sys.platform == "linux":
        wanted = _data_bytes() + PARSE_BYTES
        allowed = [limit for limit in (*before, wanted) if limit != resource.RLIM_INFINITY]
        resource.setrlimit(resource.RLIMIT_DATA, (min(allowed), before[1]))
    try:
        yield
    except MemoryError:
        raise LimitPassed(
            f"reading the source takes more than {format_bytes(PARSE_BYTES)} of memory",
            hint="a decompression bomb, or records that are too large: split the file",
        ) from None
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def leave_the_network() -> bool:
    """Take this process, a worker with one thread, out of the network. False where the kernel refuses it."""
    if sys.platform != "linux":
        return False
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    return any(unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


def allow_cpu(seconds: int = PART_CPU_S) -> None:
    """From now on this process may use so many seconds; then the kernel sends SIGXCPU, which ends it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    wanted = int(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(
        resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
    )


def _data_bytes() -> int:
    """Private memory of this process: field 6 of statm, in pages, which counts stacks too."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
