"""The table of `rsc verify` fits a terminal whatever its rows hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rsc.cli.audit import promises_text
from rsc.release.verify.promise import Breach, Promise, judge
from rsc.release.verify.verify import CHECKS

NAMES = [check.__name__.replace("_", " ") for check in CHECKS]
WORDS = st.text(st.characters(codec="utf-8"), max_size=400)


@given(st.lists(st.tuples(st.sampled_from(NAMES), WORDS, WORDS), min_size=1, max_size=5))
def test_no_line_is_wider_than_100_columns(rows: list[tuple[str, str, str]]) -> None:
    promises = [judge(name, [Breach(told, data=data)], told="") for name, told, data in rows]
    lines = promises_text(promises).splitlines()
    assert max(map(len, lines)) <= 100


def test_what_does_not_fit_goes_on_below_and_is_whole() -> None:
    told = " ".join(f"word{number}" for number in range(60))
    text = promises_text([Promise("no plaintext at rest", "broken", told, data=("posts", "notes"))])
    words = text.partition("\n")[2].split()
    assert words[:6] == ["no", "plaintext", "at", "rest", "broken", "-"]
    assert words[6:] == ["posts,", "notes:", *told.split()]
