"""Published identifiers are found in their form; one changed digit must fail."""

from __future__ import annotations

import pytest
from review_samples import ALONE, NAMED

from rsc.review.scanner.checksums import mod_11_2, verhoeff
from rsc.review.scanner.rules import national_checks as checks
from rsc.review.scanner.rules.wallet import keccak_256
from rsc.review.scanner.scanner import Scanner


@pytest.fixture(scope="module")
def scanner() -> Scanner:
    return Scanner()


@pytest.mark.parametrize("number", ALONE)
def test_printed_forms_need_no_name(scanner, number):
    found = scanner.scan(f"it says {number} on it")
    assert [(f.type, f.start, f.end) for f in found] == [("national_id", 8, 8 + len(number))]


@pytest.mark.parametrize(("name", "number"), NAMED)
def test_bare_digits_need_their_name(scanner, name, number):
    found = scanner.scan(f"my {name}: {number}.")
    assert [f.type for f in found] == ["national_id"]
    assert scanner.scan(f"order {number}.") == []
    if name != "national identity number":  # any country's would do
        place = len(number) - (
            2 if name == "kennitala" else 1
        )  # the last digit of a kennitala is the century
        wrong = number[:place] + str((int(number[place]) + 1) % 10) + number[place + 1 :]
        assert scanner.scan(f"my {name}: {wrong}.") == []


@pytest.mark.parametrize("position", range(10))
def test_one_changed_digit_of_a_checked_number_fails(position):
    for check, number in (
        (checks.poland_pesel, "44051401359"), (checks.germany_tax_id, "86095742719"),
        (checks.croatia_oib, "33392005961"), (checks.norway_birth, "15108695088"),
        (checks.turkey_identity, "17291716060"),
        (checks.south_africa_identity, "7503305044089"), (checks.switzerland_ahv, "7569217076985"),
    ):  # fmt: skip
        assert check(number)
        changed = number[:position] + str((int(number[position]) + 1) % 10) + number[position + 1 :]
        assert not check(changed)


def test_verhoeff_catches_every_swap_of_neighbours():
    assert verhoeff("234123412346")
    for place in range(11):
        swapped = list("234123412346")
        swapped[place], swapped[place + 1] = swapped[place + 1], swapped[place]
        if swapped[place] != swapped[place + 1]:
            assert not verhoeff("".join(swapped))


def test_iso_7064_example():
    assert mod_11_2("0000000121032683".lstrip("0").zfill(16)) == mod_11_2("0000000121032683")
    assert mod_11_2("000000021825009" + "7")  # ORCID's documented example 0000-0002-1825-0097


def test_keccak_vectors():
    # Keccak team, ShortMsgKAT_256: the empty message and "cc"
    assert keccak_256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak_256(b"\xcc").hex() == "eead6dbfc7340a56caedc044696a168870549a6a7f6f56961e84a54bd9970b8a"
