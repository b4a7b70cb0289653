"""Check digits of the standards that the rules rely on. All take and return plain ASCII digits.

Sources are named at each function; where a national office publishes only prose, the algorithm is
restated in one line.
"""

from __future__ import annotations

from collections.abc import Sequence

_LETTER_VALUES = {ord("A") + place: str(10 + place) for place in range(26)}
_LUHN_SINGLE = bytes.maketrans(b"0123456789", bytes(range(10)))
_LUHN_DOUBLE = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 annex B: double every second digit from the right, sum of digits divides by 10."""
    backwards = digits.encode()[::-1]
    total = sum(backwards[::2].translate(_LUHN_SINGLE)) + sum(backwards[1::2].translate(_LUHN_DOUBLE))
    return total % 10 == 0


def weighted_sum(digits: str, weights: Sequence[int]) -> int:
    """sum(digit * weight) over the shorter of the two."""
    return sum((ord(digit) - 48) * weight for digit, weight in zip(digits, weights, strict=False))


def mod_97_10(text: str) -> bool:
    """ISO/IEC 7064 MOD 97-10 over digits and capitals (A = 10 ... Z = 35): remainder 1."""
    return int(text.translate(_LETTER_VALUES)) % 97 == 1


def mod_11_10(digits: str) -> bool:
    """ISO/IEC 7064 MOD 11,10 (hybrid system), check digit last. German tax id, Croatian OIB."""
    product = 10
    for digit in digits[:-1]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (product + int(digits[-1])) % 10 == 1


def mod_11_2(text: str) -> bool:
    """ISO/IEC 7064 MOD 11-2, check character 0-9 or X last. Chinese resident id, ORCID."""
    total = 0
    for character in text[:-1]:
        total = (total + int(character)) * 2 % 11
    return (total + (10 if text[-1] in "xX" else int(text[-1]))) % 11 == 1


def _dihedral(left: int, right: int) -> int:
    """Multiplication in D5 with 0-4 rotations, 5-9 reflections."""
    if left < 5:
        return (left + right) % 5 if right < 5 else (left + right - 5) % 5 + 5
    return (left - right) % 5 + 5 if right < 5 else (left - right) % 5


def _permuted(digit: int, *, times: int) -> int:
    for _ in range(times):
        digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
    return digit


_D5 = [[_dihedral(left, right) for right in range(10)] for left in range(10)]
_PERMUTED = [[_permuted(digit, times=times) for digit in range(10)] for times in range(8)]


def verhoeff(digits: str) -> bool:
    """Verhoeff 1969: multiply the digits in D5, each permuted by its place. Indian Aadhaar."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _D5[check][_PERMUTED[place & 7][int(digit)]]
    return check == 0


def ean_13(digits: str) -> bool:
    """GS1: weights 1, 3 from the left over 13 digits, sum divides by 10. Swiss AHV number."""
    return weighted_sum(digits, (1, 3) * 7) % 10 == 0
