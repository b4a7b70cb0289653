from __future__ import annotations

import errno
import os
import random
import signal
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from multiprocessing import get_context
from pathlib import Path

import pytest

from rsc.errors import ConfigError, IntegrityError, KeyUnavailable, ResourceError
from rsc.keys.envelope import Envelope
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import read_all
from rsc.store.bulk.local import LocalReader, LocalStore
from rsc.store.cache import chunk_folder
from rsc.store.cache.chunk_folder import ChunkFolder
from rsc.store.cache.eviction import belady_misses
from rsc.store.cache.node_cache import CHUNK_BYTES, CachedShard, NodeCache
from rsc.store.cache.prefetch import CachedRead, Follower
from rsc.store.cache.read_plans import ReadPlan, read_plans
from rsc.store.dataset import Dataset, DatasetWriter
from rsc.store.format.columns import Ragged, columns_from_records
from rsc.store.format.container import ContainerReader, ContainerRecord, ContainerWriter
from rsc.store.format.frames import decode_frame
from rsc.store.format.schema import Field, Schema
from tests.conftest import FakeClock
from tests.store.memory import MemoryFile

MIB = 1 << 20
CONTEXT = b"here"


class CountingStore(LocalStore):
    """Counts the bytes that cross the line, and can change some of them on the way."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.crossed = 0
        self.lies = 0

    def open(self, path: str, *, size_bytes: int | None = None) -> LocalReader:
        store = self

        class Counting(LocalReader):
            def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
                super().read_into(offset, buffer)
                store.crossed += len(buffer)
                if store.lies and len(buffer) > 1000:
                    store.lies -= 1
                    buffer[777] ^= 1

        return Counting(self.root / path)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "bulk")


@pytest.fixture
def cache(tmp_path: Path, clock: FakeClock) -> NodeCache:
    return NodeCache(tmp_path / "cache", limit_bytes=64 * MIB, clock=clock)


def put_shard(
    store: CountingStore, key: SecretKey, *, name: str = "a.rsc", size: int = 9 * MIB
) -> ContainerRecord:
    file = MemoryFile()
    writer = ContainerWriter(file, key=key, context=CONTEXT)
    frame = random.Random(name).randbytes(MIB)
    for number in range(size // MIB):
        writer.write_frame(frame[number:] + frame[:number], num_samples=1)
    record = writer.finish()
    store.put(name, bytes(file.data))
    return record


def open_cached(
    cache: NodeCache,
    store: CountingStore,
    record: ContainerRecord,
    *,
    name: str = "a.rsc",
    expires: datetime | None = None,
) -> CachedShard:
    return cache.open(store, name, digest=record.digest, size_bytes=record.size_bytes, expires=expires)


def test_the_bytes_are_those_of_the_file_and_cross_once(
    cache: NodeCache, store: CountingStore, key: SecretKey
) -> None:
    record = put_shard(store, key)
    expected = (store.root / "a.rsc").read_bytes()
    for _ in range(3):
        assert read_all(open_cached(cache, store, record)) == expected
    body_bytes = 128 + 9 * (MIB + 16)
    assert store.crossed == (1 << 16) + body_bytes, "the last 64 KiB hold the tail, and a piece of the body"
    reader = ContainerReader(
        open_cached(cache, store, record), key=key, context=CONTEXT, expected_digest=record.digest
    )
    assert reader.num_frames == 9
    assert len(reader.read_frame(8)) == MIB


def test_any_range_is_right(cache: NodeCache, store: CountingStore, key: SecretKey) -> None:
    record = put_shard(store, key)
    expected = (store.root / "a.rsc").read_bytes()
    shard = open_cached(cache, store, record)
    edges = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES, shard.tail.body_bytes, len(expected)]
    for start in edges:
        for stop in (edge for edge in edges if edge >= start):
            buffer = bytearray(stop - start)
            shard.read_into(start, buffer)
            assert buffer == expected[start:stop]
    with pytest.raises(IntegrityError):
        shard.read_into(len(expected) - 1, bytearray(2))


def test_only_what_is_read_is_fetched(cache: NodeCache, store: CountingStore, key: SecretKey) -> None:
    shard = open_cached(cache, store, put_shard(store, key))
    before = store.crossed
    shard.read_into(CHUNK_BYTES + 5, bytearray(10))
    assert store.crossed - before == CHUNK_BYTES


def test_nothing_but_ciphertext_is_kept(cache: NodeCache, store: CountingStore, key: SecretKey) -> None:
    record = put_shard(store, key)
    read_all(open_cached(cache, store, record))
    bulk = (store.root / "a.rsc").read_bytes()
    for path in cache.folder.rglob("*"):
        if path.is_file() and path.name != "ledger":
            assert path.read_bytes() in bulk


def test_a_lying_store_is_asked_again_then_refused(
    cache: NodeCache, store: CountingStore, key: SecretKey
) -> None:
    record = put_shard(store, key)
    store.lies = 2
    expected = (store.root / "a.rsc").read_bytes()
    assert read_all(open_cached(cache, store, record)) == expected
    second = put_shard(store, key, name="b.rsc")
    shard = open_cached(cache, store, second, name="b.rsc")
    store.lies = 1000
    with pytest.raises(IntegrityError, match="MiB 0 arrived 4 times") as caught:
        shard.hold(0)
    assert caught.value.facts["outcome"] == "frame"
    store.lies = 0
    assert read_all(shard) == (store.root / "b.rsc").read_bytes()


def cut(path: Path) -> None:
    """Keeps the times: they say when a chunk expires."""
    stat = path.stat()
    os.truncate(path, stat.st_size // 2)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def flip(path: Path) -> None:
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(("damage", "what"), [(cut, "*.0"), (cut, "*.2"), (cut, "*.tail"), (flip, "*.tail")])
def test_what_the_disk_damaged_in_the_cache_is_fetched_again(
    cache: NodeCache, store: CountingStore, key: SecretKey, damage: Callable[[Path], None], what: str
) -> None:
    """A chunk that was cut short never came to its end, a damaged tail stayed damaged for every reader."""
    record = put_shard(store, key)
    expected = (store.root / "a.rsc").read_bytes()
    read_all(open_cached(cache, store, record))
    (damaged,) = cache.folder.rglob(what)
    size_bytes = damaged.stat().st_size
    damage(damaged)
    assert read_all(open_cached(cache, store, record)) == expected
    assert damaged.stat().st_size == size_bytes


def test_a_disk_that_does_not_keep_a_tail_is_an_error(
    cache: NodeCache, store: CountingStore, key: SecretKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = put_shard(store, key)
    monkeypatch.setattr(chunk_folder, "_write_all", lambda fd, data: os.pwrite(fd, bytes(len(data)), 0))
    with pytest.raises(ResourceError, match="was damaged in the cache 4 times"):
        open_cached(cache, store, record)


def test_another_file_under_the_name_is_refused(
    cache: NodeCache, store: CountingStore, key: SecretKey
) -> None:
    record = put_shard(store, key)
    put_shard(store, key)  # the same frames, another salt
    with pytest.raises(IntegrityError, match="not the file") as caught:
        open_cached(cache, store, record)
    assert caught.value.facts["outcome"] == "header"


def test_a_missing_shard_is_missing(cache: NodeCache, store: CountingStore) -> None:
    with pytest.raises(FileNotFoundError):
        cache.open(store, "nothing.rsc", digest=bytes(32), size_bytes=1000)
    assert [path for path in cache.folder.rglob("*") if path.is_file() and path.name != "ledger"] == []


def test_the_limit_holds(tmp_path: Path, store: CountingStore, key: SecretKey, clock: FakeClock) -> None:
    cache = NodeCache(tmp_path / "cache", limit_bytes=20 * MIB, clock=clock)
    for number in range(5):
        record = put_shard(store, key, name=f"{number}.rsc")
        expected = (store.root / f"{number}.rsc").read_bytes()
        assert read_all(open_cached(cache, store, record, name=f"{number}.rsc")) == expected
        assert cache.chunks.used_bytes() <= 20 * MIB
    with pytest.raises(ConfigError, match="too small"):
        NodeCache(tmp_path / "tiny", limit_bytes=MIB, clock=clock)


def test_an_expired_shard_is_removed_and_refused(
    cache: NodeCache, store: CountingStore, key: SecretKey, clock: FakeClock
) -> None:
    record = put_shard(store, key)
    expires = clock.now() + timedelta(days=1)
    shard = open_cached(cache, store, record, expires=expires)
    shard.hold(0)
    clock.advance(86_400)
    with pytest.raises(KeyUnavailable, match="expired at 2026-11-22"):
        shard.read_into(0, bytearray(10))
    assert list(cache.folder.rglob(f"{record.digest.hex()}*")) == []
    with pytest.raises(KeyUnavailable):
        open_cached(cache, store, record, expires=expires)


def test_sweep_removes_what_expired_without_anybody_asking(
    cache: NodeCache, store: CountingStore, key: SecretKey, clock: FakeClock
) -> None:
    expiring, lasting = put_shard(store, key, name="a.rsc"), put_shard(store, key, name="b.rsc")
    open_cached(cache, store, expiring, expires=clock.now() + timedelta(days=1)).hold(0)
    open_cached(cache, store, lasting, name="b.rsc").hold(0)
    (cache.folder / "ab").mkdir(exist_ok=True)
    (cache.folder / "ab" / "abandoned.0.part").write_bytes(b"half")
    clock.advance(86_400)
    cache.sweep()
    left = {path.name for path in cache.folder.glob("??/*")}
    assert left == {f"{lasting.digest.hex()}.0", f"{lasting.digest.hex()}.tail"}


# --- the folder itself, with small chunks ---


def folder_of(tmp_path: Path, clock: FakeClock, *, chunks: int = 100) -> ChunkFolder:
    return ChunkFolder(tmp_path / "cache", limit_bytes=chunks * 1000, slack_bytes=0, clock=clock)


def use(folder: ChunkFolder, name: str) -> bytes:
    fd = folder.get(name, expires=None, fetch=lambda: memoryview(name.encode().ljust(1000)))
    try:
        return os.pread(fd, 2000, 0)
    finally:
        os.close(fd)


def test_one_job_with_a_plan_misses_as_rarely_as_possible(tmp_path: Path, clock: FakeClock) -> None:
    """The real folder, evicting by a published plan, against the optimum over the same trace."""
    names = [f"{number:02x}.0" for number in range(40)]
    trace = [name for seed in range(4) for name in random.Random(seed).sample(names, len(names))]
    folder = folder_of(tmp_path, clock, chunks=15)
    plan = ReadPlan(folder.folder)
    for position, name in enumerate(trace):
        future: dict[str, float] = {}
        for ahead, coming in enumerate(trace[position:]):
            future.setdefault(coming, float(ahead))
        plan.publish(future)
        assert use(folder, name) == name.encode().ljust(1000)
    plan.close()
    assert folder.counts.misses == belady_misses(trace, capacity=15)
    assert folder.used_bytes() <= 15_000


def test_a_failed_fetch_leaves_nothing_and_is_tried_again(tmp_path: Path, clock: FakeClock) -> None:
    folder = folder_of(tmp_path, clock)

    def fail() -> memoryview:
        raise ResourceError("line is down")

    with pytest.raises(ResourceError, match="line is down"):
        folder.get("aa.0", expires=None, fetch=fail)
    assert list((tmp_path / "cache").glob("??/*")) == []
    assert use(folder, "aa.0").startswith(b"aa.0")


def test_a_full_disk_is_a_resource_error(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(tmp_path, clock)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rsc.store.cache.chunk_folder.os.fsync", full)
    with pytest.raises(ResourceError, match="No space left"):
        use(folder, "aa.0")
    assert list((tmp_path / "cache").glob("??/*")) == []


def test_threads_that_want_the_same_chunk_fetch_it_once(tmp_path: Path, clock: FakeClock) -> None:
    folder = folder_of(tmp_path, clock)
    everyone = threading.Barrier(8)
    got: list[bytes] = []

    def want() -> None:
        everyone.wait()
        got.extend(use(folder, f"{number:02x}.0") for number in range(10))

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 80
    assert folder.counts.misses == 10
    assert folder.counts.hits == 70


def _rank(path: str, seed: int, kill_at: int | None) -> None:
    """A process that uses chunks in its own order, checks every byte, and may die inside a fetch."""
    folder = ChunkFolder(Path(path), limit_bytes=30_000, slack_bytes=1000, clock=FakeClock())
    rng = random.Random(seed)
    for step in range(150):
        name = f"{rng.randrange(60):02x}.0"

        def fetch(step: int = step, name: str = name) -> memoryview:
            if step >= (kill_at if kill_at is not None else 1000):
                os.kill(os.getpid(), signal.SIGKILL)
            return memoryview(name.encode().ljust(1000))

        fd = folder.get(name, expires=None, fetch=fetch)
        assert os.pread(fd, 2000, 0) == name.encode().ljust(1000)
        os.close(fd)


def test_processes_share_the_folder_and_some_are_killed(tmp_path: Path) -> None:
    """Six ranks over a cache of half the chunks, three of them killed inside a fetch: no partial chunk is
    ever served, nobody waits for ever, and the limit holds again afterwards."""
    context = get_context("fork")
    kills = [None, None, None, 20, 50, 90]
    ranks = [
        context.Process(target=_rank, args=(str(tmp_path / "cache"), seed, kill))
        for seed, kill in enumerate(kills)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0, -9, -9, -9]
    folder = ChunkFolder(tmp_path / "cache", limit_bytes=30_000, slack_bytes=1000, clock=FakeClock())
    assert folder.used_bytes() <= 30_000
    folder.sweep()
    assert not list((tmp_path / "cache").glob("??/*.part"))


# --- plans and prefetching ---


def use_of(shard: CachedShard, chunk: int) -> CachedRead:
    """A read in the middle of a chunk."""
    return CachedRead(shard, offset=chunk * CHUNK_BYTES + 100, size_bytes=1000)


def test_plans_of_the_living_count(tmp_path: Path) -> None:
    mine = ReadPlan(tmp_path)
    mine.publish({"aa.0": 1.5, "bb.17": 2.0})
    assert read_plans(tmp_path) == [{"aa.0": 1.5, "bb.17": 2.0}]
    child = os.fork()
    if child == 0:
        ReadPlan(tmp_path).publish({"cc.0": 1.0})
        os._exit(0)
    os.waitpid(child, 0)
    assert read_plans(tmp_path) == [{"aa.0": 1.5, "bb.17": 2.0}]
    mine.close()
    assert read_plans(tmp_path) == []
    assert list((tmp_path / "plans").iterdir()) == []


@pytest.fixture
def shards(cache: NodeCache, store: CountingStore, key: SecretKey) -> list[CachedShard]:
    """Three shards of three chunks."""
    names = ("a.rsc", "b.rsc", "c.rsc")
    records = [put_shard(store, key, name=name) for name in names]
    return [open_cached(cache, store, record, name=name) for name, record in zip(names, records, strict=True)]


def test_what_comes_next_is_there_before_it_is_read(
    cache: NodeCache, shards: list[CachedShard], store: CountingStore, clock: FakeClock
) -> None:
    uses = [use_of(shard, chunk) for chunk in range(3) for shard in shards for _ in range(2)]
    before = store.crossed
    follower = Follower(cache, reads=iter(uses), ahead_bytes=3 * CHUNK_BYTES, connections=4, clock=clock)
    for number, coming in enumerate(uses):
        follower.wait()
        ahead = list(dict.fromkeys(name for use in uses[number:] for name in use.names))[:3]
        assert all((cache.folder / name[:2] / name).exists() for name in ahead), number
        buffer = bytearray(100)
        crossed = store.crossed
        coming.shard.read_into(coming.offset, buffer)
        assert store.crossed == crossed, "the reader had to fetch"
        follower.advance()
    follower.close()
    total = sum(shard.tail.body_bytes for shard in shards)
    assert store.crossed - before == total, "each byte crosses once"
    assert read_plans(cache.folder) == []


def test_the_plan_says_when_each_chunk_is_used_next(
    cache: NodeCache, shards: list[CachedShard], clock: FakeClock
) -> None:
    a, b, _ = shards
    uses = [use_of(a, 0), use_of(b, 0), use_of(a, 0), use_of(b, 1)]
    follower = Follower(cache, reads=iter(uses), ahead_bytes=CHUNK_BYTES, horizon=4, clock=clock)
    follower.wait()
    clock.advance(10)
    follower.advance()
    follower.wait()
    (plan,) = read_plans(cache.folder)
    assert plan == pytest.approx({b.chunk_name(0): 10.0, a.chunk_name(0): 20.0, b.chunk_name(1): 30.0})
    follower.close()


def test_a_plan_that_cannot_be_written_is_written_later(
    cache: NodeCache, shards: list[CachedShard], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that looks ahead lives on; so does the plan before."""
    publish = ReadPlan.publish
    errors = [OSError(errno.ENOSPC, "no room"), ResourceError("the mover is gone")]

    def failing(plan: ReadPlan, next_use_s: Mapping[str, float]) -> None:
        if errors:
            raise errors.pop()
        publish(plan, next_use_s)

    monkeypatch.setattr(ReadPlan, "publish", failing)
    uses = [use_of(shards[0], chunk) for chunk in range(3)]
    follower = Follower(cache, reads=iter(uses), ahead_bytes=CHUNK_BYTES, horizon=4, clock=clock)
    follower.wait()
    follower.advance()
    follower.wait()
    assert not errors
    assert read_plans(cache.folder)[0]
    follower.close()


