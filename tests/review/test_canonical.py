"""One person in many spellings has one code; two persons have two."""

from __future__ import annotations

import re
from itertools import product

import pytest

from rsc.review.canonical import canonical
from rsc.review.phone_number import region_in
from rsc.review.redact import pseudonym, pseudonyms
from rsc.review.scanner.scanner import Scanner

KEY = bytes(range(32))
SPELLINGS = {
    "phone": [
        ["+1 212 555 0134", "212-555-0134", "(212) 555-0134 x12", "1-212-555-0134", "001-212-555-0134",
         "212.555.0134", "+12125550134", "tel:+1-212-555-0134"],
        ["+44 20 7946 0018", "020 7946 0018", "+44 (0)20 7946 0018", "0044 20 7946 0018", "(020) 7946 0018"],
        ["+49 30 23125 600", "030/23125600", "030 23125-600", "+49 (0)30 23125 600"],
        ["+33 1 84 17 61 18", "01 84 17 61 18", "01.84.17.61.18", "0033184176118"],
        ["+34 612 34 56 78", "612 345 678", "612 34 56 78"],
        ["+7 912 345-67-89", "8 912 345-67-89", "8 (912) 345-67-89"],
    ],
    "email": [
        ["ana.kim@example.org", "Ana.Kim@EXAMPLE.org", "ana.kim [at] example [dot] org",
         "ana.kim at example dot org",
         "ana.kim%40example.org", "mailto:ana.kim@example.org", "ana.kim &#64; example.org",
         '"ana.kim"@example.org'],
        ["ana@b\u00fccher.example", "ana@xn--bcher-kva.example", "ANA@B\u00dcCHER.EXAMPLE"],
    ],
    "ip_address": [
        ["2001:db8::1", "2001:0db8:0000:0000:0000:0000:0000:0001", "2001:DB8:0::1", "2001:db8::1%eth0"],
        ["192.0.2.7", "::ffff:192.0.2.7", "::ffff:c000:207"],
    ],
    "handle": [["@ana_kim88", "ana_kim88", "Ana_Kim88", "https://twitter.com/ana_kim88", "t.me/ana_kim88?x=1",
                "https://www.youtube.com/@ana_kim88/"]],
    "date_of_birth": [
        ["7 March 1984", "1984-03-07", "March 7, 1984", "7th of March 1984", "07/03/1984", "07.03.84",
         "19840307", "7 mars 1984", "7. M\u00e4rz 1984", "7 de marzo de 1984", "7 marca 1984",
         "1984-03-07T00:00:00Z"],
        ["25 December 1990", "12/25/1990", "25.12.1990", "25 d\u00e9cembre 1990", "25 grudnia 1990"],
    ],
    "street_address": [
        ["12 Oak Street, Springfield, IL 62704", "12 Oak St., Springfield IL 62704",
         "12 OAK ST\nSPRINGFIELD, IL 62704"],
        ["Hauptstra\u00dfe 12, 50667 K\u00f6ln", "Hauptstr. 12, 50667 K\u00f6ln",
         "hauptstrasse 12 50667 koln"],
        ["12 Elm Ave Apt 4", "12 Elm Avenue, Apartment 4"],
    ],
    "coordinates": [["48.85837, 2.29448", "48.85837 N, 2.29448 E", "48\u00b051'30.1\"N 2\u00b017'40.1\"E"]],
    "credit_card": [["4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111"]],
    "iban": [["GB82 WEST 1234 5698 7654 32", "gb82west12345698765432"]],
    "mac_address": [["00:1A:2b:3c:4d:5e", "001a.2b3c.4d5e", "00-1A-2B-3C-4D-5E"]],
    "ssn": [["536-90-4399", "536904399", "536 90 4399"]],
    "national_id": [["390.533.447-05", "39053344705"], ["12345678Z", "12345678-z"]],
}  # fmt: skip


@pytest.mark.parametrize("kind", SPELLINGS)
def test_spellings_of_one_agree_and_those_of_two_differ(kind):
    codes = [{pseudonym(value, type_name=kind, key=KEY) for value in group} for group in SPELLINGS[kind]]
    forms = [{canonical(value, type_name=kind) for value in group} for group in SPELLINGS[kind]]
    assert [len(group) for group in codes] == [1] * len(codes), forms
    assert len(set.union(*codes)) == len(codes)


