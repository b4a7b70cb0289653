"""All engines find the same, and what they find does not depend on how the text is cut."""

from __future__ import annotations

import random
import re._parser as sre_parse
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from review_samples import ALONE, NAMED

from rsc.errors import ConfigError
from rsc.review.benchmark.synthetic import planted_posts
from rsc.review.findings import Finding, settle
from rsc.review.scanner import scanner as scan
from rsc.review.scanner.pool import ScanPool
from rsc.review.scanner.prefilter import ENGINES, Window, around_digits
from rsc.review.scanner.rules import ALL_RULES
from rsc.review.scanner.rules.rule import BEFORE_DIGIT, BEHIND_DIGIT
from rsc.review.scanner.scanner import Scanner, match_rule, rules_digest

PIECES = [
    *ALONE, *(f"{name} {number}" for name, number in NAMED),
    *(post.text for post in planted_posts(250, seed=11, planted_share=0.8)),
    "john [at] example [dot] org", "a.b+c@d-e.co.uk", '"j d"@x.org', "x%40y.com", "git@host.com:a/b",
    "tel:", "phone", "call me", "ssn is",
    "pesel", "nhs no", "born", "geb.", "03/04/1985", "4 March 85", "(030) 23125-600", "0044 20 7946 0018",
    "943 476 5919", "44051401359",
    "4111 1111 1111 1111", "GB82WEST12345698765432", "DE89 3704 0044 0532 0130 00", "536-90-4399",
    "192.0.2.7", "1.2.3.4", "v1.2.3.4", "::1",
    "2001:db8::8a2e:370:7334", "10:20:30", "00-1A-2B-3C-4D-5E", "https://u:p@h.org/x",
    "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "48.8584, 2.29448", "lat: 1.5, lon: 2.5",
    "51\xb028'38\"N 0\xb000'00\"W", "passport no X1234567",
    "12 Oak Street Apt 4", "Hauptstr. 12", "rue de la Paix 3", "3 rue de la Paix", "PO Box 7",
    "password = hunter2!x", "AKIAIOSFODNN7EXAMPLE",
    "1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "Bearer abcdef1234567890abcdef", "912-70-1234",
    "RSS MRA 85T10 A562S",
    "40" + "muuFucLcaiNomficNvzwH3YCf63MoJ4FyjNoUQcUYLtV7aG6WkUsjD2RFAsvP73jqYR7e1MVyCc4EHNK16uzscHPyKd8T",
    "shipped", "lives at the address", "ISBN 978", "van der Maximilianstrasse Oberammergau Schwarzwald No. 7",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
    "-----BEGIN PRIVATE KEY-----\nMIIBVgIBADANBgkq\n-----END PRIVATE KEY-----",
    "&#64;", "\u200b", "\uff14\uff11", "\xe9", "\n", " ", ",", "+", "(", ")", "-", "/", ".", ":", "@", "_",
    '"', "'", "0", "7", "x", "Z", "\x00",
]  # fmt: skip


class Everywhere:
    """The definition: every rule may start at every position."""

    name = "everywhere"

    def windows(self, text: str) -> Iterator[Window]:
        return ((rule, 0, len(text), len(text)) for rule in ALL_RULES)


@cache
def scanner(engine: str) -> Scanner:
    made = Scanner("re" if engine == "everywhere" else engine)
    if engine == "everywhere":
        made._engine = Everywhere()
    return made


def installed() -> list[str]:
    """Without making one: that takes a second, in every process that collects these tests."""
    return [name for name, module in ENGINES.items() if find_spec(module) is not None]


texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=14).flatmap(
    lambda pieces: st.sampled_from(["", " ", "\n", ". "]).map(lambda gap: gap.join(pieces))
)


@pytest.mark.parametrize("engine", installed())
@settings(deadline=None, max_examples=50)
@given(text=texts)
def test_every_engine_finds_what_the_definition_finds(engine, text):
    assert scanner(engine).scan(text) == scanner("everywhere").scan(text)


