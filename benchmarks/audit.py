"""Durable audit records a second, in batches and one by one, and the rate of verification.

    python benchmarks/audit.py [--json] [--quick] [--runs N]

`append` adds batches of 1,000 records of about 200 bytes; each batch is signed and synced before the next,
and what the log publishes on the way is counted in. `append_single` syncs each record; `append_threads` has
16 threads append single records at once, which share syncs. Controls: `sqlite_full` (the same records and
batches in SQLite with synchronous=FULL) and `plain_fsync` (lines in a file, one sync a batch, no proof).
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

from harness import Options, Report, alternate, main

from rsc.audit.log import AuditLog
from rsc.clock import SystemClock

BATCH, NUM_THREADS = 1000, 16
RECORD = {
    "kind": "key_released",
    "data": "posts",
    "version": 1,
    "purpose": "train",
    "user": "bench",
    "root_hash": "ab" * 32,
}


def measure(options: Options) -> Report:
    report = Report()
    batches = 10 if options.quick else 100
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        cases = {
            "append": (("rsc", "sqlite_full", "plain_fsync"), batches, BATCH),
            "append_single": (("rsc", "sqlite_full", "plain_fsync"), 3 * batches, 1),
            "append_threads": (("rsc",), 20 * batches, 1),
        }
        for case, (subjects, count, size) in cases.items():
            found = alternate(
                subjects,
                runs=options.runs,
                measure=lambda subject, case=case, count=count, size=size: {
                    "per_s": appended(place, subject, case=case, count=count, size=size)
                },
            )
            for subject, metrics in found.items():
                report.add(case, metric="per_s", subject=subject, values=metrics["per_s"])
        report.add(
            "verify", metric="per_s", subject="rsc", values=verified(place, batches, runs=options.runs)
        )
    return report


def appended(place: Path, subject: str, *, case: str, count: int, size: int) -> float:
    """Records a second."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        write = {"rsc": with_log, "sqlite_full": with_sqlite, "plain_fsync": with_file}[subject](Path(folder))
        started = time.perf_counter()
        if case == "append_threads":
            in_threads(write, count)
        else:
            for _ in range(count):
                write(size)
        return count * size / (time.perf_counter() - started)


def with_log(folder: Path):  # type: ignore[no-untyped-def]
    log = AuditLog.open(folder / "log", clock=SystemClock())
    return lambda size: log.append_many([RECORD] * size)


def with_sqlite(folder: Path):  # type: ignore[no-untyped-def]
    database = sqlite3.connect(folder / "log.db", isolation_level=None)
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE log (entry TEXT)")

    def write(size: int) -> None:
        database.execute("BEGIN")
        database.executemany("INSERT INTO log VALUES (?)", [(json.dumps(RECORD),) for _ in range(size)])
        database.execute("COMMIT")

    return write


def with_file(folder: Path):  # type: ignore[no-untyped-def]
    fd = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(size: int) -> None:
        os.write(fd, b"".join(json.dumps(RECORD).encode() + b"\n" for _ in range(size)))
        os.fdatasync(fd)

    return write


def in_threads(write, count: int) -> None:  # type: ignore[no-untyped-def]
    def work() -> None:
        for _ in range(count // NUM_THREADS):
            write(1)

    threads = [threading.Thread(target=work) for _ in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def verified(place: Path, batches: int, *, runs: int) -> list[float]:
    """Records a second of a full verification."""
    log = AuditLog.open(place / "verified", clock=SystemClock())
    for _ in range(batches):
        log.append_many([RECORD] * BATCH)
    rates = []
    for _ in range(runs):
        started = time.perf_counter()
        assert log.verify().is_intact
        rates.append(batches * BATCH / (time.perf_counter() - started))
    return rates


if __name__ == "__main__":
    main(__doc__.splitlines()[0], measure)
