"""Pre-filters: where can a match of a rule start? They may answer too much, never too little.

- `hyperscan` says at which byte a trigger ends, so only a few characters are looked at again;
- `re2` says which triggers occur in a slice of the text, all of them in one pass;
- `re` says the same with one pass per trigger: slow, and always there.

All three run the same `Rule.trigger` texts. What they leave to the exact match differs, what is found
does not: see scan.py.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from rsc.errors import ConfigError
from rsc.review.scanner.rules.rule import BEFORE_DIGIT, BEHIND, BEHIND_DIGIT, Rule, any_of

Window = tuple[Rule, int, int, int]
"""Rule, from, to, end: it may start in [from, to) of the folded text, with a trigger that ends by `end`."""

ENGINES = {"hyperscan": "hyperscan", "re2": "re2", "re": "re"}
"""Engine name -> module, fastest first."""

_GROUP = 5  # rules in one RE2 set, see _re2_set
_SLICE = 512  # characters looked at together; smaller costs calls, larger costs exact passes


class Prefilter(Protocol):
    name: str

    def windows(self, text: str) -> Iterator[Window]:
        """Windows over folded text that together hold every position where a rule matches."""
        ...


def choose_engine(name: str, *, rules: Sequence[Rule], compiled: Sequence[bytes] = ()) -> Prefilter:
    """`auto` takes the fastest that is installed. Raises ConfigError for one that is not.

    `compiled` is what `compiled_for` gave in another process of this installation.
    """
    installed = [engine for engine, module in ENGINES.items() if find_spec(module) is not None]
    chosen = installed[0] if name == "auto" else name
    if chosen not in ENGINES:
        raise ConfigError(f"scan engine {name!r} is unknown", hint=f"use one of: auto {' '.join(ENGINES)}")
    if chosen not in installed:
        raise ConfigError(
            f"scan engine {name!r} is not installed", hint=f"use one of: auto {' '.join(installed)}"
        )
    if chosen == "hyperscan":
        return HyperscanPrefilter(rules, compiled=compiled)
    return SlicePrefilter(
        rules, occurring=_re2_set(rules) if chosen == "re2" else _re_passes(rules), name=chosen
    )


def compiled_for(name: str, *, rules: Sequence[Rule]) -> tuple[bytes, ...]:
    """What spares other processes the half second of compiling; empty for engines that need none.

    Handed from process to process in memory. Not kept on disk: whoever could change such a file could
    blind the scanner without a trace.
    """
    if choose_engine(name, rules=rules).name != "hyperscan":
        return ()
    import hyperscan

    return tuple(hyperscan.dumpb(database) for database in _databases(tuple(rules)))


class Occurring(Protocol):
    def __call__(self, piece: str) -> list[int]:
        """Indices of the rules whose trigger occurs in a piece of text."""
        ...


class SlicePrefilter:
    """Asks slice by slice; each is read `BEHIND` earlier and `lead` further: a trigger's reach."""

    def __init__(self, rules: Sequence[Rule], *, occurring: Occurring, name: str) -> None:
        self.name = name
        self._rules = rules
        self._occurring = occurring
        self._lead = max((rule.lead for rule in rules), default=0)

    def windows(self, text: str) -> Iterator[Window]:
        for start in range(0, len(text), _SLICE):
            stop = min(start + _SLICE, len(text))
            for index in self._occurring(text[max(0, start - BEHIND) : stop + self._lead]):
                yield self._rules[index], start, stop, stop + self._rules[index].lead


def _re_passes(rules: Sequence[Rule]) -> Occurring:
    triggers = [re.compile(rule.trigger) for rule in rules]

    def occurring(piece: str) -> list[int]:
        return [index for index, trigger in enumerate(triggers) if trigger.search(piece)]

    return occurring


def _re2_set(rules: Sequence[Rule]) -> Occurring:
    """Sets of a few rules each: the automaton of all of them together has so many states that it is
    rebuilt all the time (2.5 MB/s against 12)."""
    groups = [(first, _re2_group(rules[first : first + _GROUP])) for first in range(0, len(rules), _GROUP)]

    def occurring(piece: str) -> list[int]:
        data = piece.encode("latin-1")
        return [first + index for first, group in groups for index in sorted(group.Match(data) or ())]

    return occurring


def _re2_group(rules: Sequence[Rule]) -> Any:
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    options.max_mem = 64 << 20  # bytes for the automaton of one group
    triggers = re2.Set.SearchSet(options)
    for rule in rules:
        triggers.Add(rule.trigger.encode("latin-1"))
    triggers.Compile()
    return triggers