@pytest.mark.parametrize("engine", installed())
def test_engines_agree_on_long_and_random_text(engine):
    rng = random.Random(4)
    for _ in range(8):
        text = "".join(rng.choice(PIECES) + rng.choice(["", " ", "\n"]) for _ in range(60))
        assert scanner(engine).scan(text) == scanner("everywhere").scan(text)
        noise = "".join(rng.choice("0123456789 abAB@.:-/+()\n") for _ in range(1500))
        assert scanner(engine).scan(noise) == scanner("everywhere").scan(noise)


@settings(deadline=None, max_examples=50)
@given(parts=st.lists(texts, max_size=6))
def test_scanning_together_is_scanning_one_by_one(parts):
    auto = scanner("auto")
    assert auto.scan_many(parts) == [auto.scan(part) for part in parts]


@settings(deadline=None, max_examples=60)
@given(text=texts, cut=st.integers(min_value=0, max_value=400))
def test_findings_of_a_rule_do_not_depend_on_windows(text, cut):
    folded = scanner("re")._normaliser.fold(text).text
    cut = min(cut, len(folded))
    for rule in ALL_RULES:
        whole: list[Finding] = []
        halves: list[Finding] = []
        match_rule(rule, folded, start=0, stop=len(folded), end=len(folded), found=whole)
        reached = match_rule(rule, folded, start=0, stop=cut, end=cut + rule.lead, found=halves)
        match_rule(rule, folded, start=max(reached, cut), stop=len(folded), end=len(folded), found=halves)
        assert halves == whole


def test_real_text_gives_the_same_on_all_engines(real_data: Path):
    text = (real_data / "davidson_tweets.csv").read_text(encoding="utf-8")[:20_000]
    found = [scanner(engine).scan(text) for engine in installed()]
    assert len(found[0]) > 50
    assert all(other == found[0] for other in found)


@pytest.mark.parametrize("rule", [rule for rule in ALL_RULES if rule.digit], ids=lambda rule: rule.name)
def test_rules_that_are_looked_for_around_digits_have_one_near(rule):
    """By the parse tree: the trigger holds a digit and is short enough; or it goes before the digit of the
    exact match."""
    trigger = sre_parse.parse(rule.trigger)
    length, behind = trigger.getwidth()[1], behind_digit(trigger)
    if behind is None:
        exact = sre_parse.parse(rule.exact.pattern)
        assert behind_digit(exact) is not None
        length, behind = length + BEFORE_THE_DIGIT[rule.name], 0
    assert length <= BEFORE_DIGIT
    assert behind <= BEHIND_DIGIT


BEFORE_THE_DIGIT = {"street_prefix_behind": 24 + 3 * 26 + 10, "date_of_birth": 30, "random_value": 128 - 16}
"""Rules whose trigger may end before the first digit -> the most characters between (their patterns: a name
of four words and a sign for the number; a month and a day; what a random run begins with)."""


def behind_digit(pattern) -> int | None:
    """The most characters behind a digit that every match has; None where one may have none."""
    behind = 0
    for operation, argument in reversed(list(pattern)):
        if is_digit(operation, argument):
            return behind
        inner = None
        if operation is sre_parse.SUBPATTERN:
            inner = behind_digit(argument[3])
        elif operation is sre_parse.BRANCH:
            branches = [behind_digit(branch) for branch in argument[1]]
            inner = None if None in branches else max(branches)
        elif operation is sre_parse.ASSERT and argument[0] == 1:  # looks ahead
            inner = behind_digit(argument[1])
        elif operation is sre_parse.MAX_REPEAT and argument[0]:
            inner = behind_digit(argument[2])
        if inner is not None:
            return behind + inner
        behind += sre_parse.SubPattern(sre_parse.State(), [(operation, argument)]).getwidth()[1]
    return None


def is_digit(operation, argument) -> bool:
    digits = range(ord("0"), ord("9") + 1)
    if operation is sre_parse.LITERAL:
        return argument in digits
    return operation is sre_parse.IN and all(
        (kind is sre_parse.LITERAL and value in digits)
        or (kind is sre_parse.RANGE and value[0] in digits and value[1] in digits)
        for kind, value in argument
    )


