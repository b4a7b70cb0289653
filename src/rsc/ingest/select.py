"""Which records of a source are taken: `where`, `sample`, `dedup` and `limit`, in this order.

Records that are left out are counted by reason and never looked at by the gate. `where` and `sample` judge a
record by what it says. `dedup` and `limit` depend on the records before it, so the source is read once for
them alone (`find_left_out`), in the same processes and parts as the import itself.

Not covered: records that are nearly equal.
"""

from __future__ import annotations

import hashlib
import math
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import takewhile
from typing import Any

import numpy as np

from rsc.errors import ConfigError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.source import Chunk, Part, Source, Values
from rsc.ingest.readers.tables.typed_columns import each, take
from rsc.store.format.schema import Field, Schema

_CONDITION = re.compile(r"(>=|<=|>|<|!=|=?)(.*)", re.DOTALL)
_ORDERS: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_TRUTHS = {"true": "1", "false": "0"}
_SCALE = 1 << 64
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Condition:
    """A value is one of `values`, none of them (`!=`), or beyond one number. A missing one never passes."""

    item: Field
    operation: str
    values: tuple[str, ...]

    def passes(self, column: Values) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """bool [n]."""
        if self.item.kind == "string":
            wanted = frozenset(self.values)
            found = np.fromiter((value in wanted for value in each(column)), np.bool_)
            return ~found if self.operation == "!=" else found
        numbers = np.asarray(column, dtype=self.item.storage).reshape(len(column))
        if self.operation in _ORDERS:
            passing = _beyond(numbers, self.operation, Fraction(self.values[0]))
        else:
            passing = np.zeros(len(numbers), np.bool_)
            for value in self.values:
                passing |= _equal(numbers, Fraction(value))
            passing = ~passing if self.operation == "!=" else passing
        if self.item.missing is not None:
            passing &= numbers != self.item.missing
        return passing & ~np.isnan(numbers) if numbers.dtype.kind == "f" else passing


def _beyond(numbers: np.ndarray, operation: str, limit: Fraction) -> np.ndarray:
    """Whole numbers are compared with a whole number, which no rounding can move."""
    if numbers.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a number beyond float16 is beyond every value
            return np.asarray(_ORDERS[operation](numbers, float(limit)))
    whole = math.floor(limit) if operation in (">", "<=") else math.ceil(limit)
    return np.asarray(_ORDERS[operation](numbers, whole))


def _equal(numbers: np.ndarray, value: Fraction) -> np.ndarray:
    if numbers.dtype.kind == "f":
        return np.asarray(numbers == float(value))
    if value.denominator > 1:
        return np.zeros(len(numbers), np.bool_)
    return np.asarray(numbers == value.numerator)


@dataclass(frozen=True)
class LeftOut:
    """What the records before decide: `repeated` are numbers of duplicates, in order; from `stop` on nothing
    is read."""

    repeated: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    stop: int | None = None


@dataclass(frozen=True)
class Selection:
    """The rules of one import. Without any, chunks pass as they are."""

    conditions: tuple[Condition, ...] = ()
    sample: float | None = None
    sample_seed: int = 0
    dedup: tuple[str, ...] = ()
    limit: int | None = None
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def looks_back(self) -> bool:
        return bool(self.dedup) or self.limit is not None

    def parts(self, parts: Iterable[Part]) -> Iterator[Part]:
        stop = self.left_out.stop
        return iter(parts) if stop is None else takewhile(lambda part: part.first_record < stop, parts)

    def choose(self, chunk: Chunk) -> tuple[Chunk, Counter[str]]:
        """The chunk with the records that are taken, and how many are left out, by reason."""
        counts: Counter[str] = Counter()
        if not (self.conditions or self.sample is not None or self.looks_back):
            return chunk, counts
        if (stop := self.left_out.stop) is not None:
            chunk = _kept(chunk, chunk.numbers < stop)
            chunk.bad = [bad for bad in chunk.bad if bad.record < stop]
        for condition in self.conditions if chunk.num_records else ():
            name = condition.item.name
            chunk = _counted(chunk, condition.passes(chunk.columns[name]), f"where: field {name!r}", counts)
        if self.sample is not None and chunk.num_records:
            chunk = _counted(chunk, self._drawn(chunk), "sample", counts)
        if len(self.left_out.repeated) and chunk.num_records:
            is_new = ~np.isin(chunk.numbers, self.left_out.repeated)
            chunk = _counted(
                chunk, is_new, f"dedup: an earlier record has the same {_told(self.dedup)}", counts
            )
        return chunk, counts

    def contents(self, chunk: Chunk) -> list[tuple[int, bytes]]:
        """Number and digest of each record, for `find_left_out`."""
        digests = _digests(chunk.columns, self.dedup) if self.dedup else [b""] * chunk.num_records
        return list(zip(chunk.numbers.tolist(), digests, strict=True))

    def find_left_out(self, contents: Iterable[tuple[int, bytes]]) -> LeftOut:
        """Reads `contents` as far as the limit goes. Holds a digest a record in memory."""
        seen: set[bytes] = set()
        repeated: list[int] = []
        taken = 0
        for number, digest in contents:
            if self.dedup and digest in seen:
                repeated.append(number)
                continue
            if self.dedup:
                seen.add(digest)
            taken += 1
            if taken == self.limit:
                return LeftOut(np.array(repeated, np.uint64), stop=number + 1)
        return LeftOut(np.array(repeated, np.uint64))

    def _drawn(self, chunk: Chunk) -> np.ndarray[Any, np.dtype[np.bool_]]:
        assert self.sample is not None
        key = hashlib.sha256(f"rsc-sample-1\n{self.sample_seed}\n".encode()).digest()
        draws = _digests(chunk.columns, tuple(sorted(chunk.columns)), key=key)
        limit = round(self.sample * _SCALE)
        return np.fromiter((int.from_bytes(draw[:8], "big") < limit for draw in draws), np.bool_)


