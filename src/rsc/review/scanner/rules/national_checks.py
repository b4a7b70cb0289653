"""Check digits of national identifiers. Each takes the compact form: capitals and digits, no separators.

Sources: the published specification of each office; weights and moduli are restated at each function.
"""

from __future__ import annotations

from datetime import date

from rsc.review.scanner.checksums import ean_13, luhn, mod_11_2, mod_11_10, verhoeff, weighted_sum

_ODD_OF_DIGIT = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
_ODD_OF_LETTER = (*_ODD_OF_DIGIT, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_ODD = {str(digit): value for digit, value in enumerate(_ODD_OF_DIGIT)}
_ODD |= {chr(65 + letter): value for letter, value in enumerate(_ODD_OF_LETTER)}


def is_date(year: str, month: str, day: str) -> bool:
    """A calendar day; a two-digit year may be of either century."""
    centuries = ("",) if len(year) == 4 else ("19", "20")
    for century in centuries:
        try:
            date(int(century + year), int(month), int(day))
        except ValueError:
            continue
        return True
    return False


def spain_dni(n: str) -> bool:
    """DNI and NIE: letter number (digits mod 23); X, Y, Z count as 0, 1, 2."""
    number = n[:-1] if n[0].isdigit() else f"{'XYZ'.index(n[0])}{n[1:-1]}"
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == n[-1]


def italy_fiscal_code(n: str) -> bool:
    """DM 23/12/1976: odd places by table, even places by value, sum mod 26 names the last letter."""
    even = sum(int(c) if c.isdigit() else ord(c) - 65 for c in n[1:15:2])
    return chr(65 + (even + sum(_ODD[c] for c in n[0:15:2])) % 26) == n[15]


def france_nir(n: str) -> bool:
    """INSEE: 97 - (13 digits mod 97); departments 2A and 2B count as 19 and 18."""
    return 97 - int(n[:13].replace("2A", "19").replace("2B", "18")) % 97 == int(n[13:])


def germany_tax_id(n: str) -> bool:
    """AO 139b: ISO 7064 MOD 11,10; among the first ten digits exactly one occurs twice or thrice."""
    repeats = sorted(n[:10].count(digit) for digit in set(n[:10]))
    return n[0] != "0" and repeats[-1] in (2, 3) and (len(repeats) < 2 or repeats[-2] == 1) and mod_11_10(n)


def uk_nhs(n: str) -> bool:
    """Weights 10..2, 11 - sum mod 11 is the check digit; 10 is never issued."""
    return (11 - weighted_sum(n[:9], range(10, 1, -1)) % 11) % 11 == int(n[9])


def netherlands_bsn(n: str) -> bool:
    """Eleven test: weights 9..2 and -1."""
    return weighted_sum(n, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0 and int(n) > 0


def belgium_national(n: str) -> bool:
    """97 - (first nine digits mod 97), with a 2 before them for births since 2000; month may be 00."""
    check = int(n[9:])
    return int(n[2:4]) % 20 <= 12 and check in (97 - int(n[:9]) % 97, 97 - int("2" + n[:9]) % 97)


def sweden_personal(n: str) -> bool:
    """Luhn over the ten-digit form; co-ordination numbers add 60 to the day."""
    n = n[-10:]
    day = int(n[4:6])
    return is_date(n[:2], n[2:4], f"{day - 60 if day > 60 else day:02d}") and luhn(n)


def norway_birth(n: str) -> bool:
    """Two check digits mod 11; D numbers add 4 to the first digit."""
    day = f"{int(n[0]) % 4}{n[1]}"
    first = weighted_sum(n, (3, 7, 6, 1, 8, 9, 4, 5, 2, 1)) % 11
    second = weighted_sum(n, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11
    return is_date(n[4:6], n[2:4], day) and first == 0 and second == 0


def denmark_cpr(n: str) -> bool:
    """A date; the mod 11 check no longer holds for numbers issued since 2007."""
    return is_date(n[4:6], n[2:4], n[:2])


def denmark_cpr_checked(n: str) -> bool:
    return denmark_cpr(n) and weighted_sum(n, (4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def finland_hetu(n: str) -> bool:
    """DDMMYY, a century sign (the compact form loses + and -), serial, check: nine digits mod 31."""
    return (
        is_date(n[4:6], n[2:4], n[:2])
        and "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(n[:6] + n[-4:-1]) % 31] == n[-1]
    )


def iceland_kennitala(n: str) -> bool:
    """Weights 3 2 7 6 5 4 3 2 1 over the first nine, mod 11."""
    return is_date(n[4:6], n[2:4], n[:2]) and weighted_sum(n, (3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0


def baltic_code(n: str) -> bool:
    """Estonia and Lithuania: weights 1..9,1 mod 11; if 10, weights 3..9,1,2,3 mod 11; if 10, 0."""
    check = weighted_sum(n, (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)) % 11
    if check == 10:
        check = weighted_sum(n, (3, 4, 5, 6, 7, 8, 9, 1, 2, 3)) % 11 % 10
    return n[0] in "123456" and is_date(n[1:3], n[3:5], n[5:7]) and check == int(n[10])


def latvia_code(n: str) -> bool:
    """(1101 - weighted sum) mod 11 mod 10 with weights 1 6 3 7 9 10 5 8 4 2."""
    return is_date(n[4:6], n[2:4], n[:2]) and (
        1101 - weighted_sum(n, (1, 6, 3, 7, 9, 10, 5, 8, 4, 2))
    ) % 11 % 10 == int(n[10])


def poland_pesel(n: str) -> bool:
    """Weights 1 3 7 9; the month carries the century (+20, +40, +60, +80)."""
    return (
        is_date(n[:2], f"{int(n[2:4]) % 20:02d}", n[4:6])
        and weighted_sum(n, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0
    )


def czech_birth(n: str) -> bool:
    """Ten digits divide by 11; women add 50 to the month, 20 more when numbers ran out.

    Nine digits: before 1954, no check."""
    month = int(n[2:4]) % 50
    month = month - 20 if month > 20 else month
    return is_date(n[:2], f"{month:02d}", n[4:6]) and (
        len(n) == 9 or int(n) % 11 == 0 or (int(n[:9]) % 11 == 10 and n[9] == "0")
    )


def romania_cnp(n: str) -> bool:
    """Weights 2 7 9 1 4 6 3 5 8 2 7 9, mod 11, 10 counts as 1; county 01 to 52, 70 or 80."""
    total = weighted_sum(n, (2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9)) % 11
    county = 1 <= int(n[7:9]) <= 52 or n[7:9] in ("70", "80")
    return (
        n[0] != "0"
        and county
        and is_date(n[1:3], n[3:5], n[5:7])
        and (1 if total == 10 else total) == int(n[12])
    )


def bulgaria_egn(n: str) -> bool:
    """Weights 2 4 8 5 10 9 7 3 6, mod 11 mod 10; month +20 before 1900, +40 from 2000."""
    return is_date(n[:2], f"{int(n[2:4]) % 20:02d}", n[4:6]) and weighted_sum(
        n, (2, 4, 8, 5, 10, 9, 7, 3, 6)
    ) % 11 % 10 == int(n[9])


def yugoslav_jmbg(n: str) -> bool:
    """Bosnia, Montenegro, North Macedonia, Serbia, Slovenia: weights 7..2 twice and 1, mod 11."""
    millennium = "1" if n[4] in "89" else "2"
    return (
        is_date(millennium + n[4:7], n[2:4], n[:2])
        and weighted_sum(n, (7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)) % 11 == 0
    )


def greece_amka(n: str) -> bool:
    """DDMMYY and Luhn."""
    return is_date(n[4:6], n[2:4], n[:2]) and luhn(n)


def portugal_nif(n: str) -> bool:
    """Weights 9..2, 11 - sum mod 11, 10 and 11 count as 0; persons begin with 1, 2, 3, 45."""
    check = 11 - weighted_sum(n, range(9, 1, -1)) % 11
    return n[0] in "123" + ("4" if n[1] == "5" else "") and (0 if check > 9 else check) == int(n[8])


def switzerland_ahv(n: str) -> bool:
    return n.startswith("756") and ean_13(n)


def austria_insurance(n: str) -> bool:
    """Weights 3 7 9 5 8 4 2 1 6 over all but the fourth digit, mod 11; then the birth date DDMMYY."""
    check = weighted_sum(n[:3] + n[4:], (3, 7, 9, 5, 8, 4, 2, 1, 6)) % 11
    return n[0] != "0" and check == int(n[3]) and int(n[4:6]) <= 31 and int(n[6:8]) <= 15


def ireland_pps(n: str) -> bool:
    """Weights 8..2, a ninth letter counts nine times its place; mod 23 names the letter."""
    total = weighted_sum(n[:7], range(8, 1, -1)) + (
        9 * (ord(n[8]) - 64) % 207 if len(n) == 9 and n[8] != "W" else 0
    )
    return "WABCDEFGHIJKLMNOPQRSTUV"[total % 23] == n[7]


def turkey_identity(n: str) -> bool:
    """Tenth digit: 7 * odd places - even places mod 10; eleventh: sum of ten mod 10."""
    d = [int(c) for c in n]
    return d[0] != 0 and (7 * sum(d[0:9:2]) - sum(d[1:8:2])) % 10 == d[9] and sum(d[:10]) % 10 == d[10]


def hungary_taj(n: str) -> bool:
    """Social security number: 8 digits by 3 and 7 in turn, modulo 10 (Act XX of 1996, annex)."""
    return sum(int(d) * (3, 7)[i % 2] for i, d in enumerate(n[:8])) % 10 == int(n[8])


def hungary_tax_id(n: str) -> bool:
    """An 8, days since 1867 and a number; places 1 to 9 as weights, modulo 11 (Act XX of 1996, annex)."""
    return n[0] == "8" and sum(int(d) * i for i, d in enumerate(n[:9], start=1)) % 11 == int(n[9])


def russia_snils(n: str) -> bool:
    """Weights 9..1 over nine digits, mod 101, 100 counts as 0."""
    return weighted_sum(n, range(9, 0, -1)) % 101 % 100 == int(n[9:])


def russia_inn(n: str) -> bool:
    """Persons, twelve digits: two check digits mod 11 mod 10."""
    tenth = weighted_sum(n, (7, 2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10
    return tenth == int(n[10]) and weighted_sum(n, (3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8)) % 11 % 10 == int(n[11])


def ukraine_tax(n: str) -> bool:
    """Weights -1 5 7 9 4 6 10 5 7, mod 11 mod 10."""
    return weighted_sum(n, (-1, 5, 7, 9, 4, 6, 10, 5, 7)) % 11 % 10 == int(n[9])


def israel_identity(n: str) -> bool:
    return luhn(n) and int(n) > 1_000_000


def south_africa_identity(n: str) -> bool:
    """YYMMDD, serial, citizenship 0 or 1, one free digit, Luhn."""
    return is_date(n[:2], n[2:4], n[4:6]) and n[10] in "012" and luhn(n)


def india_aadhaar(n: str) -> bool:
    return n[0] in "23456789" and verhoeff(n) and n != n[::-1]


def china_resident(n: str) -> bool:
    """GB 11643-1999: region, date of birth, serial, ISO 7064 MOD 11-2."""
    return is_date(n[6:10], n[10:12], n[12:14]) and n[0] in "12345689" and mod_11_2(n)


def korea_resident(n: str) -> bool:
    """A date and the century digit; the check digit was dropped in 2020."""
    return is_date(n[:2], n[2:4], n[4:6])


def japan_my_number(n: str) -> bool:
    """Weights 6 5 4 3 2 7 6 5 4 3 2, 11 - sum mod 11, 10 and 11 count as 0."""
    remainder = weighted_sum(n, (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return (0 if remainder < 2 else 11 - remainder) == int(n[11])


def taiwan_identity(n: str) -> bool:
    """The letter stands for two digits; weights 1, 9..1, 1; sum divides by 10."""
    letter = "ABCDEFGHJKLMNPQRSTUVXYWZIO".index(n[0]) + 10
    return weighted_sum(f"{letter}{n[1:]}", (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)) % 10 == 0


def hong_kong_identity(n: str) -> bool:
    """Weights 9..2 (one letter: 36 stands before it), check mod 11, 10 is A."""
    body, check = n[:-1].rjust(8), 10 if n[-1] == "A" else int(n[-1])
    values = [36 if c == " " else int(c, 36) for c in body]
    return (sum(v * w for v, w in zip(values, range(9, 1, -1), strict=True)) + check) % 11 == 0


def singapore_nric(n: str) -> bool:
    """Weights 2 7 6 5 4 3 2; T and G add 4, M adds 3; the letter table depends on the first letter."""
    total = weighted_sum(n[1:8], (2, 7, 6, 5, 4, 3, 2)) + {"T": 4, "G": 4, "M": 3}.get(n[0], 0)
    table = "JZIHGFEDCBA" if n[0] in "ST" else "XWUTRQPNMLK" if n[0] in "FG" else "KLJNPQRTUWX"
    return table[total % 11 if n[0] != "M" else 10 - total % 11] == n[8]


def thailand_identity(n: str) -> bool:
    """Weights 13..2, 11 - sum mod 11, last digit."""
    return n[0] != "0" and (11 - weighted_sum(n, range(13, 1, -1)) % 11) % 10 == int(n[12])


def malaysia_identity(n: str) -> bool:
    return is_date(n[:2], n[2:4], n[4:6])


def brazil_cpf(n: str) -> bool:
    """Two check digits: weights 10..2 and 11..2, 11 - sum mod 11, 10 and 11 count as 0."""

    def check(length: int) -> int:
        remainder = weighted_sum(n[:length], range(length + 1, 1, -1)) % 11
        return 0 if remainder < 2 else 11 - remainder

    return len(set(n)) > 1 and check(9) == int(n[9]) and check(10) == int(n[10])


def chile_rut(n: str) -> bool:
    """Weights 2..7 from the right, 11 - sum mod 11; 11 is 0, 10 is K."""
    body = n[:-1]
    total = sum(int(d) * (2 + i % 6) for i, d in enumerate(reversed(body)))
    return "0123456789K0"[11 - total % 11] == n[-1]


def argentina_cuil(n: str) -> bool:
    """Weights 5 4 3 2 7 6 5 4 3 2, 11 - sum mod 11, 11 counts as 0."""
    return (11 - weighted_sum(n, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11) % 11 == int(n[10])


def mexico_curp(n: str) -> bool:
    """RENAPO: alphabet with N-tilde after N, weights 18..2, 10 - sum mod 10."""
    values = "0123456789ABCDEFGHIJKLMN?OPQRSTUVWXYZ"
    total = sum(values.index(c) * w for c, w in zip(n[:17], range(18, 1, -1), strict=True))
    return is_date(n[4:6], n[6:8], n[8:10]) and (10 - total % 10) % 10 == int(n[17])


def mexico_nss(n: str) -> bool:
    """Social security number of the IMSS, with a Luhn digit."""
    return luhn(n)


def ecuador_cedula(n: str) -> bool:
    return int(n[:2]) in (*range(1, 25), 30) and n[2] in "012345" and luhn(n)


def dominican_cedula(n: str) -> bool:
    return luhn(n)


def canada_sin(n: str) -> bool:
    return n[0] not in "08" and luhn(n)


def australia_tfn(n: str) -> bool:
    """Weights 1 4 3 7 5 8 6 9 10, sum divides by 11."""
    return weighted_sum(n, (1, 4, 3, 7, 5, 8, 6, 9, 10)) % 11 == 0 and int(n) > 0


def australia_medicare(n: str) -> bool:
    """Weights 1 3 7 9 1 3 7 9 over eight digits, mod 10; first digit 2 to 6."""
    return n[0] in "23456" and weighted_sum(n, (1, 3, 7, 9, 1, 3, 7, 9)) % 10 == int(n[8])


def new_zealand_ird(n: str) -> bool:
    """Weights 3 2 7 6 5 4 3 2 mod 11; on 10 again with 7 4 3 2 5 2 7 6."""
    n = n.zfill(9)
    check = -weighted_sum(n, (3, 2, 7, 6, 5, 4, 3, 2)) % 11
    if check == 10:
        check = -weighted_sum(n, (7, 4, 3, 2, 5, 2, 7, 6)) % 11
    return 10_000_000 <= int(n) <= 150_000_000 and check == int(n[8])


def croatia_oib(n: str) -> bool:
    return mod_11_10(n)