class HyperscanPrefilter:
    """Every end of a trigger opens a window of the rule's `lead` before it. Rules with `digit` are looked for
    around digits only."""

    name = "hyperscan"

    def __init__(self, rules: Sequence[Rule], *, compiled: Sequence[bytes] = ()) -> None:
        import hyperscan

        mode = hyperscan.HS_MODE_BLOCK
        databases = [hyperscan.loadb(part, mode) for part in compiled] or _databases(tuple(rules))
        self._rules = rules
        self._databases = [
            (database, hyperscan.Scratch(database), rules[indices[0]].digit)
            for database, indices in zip(databases, _groups(rules), strict=True)
        ]

    def windows(self, text: str) -> Iterator[Window]:
        """Rule by rule, not place by place: a rule that runs again at once finds its pattern and its check
        in the processor's caches (a third of the time of all exact matches)."""
        for rule, ends in zip(self._rules, self._trigger_ends(text.encode("latin-1")), strict=True):
            if ends:
                yield from _opened_by(rule, ends)

    def _trigger_ends(self, data: bytes) -> list[list[int]]:
        """For each rule where its triggers end, ascending."""
        ends: list[list[int]] = [[] for _ in self._rules]

        def on_match(index: int, _start: int, end: int, _flags: int, ends: list[list[int]]) -> None:
            ends[index].append(end)

        near, begins, shifts = around_digits(data)
        for database, scratch, digit in self._databases:
            if not digit:
                database.scan(data, match_event_handler=on_match, scratch=scratch, context=ends)
            elif near:
                database.scan(near, match_event_handler=on_match, scratch=scratch, context=ends)
        for index, rule in enumerate(self._rules):
            if rule.digit and ends[index]:
                ends[index] = [end + shifts[bisect_left(begins, end) - 1] for end in ends[index]]
        return ends


def _opened_by(rule: Rule, ends: Sequence[int]) -> Iterator[Window]:
    """One window for triggers whose windows overlap."""
    lead, least = rule.lead, rule.least
    first, last = ends[0], ends[0]
    for end in ends:
        if end - lead > last - least + 1:
            yield rule, max(0, first - lead), last - least + 1, last
            first = end
        last = end
    yield rule, max(0, first - lead), last - least + 1, last


def around_digits(data: bytes) -> tuple[bytes, list[int], list[int]]:
    """What lies within `BEFORE_DIGIT` and `BEHIND_DIGIT` of a digit, joined; where each part begins there,
    and how much further it begins in `data`. Where parts meet, a trigger may seem to be: the exact match
    tells."""
    characters = np.frombuffer(data, dtype=np.uint8)
    digits = np.flatnonzero(characters - ord("0") < 10)  # unsigned: what is smaller wraps around
    if not len(digits):
        return b"", [], []
    is_gap = np.diff(digits) > BEFORE_DIGIT + BEHIND_DIGIT
    starts = np.maximum(digits[np.concatenate(([True], is_gap))] - BEFORE_DIGIT, 0)
    stops = digits[np.concatenate((is_gap, [True]))] + (1 + BEHIND_DIGIT)
    begins = np.concatenate(([0], np.cumsum(stops - starts)[:-1]))
    pieces = zip(starts.tolist(), stops.tolist(), strict=True)
    near = b"".join([data[start:stop] for start, stop in pieces])
    return near, begins.tolist(), (starts - begins).tolist()


_APART = frozenset(
    any_of(
        "handle_at handle_named it_fiscal_code ipv6 url_credentials bitcoin bearer_token",
        "phone_american phone_in_context iban ch_ahv dk_cpr fi_hetu ru_snils national_number street_before",
        "random_value",
    ).split("|")
)
"""Rules with and without `digit` are compiled into two databases each: these rules, and the rest. Found by
climbing over times measured on text of benchmarks/scan.py, sparse plus 0.3 times dense: 6.8 ns a byte for
these four, 11.7 for ten that kept long word lists apart. A rule that is not named here still works."""


def _groups(rules: Sequence[Rule]) -> list[list[int]]:
    """Indices of the rules, by database."""
    groups: dict[tuple[bool, bool], list[int]] = {}
    for index, rule in enumerate(rules):
        groups.setdefault((rule.digit, rule.name in _APART), []).append(index)
    return list(groups.values())


@cache
def _databases(rules: tuple[Rule, ...]) -> tuple[Any, ...]:
    """Compiled databases that report the rules' own indices. Compiling takes half a second, so the scanners
    of a process share them; each has a scratch space of its own."""
    import hyperscan

    databases = []
    for indices in _groups(rules):
        database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        expressions = [rules[index].trigger.encode("latin-1") for index in indices]
        database.compile(expressions=expressions, ids=indices, flags=0)
        databases.append(database)
    return tuple(databases)
