from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.errors import ConfigError, ReviewRejected
from rsc.review.k_anonymity import assess_table, coarsenings
from rsc.review.policy import Tables

# Machanavajjhala et al. 2007, tables 1 to 3: the 4-anonymous inpatient table and its failing group of cancer.
INPATIENTS = [
    *({"zip": "130**", "age": "<30", "illness": illness} for illness in ("heart", "heart", "viral", "viral")),
    *(
        {"zip": "1485*", "age": ">=40", "illness": illness}
        for illness in ("cancer", "heart", "viral", "viral")
    ),
    *({"zip": "130**", "age": "3*", "illness": "cancer"} for _ in range(4)),
]


def rules(**changes) -> Tables:
    return Tables(quasi_identifiers=("zip", "age"), **changes)


def test_published_example_is_4_anonymous_but_not_diverse():
    assert assess_table(INPATIENTS, rules=rules(k=4)).holds
    assert not assess_table(INPATIENTS, rules=rules(k=5)).holds
    diverse = assess_table(INPATIENTS, rules=rules(k=4, l=2, sensitive=("illness",)))
    assert not diverse.holds
    assert diverse.diversity == {"illness": 1}
    assert (diverse.groups, diverse.smallest_group, diverse.rows_below_k) == (3, 4, 0)


def people(count: int, *, seed: int = 1) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [
        {"zip": f"0{rng.randint(1000, 1999)}", "age": str(rng.randint(18, 90)),
        "born": f"19{rng.randint(30, 99)}-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}"}
        for _ in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [("zip", "age"), ("born",), ("zip", "age", "born")])
def test_following_the_suggestion_makes_the_table_hold(columns):
    rows = people(600)
    asked = Tables(quasi_identifiers=columns, k=5)
    report = assess_table(rows, rules=asked)
    assert not report.holds
    steps = {}
    for name, how in report.suggestion.columns.items():
        steps[name] = next(c.apply for c in coarsenings([row[name] for row in rows]) if c.how == how)
    coarse = [{name: steps.get(name, lambda v: v)(row[name]) for name in columns} for row in rows]
    sizes = Counter(tuple(row.values()) for row in coarse)
    kept = [row for row in coarse if sizes[tuple(row.values())] >= 5]
    assert len(rows) - len(kept) == report.suggestion.rows_to_drop <= 6
    assert assess_table(kept, rules=asked).holds


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40), st.integers(1, 4))
def test_counts_agree_with_counting_by_hand(pairs, k):
    rows = [{"zip": a, "age": b} for a, b in pairs]
    report = assess_table(rows, rules=rules(k=k))
    sizes = Counter(pairs)
    assert report.rows_below_k == sum(1 for pair in pairs if sizes[pair] < k)
    assert report.holds == all(size >= k for size in sizes.values())


def test_refusal_names_the_step_and_no_value():
    rows = [*people(300), {"zip": "99999", "age": "99", "born": "1901-01-01"}]
    with pytest.raises(ReviewRejected) as caught:
        assess_table(rows, rules=rules(k=5)).require(data="clinic")
    assert "coarsen zip: first" in caught.value.hint
    assert "99999" not in str(caught.value)


def test_a_declared_column_that_is_absent_is_named():
    with pytest.raises(ConfigError, match="'age'"):
        assess_table([{"zip": 1}], rules=rules())
