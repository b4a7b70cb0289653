from __future__ import annotations

from collections import Counter

from rsc.review.gate import Gate
from rsc.review.policy import default_policy, parse_policy
from rsc.review.view import Sample, SampleKeeper, in_context, masked_text

ALLOWING = b"[actions]\nip_address = 'allow'\n[reasons]\nip_address = 'machines only'\n"


def test_allowed_values_are_masked_and_offsets_hold():
    result = Gate(parse_policy(ALLOWING)).pass_text("mail ana@example.org from 192.0.2.77 now")
    assert result.text == "mail [EMAIL] from 192.0.2.77 now"
    assert masked_text(result.text, replacements=result.findings) == "mail [EMAIL] from 000.0.0.00 now"
    first, second = in_context(result.text, replacements=result.findings, record=3, field="text", width=7)
    assert first.line() == "mail \u27e6xxx@xxxxxxx.xxx -> [EMAIL]\u27e7 from 0"
    assert "\u27e6000.0.0.00\u27e7" in second.line()
    assert (second.before, second.shown, second.after) == ("] from ", "000.0.0.00", " now")
    assert "192" not in str(first.to_dict()) + str(second.to_dict())


def test_control_characters_do_not_reach_the_terminal():
    result = Gate(default_policy()).pass_text("\x1b[31mred\r\nana@example.org\x07")
    line = in_context(result.text, replacements=result.findings, record=0, field="t")[0].line()
    assert line.isprintable()


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
