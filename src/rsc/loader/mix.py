"""Several data sets as one stream, by integer weights that may change at a recorded sample number.

    changes = [MixChange(start=0, weights={"web": 3, "code": 1}),
               MixChange(start=1_000_000, weights={"web": 1, "code": 1})]
    MixedLoader({"web": web_loader, "code": code_loader}, changes=changes, batch_size=32, world_size=8)

At each step every rank takes the same number of samples of each data set: the numbers that bring what all
ranks have had so far closest to the weights. That is arithmetic on counters which are part of the state, so
a run is replayed exactly, no rank waits for another, and each data set keeps its own order, epochs and
lanes. What was delivered never differs from the weights by a whole sample a rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from rsc.errors import ConfigError
from rsc.loader.loader import Batch, Column, join_batches
from rsc.loader.memory import BatchMemory


class MixSource(Protocol):
    """A stream to mix: Loader or PackedLoader, endless, made for the same rank and world size."""

    @property
    def columns(self) -> Mapping[str, Column]: ...

    @property
    def place(self) -> Any: ...

    @property
    def samples_an_epoch(self) -> int | None:
        """None where that is not known beforehand."""
        ...

    def return_to(self, place: Any) -> None: ...

    def take(self, batch_size: int) -> Any: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class MixChange:
    """From sample `start` of the mixed stream on (all ranks together), samples come by these weights.

    Takes effect at the first step that begins there or later.
    """

    start: int
    weights: Mapping[str, int]


@dataclass(frozen=True)
class MixEnd:
    """Where a finite mixture ends, always between two whole steps.

    `first`: before any source would begin again after `epochs` epochs; less than a step of that source and
    more of the others may be left unread. `last`: after every source was read `epochs` times; the shorter
    ones repeat meanwhile. A source that no weight will bring any more is not waited for.
    """

    until: Literal["first", "last"]
    epochs: int = 1


class MixedLoader:
    """An iterator over the sources' batches joined, with state. `batch_size` is per rank.

    Endless, or as long as `end` says; `ended_by` then names the source
    that ended it. Raises ConfigError also for an end of
    packed sources, whose number of rows is not known, and for one before the first step.

    Raises ConfigError for sources whose columns differ, for weights that name other sources, are negative or
    all zero, for changes out of order, and for state whose weights differ in the part of the run that has
    passed.
    """

    def __init__(
        self,
        sources: Mapping[str, MixSource],
        *,
        changes: Sequence[MixChange],
        batch_size: int,
        world_size: int = 1,
        end: MixEnd | None = None,
    ) -> None:
        check_changes(changes, names=tuple(sources))
        check_columns({name: source.columns for name, source in sources.items()})
        self._sources = dict(sources)
        self._changes = list(changes)
        self._batch_size = batch_size
        self._world_size = world_size
        self._memory = BatchMemory()
        self._delivered = dict.fromkeys(sources, 0)
        self._before: tuple[dict[str, int], dict[str, Any]] | None = None  # of a step that is not done
        self._era = _Era(change=0, position=0, delivered=dict(self._delivered))
        self._end = end
        self._lengths = {} if end is None else _lengths(self._sources, epochs=end.epochs)
        self.ended_by: str | None = None

    @property
    def position(self) -> int:
        """Samples delivered to all ranks; the next step begins here."""
        return sum(self._delivered.values())

    @property
    def delivered(self) -> dict[str, int]:
        """Samples of each source delivered to all ranks."""
        return dict(self._delivered)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """The next batch; StopIteration at the end. Where it raises, nothing has moved."""
        self._settle()
        self._enter_era()
        self._require_more_to_come()
        counts = share_step(
            self._due(self.position + self._batch_size * self._world_size),
            batch_size=self._batch_size,
            world_size=self._world_size,
        )
        delivered = {
            name: before + counts[name] * self._world_size for name, before in self._delivered.items()
        }
        self._require_no_repeat(delivered)
        self._before = self._delivered, {name: source.place for name, source in self._sources.items()}
        try:
            parts = [self._sources[name].take(count) for name, count in counts.items() if count]
            batch = parts[0] if len(parts) == 1 else join_batches(parts, memory=self._memory)
        except BaseException:
            self._settle()
            raise
        self._delivered, self._before = delivered, None
        return batch

    def _require_more_to_come(self) -> None:
        """Raises StopIteration once every source was read."""
        if self._end is None or self._end.until == "first":
            return
        coming = self._changes[self._era.change :]
        lacking = (name for name, length in self._lengths.items() if self._delivered[name] < length)
        if not any(change.weights[name] for name in lacking for change in coming):
            self.ended_by = min(self._lengths, key=lambda name: self._delivered[name] / self._lengths[name])
            raise StopIteration

    def _require_no_repeat(self, delivered: Mapping[str, int]) -> None:
        """Raises StopIteration where a step would read a source further than its end."""
        if self._end is None or self._end.until == "last":
            return
        for name, length in self._lengths.items():
            if delivered[name] > length:
                self.ended_by = name
                if not self.position:
                    raise ConfigError(
                        f"{name!r} ends inside the first step: {length} samples, a step takes "
                        f"{delivered[name]} of it",
                        hint="take smaller batches, or until='last'",
                    )
                raise StopIteration

    def _settle(self) -> None:
        """Return to before a step that has begun and is not done; what Ctrl-C cuts short is done by the next
        use."""
        if self._before is not None:
            self._delivered, places = self._before
            for name, source in self._sources.items():
                source.return_to(places[name])
            self._before = None

    def state_dict(self) -> dict[str, Any]:
        """JSON values, the same on every rank and for any world size."""
        self._settle()
        passed = [
            [change.start, dict(change.weights)]
            for number, change in enumerate(self._changes)
            if number <= self._era.change or change.start < self.position
        ]
        return {
            "changes": passed,
            "era": [self._era.position, self._era.delivered],
            "delivered": dict(self._delivered),
            "sources": {name: source.state_dict() for name, source in self._sources.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch that `state` was taken at. Later changes may differ from the saving run's."""
        passed = [MixChange(start, weights) for start, weights in state["changes"]]
        delivered = dict(state["delivered"])
        reached = sum(delivered.values())
        if self._changes[: len(passed)] != passed or set(state["sources"]) != set(self._sources):
            raise ConfigError(
                f"the run was mixed by {state['changes']} so far, these changes begin differently",
                hint="keep the past changes and add one that starts at the sample where it should apply",
            )
        for change in self._changes[len(passed) :]:
            if change.start < reached:
                raise ConfigError(
                    f"weights {dict(change.weights)} from sample {change.start} on: the run is at sample "
                    f"{reached} and was mixed by {state['changes']}",
                    hint=f"let the change start at sample {reached} or later",
                )
        for name, source in self._sources.items():
            source.load_state_dict(state["sources"][name])
        self._before = None
        position, before = state["era"]
        self._era = _Era(change=self._last_change(position), position=position, delivered=dict(before))
        self._delivered = delivered

    def close(self) -> None:
        for source in self._sources.values():
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _enter_era(self) -> None:
        """Apply the last change whose sample number has come; shares are counted from here on."""
        last = self._last_change(self.position)
        if last > self._era.change:
            self._era = _Era(change=last, position=self.position, delivered=dict(self._delivered))

    def _last_change(self, position: int) -> int:
        return max(n for n, change in enumerate(self._changes) if change.start <= position)

    def _due(self, stop: int) -> dict[str, tuple[int, int]]:
        """Samples of each source still to deliver before `stop`, as an exact fraction (over, under)."""
        weights = self._changes[self._era.change].weights
        total = sum(weights.values())
        length = stop - self._era.position
        return {
            name: (
                length * weights[name] - (self._delivered[name] - self._era.delivered[name]) * total,
                total,
            )
            for name in self._sources
        }


