"""The list of a split's shards: fixed-size entries in pages under a Merkle tree, opened by its root.

An entry is 64 bytes and has one form at every level: `digest` (of a shard, or of the page below it), and the
sums of what lies below: `size_bytes`, `num_samples`, `num_frames`, `num_shards`. A page holds up to 256
entries (16 KiB). The file is level 0 (shards), then level 1, ... up to the root page. Because entries hold
sums, any sample, frame or shard number is found by walking down: 4 pages for 4x10^9 shards.

    page digest = sha256("rsc-manifest-1" | level u8 | entries)

A page is checked against the entry above it when it is read, and the root page against the root, which the
data set's root.json records. Memory: the last few pages read, whatever the number of shards.

Not covered: sizes and counts of shards are public.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from rsc.errors import IntegrityError
from rsc.store.bulk.interface import RandomAccess
from rsc.store.bulk.outbox import Sink
from rsc.store.format.container import ContainerRecord

FAN_OUT = 256
ENTRY = np.dtype(
    [
        ("digest", "V32"),
        ("size_bytes", "<u8"),
        ("num_samples", "<u8"),
        ("num_frames", "<u8"),
        ("num_shards", "<u8"),
    ]
)
_SUMS = ("size_bytes", "num_samples", "num_frames", "num_shards")
_SUM_LIMIT = 2.0**63  # root.json's counts stay below
_DOMAIN = b"rsc-manifest-1"
_CACHED_PAGES = 64  # 1 MiB: the inner pages of a walk stay, leaves come and go

Page = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class ManifestTotals:
    """What root.json records of a manifest; enough to open it."""

    merkle_root: bytes
    num_shards: int
    num_samples: int
    num_frames: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """One shard, and its number, first sample and first frame counted over the split."""

    shard: int
    digest: bytes
    size_bytes: int
    num_samples: int
    num_frames: int
    first_sample: int
    first_frame: int


def page_digest(entries: bytes | bytearray, *, level: int) -> bytes:
    hasher = hashlib.sha256(_DOMAIN + bytes([level]))
    hasher.update(entries)
    return hasher.digest()


def level_sizes(num_shards: int) -> list[int]:
    """Entries at each level, shards first, at most FAN_OUT in the last: [600, 3]."""
    sizes = [num_shards]
    while sizes[-1] > FAN_OUT:
        sizes.append(-(-sizes[-1] // FAN_OUT))
    return sizes


class ManifestWriter:
    """Writes level 0 as shards are added and the levels above in `finish`.

    Keeps 64 bytes for every 256 shards until then.
    """

    def __init__(self, file: Sink) -> None:
        self._file = file
        self._page = bytearray()
        self._above: list[bytes] = []
        self._num_shards = 0

    def add(self, record: ContainerRecord) -> None:
        entry = np.array(
            [(record.digest, record.size_bytes, record.num_samples, record.num_frames, 1)], ENTRY
        ).tobytes()
        self._page += entry
        self._num_shards += 1
        if len(self._page) == FAN_OUT * ENTRY.itemsize:
            self._end_page()

    def finish(self) -> ManifestTotals:
        """Write the rest. The file stays open: committing it is its owner's part."""
        if self._page or not self._above:
            self._end_page()
        level, entries = 0, self._above
        while len(entries) > 1:
            level += 1
            pages = [b"".join(entries[start : start + FAN_OUT]) for start in range(0, len(entries), FAN_OUT)]
            for page in pages:
                self._file.write(memoryview(page))
            entries = [_entry_of(page, level=level) for page in pages]
        root = np.frombuffer(entries[0], ENTRY)[0]
        return ManifestTotals(
            merkle_root=root["digest"].tobytes(), **{name: int(root[name]) for name in _SUMS}
        )

    def _end_page(self) -> None:
        page = bytes(self._page)
        self._page.clear()
        self._file.write(memoryview(page))
        self._above.append(_entry_of(page, level=0))