def test_a_fetch_that_fails_is_raised_by_the_reader(
    cache: NodeCache, shards: list[CachedShard], store: CountingStore, clock: FakeClock
) -> None:
    store.lies = 10**6
    follower = Follower(cache, reads=iter([use_of(shards[0], 0)]), ahead_bytes=CHUNK_BYTES, clock=clock)
    follower.wait()
    with pytest.raises(IntegrityError):
        shards[0].read_into(0, bytearray(10))
    follower.close()


def test_all_connections_are_used(
    tmp_path: Path, store: CountingStore, key: SecretKey, clock: FakeClock
) -> None:
    """With a slow line, as many requests are in flight as there are connections."""
    record = put_shard(store, key, size=40 * MIB)
    cache = NodeCache(tmp_path / "cache", limit_bytes=64 * MIB, clock=clock)
    shard = open_cached(cache, store, record)
    lock, in_flight, most = threading.Lock(), 0, 0
    arrived = threading.Event()
    plain_read = LocalReader.read_into

    def slow_read(self: LocalReader, offset: int, buffer: bytearray | memoryview) -> None:
        nonlocal in_flight, most
        with lock:
            in_flight += 1
            most = max(most, in_flight)
            if in_flight == 5:
                arrived.set()
        arrived.wait(20)
        plain_read(self, offset, buffer)
        with lock:
            in_flight -= 1

    LocalReader.read_into = slow_read  # type: ignore[method-assign]
    try:
        uses = iter([use_of(shard, chunk) for chunk in range(shard.num_chunks)])
        follower = Follower(cache, reads=uses, ahead_bytes=40 * MIB, connections=5, clock=clock)
        follower.wait()
        follower.close()
    finally:
        LocalReader.read_into = plain_read  # type: ignore[method-assign]
    assert most == 5