@dataclass(frozen=True)
class _Era:
    """Since when the current weights apply, and what had been delivered by then."""

    change: int
    position: int
    delivered: dict[str, int]


def _lengths(sources: Mapping[str, MixSource], *, epochs: int) -> dict[str, int]:
    """Samples of each source in its epochs. Raises ConfigError where they are not known."""
    found: dict[str, int] = {}
    for name, source in sources.items():
        if source.samples_an_epoch is None:
            raise ConfigError(
                f"{name!r} is packed: how many rows it has is not known before they were read",
                hint="end such a mixture by a number of steps",
            )
        found[name] = epochs * source.samples_an_epoch
    return found


def share_step(due: Mapping[str, tuple[int, int]], *, batch_size: int, world_size: int) -> dict[str, int]:
    """Split a rank's batch among sources: largest remainder, ties to the first. Integers only.

    `due` holds fractions (over, under) that add up to `batch_size * world_size`. The result adds up to
    `batch_size`; nothing is negative.
    """
    counts = {name: max(over // (under * world_size), 0) for name, (over, under) in due.items()}

    def lacking(name: str) -> int:
        over, under = due[name]
        return over - counts[name] * under * world_size

    while sum(counts.values()) < batch_size:
        counts[max(counts, key=lacking)] += 1
    while sum(counts.values()) > batch_size:
        counts[min((name for name in counts if counts[name]), key=lacking)] -= 1
    return counts


def check_changes(changes: Sequence[MixChange], *, names: tuple[str, ...]) -> None:
    """Raises ConfigError where changes cannot be followed."""
    starts = [change.start for change in changes]
    if not starts or starts[0] != 0 or sorted(set(starts)) != starts:
        raise ConfigError(f"mixture changes start at {starts}: the first must be 0, each later than the last")
    for change in changes:
        if set(change.weights) != set(names):
            raise ConfigError(
                f"weights {dict(change.weights)} at sample {change.start} must name {sorted(names)}"
            )
        if min(change.weights.values()) < 0 or sum(change.weights.values()) == 0:
            raise ConfigError(
                f"weights {dict(change.weights)} at sample {change.start}: 0 or more, not all 0"
            )


def check_columns(columns: Mapping[str, Mapping[str, Column]]) -> None:
    """Raises ConfigError where batches of the sources cannot be joined: other fields, dtypes or shapes."""
    first, *others = columns
    for other in others:
        for field in sorted({*columns[first], *columns[other]}):
            kinds = [columns[name].get(field, "not there") for name in (first, other)]
            if kinds[0] != kinds[1]:
                raise ConfigError(
                    f"cannot mix {first!r} and {other!r}: field {field!r} is {kinds[0]} and {kinds[1]}",
                    hint="import one of them again with the other's fields, or choose fields that agree",
                )
