from __future__ import annotations

import errno
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import pytest

from rsc.clock import SystemClock, timestamp
from rsc.errors import ConfigError, IntegrityError, KeyUnavailable, ResourceError
from rsc.keys.envelope import Envelope
from rsc.keys.secret import SecretKey
from rsc.store.cache.mover_client import AskedCache, AskedStore, MoverClient, socket_beside
from rsc.store.cache.read_plans import pack_plan, read_plans
from rsc.store.dataset import Dataset, DatasetWriter
from rsc.store.format.columns import Columns
from rsc.store.format.schema import Field, Schema
from rsc.store.mover import Mover, MoverJob, serve
from tests.store.flaky_server import FlakyServer
from tests.store.test_cache import cut, flip

NUM_SAMPLES, PIXELS = 1000, 4096
SHARD_BYTES = 1 << 20
SCHEMA = Schema((Field("x", "tensor", dtype="uint8", shape=(PIXELS,)),))


def put_set(flaky: FlakyServer, enveloped: tuple[Envelope, SecretKey], *, name: str = "posts") -> None:
    envelope, key = enveloped
    with DatasetWriter.create(
        flaky.store(),
        name=name,
        schemas={"train": SCHEMA},
        key=key,
        envelope=envelope,
        clock=SystemClock(),
        shard_bytes=SHARD_BYTES,
    ) as writer:
        writer.append("train", {"x": samples()})
        writer.commit(policy=b"", report=b"{}", facts={})


def samples() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.random.default_rng(1).integers(0, 256, (NUM_SAMPLES, PIXELS), np.uint8)


@pytest.fixture
def flaky(enveloped: tuple[Envelope, SecretKey]) -> Iterator[FlakyServer]:
    with FlakyServer() as server:
        put_set(server, enveloped)
        yield server


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short one: addresses of unix sockets are."""
    with tempfile.TemporaryDirectory(prefix="rsc-") as name:
        yield Path(name)


@pytest.fixture
def job(tmp_path: Path) -> MoverJob:
    end = timestamp(SystemClock().now() + timedelta(days=1))
    cache = str(tmp_path / "cache")
    return MoverJob("", cache, limit_bytes=64 << 20, connections=4, sets=(("posts", 1, end),))


class Served:
    """A mover that answers in a thread of this process."""

    def __init__(self, mover: Mover, path: Path) -> None:
        self.mover = mover
        self.path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=serve, args=(self._listener, mover), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def served(flaky: FlakyServer, job: MoverJob, folder: Path) -> Iterator[Served]:
    running = Served(Mover(flaky.store(), job=job), folder / "mover.sock")
    yield running
    running.close()


def asked(served: Served, *, patience_s: float = 30.0) -> Dataset:
    client = MoverClient(served.path, patience_s=patience_s)
    cache = AskedCache(served.mover.folder, client=client)
    return Dataset.open(AskedStore(client), name="posts", version=1, cache=cache)


def read(dataset: Dataset, key: SecretKey) -> Columns:
    frames = list(dataset.split("train", key=key).iterate())
    return {"x": np.concatenate([frame["x"] for frame in frames])}


def test_two_ranks_read_what_was_written_and_every_byte_crosses_once(
    served: Served, flaky: FlakyServer, enveloped: tuple[Envelope, SecretKey]
) -> None:
    split = Dataset.open(flaky.store(), name="posts").splits["train"]
    flaky.sent_bytes = 0
    for _ in range(2):
        np.testing.assert_array_equal(read(asked(served), enveloped[1])["x"], samples())
    ends = split.num_shards << 16  # the last 64 KiB of a shard are asked for to find its tail
    small = 64 << 10  # root.json, the manifest, listings
    assert split.size_bytes <= flaky.sent_bytes + ends <= split.size_bytes + 2 * ends + small
    assert served.mover.fetched_bytes <= split.size_bytes


def test_what_is_asked_ahead_is_there_before_it_is_read(
    served: Served, flaky: FlakyServer, enveloped: tuple[Envelope, SecretKey]
) -> None:
    split = asked(served).split("train", key=enveloped[1])
    frames = [(shard, 0) for shard in range(split.num_shards)]
    follower = split.follow(iter(frames), ahead_bytes=1 << 30)
    assert follower is not None
    follower.wait()
    assert sum(len(plan) for plan in read_plans(served.mover.folder)) == split.num_shards
    flaky.dead_from = 0
    for shard, frame in frames:
        split.open_shard(shard).read_frame(frame)
    follower.close()
    wait_until_no_plan(served.mover.folder)


def wait_until_no_plan(folder: Path) -> None:
    """A plan ends with who made it: as soon as the mover's thread sees that the connection is closed."""
    deadline_s = time.monotonic() + 60
    while read_plans(folder):
        assert time.monotonic() < deadline_s, "the plan of a closed connection is still there"
        time.sleep(0.01)


