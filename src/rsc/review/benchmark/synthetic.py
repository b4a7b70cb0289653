"""Posts with planted personal data and the truth about them, from a seed.

For the quickstart, for speed and as a regression test. Never a claim about quality: whoever writes both
the rules and the posts agrees with himself (docs/review.md says how to bring a corpus of your own).
People, numbers and addresses are drawn at random; the checksums are right, the ranges are those that
standards set aside for examples where such exist (RFC 2606, RFC 5737, 555-01xx).
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_FIRST = [
    "ana",
    "ben",
    "carla",
    "dmitri",
    "elena",
    "farid",
    "grace",
    "hugo",
    "ines",
    "jonas",
    "keiko",
    "liam",
    "maria",
    "nadia",
    "omar",
    "petra",
    "quinn",
    "rosa",
    "samir",
    "tara",
]
_LAST = [
    "alvarez",
    "berg",
    "costa",
    "dubois",
    "eriksen",
    "fischer",
    "garcia",
    "haddad",
    "ivanov",
    "jensen",
    "kowalski",
    "lopez",
    "meyer",
    "novak",
    "okafor",
    "patel",
    "rossi",
    "silva",
    "tanaka",
    "weber",
]
_HOSTS = ["example.com", "example.org", "example.net", "mail.example.com", "post.example.org"]
_STREETS = ["Oak", "Maple", "Cedar", "Station", "Church", "Mill", "Park", "Victoria", "Lincoln", "Harbour"]
_CHATTER = (
    "cannot believe how long the queue was today",
    "does anyone have a spare ticket for saturday?",
    "the new update broke my camera again",
    "we painted the kitchen and the dog helped",
    "best soup of my life, no contest",
    "thanks everybody for the kind words",
    "trains are late, as always",
    "who wants to play on sunday",
    "I finally finished that book",
    "rain all week and no umbrella",
    "my cousin is selling her old bike",
    "honestly the second season was better",
    "lost my keys somewhere near the park",
)


@dataclass(frozen=True, slots=True)
class PlantedPost:
    """`spans`: (start, end, type) of what was planted; look-alikes have none."""

    id: int
    text: str
    spans: tuple[tuple[int, int, str], ...]


def planted_posts(
    count: int, *, seed: int, planted_share: float = 0.5, lookalike_share: float = 0.3
) -> Iterator[PlantedPost]:
    """`count` posts; about `planted_share` hold one or two planted values, others look-alikes or nothing."""
    rng = random.Random(seed)
    for number in range(count):
        yield _post(number, rng=rng, planted_share=planted_share, lookalike_share=lookalike_share)


def write_planted(folder: Path, *, count: int, seed: int) -> tuple[Path, Path]:
    """Write `posts.jsonl` (id, text: what is imported) and `truth.jsonl` (id, text, spans: for scoring)."""
    folder.mkdir(parents=True, exist_ok=True)
    posts, truth = folder / "posts.jsonl", folder / "truth.jsonl"
    with posts.open("w", encoding="utf-8") as post_file, truth.open("w", encoding="utf-8") as truth_file:
        for post in planted_posts(count, seed=seed):
            spans = [{"start": start, "end": end, "type": name} for start, end, name in post.spans]
            post_file.write(json.dumps({"id": post.id, "text": post.text}, ensure_ascii=False) + "\n")
            truth_file.write(
                json.dumps({"id": post.id, "text": post.text, "spans": spans}, ensure_ascii=False) + "\n"
            )
    return posts, truth


def _post(number: int, *, rng: random.Random, planted_share: float, lookalike_share: float) -> PlantedPost:
    text, spans = rng.choice(_CHATTER), []
    draw = rng.random()
    if draw < planted_share:
        for name in rng.sample(sorted(_PLANTS), k=rng.choice((1, 1, 2))):
            before, value = _split_template(rng.choice(_LEADS[name]), value=_PLANTS[name](rng))
            text += ". " + before
            spans.append((len(text), len(text) + len(value), name))
            text += value
    elif draw < planted_share + lookalike_share:
        text += ". " + rng.choice(_LOOKALIKES)(rng)
    return PlantedPost(number, f"{text}. {rng.choice(_CHATTER)}", tuple(spans))


def _split_template(lead: str, *, value: str) -> tuple[str, str]:
    return (lead + " " if lead else ""), value


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(count))


def _number(rng: random.Random, form: str) -> str:
    """`#` becomes a digit, `%` one that is not 0."""
    return "".join(
        rng.choice("0123456789") if c == "#" else rng.choice("123456789") if c == "%" else c for c in form
    )


def _email(rng: random.Random) -> str:
    first, last, host = rng.choice(_FIRST), rng.choice(_LAST), rng.choice(_HOSTS)
    local = rng.choice(
        (f"{first}.{last}", f"{first}{_digits(rng, 2)}", f"{first[0]}_{last}", f"{first}+shop", last.upper())
    )
    form = rng.random()
    if form < 0.75:
        return f"{local}@{host}"
    if form < 0.9:
        return f"{first} [at] {host.replace('.', ' [dot] ')}"
    return f"{first} at {host.replace('.', ' dot ')}"


def _phone(rng: random.Random) -> str:
    return _number(
        rng,
        rng.choice(
            (
                "(212) 555-01##",
                "415-555-01##",
                "+1 312 555 01##",
                "+44 20 7946 0###",
                "020 7946 0###",
                "+49 30 23125 ###",
                "030 23125 ###",
                "+33 6 39 98 ## ##",
                "06 39 98 ## ##",
                "+34 612 34 5# ##",
                "+81 3 5555 01##",
                "+61 2 5550 ####",
            )
        ),
    )


def _card(rng: random.Random) -> str:
    body = _number(
        rng, rng.choice(("4##############", "51#############", "6011###########", "34############"))
    )
    digits = body + str(_luhn_digit(body))
    groups = (4, 6, 5) if len(digits) == 15 else (4, 4, 4, 4)
    return _grouped(digits, groups=groups, separator=rng.choice((" ", "-", "")))


def _luhn_digit(body: str) -> int:
    """The digit that makes body + digit divide by 10 when every second digit from the right counts double."""
    total = sum(sum(divmod(int(d) * 2, 10)) if i % 2 == 0 else int(d) for i, d in enumerate(reversed(body)))
    return -total % 10


def _grouped(text: str, *, groups: tuple[int, ...], separator: str) -> str:
    parts, done = [], 0
    for size in groups:
        parts.append(text[done : done + size])
        done += size
    return separator.join(part for part in parts if part)


def _iban(rng: random.Random) -> str:
    country, length = rng.choice((("DE", 18), ("FR", 23), ("ES", 20), ("NL", 14), ("PL", 24)))
    account = rng.choice(("ABNA", "INGB")) + _digits(rng, 10) if country == "NL" else _digits(rng, length)
    number = int("".join(str(int(c, 36)) for c in account + country + "00"))
    iban = f"{country}{98 - number % 97:02d}{account}"
    return _grouped(iban, groups=(4,) * 7, separator=rng.choice((" ", "")))


def _ssn(rng: random.Random) -> str:
    return f"{rng.randint(100, 665)}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"


def _national_id(rng: random.Random) -> str:
    number = rng.randint(10_000_000, 99_999_999)
    return f"{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def _birth_date(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1940, 2005)
    return rng.choice(
        (f"{year}-{month:02d}-{day:02d}", f"{day:02d}/{month:02d}/{year}", f"{day} March {year}")
    )


def _ip(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return f"2001:db8::{rng.randint(1, 65535):x}:{rng.randint(1, 65535):x}"
    return rng.choice(("192.0.2.", "198.51.100.", "203.0.113.")) + str(rng.randint(1, 254))


def _mac(rng: random.Random) -> str:
    return rng.choice(":-").join(f"{rng.randint(0, 255):02x}" for _ in range(6))


def _secret(rng: random.Random) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    if rng.random() < 0.5:
        return "AKIA" + "".join(rng.choice(letters) for _ in range(16))
    return "ghp_" + "".join(rng.choice(letters + letters.lower()) for _ in range(36))


def _address(rng: random.Random) -> str:
    return f"{rng.randint(1, 999)} {rng.choice(_STREETS)} {rng.choice(('Street', 'Avenue', 'Road', 'Lane'))}"


def _handle(rng: random.Random) -> str:
    return f"@{rng.choice(_FIRST)}_{rng.choice(_LAST)}{rng.randint(1, 99)}"


_PLANTS: dict[str, Callable[[random.Random], str]] = {
    "email": _email,
    "phone": _phone,
    "credit_card": _card,
    "iban": _iban,
    "ssn": _ssn,
    "national_id": _national_id,
    "date_of_birth": _birth_date,
    "ip_address": _ip,
    "mac_address": _mac,
    "secret": _secret,
    "street_address": _address,
    "handle": _handle,
}
_LEADS: dict[str, tuple[str, ...]] = {
    "email": ("write to", "my mail is", "contact:", "ping"),
    "phone": ("call me on", "my number is", "text", "new phone:"),
    "credit_card": ("my card", "charged to", "card no"),
    "iban": ("send it to", "IBAN", "account"),
    "ssn": ("SSN", "my social is", "her social security number is"),
    "national_id": ("DNI", "mi NIF es"),
    "date_of_birth": ("born on", "DOB:", "date of birth"),
    "ip_address": ("my server is", "logged in from", "host"),
    "mac_address": ("the card says", "mac"),
    "secret": ("oops I pasted", "key:"),
    "street_address": ("we live at", "party at", "ship to"),
    "handle": ("follow", "thanks", "cc"),
}
_LOOKALIKES: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: f"order {_number(rng, '%#########')} has shipped",
    lambda rng: f"build {_number(rng, '%########')} fails on windows",
    lambda rng: f"posted at {rng.randint(1_500_000_000, 1_790_000_000)} by the bot",
    lambda rng: f"ISBN 978-{_number(rng, '#-##-######-#')} is sold out",
    lambda rng: f"see OID 1.3.6.1.4.1.{rng.randint(1, 9999)}.{rng.randint(1, 99)}",
    lambda rng: f"commit {rng.randbytes(20).hex()} fixed it",
    lambda rng: (
        f"version {rng.randint(1, 20)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}.{rng.randint(0, 255)} is out"
    ),
    lambda rng: (
        f"on 2024-0{rng.randint(1, 9)}-1{rng.randint(0, 9)} "
        f"1{rng.randint(0, 9)}:{rng.randint(10, 59)}:0{rng.randint(0, 9)} it stopped"
    ),
    lambda rng: f"we sold {rng.randint(1, 9)},{_digits(rng, 3)},{_digits(rng, 3)} of them",
    lambda rng: f"look at icon@{rng.randint(2, 3)}x.png",
    lambda rng: f"uuid {uuid.UUID(int=rng.getrandbits(128), version=4)}",
    lambda rng: f"score 3-2, then {rng.randint(10, 99)}-{rng.randint(10, 99)}",
)
