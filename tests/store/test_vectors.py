"""Every vector has one outcome, for the reader of the project and for one written from docs/format.md."""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rsc.errors import IntegrityError
from rsc.keys.secret import SecretKey
from rsc.store.format.container import ContainerReader, ContainerWriter
from rsc.store.format.suites import SUITES, Suite
from tests.store import spec_reader
from tests.store.make_vectors import CONTEXT, FOLDER, FRAMES, KEY, OTHER_KEY, Forge, vectors
from tests.store.memory import MemoryFile
from tests.store.spec_reader import Outcome, file_keys, nonce

OUTCOMES = ("ok", "no_key", "header", "frame", "truncated", "trailing")
PATHS = sorted(FOLDER.iterdir())


@cache
def load(path: Path) -> tuple[dict[str, str], bytes]:
    head, _, file = path.read_bytes().partition(b"\n\n")
    return dict(line.split(": ", 1) for line in head.decode().splitlines()), file


def with_project(head: dict[str, str], file: bytes) -> tuple[str, str | None]:
    digest = bytes.fromhex(head["digest"]) if "digest" in head else None
    with SecretKey.from_buffer(bytearray.fromhex(head["key"])) as key:
        try:
            reader = ContainerReader(
                MemoryFile(file), key=key, context=bytes.fromhex(head["context"]), expected_digest=digest
            )
            frames = [reader.read_frame(number) for number in range(reader.num_frames)]
        except IntegrityError as error:
            return error.facts["outcome"], None
    return "ok", hashlib.sha256(b"".join(frames)).hexdigest()


def with_the_page(head: dict[str, str], file: bytes) -> tuple[str, str | None]:
    key, context = bytes.fromhex(head["key"]), bytes.fromhex(head["context"])
    digest = bytes.fromhex(head["digest"]) if "digest" in head else None
    try:
        frames = spec_reader.read(file, key=key, context=context, digest=digest)
    except Outcome as outcome:
        return str(outcome), None
    return "ok", hashlib.sha256(b"".join(frames)).hexdigest()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_vector(path: Path) -> None:
    head, file = load(path)
    expected = (head["expect"], head.get("plaintext"))
    assert with_project(head, file) == expected
    assert with_the_page(head, file) == expected


def test_the_files_are_those_of_the_generator() -> None:
    made = {vector.name: vector.to_bytes() for vector in vectors()}
    assert {path.name: path.read_bytes() for path in PATHS} == made


def test_there_are_enough_of_each_outcome() -> None:
    counts = Counter(load(path)[0]["expect"] for path in PATHS)
    of_aegis = Counter(load(path)[0]["expect"] for path in PATHS if "-aegis-" in path.name)
    for found, least in ((counts, 300), (of_aegis, 150)):
        assert set(found) == set(OUTCOMES)
        assert found.total() >= least
        assert min(found.values()) >= 10
    assert sum(path.stat().st_size for path in PATHS) < 2_500_000


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.cipher)
def test_the_writer_writes_what_the_page_says(key: SecretKey, suite: Suite) -> None:
    """Same key, salt and frames: the same bytes as a file put together from primitives."""
    file, good = MemoryFile(), Forge(suite=suite.number)
    writer = ContainerWriter(
        file, key=key, context=CONTEXT, suite=suite, random_bytes=lambda size: good.salt[:size]
    )
    for number, frame in enumerate(FRAMES):
        writer.write_frame(frame, num_samples=number)
    assert writer.finish().digest == good.digest()
    assert bytes(file.data) == good.build()


def test_the_two_key_vector_is_one() -> None:
    """Bare AES-GCM accepts its frame under both file keys, to different plaintexts."""
    _, file = load(FOLDER / "no_key-two-keys")
    salt = Forge(seed="two keys").salt
    plains = [
        AESGCM(file_keys(key, salt)[0]).decrypt(nonce(0, 0), file[128:176], file[:128])
        for key in (KEY, OTHER_KEY)
    ]
    assert plains[0] != plains[1]
