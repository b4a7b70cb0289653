"""Random streams by name: the same name and seed give the same numbers on every mesh and machine.

Nothing draws from a global generator: weights, data order and dropout each have a stream of their
own, so that adding a draw to one leaves the others as they were. No torch here.
"""

from __future__ import annotations

import hashlib


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for a named stream, such as `stream_seed(0, "weights")`. SHA-256 keeps streams apart."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1
