"""The mover: brings ciphertext from an object store to the node's cache, for processes without a network.

    python -m rsc.store.mover JOB          started by the controller of a run, outside the sandbox

It holds the credentials of the store and no key of the data; workers hold keys and no credentials. It serves
the data set versions that it was started with and nothing else: of those, small files as they are, and
chunks of shards into the cache's folder, each checked against the manifest's hashes (cache.py). It ends when
its stdin closes. Its listening socket is made by the controller, which keeps it while a mover is replaced.

Not covered: a worker that was taken over can still choose which chunks are fetched, and when.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import BoundedSemaphore, Lock, Thread
from typing import Any, BinaryIO, cast

from rsc.clock import parse_timestamp
from rsc.errors import ConfigError, RscError
from rsc.hardening import harden_process
from rsc.store.bulk.interface import BulkStore
from rsc.store.bulk.locations import open_store
from rsc.store.cache.mover_client import error_to_dict, read_exactly, read_line, to_line
from rsc.store.cache.node_cache import CachedShard, NodeCache
from rsc.store.cache.read_plans import ReadPlan
from rsc.store.dataset import Dataset
from rsc.store.format.manifest import ManifestReader
from rsc.store.splits import SplitPlace, open_manifest

_SHARDS_KEPT = 1024  # their tails are some 12 KiB each
_MAX_READ_BYTES = 16 << 20
_MAX_PLAN_BYTES = 64 << 20
_NONSENSE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What questions that make no sense can raise."""
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED)
_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class MoverJob:
    """What a mover is started with."""

    location: str
    cache: str
    limit_bytes: int
    connections: int
    sets: tuple[tuple[str, int, str], ...]
    """(name, version, end of its retention) of what may be asked for."""

    def to_json(self) -> str:
        return json.dumps({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_json(cls, text: str) -> MoverJob:
        values = json.loads(text)
        return cls(**{**values, "sets": tuple(tuple(each) for each in values["sets"])})


class Mover:
    """Answers questions; safe from any thread."""

    def __init__(self, store: BulkStore, *, job: MoverJob) -> None:
        """Raises what opening the data sets raises."""
        self._store = store
        self._cache = NodeCache(Path(job.cache), limit_bytes=job.limit_bytes)
        self._line = BoundedSemaphore(job.connections)
        self._splits = dict(_splits(self._store, job, cache=self._cache))
        self._folders = {"/".join(split.split("/")[:depth]) for split in self._splits for depth in (1, 2)}
        self._shards: OrderedDict[str, CachedShard] = OrderedDict()
        self._lock = Lock()
        self._verbs: Mapping[str, Callable[..., tuple[dict[str, Any], bytes]]] = {
            "children": self._children,
            "size": self._size,
            "read": self._read,
            "hold": self._hold,
        }

    @property
    def folder(self) -> Path:
        return self._cache.folder

    @property
    def fetched_bytes(self) -> int:
        return self._cache.counts.fetched_bytes

    def answer(self, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """An answer and the raw bytes that follow it; errors are answers too."""
        try:
            return self._verbs[question.pop("op")](**question)
        except (RscError, OSError, *_NONSENSE) as error:
            return error_to_dict(error), b""

    def _children(self, *, folder: str) -> tuple[dict[str, Any], bytes]:
        self._require(folder in self._folders, folder)
        return {"names": self._store.children(folder)}, b""

    def _size(self, *, path: str) -> tuple[dict[str, Any], bytes]:
        self._require_small(path)
        source = self._store.open(path)
        source.close()
        return {"bytes": source.size_bytes}, b""

    def _read(self, *, path: str, offset: int, size: int) -> tuple[dict[str, Any], bytes]:
        self._require_small(path)
        self._require(offset >= 0 and 0 <= size <= _MAX_READ_BYTES, path)
        buffer = bytearray(size)
        source = self._store.open(path, size_bytes=offset + size)
        try:
            source.read_into(offset, buffer)
        finally:
            source.close()
        return {"size": size}, bytes(buffer)

    def _hold(self, *, path: str, chunk: int | None, ahead: bool) -> tuple[dict[str, Any], bytes]:
        shard = self._shard(path)
        if chunk is None:
            shard.hold_tail()
            return {}, b""
        self._require(0 <= chunk < shard.num_chunks, path)
        shard.hold(chunk, line=self._line if ahead else None)
        return {}, b""

    def _shard(self, path: str) -> CachedShard:
        with self._lock:
            if path in self._shards:
                self._shards.move_to_end(path)
                return self._shards[path]
        folder, _, name = path.rpartition("/")
        self._require(folder in self._splits and name.removesuffix(".rsc").isdecimal(), path)
        place, manifest = self._splits[folder]
        number = int(name.removesuffix(".rsc"))
        self._require(place.shard_path(number) == path, path)
        shard = cast(CachedShard, place.open_shard(manifest.record(number)))
        with self._lock:
            self._shards[path] = shard
            while len(self._shards) > _SHARDS_KEPT:
                self._shards.popitem(last=False)
        return shard

    def _require_small(self, path: str) -> None:
        folder = path.rpartition("/")[0]
        self._require(folder in self._folders and not path.endswith(".rsc"), path)

    def _require(self, is_ours: bool, path: str) -> None:
        if not is_ours:
            raise ConfigError(f"{path!r} is not of the data that this run may read")


def _splits(
    store: BulkStore, job: MoverJob, *, cache: NodeCache
) -> Iterator[tuple[str, tuple[SplitPlace, ManifestReader]]]:
    """Folders of shards, such as `posts/v0001/train`, with what is recorded of them."""
    for name, version, expires in job.sets:
        end = parse_timestamp(expires)
        dataset = Dataset.open(store, name=name, version=version, cache=cache, expires=end)
        for split, info in dataset.splits.items():
            if info.num_shards:
                place = dataset.place(split)
                manifest = open_manifest(place, totals=dataset.totals(split))
                yield f"{dataset.folder}/{split}", (place, manifest)


def serve(listener: socket.socket, mover: Mover) -> None:
    """Answer every connection, each in a thread of its own, until the listener is closed.

    Descriptors that run out are waited for: a mover that lives and accepts nobody would be asked in vain.
    """
    while True:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno not in _PASSING:
                return
            time.sleep(_PAUSE_S)
            continue
        Thread(target=_answer_all, args=(connection, mover), daemon=True).start()


def _answer_all(connection: socket.socket, mover: Mover) -> None:
    """Until the other side hangs up, or talks nonsense."""
    plan: ReadPlan | None = None
    try:
        with closing(connection), connection.makefile("rwb") as stream, suppress(OSError, *_NONSENSE):
            while (question := read_line(cast(BinaryIO, stream))) is not None:
                if question.get("op") == "plan":
                    plan = plan or ReadPlan(mover.folder)
                    _publish(plan, cast(BinaryIO, stream), size=int(question.get("size", 0)))
                    stream.write(to_line({}))
                else:
                    answer, data = mover.answer(question)
                    stream.write(to_line(answer) + data)
                stream.flush()
    finally:
        if plan is not None:
            plan.close()


def _publish(plan: ReadPlan, stream: BinaryIO, *, size: int) -> None:
    if not 0 <= size <= _MAX_PLAN_BYTES:
        raise ValueError(size)
    plan.publish_packed(read_exactly(stream, size))


def main(text: str, *, descriptor: int) -> int:
    """Serve on an inherited listening socket until stdin closes."""
    harden_process()  # it holds ciphertext alone, and the credentials of the object store
    try:
        job = MoverJob.from_json(text)
        mover = Mover(open_store(job.location), job=job)
    except RscError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    listener = socket.socket(fileno=descriptor)
    Thread(target=serve, args=(listener, mover), daemon=True).start()
    sys.stdin.read()
    sys.stderr.flush()
    os._exit(0)  # threads may be in the middle of a fetch; a chunk is whole or absent


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], descriptor=int(sys.argv[2])))
