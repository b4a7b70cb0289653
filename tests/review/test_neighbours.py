"""Values are found beside every delimiter that text is made of; numbers that look like them are not."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from functools import cache

import pytest

from rsc.review.scanner.scanner import Scanner

VALUES = {
    "email": ["ana.kim@example.org", "o'brien@example.ie", "UPPER@EXAMPLE.COM", "x_y+tag@sub.example.co.uk"],
    "phone": [
        "+442079460958", "+1 212 555 0134", "(212) 555-0134", "212-555-0134", "212.555.0134", "020 7946 0018",
        "+33 1 84 17 61 18", "01.84.17.61.18", "612 34 56 78", "+49 (0)30 23125 600", "030/23125600",
    ],
    "credit_card": [
        "4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "378282246310005",
        "3782 822463 10005",
    ],
    "iban": [
        "DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "gb82west12345698765432",
        "GB82-WEST-1234-5698-7654-32",
    ],
    "ssn": ["536-90-4399", "536 90 4399"],
    "national_id": [
        "12345678Z", "12345678-Z", "12345678z", "RSSMRA85T10A562S", "RSS MRA 85T10 A562S", "390.533.447-05",
        "2341 2341 2346", "2 95 10 99 126 111 93", "85.07.30-033.28", "756.9217.0769.85", "131052-308T",
        "131052-308t", "AB 12 34 56 C", "AB123456C", "943 476 5919", "11010519491231002X",
        "11010519491231002x", "12.531.909-2", "S1234567D", "ACUPA7085R", "811228-9874", "BOXW310820HNERXN09",
        "boxw310820hnerxn09",
    ],
    "ip_address": ["192.168.10.44", "2001:db8:85a3::8a2e:370:7334", "2001:DB8:85A3::8A2E:370:7334"],
    "mac_address": ["00:1A:2b:3c:4d:5e", "00-1A-2B-3C-4D-5E", "001a.2b3c.4d5e"],
    "crypto_wallet": [
        "1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    ],
    "coordinates": ["48.85837, 2.29448", "48.85837,2.29448", "40.6892\u00b0 N, 74.0445\u00b0 W"],
    "handle": ["@jane_doe42"],
    "street_address": [
        "221B Baker Street", "Hauptstra\u00dfe 12a", "P.O. Box 1234",
        "1600 Pennsylvania Ave NW, Washington, DC 20500",
    ],
    "secret": [
        "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "glpat-abcdefghij0123456789", "password: hunter2!x", '"api_key": "s3cr3tV4lue"',
    ],
    "url_credentials": ["https://jane:pa55@host.example/"],
    "date_of_birth": ["born 12/03/1984", "DOB: 1984-03-12", "dob=12.03.1984"],
    "id_document": ["passport no. X1234567", "passport:X1234567"],
}  # fmt: skip
"""Each with its label where it needs one."""

_BESIDE = [("", ""), (" ", " "), ("\n", "\n"), ("\t", "\t")]
for delimiter in ",;:|/\"'<>=&_-.`*~":
    _BESIDE += [
        (delimiter, delimiter),
        (f"Kim{delimiter}", f"{delimiter}Leeds"),
        (f"see {delimiter}", f"{delimiter} now"),
    ]
_ESCAPED = [
    ("<td>", "</td>"), ("&nbsp;", "&nbsp;"), ("&quot;", "&quot;"), ("&lt;", "&gt;"), ("a&#10;", "&#10;b"),
    ('{\\"k\\":\\"', '\\"}'), ('{\\\\\\"k\\\\\\":\\\\\\"', '\\\\\\"}'), ("line\\n", "\\nnext"),
    ("a\\t", "\\tb"), ("\\u0022", "\\u0022"), ("q=%22", "%22&x=1"), ("a%20", "%20b"), ("k%3D", "%26z"),
    ("a%2C", "%2Cb"), ("a%0A", "%0Ab"),
]  # fmt: skip
_AROUND = [
    ("(", ")"), ("[", "]"), ("{", "}"), ("f(", ")"), ("x[", "]"), ("**", "**"), ("`", "`"),
    ("[", "](http://x.example)"), ("> ", ""), ("- ", ""), ("# ", ""), ("| ", " |"), ("1. ", ""),
    ("2024-01-02T10:20:30Z INFO [main] user=", " ok"), ("2024-01-02 10:20:30,123 - ", ""),
    ("Jan  2 10:20:30 host app[123]: ", ""), ("10:20:30 ", ""),
]  # fmt: skip
_CELLS = [
    ("7,", ",3"), ("12.5,", ",0.7"), ("Kim,", ",Leeds"), ('"7","', '","3"'), ("7;", ";3"), ("7\t", "\t3"),
    ("7|", "|3"), ("7, ", ", 3"), ("1001,Kim,", ",2024-01-02"), ("order,", ",12/27"), ("ticket7:", ""),
]  # fmt: skip
NEIGHBOURS = _BESIDE + _ESCAPED + _AROUND + _CELLS
NOT_TRIED = {
    ("see -", "password: hunter2!x"),  # what follows "- " could be the rest of the password
}


@cache
def scanner() -> Scanner:
    return Scanner()


def left_of(text: str, *, start: int, end: int) -> str:
    """The characters of a span that no finding covers."""
    covered = {place for f in scanner().scan(text) for place in range(f.start, f.end)}
    return "".join(text[place] for place in range(start, end) if place not in covered)


@pytest.mark.parametrize("kind", VALUES)
def test_every_value_is_found_beside_every_neighbour(kind):
    missed = []
    for value in VALUES[kind]:
        start, end = core(kind, value)
        for before, behind in NEIGHBOURS:
            text = f"{before}{value}{behind}"
            if left := left_of(text, start=len(before) + start, end=len(before) + end):
                missed.append((text, left))
    assert missed == []


def core(kind: str, value: str) -> tuple[int, int]:
    """Where the value lies behind its label."""
    if kind == "url_credentials":
        return len("https://"), len("https://jane:pa55")
    if kind in ("date_of_birth", "id_document"):
        return max(value.rfind(mark) for mark in " :=") + 1, len(value)
    if kind == "secret" and ":" in value:
        quotes = value.endswith('"')
        return value.index(":") + 2 + quotes, len(value) - quotes
    return 0, len(value)


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices("0123456789", k=count))


LOOKALIKES: dict[str, Callable[[random.Random], str]] = {
    "decimal": lambda rng: f"{rng.uniform(0, 100):.{rng.randint(3, 17)}f}",
    "version": lambda rng: ".".join(str(rng.randint(0, 19)) for _ in range(rng.randint(2, 4))),
    "timestamp": lambda rng: (
        f"20{digits(rng, 2)}-0{rng.randint(1, 9)}-1{digits(rng, 1)}T11:{digits(rng, 2)}:00Z"
    ),
    "seconds": lambda rng: f"2024-0{rng.randint(1, 9)}-11 09:{rng.randint(10, 59)}:07.{digits(rng, 6)}",
    "epoch": lambda rng: str(rng.randint(1_500_000_000, 1_790_000_000)),
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "capital_uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)).upper(),
    "order": lambda rng: f"order {rng.randint(10**8, 10**10)}",
    "order_in_groups": lambda rng: f"{digits(rng, 3)}-{digits(rng, 7)}-{digits(rng, 7)}",
    "invoice": lambda rng: f"INV-2024-{digits(rng, 6)}",
    "hash": lambda rng: rng.randbytes(20).hex(),
    "amount": lambda rng: f"{rng.randint(1, 9)},{digits(rng, 3)},{digits(rng, 3)}.{digits(rng, 2)}",
    "oid": lambda rng: f"1.3.6.1.4.1.{rng.randint(1, 9999)}.{rng.randint(1, 99)}",
    "digits": lambda rng: digits(rng, rng.randint(8, 12)),
    "dates": lambda rng: f"{rng.randint(10, 28)}.{rng.randint(10, 12)}.2024 - 01.02.2025",
    "vector": lambda rng: ", ".join(f"{rng.gauss(0, 1):.5f}" for _ in range(4)),
    "vector_without_spaces": lambda rng: ",".join(f"{rng.gauss(0, 1):.6f}" for _ in range(5)),
    "fingerprint": lambda rng: rng.randbytes(16).hex(":"),
    "jar": lambda rng: f"pkg-{rng.randint(0, 9)}.{rng.randint(0, 30)}.{rng.randint(0, 9)}.1.jar",
    "part": lambda rng: f"AB-{digits(rng, 4)}-{digits(rng, 3)}",
    "user": lambda rng: f"photo{digits(rng, 4)}x",
}


@pytest.mark.parametrize("kind", LOOKALIKES)
def test_lookalikes_are_left_alone_beside_every_neighbour(kind):
    """Two in a hundred at the most, whatever stands beside them."""
    rng = random.Random(17)
    texts = [f"{before}{LOOKALIKES[kind](rng)}{behind}" for before, behind in NEIGHBOURS * 2]
    found = [text for text in texts if scanner().scan(text)]
    assert len(found) <= 0.02 * len(texts), found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Thanks for the order. 4111111111111111 is on file.", "4111111111111111"),
        ("Here is my order. 536-90-4399 is my social.", "536-90-4399"),
        ("See the source code. DNI 12345678Z", "12345678Z"),
        ("Order\n4111111111111111", "4111111111111111"),
        ("order 4111111111111111 (card)", "4111111111111111"),
        ("card for the order 4111111111111111", "4111111111111111"),
        ("order DNI 12345678Z", "12345678Z"),
        ("invoice, PAN acupa7085r", "acupa7085r"),
        ("See the part list. Tel 2125550134", "2125550134"),
        ("a tel. for the order. 2125550134", "2125550134"),
    ],
)
def test_words_of_another_sentence_or_record_veto_nothing(text, value):
    start = text.index(value)
    assert left_of(text, start=start, end=start + len(value)) == ""


@pytest.mark.parametrize(
    "text", ["order no. 4111111111111111", "order 12345678Z", "see invoice nr. 12345678Z"]
)
def test_a_word_of_the_same_sentence_vetoes(text):
    assert scanner().scan(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "@app.route('/x')\ndef x():\n    pass", "    @cached_thing\n    def y(self):",
        "@Inject\nprivate final Foo foo;",
        "@first\n@second(1)\nclass A:", "npm install @scope/package", '{"@context": "https://schema.org"}',
        "curl -d @body.json https://x.example",
    ],
)  # fmt: skip
def test_decorators_and_packages_are_no_handles(text):
    assert [f for f in scanner().scan(text) if f.type == "handle"] == []