def test_wrong_bytes_are_fetched_again_and_never_kept(
    served: Served, flaky: FlakyServer, enveloped: tuple[Envelope, SecretKey]
) -> None:
    dataset = asked(served)
    split = dataset.split("train", key=enveloped[1])
    flaky.faults.extend(["lie", "drop", "none", "lie"])
    np.testing.assert_array_equal(np.concatenate([frame["x"] for frame in split.iterate()]), samples())
    assert not flaky.faults


@pytest.mark.parametrize(("damage", "what"), [(cut, "*.0"), (cut, "*.tail"), (flip, "*.tail")])
def test_what_the_disk_damaged_in_the_cache_is_mended_by_the_mover(
    served: Served, enveloped: tuple[Envelope, SecretKey], damage: Callable[[Path], None], what: str
) -> None:
    read(asked(served), enveloped[1])
    for path in list(served.mover.folder.rglob(what)):
        damage(path)
    np.testing.assert_array_equal(read(asked(served), enveloped[1])["x"], samples())


def test_a_store_that_fails_is_the_readers_error(
    served: Served, flaky: FlakyServer, enveloped: tuple[Envelope, SecretKey]
) -> None:
    split = asked(served).split("train", key=enveloped[1])
    flaky.dead_from = 0
    with pytest.raises(ResourceError, match="object store failed"):
        next(split.iterate())


def test_a_store_that_lies_for_good_is_the_readers_error(
    served: Served, flaky: FlakyServer, enveloped: tuple[Envelope, SecretKey]
) -> None:
    split = asked(served).split("train", key=enveloped[1])
    flaky.faults.extend(["lie"] * 50)
    with pytest.raises(IntegrityError) as caught:
        next(split.iterate())
    assert caught.value.facts["outcome"] in ("header", "frame", "truncated", "trailing")


def test_only_the_data_of_the_run_is_answered_for(
    served: Served, flaky: FlakyServer, enveloped: tuple[Envelope, SecretKey]
) -> None:
    put_set(flaky, enveloped, name="secret")
    client = MoverClient(served.path)
    store = AskedStore(client)
    for path in ("secret/v0001/root.json", "posts/v0001/../../secret/v0001/root.json", "posts/../x"):
        with pytest.raises(ConfigError, match="may read"):
            store.open(path)
    with pytest.raises(ConfigError, match="may read"):
        store.children("secret")
    with pytest.raises(ConfigError, match="may read"):
        store.open("posts/v0001/train/000000000.rsc")
    for path in ("secret/v0001/train/000000000.rsc", "posts/v0001/train/0.rsc", "posts/v0001/train/x"):
        with pytest.raises(ConfigError, match="may read"):
            client.ask("hold", path=path, chunk=0, ahead=False)
    with pytest.raises(ConfigError, match="may read"):
        client.ask("hold", path="posts/v0001/train/000000000.rsc", chunk=99, ahead=False)
    with pytest.raises(ResourceError, match="never change"):
        store.put("posts/v0001/root.json", b"")


def test_past_its_retention_nothing_is_served(
    flaky: FlakyServer, job: MoverJob, folder: Path, enveloped: tuple[Envelope, SecretKey]
) -> None:
    late = timestamp(SystemClock().now() - timedelta(seconds=1))
    running = Served(
        Mover(flaky.store(), job=replace(job, sets=(("posts", 1, late),))), folder / "mover.sock"
    )
    with pytest.raises(KeyUnavailable, match="expired"):
        read(asked(running), enveloped[1])
    running.close()


