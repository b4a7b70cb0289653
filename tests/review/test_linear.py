"""Four times the text costs four times the work: beginnings of every rule, repeated and never finished."""

from __future__ import annotations

import gc
import time
from functools import cache
from importlib.util import find_spec

import pytest

from rsc.review.scanner.prefilter import ENGINES
from rsc.review.scanner.scanner import Scanner

BEGINNINGS = [
    "-----BEGIN PRIVATE KEY-----\nMIIE", "-----BEGIN RSA PRIVATE KEY-----\n",
    "---- BEGIN SSH2 PRIVATE KEY ----", "LS0tLS1CRUdJTi", "Private-Lines: 6\nab", "eyJhbGciOi.",
    "eyJhbGciOi.eyJ", "eyJhbGciO", "password=", 'password: "a1', '"a1"==', "curl -u ", "ab at cd ",
    "mysql ", "docker ", "machine a login b ", "Authorization: ", "basic a1", "bearer ", "?sig=a1",
    "--token ", "://a:b", "://a:b@", "a:5432:b:c:", "key=aB3dE5fG7hI9jK1l", "key=", "A_1=", "a@", "a@b.",
    "a.b@c.d", "x at y dot ", "[at]", '"@', "@a.b\n", "1", "12 Oak ", "12 Oak Street, ", "Apt 4, ",
    "PO Box 1, ", "rue de la ", "+1 ", "(2", "212-", "4111 ", "GB82", "gb82 west ", "::", "ab:cd:", "1.2.",
    "48.85837, ", "0x", "bc1q", "born 1", "tel 1", "lives at ", "passport A1", "lat: 1.5", "1\u00b0 ",
    "\\\\", "%20", "&amp;", "\u200b", "\u4e2d1", "\u0442\u0435\u043b ", "sk-", "MTA.", "twitter.com/a ",
    "cookie: ", "cookie: sid=1", "psexec a", "net use /user:a ", "$1$aaaa", "psk=", "ZXlKaGJH", "2aB3aB3_",
    "Calle 7 # ", "12 rue de ",
]  # fmt: skip


@cache
def scanner(engine: str) -> Scanner:
    return Scanner("hyperscan" if engine == "hyperscan" else "re2")


def seconds(engine: str, text: str) -> float:
    """Of CPU time, without the garbage of the tests before it."""
    gc.disable()
    try:
        started = time.process_time()
        scanner(engine).scan(text)
        return time.process_time() - started
    finally:
        gc.enable()


@pytest.mark.parametrize("beginning", BEGINNINGS)
@pytest.mark.parametrize(("engine", "length"), [("hyperscan", 12_000), ("re2", 3_000)])
def test_work_grows_with_the_length(engine, length, beginning):
    """A ratio of 16 would be quadratic; short runs say nothing, and one slow run may be the machine's."""
    if find_spec(ENGINES[engine]) is None:
        pytest.skip(f"{engine} is not installed")
    text = beginning * (4 * length // len(beginning))
    for _ in range(3):
        short = seconds(engine, text[:length])
        long = seconds(engine, text)
        if long < 0.25 or long < 11 * short:
            return
    pytest.fail(f"{long:.3f} s for four times the text that took {short:.3f} s, three times over")


@pytest.mark.slow
@pytest.mark.parametrize(
    "beginning", BEGINNINGS[::3]
)  # a megabyte takes seconds: every third stands for its like
@pytest.mark.parametrize(("engine", "length"), [("hyperscan", 1_000_000), ("re2", 100_000)])
def test_work_grows_with_the_length_up_to_a_megabyte(engine, length, beginning):
    test_work_grows_with_the_length(engine, length // 4, beginning)
