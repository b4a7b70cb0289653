from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.review.scanner.normalise import Normaliser


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("plain & simple", "plain & simple"),
        ("a&#64;b&period;c &lt;x&gt;", "a@b.c <x>"),
        ("&#x40; &nosuchentity;", "@ &nosuchentity;"),
        ("\uff11\uff12\uff0b", "12+"),
        ("\u0661\u0662\u0663 \u0967", "123 1"),
        ("4\u200b1\u00ad1\u20601", "4111"),
        ("caf\u00e9 cafe\u0301", "cafe cafe"),
        ("\ufb01x \u2026 \U0001d7d8", "fix ... 0"),
        ("5\u00a05\u20125\u20145", "5 5-5-5"),
        ("\u4e2d\U0001f600\u0436", "\xfe\xfe\xff"),
        ("\u0422\u0435\u043b. 5", "tel. 5"),
        ("\u624b\u673a13", " tel 13"),
        ("48\u00b051\u203230\u2033N", "48\xb051'30\"N"),
    ],
)
def test_folding(text, folded):
    assert Normaliser().fold(text).text == folded


@given(
    st.text(alphabet=st.sampled_from("ab1@. &#6;4\u200b\u00e9\ufb01\uff11\u2026\U0001f600\u0301\x1a\u4e2d"))
)
def test_every_folded_character_leads_back_to_its_origin(text):
    normaliser = Normaliser()
    folded = normaliser.fold(text)
    previous = 0
    for position in range(len(folded.text)):
        start, end = folded.original(start=position, end=position + 1)
        assert 0 <= previous <= start < end <= len(text)
        assert folded.text[position] in normaliser.fold(text[start:end]).text
        previous = start


@given(st.text())
def test_any_text_folds_to_latin_1(text):
    folded = Normaliser().fold(text)
    folded.text.encode("latin-1")
    if folded.text:
        assert folded.original(start=0, end=len(folded.text))[1] <= len(text)


@given(st.text(alphabet=st.characters(max_codepoint=127, exclude_characters="&%\\")))
def test_ascii_is_not_copied(text):
    assert Normaliser().fold(text).text is text