class ManifestReader:
    """Finds shards by their number, or by a sample or frame number. Safe from several threads."""

    def __init__(
        self, source: RandomAccess, *, totals: ManifestTotals, cached_pages: int = _CACHED_PAGES
    ) -> None:
        self._source = source
        self.totals = totals
        self._sizes = level_sizes(totals.num_shards)
        starts = np.cumsum([0, *self._sizes]) * ENTRY.itemsize
        self._starts = [int(start) for start in starts[:-1]]
        if source.size_bytes != int(starts[-1]):
            outcome = "truncated" if source.size_bytes < int(starts[-1]) else "trailing"
            raise IntegrityError(
                f"manifest of {totals.num_shards} shards: {source.size_bytes} bytes, not {int(starts[-1])}",
                outcome=outcome,
            )
        self._cache: OrderedDict[tuple[int, int], Page] = OrderedDict()
        self._cached_pages = cached_pages
        self._lock = Lock()
        self._root = self._read_page(level=len(self._sizes) - 1, page=0, above=self._root_entry())

    def record(self, shard: int) -> ShardRecord:
        """Raises IndexError outside [0, num_shards)."""
        return self._find("num_shards", shard)

    def find_sample(self, sample: int) -> ShardRecord:
        """The shard that holds a sample number of the split. Raises IndexError outside [0, num_samples)."""
        return self._find("num_samples", sample)

    def records(self) -> Iterator[ShardRecord]:
        """All shards in order."""
        return (self.record(shard) for shard in range(self.totals.num_shards))

    def close(self) -> None:
        self._source.close()

    def _find(self, counted: str, number: int) -> ShardRecord:
        """Walk down from the root to the entry whose sums contain `number` of what is counted."""
        if not 0 <= number < getattr(self.totals, counted):
            raise IndexError(f"{counted} {number} of {getattr(self.totals, counted)}")
        before = dict.fromkeys(_SUMS, 0)
        entries, page = self._root, 0
        for level in range(len(self._sizes) - 1, -1, -1):
            ends = np.cumsum(entries[counted])
            index = int(np.searchsorted(ends, np.uint64(number - before[counted]), side="right"))
            for name in _SUMS:
                before[name] += int(entries[name][:index].sum())
            entry, page = entries[index], page * FAN_OUT + index
            if level > 0:
                entries = self._read_page(level=level - 1, page=page, above=entry)
        return ShardRecord(
            shard=page,
            digest=entry["digest"].tobytes(),
            size_bytes=int(entry["size_bytes"]),
            num_samples=int(entry["num_samples"]),
            num_frames=int(entry["num_frames"]),
            first_sample=before["num_samples"],
            first_frame=before["num_frames"],
        )

    def _root_entry(self) -> Any:
        totals = self.totals
        sums = tuple(getattr(totals, name) for name in _SUMS)
        return np.array([(totals.merkle_root, *sums)], ENTRY)[0]

    def _read_page(self, *, level: int, page: int, above: Any) -> Page:
        """A page checked against the entry above it: its digest and its sums."""
        with self._lock:
            if (level, page) in self._cache:
                self._cache.move_to_end((level, page))
                return self._cache[level, page]
        first = page * FAN_OUT
        num_entries = min(FAN_OUT, self._sizes[level] - first)
        buffer = bytearray(num_entries * ENTRY.itemsize)
        self._source.read_into(self._starts[level] + first * ENTRY.itemsize, buffer)
        entries = np.frombuffer(bytes(buffer), ENTRY)
        if page_digest(buffer, level=level) != above["digest"].tobytes() or not _agree(
            entries, above, level=level
        ):
            raise IntegrityError(
                f"manifest page {page} of level {level} is not the recorded one", outcome="frame"
            )
        with self._lock:
            self._cache[level, page] = entries
            while len(self._cache) > self._cached_pages:
                self._cache.popitem(last=False)
        return entries


def _agree(entries: Page, above: Any, *, level: int) -> bool:
    """Whether a page adds up to the entry above it. u64 sums wrap around silently: a float shows it."""
    return (level > 0 or bool(np.all(entries["num_shards"] == 1))) and all(
        float(entries[name].sum(dtype=np.float64)) < _SUM_LIMIT
        and int(entries[name].sum()) == int(above[name])
        for name in _SUMS
    )


def _entry_of(page: bytes, *, level: int) -> bytes:
    """The entry, one level up, of a page."""
    entries = np.frombuffer(page, ENTRY)
    sums = tuple(int(entries[name].sum()) for name in _SUMS)
    return np.array([(page_digest(page, level=level), *sums)], ENTRY).tobytes()