def test_a_cache_that_keeps_nothing_long_enough_is_an_error_with_a_hint(
    served: Served, enveloped: tuple[Envelope, SecretKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = asked(served)
    split = dataset.split("train", key=enveloped[1])
    monkeypatch.setattr(Mover, "answer", lambda self, question: ({}, b""))
    with pytest.raises(ResourceError, match="left the cache") as caught:
        next(split.iterate())
    assert "config.toml" in str(caught.value.hint)


def test_a_mover_that_is_gone_is_an_error_and_no_hang(
    flaky: FlakyServer, job: MoverJob, folder: Path, enveloped: tuple[Envelope, SecretKey]
) -> None:
    running = Served(Mover(flaky.store(), job=job), folder / "mover.sock")
    client = MoverClient(running.path)
    running.close()
    with pytest.raises(ResourceError, match="is gone"):
        client.ask("children", folder="posts")
    running.path.unlink()
    with pytest.raises(ResourceError, match="is gone"):
        client.ask("children", folder="posts")


def test_a_mover_that_does_not_answer_is_an_error_and_no_hang(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(folder / "mover.sock"))
        silent.listen()
        with pytest.raises(ResourceError, match="did not answer"):
            MoverClient(folder / "mover.sock", patience_s=0.05).ask("children", folder="posts")


def test_a_question_is_asked_anew_when_a_mover_ended_before_its_answer(
    flaky: FlakyServer, job: MoverJob, folder: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "mover.sock"))
        listener.listen()

        def die_then_serve() -> None:
            for _ in range(3):
                listener.accept()[0].close()
            serve(listener, Mover(flaky.store(), job=job))

        threading.Thread(target=die_then_serve, daemon=True).start()
        answer, _ = MoverClient(folder / "mover.sock").ask("children", folder="posts")
        assert answer == {"names": ["v0001"]}
        listener.shutdown(socket.SHUT_RDWR)


def test_nonsense_ends_the_connection_and_nothing_else(served: Served) -> None:
    for words in (b"nonsense\n", b"[]\n", b'{"op": "plan", "size": -1}\n'):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(served.path))
            connection.sendall(words)
            assert connection.recv(1) == b""
    with pytest.raises(ResourceError, match="KeyError"):
        MoverClient(served.path).ask("unknown")
    assert MoverClient(served.path).ask("children", folder="posts")[0] == {"names": ["v0001"]}


@pytest.mark.parametrize("size", [b"[]", b'"x"', b"-1", b"[" * 5000])
def test_nonsense_after_a_plan_withdraws_it(served: Served, size: bytes) -> None:
    """It held its lock, and stood against every eviction, as long as the mover lived."""
    packed = pack_plan({"a": 1.0})
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(served.path))
        connection.sendall(b'{"op": "plan", "size": %d}\n' % len(packed) + packed)
        assert connection.recv(100) == b"{}\n"
        assert read_plans(served.mover.folder) == [{"a": 1.0}]
        connection.sendall(b'{"op": "plan", "size": %s}\n' % size)
        assert connection.recv(1) == b""
        wait_until_no_plan(served.mover.folder)


@pytest.mark.parametrize("offset", [1 << 70, 1.5])
def test_a_question_that_makes_no_sense_is_answered(served: Served, offset: object) -> None:
    client = MoverClient(served.path)
    with pytest.raises(ResourceError, match="the mover failed"):
        client.ask("read", path="posts/v0001/root.json", offset=offset, size=1)
    with pytest.raises(ResourceError, match="the mover failed"):
        client.ask("size", path=offset)


def test_a_mover_without_descriptors_accepts_when_it_has_some_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended to accept, and lived: workers waited for half an hour."""

    class Listener:
        answers: ClassVar = [OSError(errno.EMFILE, ""), OSError(errno.ECONNABORTED, ""), None]

        def accept(self) -> tuple[socket.socket, None]:
            if not self.answers:
                raise OSError(errno.EBADF, "")
            error = self.answers.pop(0)
            if error is not None:
                raise error
            return theirs, None

    ours, theirs = socket.socketpair()
    with ours:
        serve(cast(socket.socket, Listener()), served.mover)
        ours.sendall(b'{"op": "children", "folder": "posts"}\n')
        assert ours.recv(100) == b'{"names": ["v0001"]}\n'


@pytest.mark.slow
def test_a_mover_that_cannot_open_its_data_says_why(job: MoverJob, tmp_path: Path) -> None:
    there = replace(job, location=str(tmp_path))
    command = [sys.executable, "-m", "rsc.store.mover", there.to_json(), "0"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.returncode, "there is no data set posts" in done.stderr) == (2, True)
    assert MoverJob.from_json(there.to_json()) == there
    assert json.loads(there.to_json())["connections"] == 4


def test_the_socket_lies_beside_the_key_agents(tmp_path: Path) -> None:
    assert socket_beside(tmp_path / "agent.sock") == tmp_path / "mover.sock"
