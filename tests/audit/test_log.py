from __future__ import annotations

import hashlib
import multiprocessing
import threading
from pathlib import Path

import pytest
from crash_disk import CrashDisk, PowerLoss
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.audit import log as log_module
from rsc.audit.log import AuditLog
from rsc.audit.merkle import Frontier
from rsc.clock import SystemClock
from rsc.errors import ConfigError, IntegrityError


def reference_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1 as it is written there, recursive."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = reference_root(leaves[:split]), reference_root(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


@given(st.integers(min_value=0, max_value=300))
@settings(max_examples=60, deadline=None)
def test_the_frontier_gives_the_root_of_rfc_6962(size):
    leaves = [hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(size)]
    frontier = Frontier()
    for leaf in leaves:
        frontier.add(leaf)
    assert frontier.root() == reference_root(leaves)


def test_records_come_back_in_order_after_reopening(tmp_path: Path, clock):
    log = AuditLog.open(tmp_path, clock=clock)
    assert log.append("approved", data="posts", version=1) == 0
    assert log.append_many([{"kind": "released", "data": d} for d in ("posts", "talks")]) == 1
    again = AuditLog.open(tmp_path, clock=clock)
    assert [(e["index"], e["kind"]) for e in again.entries()] == [
        (0, "approved"),
        (1, "released"),
        (2, "released"),
    ]
    assert [e["index"] for e in again.entries(data="posts")] == [0, 1]
    assert again.append("denied", data="posts") == 3
    assert again.verify().is_intact


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 513, 1000])
def test_publishing_keeps_every_record_at_tile_edges(clock, size):
    disk = CrashDisk()
    log = AuditLog.open_disk(disk, clock=clock)
    if size:
        log.append_many([{"kind": "k", "n": n} for n in range(size)])
    log.checkpoint()
    log.append("after", n=size)
    reopened = AuditLog.open_disk(disk, clock=clock)
    assert [e["n"] for e in reopened.entries()] == list(range(size + 1))
    assert reopened.verify().is_intact
    assert disk.files["tail"]


def test_publishing_in_any_steps_gives_the_same_tiles(clock):
    """What the folder holds depends on the records, not on when they were published."""
    in_steps, at_once = CrashDisk(), CrashDisk()
    first = AuditLog.open_disk(in_steps, clock=clock)
    at_once.files.update(in_steps.files)
    records = [{"kind": "k", "n": n, "time": "2026-11-21T09:00:00.000Z"} for n in range(700)]
    for start in range(0, 700, 90):
        first.append_many(records[start : start + 90])
        first.checkpoint()
    second = AuditLog.open_disk(at_once, clock=clock)
    second.append_many(records)
    second.checkpoint()
    last_partials = {path: data for path, data in at_once.files.items() if ".p/" in path}
    for path, data in in_steps.files.items():
        assert ".p/" in path or at_once.files[path] == data
    assert last_partials.items() <= in_steps.files.items()
    assert not [path for path in in_steps.files if "000.p/" in path and "tile/1" not in path]


def test_a_large_tail_is_published_by_itself(clock, monkeypatch):
    monkeypatch.setattr(log_module, "PUBLISH_TAIL_BYTES", 2000)
    disk = CrashDisk()
    log = AuditLog.open_disk(disk, clock=clock)
    for n in range(40):
        log.append("k", n=n)
    assert len(disk.files["tail"]) <= 2000
    assert [e["n"] for e in AuditLog.open_disk(disk, clock=clock).entries()] == list(range(40))


def test_threads_share_commits_and_get_their_own_indices(tmp_path: Path, clock):
    log = AuditLog.open(tmp_path, clock=clock)
    indices: dict[str, int] = {}

    def work(worker: int) -> None:
        for n in range(25):
            indices[f"{worker}.{n}"] = log.append("k", who=f"{worker}.{n}")

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {e["who"]: e["index"] for e in log.entries()} == indices
    assert log.verify().size == 200


@pytest.mark.parametrize("num_after", [0, 1, 2])
def test_a_tail_that_another_process_emptied_is_seen_whatever_its_size_is_now(clock, num_after):
    """Shorter than what this process remembers of the one before, as long, and longer."""
    disk = CrashDisk()
    mine, theirs = (AuditLog.open_disk(disk, clock=clock) for _ in range(2))
    mine.append("k", n=0)
    for n in (1, 2):
        theirs.append("k", n=n)
        theirs.checkpoint()
    for n in range(num_after):
        theirs.append("k", n=3 + n)
    assert mine.append("k", n=9) == 3 + num_after
    assert mine.verify().is_intact
    assert [e["n"] for e in mine.entries()] == [*range(3 + num_after), 9]


def _append_some(folder: Path, worker: int) -> None:
    log = AuditLog.open(folder, clock=SystemClock())
    for n in range(20):
        log.append("k", who=f"{worker}.{n}")
        if n % 7 == worker:
            log.checkpoint()