# --- a data set behind the cache ---


def test_a_data_set_in_another_region_is_hydrated_once(
    tmp_path: Path, key: SecretKey, clock: FakeClock
) -> None:
    """Two epochs in different orders through two readers of one node: each byte crosses the line once."""
    schema = Schema((Field("body", "bytes"),))
    rng = random.Random(3)
    bodies = [rng.randbytes(100_000) for _ in range(120)]
    store = CountingStore(tmp_path / "bulk")
    envelope = Envelope("local", kek_id="data/far/2026-11", wrapped=b"", created=clock.now())
    with DatasetWriter.create(
        store,
        name="far",
        schemas={"train": schema},
        key=key,
        envelope=envelope,
        clock=clock,
        shard_bytes=5 * MIB,
    ) as writer:
        writer.append("train", columns_from_records(schema, [{"body": body} for body in bodies]))
        writer.commit(policy=b"", report=b"", facts={})
    cache = NodeCache(tmp_path / "cache", limit_bytes=32 * MIB, clock=clock)
    splits = [Dataset.open(store, name="far", cache=cache).split("train", key=key) for _ in range(2)]
    before = store.crossed
    frames = [(shard, frame) for shard in range(splits[0].num_shards)
              for frame in range(splits[0].open_shard(shard).num_frames)]  # fmt: skip
    for epoch in range(2):
        order = random.Random(epoch).sample(frames, len(frames))
        followers = [split.follow(iter(order), ahead_bytes=8 * MIB) for split in splits]
        got: list[bytes] = []
        for shard, frame in order:
            for split, follower in zip(splits, followers, strict=True):
                reader = split.open_shard(shard)
                num_samples = int(reader.frames["num_samples"][frame])
                column = decode_frame(schema, reader.read_frame(frame), num_samples)["body"]
                assert isinstance(column, Ragged)
                got += [column[number].tobytes() for number in range(num_samples)]
                assert follower is not None
                follower.advance()
        for follower in followers:
            assert follower is not None
            follower.close()
        assert sorted(got) == sorted(bodies * 2)
    bodies_bytes = sum(
        reader.tail.body_bytes for reader in map(splits[0].open_shard, range(splits[0].num_shards))
    )
    tails = splits[0].num_shards * (1 << 16)
    assert store.crossed - before == bodies_bytes + tails
    assert Dataset.open(store, name="far").split("train", key=key).follow(iter(frames), ahead_bytes=1) is None
    Dataset.open(store, name="far", cache=cache).delete()
    assert list(cache.folder.glob("??/*")) == []
