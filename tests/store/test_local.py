from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rsc.errors import ConfigError, IntegrityError, ResourceError
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import BulkStore, read_all
from rsc.store.bulk.local import LocalReader, LocalStore, MappedReader, RealDisk
from rsc.store.bulk.locations import open_store
from rsc.store.bulk.objects import ObjectStore
from rsc.store.bulk.outbox import ALIGNMENT, Outbox
from rsc.store.format.container import ContainerReader, ContainerWriter
from tests.store.faulty_disk import FaultyDisk, Killed


@pytest.fixture(params=["folder", "mapped", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BulkStore:
    if request.param == "memory":
        return open_store("memory://")
    return LocalStore(tmp_path, mapped=request.param == "mapped")


def test_names_bytes_and_deletion(store: BulkStore) -> None:
    for path in ("a/x", "a/b/y", "z", "a/b/empty"):
        store.put(path, path.encode() * (path != "a/b/empty"))
    assert [read_all(store.open(path)) for path in ("a/x", "z", "a/b/empty")] == [b"a/x", b"z", b""]
    assert sorted(store.walk("a")) == ["a/b/empty", "a/b/y", "a/x"]
    assert list(store.walk("nothing")) == []
    assert store.children("") == ["a", "z"]
    assert store.children("a") == ["b", "x"]
    assert store.children("nothing") == []
    store.put("z", b"new")
    assert read_all(store.open("z")) == b"new"
    store.delete("z")
    store.delete("z")
    store.delete_folder("a/b")
    store.delete_folder("a/b")
    assert list(store.walk("")) == ["a/x"]
    with pytest.raises(FileNotFoundError):
        store.open("z")


def test_put_if_absent_is_decided_once(store: BulkStore) -> None:
    assert store.put_if_absent("a/x", b"one")
    assert not store.put_if_absent("a/x", b"two")
    assert read_all(store.open("a/x")) == b"one"
    assert list(store.walk("")) == ["a/x"]


def test_a_file_is_invisible_until_commit(store: BulkStore) -> None:
    file = store.create("a/x")
    file.write(memoryview(b"hello "))
    assert "x" not in store.children("a")
    file.write(memoryview(b"world"))
    file.commit()
    file.discard()
    assert read_all(store.open("a/x", size_bytes=11)) == b"hello world"
    dropped = store.create("a/y")
    dropped.write(memoryview(b"never"))
    dropped.discard()
    assert list(store.walk("")) == ["a/x"]


def test_reading_past_the_end_is_truncated(store: BulkStore) -> None:
    store.put("x", b"0123456789")
    source = store.open("x")
    assert source.size_bytes == 10
    for offset, size in ((5, 6), (10, 1), (11, 1)):
        with pytest.raises((IntegrityError, ResourceError)):
            source.read_into(offset, bytearray(size))
    if isinstance(source, MappedReader):
        assert bytes(source.view(2, 3)) == b"234"
        with pytest.raises(IntegrityError):
            source.view(5, 6)
    source.close()


def test_a_failed_put_leaves_the_old_bytes_and_nothing_else(tmp_path: Path) -> None:
    LocalStore(tmp_path).put("a/x", b"old")
    disk = FaultyDisk()
    LocalStore(tmp_path, disk=disk).put("a/x", b"old")
    for call in range(disk.calls):
        with pytest.raises((ResourceError, Killed)):
            LocalStore(tmp_path, disk=FaultyDisk(fail_at=call, fault="kill")).put("a/x", b"new")
        assert (tmp_path / "a" / "x").read_bytes() in (b"old", b"new")
    LocalStore(tmp_path).put("a/x", b"old")
    for path in (tmp_path / "a").glob(".part-*"):
        path.unlink()
    for call in range(3):  # create, write, sync need space
        with pytest.raises(ResourceError, match="cannot write x"):
            LocalStore(tmp_path, disk=FaultyDisk(fail_at=call, fault="full")).put("a/x", b"new")
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]
        assert (tmp_path / "a" / "x").read_bytes() == b"old"


def test_files_are_private(tmp_path: Path) -> None:
    LocalStore(tmp_path / "new").put("a/x", b"")
    assert (tmp_path / "new" / "a" / "x").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_an_unlinked_file_stays_readable(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"hello")
    source = LocalReader(tmp_path / "x")
    (tmp_path / "x").unlink()
    assert read_all(source) == b"hello"


def test_locations(tmp_path: Path) -> None:
    for location in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        opened = open_store(location)
        assert isinstance(opened, LocalStore)
        assert opened.root == tmp_path
    store = open_store("memory://")
    assert isinstance(store, ObjectStore)
    assert open_store(store) is store
    with pytest.raises(ConfigError, match="ftp"):
        open_store("ftp://host/x")


def test_remote_locations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert isinstance(open_store("s3://bucket/prefix"), ObjectStore)
    assert isinstance(open_store("gs://bucket/prefix"), ObjectStore)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigError, match="cannot use az://"):
        open_store("az://container/prefix")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    assert isinstance(open_store("az://container/prefix"), ObjectStore)


@pytest.mark.parametrize("mapped", [False, True])
def test_a_file_cut_short_while_it_is_read_is_truncated(mapped: bool, tmp_path: Path) -> None:
    """Through a map this would be SIGBUS; the shard is named."""
    path = tmp_path / "000000042.rsc"
    with SecretKey.generate() as key:
        file = LocalStore(tmp_path).create(path.name)
        writer = ContainerWriter(file, key=key, context=b"")
        for _ in range(4):
            writer.write_frame(bytes(100_000), num_samples=1)
        writer.finish()
        file.commit()
        source = LocalStore(tmp_path, mapped=mapped).open(path.name)
        reader = ContainerReader(source, key=key, context=b"")
    assert reader.read_frame(3) == bytes(100_000)
    os.truncate(path, 250_000)
    assert reader.read_frame(1) == bytes(100_000)
    with pytest.raises(IntegrityError, match=r"000000042\.rsc ends before byte") as caught:
        reader.read_frame(3)
    assert caught.value.facts["outcome"] == "truncated"
    reader.close()


