"""A container reader written from docs/format.md alone: nothing of the project is imported here.

It holds the real reader to the page: both must give the same outcome on every vector.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"\x89RSC\r\n\x1a\n"
END = b"RSCend\r\n"
BLOCK = 1 << 20
SUITES = {1: (b"rsc-container-1 ", 12, 16), 2: (b"rsc-container-1 aegis-256 ", 32, 32)}
"""By number: what its labels begin with, bytes of a nonce, bytes of a tag."""


class Outcome(Exception):
    """One of the six words, but `ok`."""


def require(condition: bool, outcome: str) -> None:
    if not condition:
        raise Outcome(outcome)


def hkdf(key: bytes, salt: bytes, info: bytes) -> bytes:
    """RFC 5869, SHA-256, one block of output."""
    return hmac.digest(hmac.digest(salt, key, "sha256"), info + b"\x01", "sha256")


def file_keys(key: bytes, salt: bytes, suite: int = 1) -> tuple[bytes, bytes, bytes]:
    """Frame key, MAC key, commitment."""
    label = SUITES[suite][0]
    frame, mac, commitment = (hkdf(key, salt, label + word) for word in (b"frame", b"header", b"commitment"))
    return frame, mac, commitment


def nonce(counter: int, last: int, suite: int = 1) -> bytes:
    return counter.to_bytes(SUITES[suite][1] - 1, "big") + bytes([last])


def seal(suite: int, key: bytes, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
    if suite == 1:
        return AESGCM(key).encrypt(nonce, plain, associated)
    from nacl.bindings import crypto_aead_aegis256_encrypt  # nobody else needs it

    return crypto_aead_aegis256_encrypt(plain, associated, nonce, key)


def unseal(suite: int, key: bytes, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
    """Raises Outcome `frame`."""
    if suite == 1:
        try:
            return AESGCM(key).decrypt(nonce, sealed, associated)
        except InvalidTag:
            raise Outcome("frame") from None
    from nacl.bindings import crypto_aead_aegis256_decrypt
    from nacl.exceptions import CryptoError

    try:
        return crypto_aead_aegis256_decrypt(sealed, associated, nonce, key)
    except (CryptoError, ValueError):
        raise Outcome("frame") from None


def block_list(body: bytes) -> bytes:
    return b"".join(
        hashlib.sha256(body[start : start + BLOCK]).digest() for start in range(0, len(body), BLOCK)
    )


def read(file: bytes, *, key: bytes, context: bytes, digest: bytes | None = None) -> list[bytes]:
    """Plaintext of all frames. Raises Outcome."""
    return [plain for plain, _ in open_container(file, key=key, context=context, digest=digest)]


def open_container(
    file: bytes, *, key: bytes, context: bytes, digest: bytes | None = None
) -> list[tuple[bytes, int]]:
    """(plaintext, number of samples) of all frames. Raises Outcome. The numbers are the steps of the page."""
    header = file[:128]
    require(header[:8] == MAGIC[: len(header)], "header")  # 1
    require(len(header) == 128, "truncated")
    suite = int.from_bytes(header[10:12], "little")
    require(header[8:10] + header[12:32] == b"\1\0" + bytes(20) and suite in SUITES, "header")  # 2
    tag = SUITES[suite][2]
    frame_key, mac_key, commitment = file_keys(key, header[32:64], suite)
    require(header[64:96] == commitment, "no_key")  # 3
    require(header[96:] == hmac.digest(mac_key, header[:96] + context, "sha256"), "header")  # 4
    body, num_frames = read_trailer(file, tag=tag)
    tail = file[body:]
    num_blocks = -(-body // BLOCK)
    blocks, table = tail[: 32 * num_blocks], tail[32 * num_blocks : -32]
    entries = unseal(suite, frame_key, nonce(num_frames, 1, suite), table, header + blocks)  # 9
    sizes, counts = zip(*struct.iter_unpack("<II", entries), strict=True) if entries else ((), ())
    require(max(sizes, default=0) <= 1 << 30, "frame")  # 10
    end = 128 + sum(sizes) + tag * num_frames
    require(end == body, "truncated" if end > body else "trailing")
    require(digest is None or hashlib.sha256(tail).digest() == digest, "header")  # 11
    frames, start = [], 128
    for number, size in enumerate(sizes):  # 12
        sealed = file[start : start + size + tag]
        frames.append(unseal(suite, frame_key, nonce(number, 0, suite), sealed, header))
        start += size + tag
    return list(zip(frames, counts, strict=True))


def read_trailer(file: bytes, *, tag: int) -> tuple[int, int]:
    """Bytes of the body and number of frames: steps 5 to 8."""
    require(len(file) >= 208, "truncated")  # 5
    magic, body, num_frames, size = struct.unpack("<8sQQQ", file[-32:])
    if magic != END:  # 6
        ends = [at + 32 for at in range(len(file) - 31) if file.startswith(END, at)]
        found = any(struct.unpack("<Q", file[end - 8 : end])[0] == end for end in ends)
        raise Outcome("trailing" if found else "truncated")
    require(size <= len(file), "truncated")  # 7
    require(size >= len(file), "trailing")
    require(body >= 128 and body + 32 * -(-body // BLOCK) + 8 * num_frames + tag + 32 == size, "frame")  # 8
    return body, num_frames