@given(text=st.text(alphabet="0a\n", max_size=900))
def test_around_digits_nothing_is_left_out(text):
    text = text.replace("a", "a" * 60)
    near, begins, shifts = around_digits(text.encode())
    found = []
    for place, character in enumerate(near.decode()):
        if character == "0":
            original = place + shifts[bisect_left(begins, place + 1) - 1]
            ahead = min(original, BEFORE_DIGIT)
            around = near[place - ahead : place + 1 + BEHIND_DIGIT]
            assert around.decode() == text[original - ahead : original + 1 + BEHIND_DIGIT]
            found.append(original)
    assert found == [place for place, character in enumerate(text) if character == "0"]


def test_unknown_engine_is_named():
    with pytest.raises(ConfigError, match="nosuch"):
        Scanner("nosuch")


def test_settling_prefers_proof_then_length():
    rank = {"proof": 0, "shape": 3}
    shape, proof = Finding("phone", 0, 30, "shape"), Finding("iban", 5, 20, "proof")
    longer, apart = Finding("phone", 0, 9, "shape"), Finding("phone", 40, 44, "shape")
    assert settle([shape, proof, apart], rank=rank) == [proof, apart]
    assert settle([Finding("phone", 4, 9, "shape"), longer], rank=rank) == [longer]
    assert settle([], rank=rank) == []
    tied = [Finding("phone", 0, 9, "called"), Finding("phone", 0, 9, "named")]
    equal = {"called": 2, "named": 2}
    assert settle(tied, rank=equal) == settle(tied[::-1], rank=equal) == tied[:1]


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(texts, min_size=1, max_size=5), sizes=st.lists(st.integers(0, 700), max_size=40))
def test_streaming_is_scanning_the_whole(parts, sizes):
    text = "\n".join(parts * 3)
    cuts = [0, *sorted(min(size * place, len(text)) for place, size in enumerate(sizes)), len(text)]
    pieces = [text[a:b] for a, b in pairwise(cuts)]
    assert list(scanner("auto").scan_stream(pieces, overlap=700)) == scanner("auto").scan(text)


def test_stream_memory_does_not_grow():
    held = 0

    def pieces() -> Iterator[str]:
        for number in range(400):
            yield f"{number} mail ana{number}@example.org and some words. " * 40

    auto = scanner("auto")
    original = auto._normaliser.fold

    def fold(text: str):
        nonlocal held
        held = max(held, len(text))
        return original(text)

    auto._normaliser.fold = fold
    try:
        found = sum(1 for _ in auto.scan_stream(pieces(), overlap=4096))
    finally:
        auto._normaliser.fold = original
    assert found == 400 * 40
    assert held < 4 * 4096


@pytest.mark.slow
def test_pool_gives_the_same_in_the_same_order():
    posts = [post.text for post in planted_posts(4000, seed=2)]
    with ScanPool(2) as pool:
        assert pool.scan_many(posts) == scanner("auto").scan_many(posts)
        assert pool.scan_many([]) == []


def test_the_digest_of_the_rules_covers_checks_and_word_lists(monkeypatch):
    """One changed byte in any source that decides, another Unicode or numbering plan: another digest."""
    before = rules_digest(ALL_RULES)
    assert before == rules_digest(ALL_RULES)
    assert before != rules_digest(ALL_RULES[1:])
    sources = list(scan._sources())
    assert any(b"_is_possible" in source or b"def is_possible_international" in source for source in sources)
    for index in range(len(sources)):
        changed = [source + b"#" * (number == index) for number, source in enumerate(sources)]
        monkeypatch.setattr(scan, "_sources", lambda changed=changed: iter(changed))
        assert rules_digest(ALL_RULES) != before
    monkeypatch.setattr(scan, "_sources", lambda: iter(sources))
    monkeypatch.setattr(scan.phonenumbers, "__version__", "0")
    assert rules_digest(ALL_RULES) != before
