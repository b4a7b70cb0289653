"""Forms that people write, taken from standards and numbering plans, and forms that only look like them."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsc.review.scanner.scanner import Scanner


@cache
def scanner() -> Scanner:
    return Scanner()


def found(text: str) -> list[tuple[str, str]]:
    return [(f.type, text[f.start : f.end]) for f in scanner().scan(text)]


EMAILS = [
    "simple@example.com", "very.common@example.com", "x@example.co.uk", "user+tag@sub.example.org",
    "o'brien@example.ie",
    "user%example.com@example.org", '"john..doe"@example.org', "user@[192.0.2.1]", "j@xn--bcher-kva.example",
    "\u03b4\u03bf\u03ba@\u03c0\u03b1\u03c1.gr", "UPPER.CASE@EXAMPLE.COM", "first_last@example.museum",
    "a@b.cd",
    "jane [at] example [dot] org", "jane(at)example.org", "jane at example dot com",
    "jane dot doe at example dot co dot uk",
    "jane <at> mail <dot> example <dot> com", "jane%40example.com",
]  # fmt: skip


@pytest.mark.parametrize("value", EMAILS)
def test_email(value):
    assert found(f"write to {value} today") == [("email", value)]


@pytest.mark.parametrize(
    "text",
    ["raised at runtime. dot files", "meet at noon dot", "icon@2x.png", "lodash@4.17.21",
    "git@github.com:a/b.git",
     "a@b", "price @ 5.00", "foo@", "look at the dot com bubble"],
)  # fmt: skip
def test_not_an_email(text):
    assert "email" not in [name for name, _ in found(text)]


PHONES = [
    "+1 415 555 2671", "+1 (415) 555-2671", "+14155552671", "001-415-555-2671", "(415) 555-2671",
    "415-555-2671", "415.555.2671",
    "1-800-555-0199", "(212) 555-0187 x12", "212-555-0187 ext. 9", "+44 20 7946 0018",
    "+44 (0)20 7946 0018", "020 7946 0018",
    "07700 900123", "+49 30 23125 600", "030 23125-600", "030/23125600", "+33 1 84 17 61 18",
    "01 84 17 61 18", "01.84.17.61.18",
    "+34 612 34 56 78", "612 34 56 78", "+39 06 1234 5678", "+41 44 668 18 00", "044 668 18 00",
    "+31 20 794 0018", "+46 8 123 456 78",
    "+47 22 12 34 56", "22 12 34 56", "+81 3-5555-0123", "03-5555-0123", "+86 138 0013 8000",
    "+91 98765 43210", "+55 11 91234-5678",
    "+61 2 5550 1234", "(02) 5550 1234", "+971 50 123 4567", "+27 11 978 5313", "0044 20 7946 0018",
    "+7 912 345-67-89",
]  # fmt: skip


@pytest.mark.parametrize("value", PHONES)
def test_phone_without_a_word(value):
    assert found(f"it is {value}, thanks") == [("phone", value)]


@pytest.mark.parametrize(
    "lead", ["tel:", "Call me on", "mobile", "Handy:", "T\u00e9l\u00e9phone :", "phone number is"]
)
@pytest.mark.parametrize("value", ["5551234567", "2079460018", "612 345 678", "555-0123"])
def test_phone_with_a_word(lead, value):
    assert found(f"{lead} {value}.") == [("phone", value)]


OTHERS = [
    ("credit_card", "4111 1111 1111 1111"), ("credit_card", "5555-5555-5555-4444"), ("credit_card",
    "378282246310005"),
    ("credit_card", "6011111111111117"), ("credit_card", "30569309025904"), ("credit_card",
    "3530111333300000"),
    ("credit_card", "\uff14\uff11\uff11\uff11 1111 1111 1111"), ("credit_card",
    "4111\u200b1111\u200b1111\u200b1111"),
    ("iban", "GB82 WEST 1234 5698 7654 32"), ("iban", "DE89370400440532013000"), ("iban",
    "NL91 ABNA 0417 1643 00"),
    ("iban", "MT84MALT011000012345MTLCAST001S"), ("iban", "gb82west12345698765432"), ("iban",
    "NO93 8601 1117 947"),
    ("ssn", "536-90-4399"), ("ssn", "536 90 4399"), ("ssn", "912-70-1234"),
    ("ip_address", "192.168.10.44"), ("ip_address", "203.0.113.195"), ("ip_address",
    "2001:db8:85a3::8a2e:370:7334"),
    ("ip_address", "fe80::1ff:fe23:4567:890a%eth0"), ("ip_address", "::ffff:192.0.2.128"),
    ("mac_address", "00:1A:2b:3c:4d:5e"), ("mac_address", "00-1A-2B-3C-4D-5E"), ("mac_address",
    "001a.2b3c.4d5e"),
    ("crypto_wallet", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"), ("crypto_wallet",
    "3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy"),
    ("crypto_wallet", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
    ("crypto_wallet", "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0"),
    ("crypto_wallet", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
    ("coordinates", "48.85837, 2.29448"), ("coordinates", "51\u00b028'38\"N 0\u00b000'00\"W"),
    ("coordinates", "40.6892\u00b0 N, 74.0445\u00b0 W"),
    ("street_address", "221B Baker Street"), ("street_address",
    "1600 Pennsylvania Ave NW, Washington, DC 20500"),
    ("street_address", "10 Downing Street, London SW1A 2AA"), ("street_address", "Unter den Linden Str. 77") ,
    ("street_address", "Hauptstra\u00dfe 12a"), ("street_address", "12 rue de la Paix, 75002 Paris"),
    ("street_address", "Calle de Alcal\u00e1 45"),
    ("street_address", "P.O. Box 1234"),
    ("secret", "AKIAIOSFODNN7EXAMPLE"), ("secret", "ghp_" + "a1B2" * 9), ("secret",
    "xoxb-123456789012-abcdefghijkl"),
    ("secret", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"), ("secret", "glpat-abcdefghij0123456789"),
    ("handle", "@jane_doe42"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), OTHERS)
def test_other_types(kind, value):
    name, text = found(f"see {value} there")[0]
    assert name == kind
    assert value.endswith(text)
    assert len(text) > len(value) / 2


IN_CONTEXT = [
    ("date_of_birth", "born on {}", "12 March 1984"), ("date_of_birth", "DOB: {}", "03/12/84"),
    ("date_of_birth", "n\u00e9 le {}", "12/03/1984"),
    ("date_of_birth", "geb. am {}", "12.03.1984"), ("date_of_birth", "Date of birth {}", "1984-03-12"),
    ("date_of_birth", "nacida el {}", "12 de marzo de 1984"),
    ("secret", "password: {}", "hunter2!x"), ("secret", "api_key = '{}'", "s3cr3tV4lue"),
    ("url_credentials", "https://{}@host.example/", "jane:pa55"),
    ("secret", '"password": "{}"', "correct horse 9"),
    ("secret", "Authorization: Bearer {}", "abcdef1234567890abcdef"),
    ("secret", "aws_secret_access_key = {}", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    ("secret", "bot {} up", "123456789:AA" + "aB3" * 11),
    ("id_document", "passport number {}", "X1234567"), ("id_document", "driver's license no. {}",
    "D1234-5678"), ("ssn", "SSN {}", "536904399"),
    ("handle", "Instagram: {}", "jane.doe"), ("handle", "username: {}", "jdoe_84"), ("coordinates",
    "lat: {}", "48.8584, lon: 2.2945"),
    ("credit_card", "Maestro card {}", "6759649826438453"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "frame", "value"), IN_CONTEXT)
def test_types_that_need_their_surroundings(kind, frame, value):
    assert (kind, value) in found(frame.format(value))


LOOKALIKES = [
    "1698765432", "1698765432123", "2023-11-21T09:05:57Z", "2023-11-21 09:05:57.123456", "20231121090557",
    "21.11.2023", "11/21/2023",
    "1.3.6.1.4.1.311.21.20", "2.16.840.1.113883.3", "build 570636060", "10.0.19041.1237",
    "version 1.2.3.4", "v2.14.0.7", "Chrome/91.0.4472.124",
    "ISBN 978-3-16-148410-0", "ISBN 0-306-40615-2", "9783161484100", "order 4155552671",
    "Order #112-7788990-1234567", "order no. 12345678",
    "invoice 020 7946 0018", "INV-2024-00123", "tracking number 123456789012", "SKU ABC-12345",
    "d41d8cd98f00b204e9800998ecf8427e",
    "da39a3ee5e6b4b0d3255bfef95601890afd80709", "550e8400-e29b-41d4-a716-446655440000", "1,234,567",
    "1 234 567", "3.14159265358979",
    "pp. 123-456", "1999-2004", "Nature 409 (2001) 860-921", "10.1000/xyz123.4567", "arXiv 2301.12345",
    "0.123456 0.234567", "12:34:56",
    "std::vector<int>", "@property", "@babel/core", "1920x1080", "0x7ffee3bff5c8", "user_id=123456789",
    "ID: 1234567890", "64 bytes from",
    "password = os.environ['X']", "token: None", "the password is required", "4111 1111 1111 1112",
    "GB82 WEST 1234 5698 7654 33",
    "000-12-3456", "127.0.0.1", "0.0.0.0", "255.255.255.0", "5 of the best street food",
    "posted at 1698765432 by", "10, 20, 30, 40, 50",
    "12 34 56 78 90 12", "06781-8513", "0552.46358", "1234567890123456789",
]  # fmt: skip


@pytest.mark.parametrize("text", LOOKALIKES)
def test_lookalikes_are_left_alone(text):
    assert found(f"we saw {text} again") == []


def test_few_random_numbers_are_taken():
    rng = random.Random(5)
    taken = 0
    for _ in range(3000):
        digits = "".join(
            rng.choice("0123456789") for _ in range(rng.choice((8, 9, 10, 11, 12, 13, 14, 17, 18, 19)))
        )
        taken += bool(found(f"value {digits} seen"))
    assert taken <= 15  # 0.5 %: checksummed numbers that need no name


@settings(deadline=None, max_examples=60)
@given(
    value=st.sampled_from([*EMAILS[:10], *PHONES]),
    wrap=st.sampled_from(["({})", "<{}>", "'{}'", "{},", "{}.", "\n{}\n", "{};", "[{}]"]),
)
def test_punctuation_around_does_not_matter(value, wrap):
    text = f"see {wrap.format(value)} ok"
    assert value in [matched for _, matched in found(text)]


ADDRESSES = [
    # forms of the UPU's addressing guide by country; each whole address is one finding
    "2585 Scott Pass Apt. 286\nTracytown, NJ 06200",
    "Flat 4\n17 Jones Light\nNorth Holly\nS6 7LJ",
    "0704 Holland Extension Suite 38\nSouth Willie, PE T1L 7Y9",
    "17 Kennedy Laneway\nEast Tony, VIC 2609",
    "Anne-Kathrin-Kreusel-Ring 10\n22830 Plauen",
    "chemin Richard\n78786 Saint Antoine",
    "Callej\u00f3n Elsa B\u00e1rcena 68 Puerta 8\nValencia, 20569",
    "Canale Federigo, 11\n84049, Castel San Lorenzo (SA)",
    "Aaronsteeg 99\n4790 OL\nWijdenes",
    "Rua de Mota, 77\n1170-669 Mealhada",
    "ul. Paderewskiego 77\n61-668 Ko\u0142obrzeg",
    "Villatorget 40\n63592 Bor\u00e5s",
    "Rosb\u00e6ks All\u00e9 893\n7980 Roslev",
    "Dosentinkuja 76\n17066 Rovaniemi",
    "B\u0159ezanova 36\n385 17 Trhov\u00e9 Sviny",
    "Lajosf\u00fcrd\u0151i utca 141.\nH-6178 M\u00e1trahetve",
    "Soseaua Oprea Nr. 18\nPechea, 214426",
    "Porentova ulica 889\n7903 \u017dalec",
    "42/304, Bose Zila, Bihar Sharif-694208",
    "USS Lee\nFPO AE 25080",
    "PO Box 4\nWalshside 8568",
    "30497 Ibirapita 8057\n Suite 100\n Dolores\n Uruguay",
    # town and state or country in the same line, behind a unit; long names of countries; quoted lines
    "2117 Stone Bypass Apt. 31 West Corey Vermont",
    "88 Larch Road Suite 4 New Hope OK",
    "412 Birch Ville\n Apt. 7\n Lakeport\n Lao People's Democratic Republic 73650",
    "77 Amber Knoll\nNorth Lea\n, CO\n Heard Island and McDonald Islands 36414",
    "4486 Mata Islands, Sandyburgh, Trinidad and Tobago",
    "19 White Terrace\n??? Suite 520\n??? Wheeler\n??? Norway 73650",
    # a street without a number above a unit
    "Ferguson Tunnel\n Suite 193\n North Jack\n Colombia 96050",
    # the number in front of a street that has it behind
    "30394 C/ Pablo Iglesias", "5266 ul. Tylna", "8403 Birkevej", "651 Auerstrasse", "791 Jay Glens",
    "C. Beerninckstraat 88\n4790 OL Wijdenes",
    # two streets
    "the corner of 5th and Main", "the corner of Amy Pass and Rua Jo\u00e3o Dutra",
    "the intersection of Elm Street and 3rd Avenue", "Oak and Lawson Street",
]  # fmt: skip


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_found_with_the_lines_behind_it(address):
    for text in (f"Please meet me at {address}\n\nThank you", f"Address:\n> {address}\n>"):
        kinds = {name for name, _ in found(text)}
        covered = sum(len(part) for name, part in found(text) if name == "street_address")
        assert kinds <= {"street_address"}
        assert covered >= 0.8 * len(address)


NO_ADDRESSES = [
    "March 12, 2020 Census results", "Windows 10, 2015 Edition", "Issues 3-5, February 2010, Pages 75-174",
    "Chapter 4, 12345 Words", "Engineering 101 and 102", "Katie 5 years old", "ByteString, 0",
    "2064 Supreme Court Confirmation", "Brigade 12 moved", "2000-2002 David Olofson\n  1998 Fabrice Bellard",
    "volume 125 of Progress in Mathematics.\n  Verlag, Basel, 1994", "GB 12345\n  GB 18030 (**)",
    "talk in secret:--Nurse, come back again", "Version 3, Suite of tests", "Order 4711, 12345 Items",
    "12 000 office.", "the intersection of Art and Science", "cut corners and Walk on", "10 Weg and 5 Allee",
    "met Tom and Jerry Ways of old", "5 Via points", "a crossing of Hope and Fear",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_prose_with_numbers_is_no_address(text):
    assert found(f"see {text} there") == []


def test_a_number_with_its_kind_behind_is_a_phone():
    for text, number in (
        ("322 327 102 office\n", "322 327 102"), ("9885 1152-Office\\,", "9885 1152"),
        ("96 228011 (fax)", "96 228011"), ("12 000 office.", None),
        ("(70)/704-9996 there", "(70)/704-9996"), ("+1 (198) 614-4368 there", "+1 (198) 614-4368"),
    ):  # fmt: skip
        assert found(f"text\n{text}") == ([("phone", number)] if number else [])
