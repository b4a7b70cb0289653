"""A reader of whole versions written from docs/format.md alone: nothing of the project is imported here.

Key, root.json, manifests, shards and frames, to samples as bytes. It holds the page to its promise that a
stranger can read what is stored.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from tests.store.spec_reader import hkdf, open_container, require

PAGE = 256
ENTRY = struct.Struct("<32sQQQQ")
ITEM_BYTES = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8,
    "uint64": 8, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip

Sample = dict[str, bytes]


def read_version(folder: Path, *, keys: Path, passphrase: bytes = b"") -> dict[str, list[Sample]]:
    """Split -> its samples, each field as its bytes. Raises Outcome."""
    root = json.loads((folder / "root.json").read_bytes())
    key = data_key(folder, keys=keys, passphrase=passphrase)
    return {name: list(samples(folder, root, name, key=key)) for name in root["splits"]}


def data_key(folder: Path, *, keys: Path, passphrase: bytes) -> bytes:
    envelope = json.loads((folder / "key.json").read_bytes())
    kek_id = envelope["kek_id"]
    record = json.loads((keys / f"{kek_id}.kek").read_bytes())
    secret = base64.b64decode(record["secret"])
    if record["protection"] == "scrypt":
        kdf = json.loads((keys / "kdf.json").read_bytes())
        salt = base64.b64decode(kdf["salt"])
        master = Scrypt(salt=salt, length=32, n=1 << kdf["log_n"], r=8, p=1).derive(passphrase)
        secret = unwrap(master, secret, kek_id=kek_id, context=b"kek")
    context = f"rsc-data-key-1\n{folder.parent.name}\n".encode()
    return unwrap(secret, base64.b64decode(envelope["wrapped"]), kek_id=kek_id, context=context)


def unwrap(key: bytes, wrapped: bytes, *, kek_id: str, context: bytes) -> bytes:
    once = AESGCM(hkdf(key, wrapped[:32], b"rsc-wrap-1"))
    return once.decrypt(bytes(12), wrapped[32:], f"rsc-wrap-1\n{kek_id}\n".encode() + context)


def samples(folder: Path, root: dict[str, Any], split: str, *, key: bytes) -> Iterator[Sample]:
    record = root["splits"][split]
    for number, (digest, size, *_) in enumerate(shards((folder / f"{split}.manifest").read_bytes(), record)):
        file = (folder / split / f"{number:09d}.rsc").read_bytes()
        require(len(file) == size, "truncated" if len(file) < size else "trailing")
        context = f"rsc-shard-1\n{root['name']}\n{root['version_id']}\n{split}\n{number}\n".encode()
        for plain, count in open_container(file, key=key, context=context, digest=digest):
            yield from rows(plain, record["fields"], count)


def shards(manifest: bytes, record: dict[str, Any]) -> list[tuple[bytes, int, int, int, int]]:
    """Entries of level 0, every page checked against the entry above it."""
    levels = [record["num_shards"]]
    while levels[-1] > PAGE:
        levels.append(-(-levels[-1] // PAGE))
    size = ENTRY.size * sum(levels)
    require(len(manifest) >= size, "truncated")
    require(len(manifest) == size, "trailing")
    counts = (record[name] for name in ("size_bytes", "num_samples", "num_frames", "num_shards"))
    above: list[tuple[bytes, int, int, int, int]] = [(bytes.fromhex(record["merkle_root"]), *counts)]
    end = size
    for level in range(len(levels) - 1, -1, -1):
        start = end - ENTRY.size * levels[level]
        entries = list(ENTRY.iter_unpack(manifest[start:end]))
        for number, (digest, *sums) in enumerate(above):
            page = entries[PAGE * number : PAGE * (number + 1)]
            text = b"rsc-manifest-1" + bytes([level]) + b"".join(ENTRY.pack(*entry) for entry in page)
            require(hashlib.sha256(text).digest() == digest, "frame")
            require([sum(entry[column] for entry in page) for column in range(1, 5)] == sums, "frame")
        above, end = entries, start
    return above


def rows(plain: bytes, fields: list[dict[str, Any]], count: int) -> list[Sample]:
    """Samples of one frame."""
    columns, at = {}, 0
    for field in fields:
        item = ITEM_BYTES[field["dtype"]]
        if field["kind"] == "tensor":
            ends = [item * math.prod(field["shape"]) * number for number in range(1, count + 1)]
        else:
            require(at + 4 * count <= len(plain), "frame")
            ends = [item * end for end in struct.unpack_from(f"<{count}I", plain, at)]
            require(ends == sorted(ends), "frame")
            at += padded(4 * count)
        begins = [0, *ends]
        require(at + begins[-1] <= len(plain), "frame")
        columns[field["name"]] = [plain[at + a : at + b] for a, b in zip(begins, ends, strict=False)]
        at += padded(begins[-1])
    require(at == len(plain), "frame")
    return [{name: column[row] for name, column in columns.items()} for row in range(count)]


def padded(size: int) -> int:
    return -(-size // 64) * 64
