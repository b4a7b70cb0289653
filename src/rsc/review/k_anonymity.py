"""How well the rows of a table hide each other: k-anonymity, l-diversity, and what to coarsen.

Rows with equal quasi-identifiers form a group. k-anonymity (Sweeney 2002): no group below k rows.
l-diversity, the distinct form (Machanavajjhala et al. 2007): each group holds at least l values of every
sensitive column. Suggestions follow Datafly (Sweeney 1997): coarsen the column with the most distinct
values, again and again, until few enough rows are left over to be dropped.

Not covered: attackers who know more than the declared quasi-identifiers; skewed sensitive values
(t-closeness); the same person in several rows; several releases of one table compared.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rsc.errors import ConfigError, ReviewRejected
from rsc.review.policy import Tables

SUPPRESSED = "*"
_ISO_DATE = re.compile(r"([0-9]{4})-([0-9]{2})-[0-9]{2}")

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Coarsening:
    """One step for one column: `how` in words, `apply` as a function of a value."""

    how: str
    apply: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Coarsen these columns so, then drop `rows_to_drop` rows that still stand out."""

    columns: dict[str, str]
    rows_to_drop: int


@dataclass(frozen=True, slots=True)
class TableReport:
    """Numbers only: no group's values are kept, they would single out people."""

    rows: int
    groups: int
    smallest_group: int
    rows_below_k: int
    diversity: dict[str, int]
    """Sensitive column -> fewest different values in any group."""
    holds: bool
    suggestion: Suggestion | None

    def require(self, *, data: str) -> None:
        """Raise ReviewRejected unless the policy's k and l hold."""
        if not self.holds:
            steps = self.suggestion.columns if self.suggestion else {}
            hint = "; ".join(f"coarsen {column}: {how}" for column, how in steps.items())
            raise ReviewRejected(
                f"{data}: {self.rows_below_k} of {self.rows} rows stand out, the smallest group has "
                f"{self.smallest_group}",
                hint=hint or "declare fewer quasi-identifiers, or drop the rows that stand out",
            )


def assess_table(rows: Sequence[Row], *, rules: Tables, droppable_share: float = 0.01) -> TableReport:
    """Check the declared columns and suggest a coarsening if they fail.

    `droppable_share`: rows that may be dropped in the end rather than coarsening all others further. Time is
    rows x columns x steps (at most six a column). Raises ConfigError for a column that no row has.
    """
    _check_columns(rows, columns=(*rules.quasi_identifiers, *rules.sensitive))
    keys = [tuple(row.get(name) for name in rules.quasi_identifiers) for row in rows]
    failing, sizes, diversity = _failing(keys, rows=rows, rules=rules)
    holds = failing == 0
    return TableReport(
        rows=len(rows),
        groups=len(sizes),
        smallest_group=min(sizes.values(), default=0),
        rows_below_k=sum(size for size in sizes.values() if size < rules.k),
        diversity=diversity,
        holds=holds,
        suggestion=None if holds else _suggest(rows, rules=rules, droppable=int(droppable_share * len(rows))),
    )


def _check_columns(rows: Sequence[Row], *, columns: Sequence[str]) -> None:
    present = set().union(*(row.keys() for row in rows)) if rows else set(columns)
    missing = [name for name in columns if name not in present]
    if missing:
        raise ConfigError(
            f"no row has the declared column {missing[0]!r}", hint=f"columns: {', '.join(sorted(present))}"
        )


def _failing(
    keys: Sequence[tuple[Any, ...]], *, rows: Sequence[Row], rules: Tables
) -> tuple[int, Counter[tuple[Any, ...]], dict[str, int]]:
    """Rows in groups that break k or l, group sizes, and the least diversity per sensitive column."""
    sizes = Counter(keys)
    values: dict[str, dict[tuple[Any, ...], set[Any]]] = {name: defaultdict(set) for name in rules.sensitive}
    for key, row in zip(keys, rows, strict=True):
        for name in rules.sensitive:
            values[name][key].add(row.get(name))
    diversity = {name: min(map(len, groups.values()), default=0) for name, groups in values.items()}
    broken = {key for key, size in sizes.items() if size < rules.k}
    broken |= {key for groups in values.values() for key, found in groups.items() if len(found) < rules.l}
    return sum(sizes[key] for key in broken), sizes, diversity


def _suggest(rows: Sequence[Row], *, rules: Tables, droppable: int) -> Suggestion | None:
    """Datafly: one step on the column with the most distinct values until at most `droppable` rows fail."""
    columns = {name: [row.get(name) for row in rows] for name in rules.quasi_identifiers}
    ladders = {name: coarsenings(values) for name, values in columns.items()}
    current, taken = dict(columns), dict.fromkeys(columns, 0)
    while True:
        keys = list(zip(*current.values(), strict=True))
        failing, _, _ = _failing(keys, rows=rows, rules=rules)
        if failing <= droppable:
            how = {name: ladders[name][steps - 1].how for name, steps in taken.items() if steps}
            return Suggestion(how, failing)
        open_columns = [name for name in current if taken[name] < len(ladders[name])]
        if not open_columns:
            return None
        widest = max(open_columns, key=lambda name: len(set(current[name])))
        step = ladders[widest][taken[widest]]
        current[widest] = [step.apply(value) for value in columns[widest]]
        taken[widest] += 1


def coarsenings(values: Sequence[Any]) -> list[Coarsening]:
    """Steps for a column, each applied to the original value, the last one suppresses it.

    Numbers: bins of 5, 10, 20, 50 around zero, scaled to the range. Dates (YYYY-MM-DD): month, year, decade.
    Other text: prefixes, one character shorter each time, as post codes are built.
    """
    known = [value for value in values if value not in (None, "")]
    last = Coarsening("leave it out", lambda value: SUPPRESSED)
    if known and all(_ISO_DATE.fullmatch(str(value)) for value in known):
        return [
            Coarsening("month", lambda value: str(value)[:7]),
            Coarsening("year", lambda value: str(value)[:4]),
            Coarsening("decade", lambda value: str(value)[:3] + "0s"),
            last,
        ]
    numbers = [number for number in map(_number, known) if number is not None]
    if known and len(numbers) == len(known):
        scale = _scale(max(numbers) - min(numbers))
        return [*(_binned(width * scale) for width in (5, 10, 20, 50)), last]
    longest = max((len(str(value)) for value in known), default=0)
    return [*(_prefix(length) for length in range(min(longest, 8) - 1, 0, -1)), last]


def _number(value: Any) -> float | None:
    """A number that is meant as one: a code with a leading zero is text."""
    text = str(value)
    if isinstance(value, bool) or (text[:1] == "0" and text[1:2].isdigit()):
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _scale(span: float) -> float:
    """The power of ten that makes bins of 5 to 50 fit a range of about 100."""
    scale = 1.0
    while span > 200 * scale:
        scale *= 10
    while 0 < span < 2 * scale:
        scale /= 10
    return scale


def _binned(width: float) -> Coarsening:
    def apply(value: Any) -> Any:
        number = _number(value)
        return value if number is None else number // width

    return Coarsening(f"bins of {width:g}", apply)


def _prefix(length: int) -> Coarsening:
    return Coarsening(
        f"first {length} character{'s' if length > 1 else ''}", lambda value: str(value)[:length]
    )