class WatchedDisk(RealDisk):
    """Notes how each write went; may refuse to bypass the cache, or to write that way."""

    def __init__(self, *, refuses: str = "") -> None:
        self.direct_bytes = self.cached_bytes = 0
        self._refuses = refuses
        self._is_direct = False

    def bypass_cache(self, fd: int, on: bool) -> bool:
        if on and self._refuses == "mode":
            return False
        self._is_direct = on
        return on or super().bypass_cache(fd, on)

    def write(self, fd: int, data: memoryview) -> int:
        if self._is_direct and self._refuses == "write":
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        done = super().write(fd, data[: 3 << 20])  # a short write, as the kernel may make
        self.direct_bytes += done * self._is_direct
        self.cached_bytes += done * (not self._is_direct)
        return done


@pytest.mark.parametrize("refuses", ["", "mode", "write"])
def test_large_aligned_pieces_pass_by_the_page_cache_where_they_can(refuses: str, tmp_path: Path) -> None:
    disk = WatchedDisk(refuses=refuses)
    file = LocalStore(tmp_path, disk=disk).create("a")
    outbox = Outbox(file, look=lambda _: None)
    data = os.urandom((9 << 20) + 77)
    for start in range(0, len(data), 1 << 20):
        piece = data[start : start + (1 << 20)]
        outbox.reserve(len(piece))[:] = piece
    outbox.finish()
    file.commit()
    assert (tmp_path / "a").read_bytes() == data
    assert disk.direct_bytes == (0 if refuses else 9 << 20)
    assert disk.direct_bytes + disk.cached_bytes == len(data)


def test_the_real_disk_takes_both_ways_in_one_file(tmp_path: Path) -> None:
    file = LocalStore(tmp_path).create("a")
    memory = memoryview(mmap.mmap(-1, 2 << 20))
    memory[:] = os.urandom(len(memory))
    for size in (2 << 20, ALIGNMENT, 5, 2 << 20):
        file.write(memory[:size])
    file.commit()
    expected = bytes(memory) + bytes(memory[:ALIGNMENT]) + bytes(memory[:5]) + bytes(memory)
    assert (tmp_path / "a").read_bytes() == expected


class Memory(bytearray):
    def write(self, data: memoryview, /) -> None:
        self.extend(data)


@pytest.mark.parametrize("sizes", [[], [1], [4 << 20, 4 << 20], [(4 << 20) - 1, 2, (9 << 20) + 3, 5]])
def test_an_outbox_shows_and_hands_over_everything_in_order(sizes: list[int]) -> None:
    sink, seen, parts = Memory(), bytearray(), [os.urandom(size) for size in sizes]
    outbox = Outbox(sink, look=seen.extend)
    for part in parts:
        outbox.reserve(len(part))[:] = part
    outbox.show_rest()
    outbox.reserve(3)[:] = b"end"
    outbox.finish()
    assert bytes(seen) == b"".join(parts)
    assert bytes(sink) == b"".join(parts) + b"end"


@pytest.mark.parametrize("slow", ["look", "write"])
def test_an_outbox_fills_no_memory_that_is_still_in_use(slow: str) -> None:
    sink, seen, data = Memory(), bytearray(), os.urandom(24 << 20)

    def slowly(use: Callable[[memoryview], None]) -> Callable[[memoryview], None]:
        def work(piece: memoryview) -> None:
            time.sleep(0.02)
            use(piece)

        return work

    if slow == "write":
        sink.write = slowly(sink.write)  # type: ignore[method-assign]
    outbox = Outbox(sink, look=slowly(seen.extend) if slow == "look" else seen.extend)
    for start in range(0, len(data), 1 << 20):
        outbox.reserve(1 << 20)[:] = data[start : start + (1 << 20)]
    outbox.show_rest()
    outbox.finish()
    assert bytes(seen) == data
    assert bytes(sink) == data


def fill(outbox: Outbox, *, size: int) -> None:
    for _ in range(0, size, 1 << 20):
        outbox.reserve(1 << 20)


def test_what_the_disk_said_comes_out_before_finish_returns() -> None:
    class Full:
        def write(self, data: memoryview, /) -> None:
            raise ResourceError("full")

    outbox = Outbox(Full(), look=lambda _: None)
    with pytest.raises(ResourceError, match="full"):
        fill(outbox, size=32 << 20)
    outbox.discard()
    outbox = Outbox(Full(), look=lambda _: None)
    outbox.reserve(1)
    with pytest.raises(ResourceError, match="full"):
        outbox.finish()
    outbox.discard()


def test_after_discard_nothing_writes_any_more() -> None:
    is_writing, may_go_on, is_discarded = (threading.Event() for _ in range(3))
    written = []

    class Stuck:
        def write(self, data: memoryview, /) -> None:
            is_writing.set()
            may_go_on.wait()
            written.append(is_discarded.is_set())

    def discard() -> None:
        outbox.discard()
        is_discarded.set()

    outbox = Outbox(Stuck(), look=lambda _: None)
    fill(outbox, size=9 << 20)  # two pieces are on their way
    is_writing.wait()
    discarding = threading.Thread(target=discard)
    discarding.start()
    assert not is_discarded.wait(0.1)
    may_go_on.set()
    discarding.join()
    assert written == [False]
