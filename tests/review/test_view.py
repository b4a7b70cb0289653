from __future__ import annotations

from collections import Counter
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.review.findings import Finding
from rsc.review.gate import RecordGate
from rsc.review.policy import Policy, default_policy, parse_policy, policy_to_toml
from rsc.review.redact import Replacement, is_mask, mask, redact
from rsc.review.view import ReviewText, Sample, SampleKeeper, in_context

ALLOWING = b"[actions]\nip_address = 'allow'\n[reasons]\nip_address = 'machines only'\n"


def test_allowed_values_are_masked_and_offsets_hold():
    result = RecordGate(parse_policy(ALLOWING)).pass_text("mail ana@example.org from 192.0.2.77 now")
    assert result.text == "mail [EMAIL] from 192.0.2.77 now"
    view = ReviewText(result.text, findings=result.findings)
    assert view.text == "mail [EMAIL] from [IP_ADDRESS 9-16] now"
    first, second = in_context(result.text, replacements=result.findings, record=3, field="text", width=7)
    assert first.line() == "mail \u27e6[EMAIL 9-16] -> [EMAIL]\u27e7 from ["
    assert "\u27e6[IP_ADDRESS 9-16]\u27e7" in second.line()
    assert (second.before, second.shown, second.after) == ("] from ", "[IP_ADDRESS 9-16]", " now")
    assert "192" not in str(first.to_dict()) + str(second.to_dict())


def test_control_characters_do_not_reach_the_terminal():
    result = RecordGate(default_policy()).pass_text("\x1b[31mred\r\nana@example.org\x07")
    line = in_context(result.text, replacements=result.findings, record=0, field="t")[0].line()
    assert line.isprintable()


HIDDEN = (
    "\u24d0\u24d3\u24d0\u24dc@example.com",  # circled
    "\U0001f130\U0001f133\U0001f130\U0001f13c@example.com",  # squared
    "\u249c\u249f\u249c\u24a8@example.com",  # in brackets
    "\u2464\u2462\u2465-\u2468\u24ea-\u2463\u2462\u2460\u2461",
    "\u092e\u094b\u0939\u0928\u0940@example.com",  # vowel signs
    "\u0915\u093c\u093f\u0932\u093e\u096f\u096f",  # nukta
    "\u0e40\u0e2d\u0e21\u0e35\u0e48123@example.com",
    "a\u0301d\u0327a\u0308m@example.com",  # combining marks
    "536-90-4432",
)


@pytest.mark.parametrize("value", HIDDEN)
@pytest.mark.parametrize("action", ["mask", "allow", "redact"])
def test_a_mask_and_a_review_show_nothing_of_the_match(value: str, action: str) -> None:
    policy = Policy(actions={"email": action}, reasons={"email": "for a test"})
    text = f"note {value} end"
    found = [Finding("email", 5, 5 + len(value), "email")]
    redacted, replacements = redact(text, findings=found, policy=policy, pseudonym_key=None)
    if action != "allow":
        instead = redacted.removeprefix("note ").removesuffix(" end")
        assert instead == "[EMAIL]" or is_mask(instead)
    (shown,) = in_context(redacted, replacements=replacements, record=0, field="text")
    assert shown.shape == mask(value, type_name="email")
    assert shown.shown in ("[EMAIL]", shown.shape)
    assert (shown.before, shown.after) == ("note ", " end")


@given(st.text(min_size=1), st.integers(0, 4))
def test_a_mask_is_made_of_its_type_and_length_alone(value: str, last: int) -> None:
    shown = mask(value, type_name="credit_card", last=last)
    assert is_mask(shown)
    ends = "".join(c for c in value if c.isascii() and c.isalnum())
    kept = shown.partition("..")[2].rstrip("]")
    assert ends.endswith(kept)
    assert len(kept) <= min(last, len(ends) // 4)
    assert shown.partition(" ..")[0].rstrip("]") == mask("x" * len(value), type_name="credit_card").rstrip(
        "]"
    )


def test_a_policy_may_have_the_last_characters_shown() -> None:
    policy = parse_policy(b"default_action = 'mask'\n[mask_last]\ncredit_card = 4\n")
    text = RecordGate(policy).pass_text("card 4532 0151 1283 0366, ana@example.org").text
    assert text == "card [CREDIT_CARD 17-32 ..0366], [EMAIL 9-16]"
    assert parse_policy(policy_to_toml(policy)).mask_last == {"credit_card": 4}


MISSED = (
    *("tel 212-555-0134", "\u2464\u2462\u2465\u2468\u24ea", "\uff11\uff12\uff13"),
    *("kim@host", "kim\uff20host", "\u0967\u0968"),
)


@pytest.mark.parametrize("missed", MISSED)
def test_the_surroundings_show_that_something_was_missed_and_not_what(missed: str) -> None:
    old = Replacement("email", 3, 10, "email", "redact", 3, 10, "\u24d0@x.xx")  # a shape of an older version
    (shown,) = in_context(f"ok [EMAIL] {missed}", replacements=[old], record=0, field="text")
    assert shown.shape == "[EMAIL 5-8]"
    assert not any(c.isdigit() and c != "0" for c in normalize("NFKC", shown.after))
    assert "kim" not in shown.after


def test_older_shapes_and_broken_places_are_masked_again() -> None:
    one = Replacement("email", 0, 3, "email", "allow", 0, 7, "")
    two = Replacement("email", 0, 3, "email", "allow", 5, 9, "")  # overlaps: a damaged file
    assert ReviewText("a@b.org more", findings=[one, two]).text == "[EMAIL 5-8] more"


def sample(number: int, name: str = "email") -> Sample:
    return Sample(number, "text", name, "r", "redact", "", "x@x.xx", "[EMAIL]", "")


def test_samples_are_bounded_seeded_and_fair():
    drawn: Counter[int] = Counter()
    for seed in range(400):
        keeper = SampleKeeper(per_type=2, seed=seed)
        for number in range(10):
            keeper.add(sample(number))
        keeper.add(sample(1, "phone"))
        kept = keeper.samples()
        assert [len(kept[name]) for name in ("email", "phone")] == [2, 1]
        drawn.update(s.record for s in kept["email"])
    assert min(drawn.values()) > 40  # 80 expected, standard deviation 8
    assert max(drawn.values()) < 120
