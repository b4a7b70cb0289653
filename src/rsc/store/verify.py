"""Check a data set version byte by byte: against the hashes in its root without a key, every tag with it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rsc.errors import ConfigError, IntegrityError
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import BulkStore, RandomAccess, read_all
from rsc.store.format.container import ContainerReader
from rsc.store.format.footer import bad_blocks, read_tail
from rsc.store.format.manifest import ManifestTotals, ShardRecord
from rsc.store.format.suites import MOST_TAG_BYTES
from rsc.store.splits import SplitPlace, open_manifest


@dataclass(frozen=True, slots=True)
class ShardProblem:
    """A file that is not what the root says; `outcome` is one of docs/format.md's words."""

    path: str
    outcome: str
    message: str


@dataclass(frozen=True, slots=True)
class VerifyPart:
    """Part `number` of `of` of all shards, by their digests: a shard stays in its part whatever is added."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> VerifyPart:
        """`2/7`. Raises ConfigError for what is none."""
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise ConfigError(
                f"{text!r} is no part of the shards", hint="write it as 2/7: the second of seven"
            )
        return cls(int(number), int(of))

    @property
    def is_all(self) -> bool:
        return self.of == 1

    def has(self, digest: bytes) -> bool:
        return int.from_bytes(digest[:8], "big") % self.of == self.number - 1


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was read and what is wrong with it."""

    num_shards: int
    size_bytes: int
    frames_authenticated: int
    problems: tuple[ShardProblem, ...]

    @property
    def is_good(self) -> bool:
        return not self.problems


def verify_dataset(
    splits: Sequence[tuple[SplitPlace, ManifestTotals]],
    *,
    store: BulkStore,
    recorded: Mapping[str, str],
    key: SecretKey | None,
    part: VerifyPart,
) -> VerifyReport:
    """The shards of `part` of every split, and the files in `recorded` (path -> sha256); finds all problems.

    Raises ResourceError when the storage does not answer; a file that cannot be read is a problem.
    """
    num_shards, size_bytes, num_frames = 0, 0, 0
    problems = _check_recorded(store, recorded)
    for place, totals in splits:
        for record in _records(place, totals, problems=problems):
            if not part.has(record.digest):
                continue
            num_shards += 1
            size_bytes += record.size_bytes
            try:
                num_frames += _check_shard(place, record, key=key)
            except IntegrityError as error:
                path = place.shard_path(record.shard)
                problems.append(ShardProblem(path, outcome=error.facts["outcome"], message=error.message))
    return VerifyReport(
        num_shards, size_bytes=size_bytes, frames_authenticated=num_frames, problems=tuple(problems)
    )


def _records(
    place: SplitPlace, totals: ManifestTotals, *, problems: list[ShardProblem]
) -> Iterator[ShardRecord]:
    """The records of a manifest until one cannot be trusted."""
    try:
        manifest = open_manifest(place, totals=totals)
        yield from manifest.records()
    except IntegrityError as error:
        problems.append(
            ShardProblem(place.manifest_path, outcome=error.facts["outcome"], message=error.message)
        )


def _check_shard(place: SplitPlace, record: ShardRecord, *, key: SecretKey | None) -> int:
    """Raises IntegrityError at the first thing wrong; returns the number of frames authenticated."""
    try:
        source = place.store.open(place.shard_path(record.shard))
    except FileNotFoundError:
        raise IntegrityError("the file is missing", outcome="truncated") from None
    try:
        _check_bytes(source, record)
        return 0 if key is None else _check_frames(source, place, record, key=key)
    except OSError as error:  # a bad sector
        raise IntegrityError(f"cannot be read: {error.strerror}", outcome="frame") from None
    finally:
        source.close()


def _check_bytes(source: RandomAccess, record: ShardRecord) -> None:
    tail = read_tail(source)
    if tail.digest != record.digest or tail.size_bytes != record.size_bytes:
        raise IntegrityError("this is not the file that the manifest records here", outcome="header")
    for block in bad_blocks(source, tail):
        raise IntegrityError(f"MiB {block} of the file does not have its recorded hash", outcome="frame")


def _check_frames(source: RandomAccess, place: SplitPlace, record: ShardRecord, *, key: SecretKey) -> int:
    context = place.shard_context(record.shard)
    reader = ContainerReader(source, key=key, context=context, expected_digest=record.digest)
    buffer = bytearray(int(reader.frames["plain_bytes"].max(initial=0)))
    scratch = bytearray(len(buffer) + MOST_TAG_BYTES)
    for frame in range(reader.num_frames):
        reader.read_frame_into(frame, buffer, scratch=scratch)
    if (reader.num_frames, reader.num_samples) != (record.num_frames, record.num_samples):
        raise IntegrityError("frame and sample counts differ from the manifest's", outcome="frame")
    return reader.num_frames


def _check_recorded(store: BulkStore, recorded: Mapping[str, str]) -> list[ShardProblem]:
    problems = []
    for path, sha256 in recorded.items():
        try:
            found = hashlib.sha256(read_all(store.open(path))).hexdigest()
        except FileNotFoundError:
            problems.append(ShardProblem(path, outcome="truncated", message="the file is missing"))
            continue
        if found != sha256:
            problems.append(
                ShardProblem(path, outcome="header", message="not the bytes that the root records")
            )
    return problems
