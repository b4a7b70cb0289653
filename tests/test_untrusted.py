"""Text of untrusted code on a screen."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.cli.output import emit, say, table
from rsc.untrusted import printable


@given(st.text(st.characters(blacklist_categories=())))
def test_nothing_that_moves_a_cursor_or_turns_the_writing_is_printed(text: str) -> None:
    shown = printable(text, keep="")
    assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(letter) for letter in shown} & {
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
    }
    shown.encode()
    assert printable(shown, keep="") == shown


def test_every_way_to_the_screen_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    bad = "\x1b]0;t\x07\x9b31m\u202e\ud800"
    emit({"x": bad}, as_json=False, text=f"{bad}\n{table([[bad + chr(10)]], header=['x'])}")
    emit({"x": bad}, as_json=True, text="")
    say(bad)
    out, err = capsys.readouterr()
    for letter in (*bad.replace("]0;t", "").replace("31m", ""),):
        assert letter not in out + err
