"""Forms that standards and issuers document, a line each, and look-alikes; nothing from a corpus."""

from __future__ import annotations

import pytest

from rsc.review.scanner.scanner import Scanner

FOUND = [
    ("email", "ada.b @ example.org", "write to ada.b @ example.org today"),
    ("email", "ada_at_example_dot_org", "ada_at_example_dot_org"),
    ("email", "ada@example . org", "mail ada@example . org please"),
    ("email", "ada99 at example.org", "ada99 at example.org"),
    ("email", "adalove at gmail.com", "adalove at gmail.com"),
    ("email", "ada@example.org", "\u8bf7\u8054\u7cfbada@example.org\u8c22\u8c22"),
    ("phone", "15053374068", "\u624b\u673a\u53f7\u662f15053374068\uff0c"),
    ("phone", "+37086834497", "Tel: +37086834497"),
    ("phone", "0516487059", "my number is 0516487059"),
    (
        "date_of_birth",
        "18.8.1940",
        "\u0414\u0430\u0442\u0430 \u0440\u043e\u0436\u0434\u0435\u043d\u0438\u044f: 18.8.1940",
    ),
    ("date_of_birth", "28. ledna 1994", "narozen 28. ledna 1994"),
    ("date_of_birth", "1982. szeptember 26", "Szuletesi datum: 1982. szeptember 26."),
    ("date_of_birth", "19550107", "date of birth 19550107"),
    ("date_of_birth", "14 May 1981", "d.o.b.: 14 May 1981"),
    ("credit_card", "4111.1111.1111.1111", "pay 4111.1111.1111.1111"),
    ("iban", "de89 3704 0044 0532 0130 00", "an de89 3704 0044 0532 0130 00"),
    ("ip_address", "::ffff:203.0.113.7", "from ::ffff:203.0.113.7 port"),
    ("mac_address", "3C01E41C08F3", "MAC address 3C01E41C08F3"),
    ("mac_address", "00e6-5131-1f54", "mac=00e6-5131-1f54"),
    ("coordinates", "N40.71280 W74.00600", "at N40.71280 W74.00600"),
    ("coordinates", "40.7128N 74.0060W", "40.7128N 74.0060W"),
    ("coordinates", "-27.50791 50.11050", "GPS: -27.50791 50.11050"),
    ("coordinates", "N 12\u00b0 52.585' W 72\u00b0 18.147'", "N 12\u00b0 52.585' W 72\u00b0 18.147'"),
    # XRP Ledger documentation, account of the genesis ledger; TRON documentation, USDT contract
    ("crypto_wallet", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh", "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh"),
    ("crypto_wallet", "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "to TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"),
    # BIP 178 / Bitcoin wiki "Wallet import format"
    (
        "crypto_wallet",
        "5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
        "key 5HueCGU8rMjxEXxiPuD5BDku4MkFqeZyd4dZ1jvhTVqvbTLvyTJ",
    ),
    ("handle", "ada_99", "https://www.instagram.com/ada_99/"),
    ("handle", "ada-l", "https://www.linkedin.com/in/ada-l"),
    ("handle", "ada99", "user_name=ada99"),
    ("secret", "x7Gq2!pw", "--password x7Gq2!pw"),
    ("secret", "air340!", "PGPASSWORD=air340! psql"),
    ("secret", "they777%", "senha: they777%"),
    ("secret", "oofJYqnKXucG", "Passwort: oofJYqnKXucG"),
    ("secret", "radio585#", "<password>radio585#</password>"),
    ("secret", "glrt-" + "a1B2" * 5, "token glrt-" + "a1B2" * 5),
    ("secret", "lin_api_" + "a1B2" * 10, "lin_api_" + "a1B2" * 10),
    ("secret", "SK" + "0a1b" * 8, "use SK" + "0a1b" * 8),
    ("secret", "dckr_pat_" + "a1B" * 9, "dckr_pat_" + "a1B" * 9),
    ("street_address", "890 Coffey Knolls", "billed to 890 Coffey Knolls."),
    ("street_address", "Strada Zorilor 11", "She lives at Strada Zorilor 11."),
    ("street_address", "Jalan Merdeka No. 10", "Jalan Merdeka No. 10"),
    ("street_address", "Carrera 18F Bis # 9-2", "Carrera 18F Bis # 9-2"),
    ("street_address", "Evensenvollen 406", "Evensenvollen 406"),
    ("street_address", "28921 rue Bisson", "28921 rue Bisson"),
]

LOOK_ALIKES = [
    "x = +35236450.6;",
    "return +98749208.2",
    "[2.590993, 3.537723, -2.890068]",
    "loss 0.1234, 0.5678",
    "chr3:39295213-60858556",
    "transaction id 6291691479881527",
    "see you @ amazon.com",
    "look at example.com",
    "read it at nytimes.com",
    "https://twitter.com/search?q=x",
    "https://github.com/features",
    "pwd: /home/kim/project",
    "token = getUserAccessToken",
    'password = getpass.getpass("Password: ")',
    "password: required",
    "password=${DB_PASSWORD}",
    "the 3 Great Lakes",
    "In 2010 Central Park was closed",
    "5 Big Falls",
    "deliver on March 12",
    "return 200 OK",
]


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner("re2")


@pytest.mark.parametrize(("name", "value", "text"), FOUND, ids=[f"{n}-{v[:20]}" for n, v, _ in FOUND])
def test_found(name: str, value: str, text: str, scanner: Scanner) -> None:
    found = [(f.type, text[f.start : f.end]) for f in scanner.scan(text)]
    assert any(kind == name and value in part and len(part) <= len(value) + 2 for kind, part in found), found


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_look_alikes(text: str, scanner: Scanner) -> None:
    assert scanner.scan(text) == []