def open_selection(source: Source, schema: Schema, *, options: ImportOptions) -> Selection:
    """The rules that the options name. Raises ConfigError for fields that are not there or that cannot be
    judged."""
    fields = {item.name: item for item in schema.fields}
    by_source_name = {their: name for name, their in source.names().items()}

    def field_of(name: str, *, setting: str) -> Field:
        found = fields.get(by_source_name.get(name, name))
        if found is None:
            raise ConfigError(
                f"{setting}: no field {name!r} is taken", hint=f"fields are {', '.join(fields)}"
            )
        return found

    conditions = [
        _condition(field_of(name, setting=f"where.{name}"), text, setting=f"where.{name}={text}")
        for name, text in options.where.items()
    ]
    names = tuple(fields) if options.dedup == ("*",) else options.dedup or ()
    return Selection(
        conditions=tuple(conditions),
        sample=options.sample,
        sample_seed=options.sample_seed,
        dedup=tuple(field_of(name, setting="dedup").name for name in names),
        limit=options.limit,
    )


def _condition(item: Field, text: str, *, setting: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    assert match is not None, "every text fits"
    operation, rest = match.groups()
    values = tuple(part.strip() for part in rest.split(","))
    if item.kind not in ("string", "tensor") or item.shape:
        raise ConfigError(f"{setting}: a field of {item.kind} is no single text or number")
    if item.kind == "string":
        if operation in _ORDERS:
            raise ConfigError(f"{setting}: the field is text, which has no order", hint="use = or !=")
        return Condition(item, operation, values)
    numbers = tuple(_TRUTHS.get(value.lower(), value) for value in values)
    try:
        for number in numbers:
            Fraction(number)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"{setting}: the field holds numbers, which this is not") from None
    if operation in _ORDERS and len(numbers) > 1:
        raise ConfigError(f"{setting}: {operation} takes one number")
    return Condition(item, operation, numbers)


def _counted(chunk: Chunk, keep: np.ndarray, reason: str, counts: Counter[str]) -> Chunk:
    if num_left_out := int(len(keep) - keep.sum()):
        counts[reason] += num_left_out
        return _kept(chunk, keep)
    return chunk


def _kept(chunk: Chunk, keep: np.ndarray) -> Chunk:
    if keep.all():
        return chunk
    return replace(chunk, columns=take(chunk.columns, np.flatnonzero(keep)), numbers=chunk.numbers[keep])


def _digests(columns: Mapping[str, Values], names: Sequence[str], *, key: bytes = b"") -> list[bytes]:
    """A digest a record. Each value goes in with its length, so that no two records share their bytes."""
    rows = zip(*(map(_as_bytes, each(columns[name])) for name in names), strict=True)
    return [_digest(row, key=key) for row in rows]


def _digest(row: Iterable[bytes], *, key: bytes) -> bytes:
    content = hashlib.blake2b(digest_size=_DIGEST_BYTES, key=key)
    for value in row:
        content.update(len(value).to_bytes(8, "little"))
        content.update(value)
    return content.digest()


def _as_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    return bytes(value) if isinstance(value, bytes | memoryview) else np.asarray(value).tobytes()


def _told(names: Sequence[str]) -> str:
    return ", ".join(names)
