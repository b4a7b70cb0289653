"""Overwrite `bytes` that a library made for us and that hold a key.

Client libraries of key services take and give `bytes`, which Python never clears. The object is
overwritten in place right after use, while nobody else can have it.

Not covered: copies that the library or the TLS stack made on the way.
"""

from __future__ import annotations

import ctypes
import sys


def wipe(secret: bytes) -> None:
    """Zero the contents of a `bytes` object that only the caller holds. CPython keeps them in the object."""
    if len(secret) < 2:
        return  # one-byte and empty objects are shared by the whole interpreter
    header_bytes = sys.getsizeof(b"") - 1
    ctypes.memset(id(secret) + header_bytes, 0, len(secret))
