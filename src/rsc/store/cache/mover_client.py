"""What a worker without a network asks of the mover (mover.py), which has one: the words and the client.

One JSON object a line each way over a unix stream socket, one connection a thread, question and answer:

    {"op": "children", "folder": ..}                 names in a folder of the data set
    {"op": "size", "path": ..}                       of a file that is no shard
    {"op": "read", "path": .., "offset": .., "size": ..}    so many raw bytes follow the answer
    {"op": "hold", "path": .., "chunk": .., "ahead": ..}    bring a chunk (null: the tail) to the cache
    {"op": "plan", "size": ..} and so many raw bytes    what will be used next, until the connection closes

A mover that ends is started again and listens on the same socket: the question is asked anew. One that is
gone for good refuses connections, which is a ResourceError here; so is one that does not answer in time.

Not covered: which chunks are asked for, and when, shows outside what a worker reads.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import local
from typing import Any, BinaryIO, cast

from rsc.clock import Clock, SystemClock
from rsc.errors import ResourceError, RscError, from_message, to_message
from rsc.store.bulk.interface import BulkFile, BulkStore, RandomAccess
from rsc.store.cache.chunk_folder import chunk_path
from rsc.store.cache.node_cache import (
    CachedShard,
    Line,
    chunk_bytes,
    chunk_name,
    rotten,
    tail_from,
    tail_name,
)
from rsc.store.cache.read_plans import pack_plan
from rsc.store.format.footer import Tail

PATIENCE_S = 1800.0  # above what the mover's own retries can take: eight answers of two minutes, and waits
_ASKED_ANEW = 8  # of movers that ended before they answered; whoever starts them gives up sooner
_HOLDS = 8  # of a chunk that is thrown out before it is read
_MAX_LINE_BYTES = 64 << 10


def socket_beside(agent: Path) -> Path:
    """The mover's socket, in the folder of the key agent's."""
    return agent.with_name("mover.sock")


def read_line(stream: BinaryIO) -> dict[str, Any] | None:
    """The next message; None when the other side hung up. Raises ValueError for what is none."""
    line = stream.readline(_MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        return None
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message


def read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Raises ConnectionError when the other side hangs up before."""
    data = stream.read(size)
    if len(data) < size:
        raise ConnectionError("hung up in the middle of an answer")
    return data


def to_line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def error_to_dict(error: Exception) -> dict[str, Any]:
    if isinstance(error, RscError):
        return {**to_message(error), "facts": error.facts}
    return {"error": type(error).__name__, "message": str(error)}


def _to_error(answer: Mapping[str, Any]) -> Exception:
    if answer["error"] == "FileNotFoundError":
        return FileNotFoundError(answer["message"])
    if "facts" in answer:
        return from_message(answer, unknown=ResourceError, **answer["facts"])
    return ResourceError(f"the mover failed: {answer['error']}: {answer['message']}")


class MoverClient:
    """Asks from any thread."""

    def __init__(self, socket_path: Path, *, patience_s: float = PATIENCE_S) -> None:
        self._path = socket_path
        self._patience_s = patience_s
        self._of_thread = local()

    def ask(self, op: str, *, data: bytes = b"", **about: Any) -> tuple[dict[str, Any], bytes]:
        """The answer and the raw bytes that came with it. Raises what the mover met, and ResourceError
        when there is no answer."""
        question = to_line({"op": op, **about, **({"size": len(data)} if data else {})}) + data
        for _ in range(_ASKED_ANEW):
            try:
                answer, more = self._exchange(question)
            except TimeoutError:
                self._hang_up()
                raise ResourceError(
                    f"the mover, which fetches data, did not answer for {self._patience_s:.0f} s"
                ) from None
            except (ConnectionRefusedError, FileNotFoundError):
                break
            except (OSError, ValueError):
                self._hang_up()
                continue
            if "error" in answer:
                raise _to_error(answer)
            return answer, more
        raise ResourceError(
            "the mover, which fetches data from the object store, is gone",
            hint="its own last words are among the messages of `rsc train`",
        )

    def _exchange(self, question: bytes) -> tuple[dict[str, Any], bytes]:
        stream = self._stream()
        stream.write(question)
        stream.flush()
        answer = read_line(stream)
        if answer is None:
            raise ConnectionError("hung up")
        return answer, read_exactly(stream, int(answer.get("size", 0)))

    def _stream(self) -> BinaryIO:
        stream: BinaryIO | None = getattr(self._of_thread, "stream", None)
        if stream is None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self._patience_s)
                connection.connect(str(self._path))
                stream = cast(BinaryIO, connection.makefile("rwb"))  # keeps the connection open
            self._of_thread.stream = stream
        return stream

    def _hang_up(self) -> None:
        stream = self._of_thread.__dict__.pop("stream", None)
        if stream is not None:
            with suppress(OSError):
                stream.close()


