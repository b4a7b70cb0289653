"""The object store against a server that misbehaves."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from obstore.store import S3Store

from rsc.errors import IntegrityError, ResourceError
from rsc.keys.envelope import Envelope
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import BulkStore, read_all
from rsc.store.bulk.locations import open_store
from rsc.store.bulk.objects import ObjectStore
from rsc.store.bulk.retry import Retry
from rsc.store.cache.node_cache import CHUNK_BYTES, NodeCache
from rsc.store.dataset import Dataset, DatasetWriter, list_versions
from rsc.store.format.columns import concatenate_columns
from rsc.store.format.container import ContainerRecord, ContainerWriter
from rsc.store.staging import list_unfinished
from tests.conftest import FakeClock
from tests.store.conftest import SCHEMA, assert_equal, make_columns
from tests.store.flaky_server import Dialect, Fault, FlakyServer
from tests.store.memory import MemoryFile

DATA = random.Random(1).randbytes(5_000_000)
COLUMNS = make_columns(60)


@pytest.fixture(params=["s3", "gs"])
def server(request: pytest.FixtureRequest) -> Iterator[FlakyServer]:
    with FlakyServer(dialect=request.param) as running:
        yield running


def test_the_server_is_a_store(server: FlakyServer) -> None:
    """The same story as of every bulk store; a file of several parts is one upload."""
    store = server.store()
    file = store.create("a/big")
    for start in range(0, 20_000_000, 1_000_000):
        file.write(memoryview(bytes([start // 1_000_000]) * 1_000_000))
    assert "a/big" not in server.objects
    file.commit()
    assert len(server.objects["a/big"]) == 20_000_000
    store.put("a/b/x", b"x")
    assert store.put_if_absent("a/c", b"one")
    assert not store.put_if_absent("a/c", b"two")
    assert store.children("a") == ["b", "big", "c"]
    assert list(store.walk("a")) == ["a/b/x", "a/big", "a/c"]
    store.delete_folder("a/b")
    store.delete("a/nothing")
    assert store.children("a") == ["big", "c"]
    assert read_all(store.open("a/c")) == b"one"
    with pytest.raises(FileNotFoundError):
        store.open("a/nothing")


@pytest.mark.parametrize("fault", ["drop", "delay", "truncate", "short", "503", "hang up"])
def test_a_range_arrives_whole_through_faults(server: FlakyServer, fault: Fault) -> None:
    server.objects["x"] = DATA
    server.faults = deque([fault] * 3)
    buffer = bytearray(3_000_000)
    server.store().open("x").read_into(1_000_000, buffer)
    assert buffer == DATA[1_000_000:4_000_000]
    assert len(server.faults) == (2 if fault == "delay" else 0), (
        "only a delayed answer is not asked for again"
    )


@pytest.mark.parametrize("fault", ["drop", "short"])
def test_a_cut_range_is_resumed_and_not_begun_again(server: FlakyServer, fault: Fault) -> None:
    server.objects["x"] = DATA
    server.faults = deque([fault] * 2)
    store = server.store()
    store.open("x", size_bytes=len(DATA)).read_into(0, bytearray(4_000_000))
    assert server.sent_bytes < 4_000_000 + 2 * (1 << 20) + 1, "at most a piece is sent twice for each cut"


def test_progress_starts_the_count_of_failures_anew(server: FlakyServer) -> None:
    """More cuts than attempts, each after some progress."""
    server.objects["x"] = DATA
    server.faults = deque(["drop", "short"] * 3)
    buffer = bytearray(len(DATA))
    server.store().open("x").read_into(0, buffer)
    assert buffer == DATA


@pytest.mark.parametrize("fault", ["503", "hang up"])
def test_a_store_that_stays_down_is_a_resource_error(server: FlakyServer, fault: Fault) -> None:
    server.objects["x"] = DATA
    reader = server.store().open("x")
    server.faults = deque([fault] * 100)
    with pytest.raises(ResourceError, match="object store failed at x") as caught:
        reader.read_into(0, bytearray(100))
    assert caught.value.exit_code == 4
    assert len(server.faults) == 100 - 4, "as many tries as were allowed"


def test_an_object_that_is_shorter_than_recorded_is_truncated(server: FlakyServer) -> None:
    server.objects["x"] = DATA[:1000]
    with pytest.raises(IntegrityError) as caught:
        server.store().open("x", size_bytes=2000).read_into(500, bytearray(1000))
    assert caught.value.facts["outcome"] == "truncated"


def test_an_object_removed_while_it_is_read_is_missing(server: FlakyServer) -> None:
    server.objects["x"] = DATA
    reader = server.store().open("x")
    del server.objects["x"]
    with pytest.raises(FileNotFoundError):
        reader.read_into(0, bytearray(10))


def test_a_put_whose_answer_was_lost_has_won(server: FlakyServer) -> None:
    server.loses_put_answers = 1
    assert server.store().put_if_absent("root.json", b"mine")
    assert server.objects == {"root.json": b"mine"}
    assert not server.store().put_if_absent("root.json", b"another's")


def test_a_gs_location_is_found_by_the_usual_environment(
    key: SecretKey, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FlakyServer(dialect="gs") as server:
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", server.gs_login)
        monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
        for version in (1, 2):
            write(open_store("gs://bucket/under"), key, clock)
            assert Dataset.open("gs://bucket/under", name="posts").version == version
            assert Dataset.open("gs://bucket/under", name="posts").verify(key=key).is_good
        assert all(name.startswith("under/posts/") for name in server.objects)


def test_waits_are_jittered_and_bounded() -> None:
    waits: list[float] = []

    class Recording(FakeClock):
        def sleep(self, seconds: float) -> None:
            waits.append(seconds)

    retry = Retry(attempts=9, first_s=1.0, most_s=8.0, clock=Recording(), random=random.Random(1))

    def fail() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        retry.call(fail, is_passing=lambda error: isinstance(error, ConnectionError))
    assert len(waits) == 8
    assert all(0 <= wait <= min(8, 2**number) for number, wait in enumerate(waits))
    assert len(set(waits)) == 8
    waits.clear()
    with pytest.raises(ConnectionError):
        retry.call(fail, is_passing=lambda error: False)
    assert waits == []


def put_shard(server: FlakyServer, key: SecretKey) -> tuple[ContainerRecord, bytes]:
    file = MemoryFile()
    writer = ContainerWriter(file, key=key, context=b"")
    for number in range(6):
        writer.write_frame(DATA[number : number + 2_000_000], num_samples=1)
    record = writer.finish()
    server.objects["a.rsc"] = bytes(file.data)
    return record, bytes(file.data)


def test_lies_are_caught_by_the_cache_and_fetched_again(
    server: FlakyServer, tmp_path: Path, key: SecretKey, clock: FakeClock
) -> None:
    record, expected = put_shard(server, key)
    cache = NodeCache(tmp_path / "cache", limit_bytes=4 * CHUNK_BYTES, clock=clock)
    faults: list[Fault] = ["lie", "truncate", "lie", "none", "503", "lie", "drop", "none", "none", "hang up"]
    server.faults = deque(faults)
    shard = cache.open(server.store(), "a.rsc", digest=record.digest, size_bytes=record.size_bytes)
    assert read_all(shard) == expected
    assert not server.faults
    sent = server.sent_bytes
    assert read_all(shard) == expected
    assert server.sent_bytes == sent


def write(store: BulkStore, key: SecretKey, clock: FakeClock) -> None:
    envelope = Envelope("local", kek_id="data/posts/2026-11", wrapped=b"", created=clock.now())
    writer = DatasetWriter.create(
        store, name="posts", schemas={"train": SCHEMA}, key=key, envelope=envelope, clock=clock,
        frame_bytes=600, shard_bytes=1500,
    )  # fmt: skip
    writer.append("train", COLUMNS)
    writer.commit(policy=b"policy", report=b"report", facts={})


@pytest.mark.parametrize("dialect", ["s3", "gs"])
def test_a_connection_lost_at_any_request_publishes_nothing_or_all(
    dialect: Dialect, key: SecretKey, clock: FakeClock
) -> None:
    """The server dies at each request in turn, and comes back."""
    impatient = Retry(attempts=1)
    with FlakyServer(dialect=dialect) as counting:
        write(counting.store(retry=impatient), key, clock)
        total = counting.num_requests
    assert total > 10
    failed = 0
    for request in range(total):
        with FlakyServer(dialect=dialect) as server:
            server.dead_from = request
            store = server.store(retry=impatient)
            with suppress(ResourceError):
                write(store, key, clock)
                continue
            failed += 1
            server.dead_from = None
            assert list_versions(store, "posts") == [], request
            for unfinished in list_unfinished(store, "posts"):
                unfinished.remove()
            assert server.objects == {}
            write(store, key, clock)
            dataset = Dataset.open(store, name="posts")
            assert_equal(concatenate_columns(list(dataset.split("train", key=key).iterate())), COLUMNS)
    assert failed == total


@pytest.mark.slow
def test_a_data_set_on_the_s3_of_moto(key: SecretKey, clock: FakeClock) -> None:
    """The same against somebody else's idea of S3."""
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    boto3 = pytest.importorskip("boto3")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        login = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
        boto3.client("s3", endpoint_url=f"http://{host}:{port}", **login).create_bucket(Bucket="bucket")
        backend = S3Store(
            "bucket",
            endpoint=f"http://{host}:{port}",
            region="us-east-1",
            access_key_id="a",
            secret_access_key="b",
            client_options={"allow_http": True},
        )
        for version in (1, 2):
            write(ObjectStore(backend), key, clock)
            dataset = Dataset.open(ObjectStore(backend), name="posts")
            assert dataset.version == version
            assert dataset.verify(key=key).is_good
            assert_equal(concatenate_columns(list(dataset.split("train", key=key).iterate())), COLUMNS)
    finally:
        server.stop()
