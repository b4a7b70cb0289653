"""A folder of chunks that processes of a node fill and read together, within a limit.

A chunk is written under a temporary name, synced and renamed: after a crash it is whole or absent. Whoever
wants a chunk first holds a lock (flock, which the kernel drops when a process dies) while fetching it; the
others wait, so each is fetched once. The sum of sizes is counted under a lock, and anew from the folder at
each eviction; what is being fetched may exceed the limit for a moment. A chunk that somebody reads may be
removed, an open file stays readable. Its modification time is its expiry, its access time the last use.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock

from rsc.clock import Clock
from rsc.errors import ResourceError
from rsc.store.cache.eviction import CachedChunk, choose_victims, merge_plans
from rsc.store.cache.read_plans import read_plans

TAIL = ".tail"  # ends the name of a shard's tail
_NEVER_S = float(1 << 33)  # year 2242: the modification time of what does not expire
_COUNTER = struct.Struct("<Q")
_PART = ".part"


@dataclass(slots=True)
class CacheCounts:
    """What this process did: uses that found a chunk, uses that fetched one, the bytes fetched."""

    hits: int = 0
    misses: int = 0
    fetched_bytes: int = 0


class ChunkFolder:
    """Chunks by name: `<digest of the shard>.<number>` or `.tail`; the first two digits are a subfolder.

    An eviction frees `slack_bytes` more than needed, so that the folder is not listed at each new chunk.
    """

    def __init__(self, folder: Path, *, limit_bytes: int, slack_bytes: int, clock: Clock) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._slack_bytes = slack_bytes
        self.counts = CacheCounts()
        self._counts_lock = Lock()
        self._clock = clock

    def get(
        self,
        name: str,
        *,
        expires: datetime | None,
        fetch: Callable[[], memoryview],
        size_bytes: int | None = None,
    ) -> int:
        """A descriptor of the complete chunk, which the caller closes. Fetched where it is absent, and where
        it has another size than `size_bytes`: somebody or a disk cut it short.

        Raises what `fetch` raises, and ResourceError when the disk is full; neither leaves anything behind.
        """
        path = self._path(name)
        path.parent.mkdir(exist_ok=True, mode=0o700)
        while True:
            found = self._open(path, size_bytes=size_bytes)
            if found is not None:
                self._count(hits=1)
                return found
            part = os.open(_part_of(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(part, fcntl.LOCK_EX)
                # While we waited, the part may have become the chunk, or its fetch may have failed.
                is_ours = _is_same_file(part, _part_of(path)) and not path.exists()
                if is_ours:
                    self._fill(path, part, expires=expires, fetch=fetch)
                    fcntl.flock(part, fcntl.LOCK_UN)
            except BaseException:
                os.close(part)
                raise
            if is_ours:
                return part
            os.close(part)

    def drop(self, name: str) -> None:
        """Forget a chunk that is not what it should be."""
        self._path(name).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what has expired, and what dead processes left half-written."""
        now_s = self._now_s()
        with self._ledger() as ledger:
            self._remove_dead_parts()
            for path, stat in self._chunks():
                if stat.st_mtime <= now_s:
                    path.unlink(missing_ok=True)
            ledger.write(self._used_bytes())

    def used_bytes(self) -> int:
        """The sum of all chunks, counted from the folder."""
        with self._ledger():
            return self._used_bytes()

    def _fill(
        self, path: Path, part: int, *, expires: datetime | None, fetch: Callable[[], memoryview]
    ) -> None:
        """Fetch into the part that we hold, and give it its name."""
        try:
            data = fetch()
            with _resource_errors(self.folder):
                os.ftruncate(part, 0)
                _write_all(part, data)
                os.fsync(part)
                os.utime(part, (self._now_s(), _NEVER_S if expires is None else expires.timestamp()))
                self._admit(path, size_bytes=len(data))
        except BaseException:
            _part_of(path).unlink(missing_ok=True)
            raise
        self._count(misses=1, fetched_bytes=len(data))

    def _open(self, path: Path, *, size_bytes: int | None) -> int | None:
        """A complete chunk; None where it is absent, or expired or of another size, which removes it."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        stat = os.fstat(fd)
        now_s, expiry_s = self._now_s(), stat.st_mtime
        if expiry_s <= now_s or size_bytes not in (None, stat.st_size):
            os.close(fd)
            path.unlink(missing_ok=True)
            return None
        os.utime(fd, (now_s, expiry_s))
        return fd

    def _admit(self, path: Path, *, size_bytes: int) -> None:
        """Give a finished part its name and count it in; evict first where it would exceed the limit."""
        with self._ledger() as ledger:
            used = ledger.read()
            if used + size_bytes > self.limit_bytes:
                self._remove_dead_parts()
                used = self._evict(size_bytes)
            ledger.write(used + size_bytes)  # before the name: a crash between the two counts too much
            _part_of(path).rename(path)

    def _evict(self, size_bytes: int) -> int:
        """Free room for `size_bytes` and the slack; returns what is then used.

        A tail stays as long as a chunk of its shard: it is small, and no chunk can be checked without it.
        """
        files = {path.name: stat for path, stat in self._chunks()}
        used = sum(stat.st_size for stat in files.values())
        free = used + size_bytes - self.limit_bytes
        if free <= 0:
            return used
        chunks = [
            CachedChunk(name, size_bytes=stat.st_size, used_s=stat.st_atime)
            for name, stat in files.items()
            if not name.endswith(TAIL)
        ]
        next_use_s = merge_plans(read_plans(self.folder))
        gone = choose_victims(chunks, next_use_s=next_use_s, free_bytes=free + self._slack_bytes)
        removed = {victim.name for victim in gone}
        kept = {name.partition(".")[0] for name in files if name not in removed and not name.endswith(TAIL)}
        removed |= {name for name in files if name.endswith(TAIL) and name.removesuffix(TAIL) not in kept}
        for name in removed:
            self._path(name).unlink(missing_ok=True)
        return used - sum(files[name].st_size for name in removed)

    def _remove_dead_parts(self) -> None:
        """Parts that nobody holds a lock on were left by a killed process."""
        for path, _ in self._files():
            if path.suffix == _PART:
                with suppress(FileNotFoundError, BlockingIOError), _locked(path, os.O_RDWR, wait=False):
                    path.unlink(missing_ok=True)

    def _used_bytes(self) -> int:
        return sum(stat.st_size for _, stat in self._chunks())

    def _chunks(self) -> Iterator[tuple[Path, os.stat_result]]:
        return ((path, stat) for path, stat in self._files() if path.suffix != _PART)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for folder in sorted(self.folder.glob("??")):
            for item in list(os.scandir(folder)):
                with suppress(FileNotFoundError):
                    yield Path(item.path), item.stat()

    def _path(self, name: str) -> Path:
        return chunk_path(self.folder, name)

    @contextmanager
    def _ledger(self) -> Iterator[_Ledger]:
        with _locked(self.folder / "ledger", os.O_RDWR | os.O_CREAT, wait=True) as fd:
            yield _Ledger(fd)

    def _now_s(self) -> float:
        return self._clock.now().timestamp()

    def _count(self, *, hits: int = 0, misses: int = 0, fetched_bytes: int = 0) -> None:
        with self._counts_lock:
            self.counts.hits += hits
            self.counts.misses += misses
            self.counts.fetched_bytes += fetched_bytes


def chunk_path(folder: Path, name: str) -> Path:
    return folder / name[:2] / name


def remove_all(folder: Path, *, prefix: str) -> None:
    """Remove the chunks whose names begin with `prefix` (at least two digits)."""
    for path in (folder / prefix[:2]).glob(f"{prefix}*"):
        path.unlink(missing_ok=True)


class _Ledger:
    """The counted bytes of the folder, in a locked file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self) -> int:
        data = os.pread(self._fd, _COUNTER.size, 0)
        return int(_COUNTER.unpack(data)[0]) if len(data) == _COUNTER.size else 0

    def write(self, used_bytes: int) -> None:
        os.pwrite(self._fd, _COUNTER.pack(used_bytes), 0)


@contextmanager
def _locked(path: Path, flags: int, *, wait: bool) -> Iterator[int]:
    """The file, open and locked. Raises BlockingIOError where another holds it and we do not wait."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _resource_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = f"free space on the file system of {folder}, or lower the cache's limit"
        raise ResourceError(
            f"cannot write the cache: {error.strerror}", hint=hint, errno=error.errno
        ) from error


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + _PART)


def _is_same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _write_all(fd: int, data: memoryview) -> None:
    offset = 0
    while offset < len(data):
        offset += os.pwrite(fd, data[offset:], offset)