class AskedStore:
    """A `BulkStore` of which only reading what is no shard is possible; all else is refused."""

    renames_folders = False

    def __init__(self, client: MoverClient) -> None:
        self._client = client

    def open(self, path: str, *, size_bytes: int | None = None) -> RandomAccess:
        if size_bytes is None:
            size_bytes = int(self._client.ask("size", path=path)[0]["bytes"])
        return _AskedFile(self._client, path, size_bytes)

    def children(self, folder: str) -> list[str]:
        return list(self._client.ask("children", folder=folder)[0]["names"])

    def walk(self, folder: str) -> Iterator[str]:
        raise _read_only(folder)

    def create(self, path: str) -> BulkFile:
        raise _read_only(path)

    def put(self, path: str, data: bytes) -> None:
        raise _read_only(path)

    def put_if_absent(self, path: str, data: bytes) -> bool:
        raise _read_only(path)

    def delete(self, path: str) -> None:
        raise _read_only(path)

    def delete_folder(self, folder: str) -> None:
        raise _read_only(folder)

    def publish(self, staging: str, target: str) -> bool:
        raise _read_only(target)


def _read_only(path: str) -> ResourceError:
    return ResourceError(f"workers read data sets and never change them: {path}")


class _AskedFile:
    """`RandomAccess` to a small file."""

    def __init__(self, client: MoverClient, path: str, size_bytes: int) -> None:
        self._client = client
        self._path = path
        self.size_bytes = size_bytes

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        _, data = self._client.ask("read", path=self._path, offset=offset, size=len(buffer))
        buffer[:] = data

    def close(self) -> None:
        """Nothing to close: connections belong to the client."""


class AskedCache:
    """`ShardCache` over a folder that somebody else fills: chunks are read where they lie, and asked for
    where they are absent or have expired."""

    def __init__(self, folder: Path, *, client: MoverClient, clock: Clock | None = None) -> None:
        self._folder = folder
        self._client = client
        self._clock = clock or SystemClock()

    def open(
        self, store: BulkStore, path: str, *, digest: bytes, size_bytes: int, expires: datetime | None = None
    ) -> CachedShard:
        """The mover knows where the shard lies and when it expires."""
        chunks = _AskedChunks(self, path, digest=digest, size_bytes=size_bytes)
        return CachedShard(chunks, name=path, digest=digest, size_bytes=size_bytes)

    def plan(self) -> _AskedPlan:
        return _AskedPlan(self._client)

    def held(
        self, name: str, *, path: str, chunk: int | None, is_ahead: bool, size_bytes: int | None = None
    ) -> int:
        """A descriptor of a chunk, of that size. Raises what fetching it raises, and ResourceError where it
        never stays."""
        for _ in range(_HOLDS):
            fd = self._open_chunk(name, size_bytes=size_bytes)
            if fd is not None:
                return fd
            self.hold(path=path, chunk=chunk, is_ahead=is_ahead)
        raise ResourceError(
            f"{path}: a chunk left the cache {_HOLDS} times before it could be read",
            hint="give the cache more room: `cache` in config.toml",
        )

    def hold(self, *, path: str, chunk: int | None, is_ahead: bool) -> None:
        """Have the mover bring a chunk, or mend it."""
        self._client.ask("hold", path=path, chunk=chunk, ahead=is_ahead)

    def _open_chunk(self, name: str, *, size_bytes: int | None) -> int | None:
        try:
            fd = os.open(chunk_path(self._folder, name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        stat = os.fstat(fd)
        if stat.st_mtime > self._clock.now().timestamp() and size_bytes in (None, stat.st_size):
            return fd
        os.close(fd)
        return None


class _AskedChunks:
    """`ShardChunks` by way of the mover. It checked what it put there; the tags are checked here."""

    def __init__(self, cache: AskedCache, path: str, *, digest: bytes, size_bytes: int) -> None:
        self._cache = cache
        self._path = path
        self._digest = digest
        self._size_bytes = size_bytes
        self._body_bytes = 0

    def descriptor(self, chunk: int, *, line: Line | None) -> int:
        return self._cache.held(
            chunk_name(self._digest, chunk),
            path=self._path,
            chunk=chunk,
            is_ahead=line is not None,
            size_bytes=chunk_bytes(chunk, body_bytes=self._body_bytes),
        )

    def read_tail(self) -> Tail:
        for _ in range(_HOLDS):
            fd = self._cache.held(tail_name(self._digest), path=self._path, chunk=None, is_ahead=False)
            tail = tail_from(fd, size_bytes=self._size_bytes, digest=self._digest)
            if tail is not None:
                self._body_bytes = tail.body_bytes
                return tail
            self._cache.hold(path=self._path, chunk=None, is_ahead=False)
        raise rotten(self._path)

    def close(self) -> None:
        """Nothing to close."""


class _AskedPlan:
    """A plan that the mover keeps for the connection that sent it."""

    def __init__(self, client: MoverClient) -> None:
        self._client = client

    def publish(self, next_use_s: Mapping[str, float]) -> None:
        self._client.ask("plan", data=pack_plan(next_use_s))

    def close(self) -> None:
        """Nothing to withdraw: the connection, and the plan, end with the thread that published it."""
