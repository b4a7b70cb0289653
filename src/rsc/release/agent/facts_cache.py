"""What the agent concluded about a version, kept as long as no file that it read has changed.

A release asks for root.json, key.json and the review folder. Reading and verifying them costs more than
everything else in the agent, so the conclusion is kept with the number of records of the log that reviews
depend on (log_record.py), and with the stat signature of every file and folder it came from: device, inode,
size, mtime and ctime in nanoseconds. The kernel sets ctime at each change of bytes, name or mode, and no user
can set it back. Signatures are taken before reading: a change in between makes the next look differ, never
the conclusion stale.

Two changes within one tick of the kernel's clock leave the same times. A conclusion is therefore kept only
when everything it came from is older than `SETTLED_NS` (git's index calls younger entries "racily clean"),
and never for longer than `TRUSTED_S`, which bounds what a network file system's attribute cache or a
writer with an old memory map can hide. Of data in an object store nothing is kept: every release reads anew.

Not covered: a *denial* that such a writer causes can come up to `TRUSTED_S` late. Bytes that were not
read and verified never allow anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rsc.config import Workspace
from rsc.keys.envelope import Envelope
from rsc.release.agent.decision import DataFacts
from rsc.release.agent.facts import ReviewFiles, conclude
from rsc.release.record.log_record import Recorded
from rsc.store.dataset import Dataset

SETTLED_NS = (
    2_000_000_000  # above the granularity of ext4, xfs, btrfs (a tick) and of FAT and NFSv2 (2 s, 1 s)
)
TRUSTED_S = 10.0

Signature = tuple[tuple[str, tuple[int, ...]], ...]
"""(path, what stat says of it) of files and folders; nothing is said of what is missing."""


@dataclass(frozen=True, slots=True)
class FoundVersion:
    """A version as the agent finds it: what it is, how its key is wrapped, where its review stands."""

    dataset: Dataset
    envelope: Envelope
    facts: DataFacts


@dataclass(frozen=True, slots=True)
class _Kept:
    found: FoundVersion
    signature: Signature
    turns: tuple[datetime, ...]
    generation: int
    now: datetime
    until_s: float


class FactsCache:
    """One per agent; its threads share it."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        stamp_ns: Callable[[], int] = time.time_ns,
        elapsed_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stamp_ns` is the clock that stamps files, which need not be the one that decisions go by."""
        self._workspace = workspace
        self._stamp_ns = stamp_ns
        self._elapsed_s = elapsed_s
        self._kept: dict[tuple[str, int | None], _Kept] = {}

    def find(self, name: str, *, version: int | None, recorded: Recorded, now: datetime) -> FoundVersion:
        """Open the version and evaluate its review, or recall both. Raises as `Dataset.open`,
        `Dataset.envelope` and `conclude` do; a failure is not kept."""
        if not isinstance(self._workspace.bulk, Path):
            dataset = Dataset.open(self._workspace.bulk, name=name, version=version)
            return self._read(dataset, recorded=recorded, now=now)[0]
        kept = self._kept.get((name, version))
        if kept is not None and self._holds(kept, generation=recorded.generation, now=now):
            return kept.found
        began_ns, elapsed_s, generation = self._stamp_ns(), self._elapsed_s(), recorded.generation
        dataset = Dataset.open(self._workspace.bulk, name=name, version=version)
        signature = tuple(_look(self._places(dataset)))
        dataset = Dataset.open(self._workspace.bulk, name=name, version=dataset.version)
        found, files = self._read(dataset, recorded=recorded, now=now)
        if _is_settled(signature, before_ns=began_ns):
            until_s = elapsed_s + TRUSTED_S
            self._kept[name, version] = _Kept(found, signature, files.turns(), generation, now, until_s)
        return found

    def _read(
        self, dataset: Dataset, *, recorded: Recorded, now: datetime
    ) -> tuple[FoundVersion, ReviewFiles]:
        files = ReviewFiles.read(dataset, workspace=self._workspace)
        facts = conclude(dataset, files, recorded=recorded, now=now)
        return FoundVersion(dataset, dataset.envelope(), facts), files

    def _holds(self, kept: _Kept, *, generation: int, now: datetime) -> bool:
        first, last = min(kept.now, now), max(kept.now, now)
        return (
            kept.generation == generation
            and self._elapsed_s() < kept.until_s
            and not any(first < turn <= last for turn in kept.turns)
            and tuple(_look(path for path, _ in kept.signature)) == kept.signature
        )

    def _places(self, dataset: Dataset) -> Iterator[str]:
        """Everything that a conclusion about the version depends on, folders before what lies in them."""
        name = f"{self._workspace.bulk}/{dataset.name}"
        version = f"{self._workspace.bulk}/{dataset.folder}"
        yield from (name, f"{self._workspace.audit}/log.vkey")
        yield from _children(name)  # another version becomes one when its folder gets a root.json
        yield from (f"{version}/root.json", f"{version}/key.json", f"{version}/review")
        for folder in (f"{version}/review", f"{version}/review/approvals"):
            yield folder
            yield from _children(folder)


def _children(folder: str) -> list[str]:
    try:
        return [f"{folder}/{name}" for name in sorted(os.listdir(folder))]  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []


def _look(paths: Iterator[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    for path in paths:
        try:
            found = os.stat(path)  # noqa: PTH116
        except FileNotFoundError:
            yield path, ()
        else:
            told = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            yield path, told


def _is_settled(signature: Signature, *, before_ns: int) -> bool:
    """A time ahead of the clock is not settled either: the clock was set back, and may pass it again."""
    return all(max(told[3:], default=0) < before_ns - SETTLED_NS for _, told in signature)
