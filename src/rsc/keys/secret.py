"""Key bytes that stay out of swap, core dumps, tracebacks and pickles.

A key lives alone in one anonymous page: locked (`mlock`), left out of core dumps (MADV_DONTDUMP) and
overwritten on close. Locking needs RLIMIT_MEMLOCK; where the limit is spent, `is_locked` says so.

Not covered: the copies that OpenSSL makes while a cipher object is alive, registers and stacks of the
crypto library, a debugger or root on the same machine, hibernation, and memory of a forked child (which
has the page, copy on write, until it exits or closes its own copy).
"""

from __future__ import annotations

import contextlib
import ctypes
import hmac
import mmap
from types import TracebackType
from typing import NoReturn

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rsc.errors import KeyUnavailable
from rsc.hardening import harden_process

KEY_BYTES = 32
_LIBC = ctypes.CDLL(None, use_errno=True)


class SecretKey:
    """32 secret bytes. Use as a context manager, or call `close()`; both wipe."""

    __slots__ = ("_page", "_view", "is_locked")

    def __init__(self) -> None:
        harden_process()
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self.is_locked = _lock(self._page)
        self._view: memoryview | None = memoryview(self._page)[:KEY_BYTES]

    @classmethod
    def generate(cls) -> SecretKey:
        """A new key from the operating system's generator, read straight into locked memory."""
        key = cls()
        with open("/dev/urandom", "rb", buffering=0) as generator:
            if generator.readinto(key.view) != KEY_BYTES:  # reads of up to 256 bytes are never short
                raise OSError("/dev/urandom gave less than was asked for")
        return key

    @classmethod
    def from_buffer(cls, source: bytearray | memoryview) -> SecretKey:
        """Take the 32 bytes of `source` and overwrite it with zeros. Raises ValueError for another size."""
        if len(source) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(source)}")
        key = cls()
        key.view[:] = source
        source[:] = bytes(KEY_BYTES)
        return key

    @property
    def is_closed(self) -> bool:
        return self._view is None

    @property
    def view(self) -> memoryview:
        """The live bytes, writable, never a copy. Raises KeyUnavailable after `close()`."""
        if self._view is None:
            raise KeyUnavailable("this key was closed and wiped", hint="ask the key agent for it again")
        return self._view

    def derive(self, *, salt: bytes, info: bytes) -> SecretKey:
        """HKDF-SHA256 (RFC 5869): extract with `salt`, expand with `info`, 32 bytes out."""
        derived = SecretKey()
        HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive_into(self.view, derived.view)
        return derived

    def aead(self) -> AESGCM:
        """AES-256-GCM under this key. The object holds its own copy of the key until it is freed."""
        return AESGCM(self.view)

    def matches(self, other: SecretKey) -> bool:
        """Equality in constant time."""
        return hmac.compare_digest(self.view, other.view)

    def close(self) -> None:
        """Overwrite and give back the page. Safe to call again."""
        if self._view is None:
            return
        self._view[:] = bytes(KEY_BYTES)
        view, self._view = self._view, None
        # A caller may still hold a slice; then the page goes when the slice does. It is zeros already.
        with contextlib.suppress(BufferError):
            view.release()
            self._page.close()

    def __enter__(self) -> SecretKey:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_view"):
            self.close()

    def __repr__(self) -> str:
        return "SecretKey(closed)" if self._view is None else "SecretKey(32 bytes)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretKey cannot be pickled or copied; send it over the key agent's socket")


def _lock(page: mmap.mmap) -> bool:
    """Pin the page and leave it out of core dumps. False where the limit or the platform forbids locking."""
    if hasattr(mmap, "MADV_DONTDUMP"):
        page.madvise(mmap.MADV_DONTDUMP)
    anchor = ctypes.c_char.from_buffer(page)
    address = ctypes.c_void_p(ctypes.addressof(anchor))
    locked = _LIBC.mlock(address, ctypes.c_size_t(len(page))) == 0
    del anchor
    return bool(locked)
