"""Crypto-currency addresses whose own checksum holds.

Base58Check: Bitcoin wiki "Base58Check encoding" (first 4 bytes of double SHA-256), with the XRP Ledger's own
alphabet; also private keys (WIF) and extended keys (BIP 32). Bech32 and Bech32m: BIP 173, BIP 350. Ethereum
mixed-case checksum: ERC-55 (Keccak-256). Monero addresses are taken by their form.

Not covered: Solana and other addresses without a checksum or a mark.
"""

from __future__ import annotations

import hashlib
import re

from rsc.review.scanner.rules.borders import NOT_GOING_ON, NOT_IN_WORD
from rsc.review.scanner.rules.rule import Rule

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_EDGE, _END = NOT_IN_WORD, NOT_GOING_ON
_XRP_ALPHABET = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
_BITCOIN = re.compile(
    rf"{_EDGE}(?:[13mn2LMDAXt9Tr][1-9A-HJ-NP-Za-km-z]{{25,34}}|[5KL][1-9A-HJ-NP-Za-km-z]{{50,51}}"
    rf"|[xyztuv]p(?:ub|rv)[1-9A-HJ-NP-Za-km-z]{{107}}"
    rf"|(?P<form>[48][0-9AB][1-9A-HJ-NP-Za-km-z]{{93}}(?:[1-9A-HJ-NP-Za-km-z]{{11}})?)){_END}"
)
_PREFIXES = "bc|tb|ltc|addr|stake|cosmos|osmo|juno|terra|inj|celestia|bnb|sei|kava|akash|thor|axelar|lnbc|erd"
_SEGWIT = re.compile(rf"(?i){_EDGE}(?P<hrp>{_PREFIXES})1[02-9AC-HJ-NP-Z]{{11,110}}{_END}")
_ETHEREUM = re.compile(rf"{_EDGE}0x[0-9A-Fa-f]{{40}}{_END}")


def _is_base58check(text: str, match: re.Match[str]) -> bool:
    if match["form"]:
        return True
    return _is_checked(match[0], alphabet=_XRP_ALPHABET if match[0][0] == "r" else _BASE58)


def _is_checked(address: str, *, alphabet: str) -> bool:
    """Version, payload and checksum in as many bytes as an address, a private or an extended key has."""
    number = 0
    for character in address:
        number = number * 58 + alphabet.index(character)
    zeros = len(address) - len(address.lstrip(alphabet[0]))
    raw = b"\x00" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
    if len(raw) not in (25, 26, 37, 38, 82):
        return False
    return hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]


def _is_bech32(text: str, match: re.Match[str]) -> bool:
    address = match[0]
    if address not in (address.lower(), address.upper()):
        return False
    prefix, _, data = address.lower().partition("1")
    if any(character not in _BECH32 for character in data):
        return False
    values = (
        [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + [_BECH32.index(c) for c in data]
    )
    return _polymod(values) in (1, 0x2BC830A3)


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            check ^= generator if top >> bit & 1 else 0
    return check


def _is_ethereum(text: str, match: re.Match[str]) -> bool:
    digits = match[0][2:]
    if digits in (digits.lower(), digits.upper()):
        return len(set(digits.lower())) > 4
    return all(
        c.isdigit() or (c.isupper() == (int(h, 16) >= 8))
        for c, h in zip(digits, keccak_256(digits.lower().encode()).hex(), strict=False)
    )


RULES = (
    Rule("bitcoin", "crypto_wallet", r"[1-9A-HJ-NP-Za-km-z]{26}", 28, _BITCOIN, _is_base58check, strength=0),
    Rule(
        "segwit",
        "crypto_wallet",
        rf"(?i)(?:{_PREFIXES})1[02-9AC-HJ-NP-Z]{{11}}",
        20,
        _SEGWIT,
        _is_bech32,
        strength=0,
        reach=110,
        digit=True,
    ),
    Rule("ethereum", "crypto_wallet", r"0x[0-9A-Fa-f]{40}", 42, _ETHEREUM, _is_ethereum, strength=0),
)


_ROTATIONS = (
    (0, 36, 3, 41, 18),
    (1, 44, 10, 45, 2),
    (62, 6, 43, 15, 61),
    (28, 55, 25, 21, 56),
    (27, 20, 39, 8, 14),
)


def keccak_256(message: bytes) -> bytes:
    """Keccak-256 with the original padding 0x01, as Ethereum uses it (FIPS 202's SHA3-256 pads 0x06)."""
    rate = 136
    padded = bytearray(message + b"\x01" + b"\x00" * (-(len(message) + 1) % rate))
    padded[-1] |= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for start in range(0, len(padded), rate):
        for word in range(rate // 8):
            lanes[word % 5][word // 5] ^= int.from_bytes(
                padded[start + 8 * word : start + 8 * word + 8], "little"
            )
        lanes = _keccak_f(lanes)
    return b"".join(lanes[word % 5][word // 5].to_bytes(8, "little") for word in range(4))


def _keccak_f(a: list[list[int]]) -> list[list[int]]:
    """Keccak-f[1600], 24 rounds of theta, rho, pi, chi, iota (FIPS 202 section 3)."""
    register = 1
    for _ in range(24):
        columns = [a[x][0] ^ a[x][1] ^ a[x][2] ^ a[x][3] ^ a[x][4] for x in range(5)]
        mixed = [columns[x - 1] ^ _rotate(columns[(x + 1) % 5], by=1) for x in range(5)]
        b = [[0] * 5 for _ in range(5)]
        for x in range(5):
            for y in range(5):
                b[y][(2 * x + 3 * y) % 5] = _rotate(a[x][y] ^ mixed[x], by=_ROTATIONS[x][y])
        a = [[b[x][y] ^ (~b[(x + 1) % 5][y] & b[(x + 2) % 5][y]) for y in range(5)] for x in range(5)]
        for bit in range(7):
            register = (register << 1 ^ (register >> 7) * 0x71) & 0xFF
            if register & 2:
                a[0][0] ^= 1 << ((1 << bit) - 1)
    return a


def _rotate(word: int, *, by: int) -> int:
    return (word << by | word >> (64 - by)) & 0xFFFFFFFFFFFFFFFF
