"""Just enough of GCM's arithmetic to make one ciphertext that authenticates under two keys.

SP 800-38D section 6.4 (GHASH) over GF(2^128); the attack: Dodis, Grubbs, Ristenpart and Woodage 2018,
eprint.iacr.org/2019/016. Test material only: slow, and not constant in time.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

_R = 0xE1 << 120


def multiply(x: int, y: int) -> int:
    """Product in GCM's field; bit 0 is the leftmost."""
    z = 0
    for bit in range(127, -1, -1):
        if x >> bit & 1:
            z ^= y
        y = y >> 1 ^ (_R if y & 1 else 0)
    return z


def invert(x: int) -> int:
    """x^(2^128 - 2)."""
    result, square = 1 << 127, x
    for _ in range(127):
        square = multiply(square, square)
        result = multiply(result, square)
    return result


def ghash(h: int, data: bytes) -> int:
    y = 0
    for start in range(0, len(data), 16):
        y = multiply(y ^ int.from_bytes(data[start : start + 16], "big"), h)
    return y


def encrypt_block(key: bytes, block: bytes) -> bytes:
    encryptor = Cipher(AES(key), ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def two_key_ciphertext(key: bytes, other: bytes, *, nonce: bytes, associated_data: bytes) -> bytes:
    """Two blocks of ciphertext and a tag that verifies under both keys.

    The tag is E(nonce) + GHASH; the second block solves the one linear equation that makes both tags equal.
    """
    assert len(associated_data) % 16 == 0, "keeps the padding out"
    first = bytes(range(16))
    lengths = (8 * len(associated_data)).to_bytes(8, "big") + (8 * 32).to_bytes(8, "big")
    h, mask = [], []
    for each in (key, other):
        h.append(int.from_bytes(encrypt_block(each, bytes(16)), "big"))
        mask.append(int.from_bytes(encrypt_block(each, nonce + b"\0\0\0\1"), "big"))
    known = [ghash(each, associated_data + first + bytes(16) + lengths) for each in h]
    difference = known[0] ^ known[1] ^ mask[0] ^ mask[1]
    factor = multiply(h[0], h[0]) ^ multiply(h[1], h[1])  # the second block is hashed with H^2
    second = multiply(difference, invert(factor))
    tag = known[0] ^ multiply(second, multiply(h[0], h[0])) ^ mask[0]
    return first + second.to_bytes(16, "big") + tag.to_bytes(16, "big")