def test_processes_append_to_one_log(tmp_path: Path, clock):
    AuditLog.open(tmp_path, clock=clock)
    workers = [
        multiprocessing.get_context("fork").Process(target=_append_some, args=(tmp_path, worker))
        for worker in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    log = AuditLog.open(tmp_path, clock=clock)
    assert sorted(e["who"] for e in log.entries()) == sorted(f"{w}.{n}" for w in range(3) for n in range(20))
    assert log.verify().is_intact


def test_a_record_that_does_not_fit_a_bundle_is_refused(tmp_path: Path, clock):
    log = AuditLog.open(tmp_path, clock=clock)
    with pytest.raises(ConfigError, match="above 65535"):
        log.append("k", text="x" * 65536)
    assert log.verify().size == 0


def _scenario(disk: CrashDisk, clock, acknowledged: list[str]) -> None:
    """Appends in singles and batches with publications between, noting what was acknowledged."""
    log = AuditLog.open_disk(disk, clock=clock)
    number = 0
    for batch in (1, 3, 250, 1, 2, 40, 1):
        names = [f"r{number + i}" for i in range(batch)]
        log.append_many([{"kind": "k", "name": name} for name in names])
        acknowledged.extend(names)
        number += batch
        if batch in (3, 250, 2):
            log.checkpoint()


@pytest.mark.parametrize("how", ["before", "short", "holes", "all"])
def test_power_loss_at_any_operation_loses_no_acknowledged_record(clock, how):
    whole = CrashDisk()
    _scenario(whole, clock, [])
    crashes = 0
    for crash_at in range(1, whole.operations + 1):
        for seed in range(4):
            disk, acknowledged = CrashDisk(crash_at=crash_at, how=how, seed=seed), []
            with pytest.raises(PowerLoss):
                _scenario(disk, clock, acknowledged)
            crashes += 1
            log = AuditLog.open_disk(disk.survivor(), clock=clock)
            found = [e["name"] for e in log.entries() if e["kind"] == "k"]
            assert found[: len(acknowledged)] == acknowledged
            log.append("k", name="later")
            assert log.verify().is_intact, (crash_at, seed, log.verify().problems)
            log.checkpoint()
            assert log.verify().is_intact
    assert crashes >= 40


def test_a_torn_end_is_told_in_the_log(clock):
    disk = CrashDisk()
    log = AuditLog.open_disk(disk, clock=clock)
    log.append("k", n=0)
    disk.files["tail"] += disk.files["tail"][:50]
    log.append("k", n=1)
    kinds = [(e["kind"], e.get("dropped_bytes")) for e in log.entries()]
    assert kinds == [("k", None), ("log_recovered", 50), ("k", None)]


def _flip_each(disk: CrashDisk, log: AuditLog, *, step: int, records_at) -> int:
    """Flip bits of every file, one at a time, and look for the report at its record."""
    assert log.verify().is_intact
    flips = 0
    for path in [p for p in disk.files if p.startswith(("tile", "checkpoint", "tail"))]:
        original = disk.files[path]
        for bit in range(0, 8 * len(original), step):
            flipped = bytearray(original)
            flipped[bit // 8] ^= 1 << bit % 8
            disk.files[path] = bytes(flipped)
            problems = log.verify().problems
            expected = records_at(path, bit // 8, original)
            assert any(p.first <= r <= p.last for p in problems for r in expected), (path, bit)
            flips += 1
        disk.files[path] = original
    return flips


def test_every_flipped_bit_of_a_small_log_is_reported_at_its_record(clock):
    disk = CrashDisk()
    log = AuditLog.open_disk(disk, clock=clock)
    log.append_many([{"kind": "k", "n": n} for n in range(3)])
    log.checkpoint()
    log.append_many([{"kind": "k", "n": n} for n in range(3, 6)])
    log.append("k", n=6)
    flips = _flip_each(
        disk,
        log,
        step=1,
        records_at=lambda path, offset, data: _records_at(path, offset, data, tail=range(3, 7)),
    )
    assert flips > 8000


def test_flipped_bits_of_a_log_with_two_levels_of_tiles_are_reported(clock):
    disk = CrashDisk()
    log = AuditLog.open_disk(disk, clock=clock)
    log.append_many([{"kind": "k", "n": n} for n in range(258)])
    log.checkpoint()
    log.append_many([{"kind": "k", "n": n} for n in range(258, 261)])
    flips = _flip_each(
        disk,
        log,
        step=211,
        records_at=lambda path, offset, data: _records_at(path, offset, data, tail=range(258, 261)),
    )
    assert flips > 500


def _records_at(path: str, offset: int, data: bytes, *, tail: range) -> list[int]:
    """The record (or the records below a hash) that byte `offset` of a file belongs to."""
    if path == "checkpoint":
        return [-1]
    if path.startswith("tile/entries"):
        position, index = 0, 256 if "001.p/" in path else 0
        while True:
            end = position + 2 + int.from_bytes(data[position : position + 2], "big")
            if offset < end:
                return [index]
            position, index = end, index + 1
    if path.startswith("tile/0"):
        return [offset // 32 + (256 if "001.p/" in path else 0)]
    if path.startswith("tile/1"):
        return list(range(256))
    return list(tail)


def test_a_damaged_log_takes_no_further_record(clock):
    disk = CrashDisk()
    log = AuditLog.open_disk(disk, clock=clock)
    log.append("k", n=0)
    disk.files["tail"] = disk.files["tail"].replace(b'"n":0', b'"n":7')
    with pytest.raises(IntegrityError, match="record 0"):
        AuditLog.open_disk(disk, clock=clock).append("k", n=1)


def test_a_log_whose_files_were_deleted_is_not_begun_anew(tmp_path: Path, clock):
    AuditLog.open(tmp_path, clock=clock).append("k")
    (tmp_path / "tail").unlink()
    with pytest.raises(IntegrityError, match="tail file is missing"):
        AuditLog.open(tmp_path, clock=clock)