@pytest.mark.parametrize("kind", [*SPELLINGS, "secret", "crypto_wallet", "id_document", "person"])
@pytest.mark.parametrize(
    "value", ["", " ", "x", "0", "+", "@", "\u00fc", "12", "Zm9v", "xn--", "a@xn--\u00fc.b", "::", "1/2/3/4"]
)
def test_whatever_is_no_value_of_its_type_still_has_a_form(kind, value):
    assert isinstance(canonical(value, type_name=kind), str)


def test_what_is_found_in_text_has_the_code_of_the_value_alone():
    text = "call (212) 555-0134 x12 or +44 (0)20 7946 0018; youtube.com/@ana_kim88; born on March 7, 1984"
    codes = {
        (f.type, pseudonym(text[f.start : f.end], type_name=f.type, key=KEY)) for f in Scanner().scan(text)
    }
    asked = [
        ("phone", "+12125550134"),
        ("phone", "020 7946 0018"),
        ("handle", "@ana_kim88"),
        ("date_of_birth", "7.3.1984"),
    ]
    assert codes == {(kind, pseudonym(value, type_name=kind, key=KEY)) for kind, value in asked}


def test_a_search_also_asks_for_the_codes_of_older_versions():
    new, *_, old = pseudonyms("+1 212 555 0134", type_name="phone", key=KEY)
    assert (new, old) == (pseudonym("2125550134", type_name="phone", key=KEY), "moq5bosmcbqoipkm")


IN_REGION = {
    "GB": ["020 7946 0018", "+44 (0)20 7946 0018", "0044 20 7946 0018", "(020) 7946-0018", "02079460018"],
    "DE": ["030 23125 600", "+49 30 23125600", "0049-30-23125600", "030/23125-600"],
    "FR": ["06 12 34 56 78", "+33 6 12 34 56 78", "0612345678", "+33 (0) 6.12.34.56.78"],
    "IT": ["06 698 12345", "+39 06 69812345", "0039 06 69812345"],
    "HU": ["06 1 234 5678", "+36 1 234 5678", "(06-1) 234-5678"],
    "BY": ["8 029 123-45-67", "+375 29 123 45 67", "80291234567"],
    "RU": ["8 (912) 345-67-89", "+7 912 345-67-89", "89123456789"],
    "AR": ["011 15-2345-6789", "+54 9 11 2345-6789"],
    "MX": ["55 1234 5678", "01 55 1234 5678", "044 55 1234 5678", "+52 1 55 1234 5678", "+52 55 1234 5678"],
    "AU": ["(02) 5550 1234", "+61 2 5550 1234", "0061 2 5550 1234"],
    "US": ["(212) 555-0134 x12", "1-212-555-0134", "+1 212 555 0134", "011 1 212 555 0134"],
    "SG": ["9123 4567", "+65 9123 4567", "91234567"],
    "PL": ["512 345 678", "+48 512-345-678", "512345678"],
    "IN": ["98765 43210", "098765 43210", "+91-98765-43210"],
    "BR": ["(11) 91234-5678", "0 11 91234-5678", "+55 11 91234 5678"],
    "JP": ["090-1234-5678", "+81 90 1234 5678"],
}


@pytest.mark.parametrize("region", IN_REGION)
def test_in_a_region_every_spelling_of_a_number_has_its_e164_form(region):
    forms = {canonical(number, type_name="phone", region=region) for number in IN_REGION[region]}
    assert len(forms) == 1, forms
    assert re.fullmatch(r"\+[1-9][0-9]{7,14}", forms.pop())


@pytest.mark.parametrize("region", IN_REGION)
def test_a_search_by_any_spelling_asks_for_the_codes_of_data_with_and_without_a_region(region):
    for stored, asked in product(IN_REGION[region], IN_REGION[region]):
        codes = pseudonyms(asked, type_name="phone", key=KEY)
        assert pseudonym(stored, type_name="phone", key=KEY, region=region) in codes, (stored, asked)


def test_one_national_number_of_two_regions_is_two_numbers():
    british, american = (canonical("207 946 0018", type_name="phone", region=name) for name in ("GB", "US"))
    assert (british, american) == ("+442079460018", "+12079460018")


@pytest.mark.parametrize(
    ("value", "region"),
    [("DE", "DE"), (" gb ", "GB"), ("de-AT", "AT"), ("pt_BR.UTF-8", "BR"), ("XX", ""), ("", ""), (None, ""),
     ("Germany", ""), (49, ""), ("001", "")],
)  # fmt: skip
def test_a_region_is_read_from_codes_of_countries_and_locales(value, region):
    assert region_in(value) == region
