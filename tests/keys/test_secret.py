from __future__ import annotations

import copy
import mmap
import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rsc.errors import KeyUnavailable
from rsc.keys.secret import SecretKey


def test_source_is_wiped_and_the_bytes_are_taken() -> None:
    source = bytearray(range(32))
    with SecretKey.from_buffer(source) as key:
        assert bytes(key.view) == bytes(range(32))
    assert source == bytes(32)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_another_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SecretKey.from_buffer(bytearray(size))


def test_close_wipes_even_what_a_caller_still_holds() -> None:
    key = SecretKey.generate()
    held = key.view[:8]
    assert any(held)
    key.close()
    assert bytes(held) == bytes(8)
    with pytest.raises(KeyUnavailable):
        _ = key.view
    key.close()


def test_nothing_shows_or_copies_the_bytes() -> None:
    with SecretKey.from_buffer(bytearray(b"A" * 32)) as key:
        assert "A" * 4 not in repr(key)
        assert "A" * 4 not in str(key)
        for act in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled"):
                act(key)


def test_derive_is_hkdf_sha256(key: SecretKey) -> None:
    expected = HKDF(algorithm=SHA256(), length=32, salt=b"salt", info=b"info").derive(bytes(range(32)))
    with key.derive(salt=b"salt", info=b"info") as derived:
        assert bytes(derived.view) == expected


def test_matches_compares_all_bytes() -> None:
    with SecretKey.from_buffer(bytearray(32)) as one, SecretKey.from_buffer(bytearray(31) + b"\x01") as two:
        assert one.matches(one)
        assert not one.matches(two)


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTDUMP"), reason="this platform has no MADV_DONTDUMP")
def test_the_page_is_locked_and_left_out_of_dumps() -> None:
    """`lo` = locked, `dd` = do not dump, in the flags of the page's mapping (proc(5), VmFlags)."""
    with SecretKey.from_buffer(bytearray(b"needle-of-this-test-" + b"x" * 12)) as key:
        flags = [
            line.split()[1:]
            for line in Path("/proc/self/smaps").read_text().splitlines()
            if line.startswith("VmFlags:")
        ]
        hidden = [line for line in flags if "dd" in line]
        assert hidden
        if key.is_locked:
            assert any("lo" in line for line in hidden)
