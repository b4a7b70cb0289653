from __future__ import annotations

import json

import pytest

from rsc.errors import ConfigError
from rsc.review.benchmark.synthetic import planted_posts
from rsc.review.gate import RecordGate
from rsc.review.policy import Policy, default_policy, parse_policy
from rsc.review.redact import pseudonym
from rsc.review.report import report_from_json
from rsc.review.scanner.scanner import Scanner

KEY = bytes(range(32))


def gate(lines: str = "", **options) -> RecordGate:
    return RecordGate(parse_policy(lines.encode()), **options)


def test_redacted_spans_lead_both_ways():
    text = "write to ana@example.org or call +1 312 555 0143 today"
    result = RecordGate(default_policy()).pass_text(text)
    assert result.text == "write to [EMAIL] or call [PHONE] today"
    assert [text[f.start : f.end] for f in result.findings] == ["ana@example.org", "+1 312 555 0143"]
    assert [result.text[f.redacted_start : f.redacted_end] for f in result.findings] == ["[EMAIL]", "[PHONE]"]


def test_clean_text_is_the_same_object():
    text = "nothing to see here"
    assert RecordGate(default_policy()).pass_text(text).text is text


@pytest.mark.parametrize(
    ("action", "expected"),
    [("redact", "to [EMAIL]."), ("mask", "to [EMAIL 9-16]."), ("allow", "to ana7@example.org.")],
)
def test_replacing_actions(action, expected):
    result = gate(f"[actions]\nemail = '{action}'\n[reasons]\nemail = 'r'").pass_text("to ana7@example.org.")
    assert (result.text, result.findings[0].action) == (expected, action)


@pytest.mark.parametrize("action", ["drop", "reject"])
def test_refusing_actions_keep_no_text(action):
    gated = gate(f"[actions]\nemail = '{action}'")
    result = gated.pass_text("to ana@example.org")
    assert result.text is None
    assert (result.dropped, result.rejected) == (action == "drop", action == "reject")
    report = gated.report()
    assert (report.records, report.records_dropped, report.records_rejected) == (
        1,
        action == "drop",
        action == "reject",
    )


def test_pseudonyms_are_consistent_and_keyed():
    gated = gate("[actions]\nemail = 'pseudonymise'", pseudonym_key=KEY)
    plain, shouted, spelled, other = (
        gated.pass_text(text).text
        for text in ("ana@example.org", "ANA@EXAMPLE.ORG", "ana [at] example [dot] org", "ben@example.org")
    )
    assert plain == shouted == spelled != other
    assert plain != f"[EMAIL:{pseudonym('ana@example.org', type_name='email', key=bytes(32))}]"


@pytest.mark.parametrize(
    ("type_name", "spellings"),
    [
        ("email", ["ana@example.org", "ana%40example.org", "ana&#64;example.org", "Ana&commat;EXAMPLE.org"]),
        ("national_id", ["12345678909", "123.456.789-09", "123 456 789 09"]),
        ("iban", ["DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "de89-3704-0044-0532-0130-00"]),
        ("mac_address", ["aa:bb:cc:dd:ee:01", "AA-BB-CC-DD-EE-01", "aabb.ccdd.ee01"]),
        ("phone", ["+1 312 555 0143", "+1-312-555-0143", "\uff0b1 312 555 0143"]),
        ("person", ["Zo\u00eb  Fox", "zoe\u0308 fox", "Zoe Fox"]),
        ("person", ["\u0418\u0432\u0430\u043d", "\u0438\u0432\u0430\u043d"]),
    ],
)
def test_one_code_for_one_value_however_it_is_spelled(type_name, spellings):
    assert len({pseudonym(value, type_name=type_name, key=KEY) for value in spellings}) == 1


def test_names_of_other_scripts_have_codes_of_their_own():
    names = ("\u0418\u0432\u0430\u043d", "\u041e\u043b\u0435\u0433", "\u674e\u660e", "\u738b\u82b3")
    assert len({pseudonym(name, type_name="person", key=KEY) for name in names}) == 4


def test_pseudonymise_without_key_refuses():
    with pytest.raises(ConfigError, match="needs a pseudonym key"):
        gate("[actions]\nemail = 'pseudonymise'").pass_text("ana@example.org")


def test_records_keep_other_fields_and_count_by_field():
    gated = RecordGate(default_policy())
    record = {"title": "ana@example.org", "body": "call +1 312 555 0143", "n": 3, "empty": None}
    result = gated.pass_record(record, fields=("title", "body", "empty", "absent"))
    assert result.record == {"title": "[EMAIL]", "body": "call [PHONE]", "n": 3, "empty": None}
    assert record["title"] == "ana@example.org"
    report = gated.report(notes=("hello",))
    assert report.counts == {"title": {"email": {"redact": 1}}, "body": {"phone": {"redact": 1}}}
    assert report.findings == 2
    assert report_from_json(report.to_json()) == report
    assert "names of persons" in report.not_looked_for


def test_report_and_errors_hold_no_personal_text():
    gated = gate("single_person = true\nrequired_approvers = 1")
    gated.pass_record({"body": "ana@example.org 4111 1111 1111 1111"}, fields=("body",))
    content = gated.report().to_json()
    assert b"ana" not in content
    assert b"4111" not in content
    assert gated.report().single_person


def test_nothing_planted_survives_redaction():
    gated = RecordGate(Policy(), scanner=Scanner("re"))
    for post in planted_posts(400, seed=5, planted_share=0.9):
        clean = gated.pass_text(post.text).text
        for start, end, name in post.spans:
            if name != "national_id":
                assert post.text[start:end] not in clean


def test_a_report_written_before_there_were_recognisers_is_read():
    facts = json.loads(RecordGate(default_policy()).report().to_json())
    del facts["recognisers"], facts["media"], facts["notes"]
    old = report_from_json(json.dumps(facts).encode())
    assert (old.recognisers, old.media, old.notes) == ((), {}, ())
