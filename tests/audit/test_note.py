from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.audit.note import Signer, TreeHead, Verifier, open_checkpoint, parse_checkpoint
from rsc.errors import ConfigError, IntegrityError

# The example of the C2SP signed-note specification and of golang.org/x/mod/sumdb/note: key, text, signature
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
NOTE_SIGNATURE = (
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
)


def test_the_published_example_of_a_signed_note_verifies():
    verifier = Verifier.from_text(VKEY)
    signature = base64.b64decode(NOTE_SIGNATURE)
    assert signature[:4] == verifier.key_hash
    assert verifier.is_valid(signature[4:], text=NOTE_TEXT.encode())
    assert not verifier.is_valid(signature[4:], text=NOTE_TEXT.encode() + b"\n")
    assert verifier.to_text() == VKEY


@given(st.integers(min_value=0, max_value=2**63), st.binary(min_size=32, max_size=32))
def test_a_checkpoint_comes_back(size, root):
    signer = Signer.generate("openrsc")
    checkpoint = TreeHead(signer.verifier.name, size, root)
    note = checkpoint.signed(signer)
    assert open_checkpoint(note, verifier=signer.verifier) == checkpoint
    assert parse_checkpoint(note) == checkpoint
    with pytest.raises(IntegrityError):
        open_checkpoint(note, verifier=Signer.generate("openrsc").verifier)


def test_keys_come_back_from_their_text():
    signer = Signer.generate("openrsc")
    again = Signer.from_text(signer.to_text())
    assert again.verifier == signer.verifier == Verifier.from_text(signer.verifier.to_text() + "\n")
    for text in ("", "x", "PRIVATE+KEY+a", "PRIVATE+KEY+a+AAAA", signer.to_text()[:-3]):
        with pytest.raises(ConfigError):
            Signer.from_text(text)


@pytest.mark.parametrize("change", ["name+00000000+AQ==", "", "a+b", VKEY[:-1], VKEY.replace("c74f", "c74e")])
def test_a_broken_verifier_key_is_refused(change):
    with pytest.raises(ConfigError):
        Verifier.from_text(change)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\n\n",
        b"a\n1\nAAAA\n",
        b"a\n01\n" + base64.b64encode(bytes(32)) + b"\n\n\xe2\x80\x94 a AAAA\n",
        b"a\n1\n" + base64.b64encode(bytes(32)) + b"\n\nno dash\n",
        b"a\n-1\n" + base64.b64encode(bytes(32)) + b"\n\n\xe2\x80\x94 a AAAA\n",
        b"a\n1\nnot base64\n\n\xe2\x80\x94 a AAAA\n",
        b"\xff\xfe\n1\n\n\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text):
    with pytest.raises(IntegrityError):
        parse_checkpoint(text)
