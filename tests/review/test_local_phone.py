"""With a region, numbers are found as people write them at home; what only looks like them is not."""

from __future__ import annotations

import pytest

from rsc.errors import ConfigError
from rsc.review.explain import explain
from rsc.review.gate import RecordGate
from rsc.review.policy import Policy, parse_policy, policy_to_toml
from rsc.review.scanner.scanner import Scanner

KEY = bytes(range(32))
LOCAL = {
    "US": ["2125550134", "416-967-1111", "(212) 555 0134"],
    "GB": ["02079460018", "020 7946 0018", "07700 900123"],
    "DE": ["015123456789", "0151 23456789", "030 23125600"],
    "FR": ["0612345678", "06 12 34 56 78"],
    "ES": ["612345678", "612 345 678", "91 123 45 67"],
    "PL": ["512345678", "512 345 678", "22 123 45 67"],
    "SG": ["9123 4567", "6123-4567"],
    "NO": ["91 23 45 67", "912 34 567"],
    "HU": ["06 1 234 5678", "06 20 123 4567"],
    "BY": ["8 029 123-45-67"],
    "RU": ["8 912 345-67-89", "89123456789"],
    "AR": ["011 15-2345-6789", "11 2345-6789"],
    "BR": ["11 91234-5678", "11912345678"],
    "IN": ["98765 43210", "9876543210"],
    "CN": ["139 1234 5678", "13912345678"],
    "JP": ["090-1234-5678", "03-1234-5678"],
    "MX": ["55 1234 5678"],
    "TH": ["081-234-5678"],
}
LOOK_ALIKES = [
    "order 9123 4567", "invoice no. 2125550134", "2024-01-02 12:33", "1700000000", "v 1.2.3.4567",
    "550e8400-e29b-41d4-a716-446655440000", "12.345.678", "1,234,567", "3.14159265", "0000000000",
    "9 8 7 6 5 4 3 2 1", "12 345 678 EUR", "61234567 km", "#2125550134", "$212 555 013", "0x2125550134",
]  # fmt: skip


def found(text: str, region: str) -> list[str]:
    gate = RecordGate(Policy(region=region))
    return [text[f.start : f.end] for f in gate.pass_text(text).findings if f.type == "phone"]


@pytest.mark.parametrize(("region", "number"), [(r, n) for r, numbers in LOCAL.items() for n in numbers])
@pytest.mark.parametrize("frame", ["{}", "see {} there", "a,{},b", "<td>{}</td>", "\u7535{}\u3002"])
def test_a_local_number_is_found_whole(region, number, frame):
    assert found(frame.format(number), region) == [number]


@pytest.mark.parametrize("region", LOCAL)
@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_only_looks_like_a_local_number_stays(region, text):
    assert found(text, region) == found(text, "")


def test_each_record_is_read_in_its_own_country_and_one_person_has_one_code():
    rules = "region_field = 'country'\nregion = 'GB'\ndefault_action = 'pseudonymise'"
    gate = RecordGate(parse_policy(rules.encode()), pseudonym_key=KEY)
    records = [
        {"country": "SG", "text": "mine is 9123 4567"},
        {"country": "en-SG", "text": "mine is +65 9123 4567"},
        {"country": "", "text": "mine is 9123 4567"},
        {"country": "", "text": "mine is 020 7946 0018"},
        {"country": "US", "text": "mine is +44 20 7946 0018"},
        {"country": "US", "text": "mine is 207-946-0018"},
    ]
    texts = [gated.record["text"] for gated in gate.pass_records(records, fields=("country", "text"))]
    assert texts[0] == texts[1] != texts[2]
    assert texts[3] == texts[4] != texts[5]
    alone = [gate.pass_record(record, fields=("country", "text")).record["text"] for record in records]
    assert alone == texts


def test_a_local_number_gives_way_to_what_is_no_telephone():
    text = "card 4111 1111 1111 1111, iban GB82 WEST 1234 5698 7654 32, 192.168.10.44, born 07.03.1984"
    kinds = [f.type for f in RecordGate(Policy(region="DE")).pass_text(text).findings]
    assert kinds == [f.type for f in Scanner().scan(text)]


@pytest.mark.parametrize("region", ["de", "XX", "Germany", "001", "ZZ"])
def test_a_region_that_is_no_country_is_refused(region):
    with pytest.raises(ConfigError, match="no country code"):
        parse_policy(f"region = '{region}'".encode())


def test_a_policy_keeps_its_region_and_says_it():
    policy = Policy(region="DE", region_field="country")
    again = parse_policy(policy_to_toml(policy))
    assert (again.region, again.region_field) == ("DE", "country")
    assert any("country that the field country names, else DE" in sentence for sentence in explain(policy))
