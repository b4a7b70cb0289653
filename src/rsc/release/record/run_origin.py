"""What a run was trained on, as the log recorded it before its first key left.

`run.json` says the same to people. Decisions go by the log: a run folder is a place where workers and users
can write, and a bucket with copies of it another one. A run that the log does not know gets no key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rsc.errors import GateRefused, IntegrityError

Version = tuple[str, int]
"""Name and number of a data set version."""
BEGAN, ATTESTED = "run_began", "run_attested"
"""Kinds of records that say where a run comes from."""


@dataclass(frozen=True, slots=True)
class DataUsed:
    name: str
    version: int
    root_hash: str

    @property
    def place(self) -> Version:
        return self.name, self.version


@dataclass(frozen=True, slots=True)
class RunOrigin:
    run: str
    recipe: str
    recipe_sha256: str
    data: tuple[DataUsed, ...]
    """What the run itself reads."""
    inherited: tuple[DataUsed, ...] = ()
    """What the run that it started from had read, and so on back."""
    exported: tuple[DataUsed, ...] = ()
    """What a run had read whose export it started from. Tracing goes by it and the key agent does not: an
    export was let out of the rules of its data, by a release of its own."""
    parent: str | None = None
    """The run, or the name of the open weights, that it started from."""
    index: int = -1
    """Of its record in the log."""

    def own_data(self) -> list[Version]:
        return _places(self.data)

    def all_data(self) -> list[Version]:
        return _places((*self.data, *self.inherited))

    def traced_data(self) -> list[Version]:
        return _places(self.traced())

    def traced(self) -> tuple[DataUsed, ...]:
        return (*self.data, *self.inherited, *self.exported)

    def root_of(self, place: Version) -> str:
        return next(each.root_hash for each in self.traced() if each.place == place)

    def to_record(self) -> dict[str, Any]:
        """The facts of a record of the log."""
        return {
            "run": self.run,
            "recipe": self.recipe,
            "recipe_sha256": self.recipe_sha256,
            "data": _triples(self.data),
            "inherited": _triples(self.inherited),
            "exported": _triples(self.exported),
            "parent": self.parent,
        }

    def require_papers(self, lineage: Mapping[str, Any]) -> None:
        """Raises IntegrityError where run.json says something else than the log."""
        try:
            said = sorted(used_in(lineage), key=lambda each: each.place)
        except (KeyError, TypeError, AttributeError):
            said = []
        is_same = said == sorted(self.data, key=lambda each: each.place)
        if not is_same or lineage.get("recipe_sha256") != self.recipe_sha256:
            raise IntegrityError(
                f"run.json of {self.run} does not say what record {self.index} of the log says it was "
                "trained on",
                hint="put the file back from a copy; keys are released by what the log says",
                outcome="header",
            )


def used_in(lineage: Mapping[str, Any]) -> Iterator[DataUsed]:
    """What a lineage says that the run read itself. Raises KeyError or TypeError for one that is none."""
    for part in (lineage, *lineage.get("mixed", ())):
        if "data" in part:
            data = part["data"]
            yield DataUsed(data["name"], data["version"], data["root_hash"])


def used_before(lineage: Mapping[str, Any], *, through: str) -> Iterator[DataUsed]:
    """What the runs before had read, `through` their checkpoints (`parent`) or exports (`export_of`)."""
    before = lineage.get(through)
    if before is not None:
        yield from used_in(before)
        yield from used_before(before, through="parent")
        if through == "export_of":
            yield from used_before(before, through="export_of")


def origin_from(record: Mapping[str, Any]) -> RunOrigin:
    """Of a record of the log."""
    return RunOrigin(
        run=record["run"],
        recipe=record["recipe"],
        recipe_sha256=record["recipe_sha256"],
        data=_used(record["data"]),
        inherited=_used(record["inherited"]),
        exported=_used(record["exported"]),
        parent=record["parent"],
        index=record["index"],
    )


def require_origin(runs: Mapping[str, RunOrigin], run: str) -> RunOrigin:
    """Raises GateRefused for a run that the log does not know: absence is no."""
    try:
        return runs[run]
    except KeyError:
        raise GateRefused(
            f"the log of this workspace does not say what run {run} was trained on",
            hint="it is of another workspace or an older RSC: look at it, then record it with "
            "`rsc audit attest`",
        ) from None


def _places(used: Iterable[DataUsed]) -> list[Version]:
    return list(dict.fromkeys(each.place for each in used))


def _triples(used: Iterable[DataUsed]) -> list[tuple[str, int, str]]:
    return [(each.name, each.version, each.root_hash) for each in dict.fromkeys(used)]


def _used(triples: Iterable[tuple[str, int, str]]) -> tuple[DataUsed, ...]:
    return tuple(DataUsed(name, version, root) for name, version, root in triples)
