"""Which records are held out of training: decided by what a record says, so that its duplicates follow it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

TRAIN, VALIDATION = "train", "validation"
DEFAULT_SHARE = 0.1

_SCALE = 1 << 64


def held_out(
    contents: Sequence[str | bytes], *, key: str, share: float
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """bool [n]: True for about `share` of the distinct contents.

    A keyed BLAKE2b (RFC 7693) of the content falls uniformly on [0, 1); below `share` is held out. `key` is
    empty, so that the same text is held out of every data set that has it, stored as text or as ids; sets
    made before that have their name, and keep it.
    """
    if share == 0:
        return np.zeros(len(contents), dtype=np.bool_)
    secret = hashlib.sha256(f"rsc-holdout-1\n{key}\n".encode()).digest()
    limit = round(share * _SCALE)
    return np.fromiter(
        (_draw(content, key=secret) < limit for content in contents), np.bool_, count=len(contents)
    )


def _draw(content: str | bytes, *, key: bytes) -> int:
    data = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=key).digest(), "big")
