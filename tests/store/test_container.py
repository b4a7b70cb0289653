from __future__ import annotations

import hashlib

import numpy as np
import pytest

from rsc.errors import DataError, IntegrityError
from rsc.keys.secret import SecretKey
from rsc.store.format.container import ContainerReader, ContainerRecord, ContainerWriter
from rsc.store.format.footer import BLOCK_BYTES, BlockHasher, bad_blocks, read_tail
from rsc.store.format.suites import AEGIS_256, AES_256_GCM, SUITES, Suite
from tests.store.memory import MemoryFile

CONTEXT = b"here"


every_suite = pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.cipher)


def write(
    key: SecretKey, frames: list[bytes], *, context: bytes = CONTEXT, suite: Suite = AES_256_GCM
) -> tuple[MemoryFile, ContainerRecord]:
    file = MemoryFile()
    writer = ContainerWriter(file, key=key, context=context, suite=suite)
    for number, frame in enumerate(frames):
        writer.write_frame(frame, num_samples=number)
    return file, writer.finish()


def outcome_of(
    file: MemoryFile, key: SecretKey, *, context: bytes = CONTEXT, digest: bytes | None = None
) -> str:
    """`ok`, or the word of the first failure of opening and reading everything."""
    try:
        reader = ContainerReader(file, key=key, context=context, expected_digest=digest)
        for frame in range(reader.num_frames):
            reader.read_frame(frame)
    except IntegrityError as error:
        return str(error.facts["outcome"])
    return "ok"


@every_suite
@pytest.mark.parametrize("sizes", [[], [0], [1], [0, 0], [4096], [5, 1 << 20, 0, 7], [3 << 20, 1]])
def test_frames_come_back(key: SecretKey, sizes: list[int], suite: Suite) -> None:
    frames = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    file, record = write(key, frames, suite=suite)
    reader = ContainerReader(file, key=key, context=CONTEXT, expected_digest=record.digest)
    assert reader.suite == suite
    assert [bytes(reader.read_frame(number)) for number in range(len(frames))] == frames
    assert reader.frames["num_samples"].tolist() == list(range(len(frames)))
    assert reader.frames["first_sample"].tolist() == [n * (n - 1) // 2 for n in range(len(frames))]
    assert record == ContainerRecord(
        digest=reader.tail.digest,
        size_bytes=file.size_bytes,
        num_frames=len(frames),
        num_samples=reader.num_samples,
    )


@every_suite
def test_every_byte_is_authenticated(key: SecretKey, suite: Suite) -> None:
    """Flip each byte of a small file in turn: never `ok`, never another exception."""
    file, _ = write(key, [b"abc", b"", b"defgh"], suite=suite)
    for position in range(file.size_bytes):
        changed = MemoryFile(bytes(file.data))
        changed.data[position] ^= 0x40
        assert outcome_of(changed, key) in ("no_key", "header", "frame", "truncated", "trailing"), position


def test_every_truncation_is_truncated(key: SecretKey) -> None:
    file, _ = write(key, [b"abc", b"defgh"])
    for size in range(file.size_bytes):
        assert outcome_of(MemoryFile(bytes(file.data[:size])), key) == "truncated", size


@pytest.mark.parametrize("extra", [1, 31, 32, 33, 5000, 3 << 20])
def test_bytes_after_the_end_are_trailing(key: SecretKey, extra: int) -> None:
    file, _ = write(key, [b"abc"])
    file.write(memoryview(bytes(extra)))
    assert outcome_of(file, key) == "trailing"


def test_another_key_is_no_key_and_another_place_is_header(key: SecretKey) -> None:
    file, _ = write(key, [b"abc"])
    with SecretKey.generate() as other:
        assert outcome_of(file, other) == "no_key"
    assert outcome_of(file, key, context=b"there") == "header"
    assert outcome_of(file, key, digest=bytes(32)) == "header"


def test_a_bad_frame_leaves_no_plaintext_in_the_buffer(key: SecretKey) -> None:
    file, _ = write(key, [b"secret " * 100])
    reader = ContainerReader(file, key=key, context=CONTEXT)
    file.data[int(reader.frames["offset"][0]) + 650] ^= 1
    buffer = bytearray(b"\xff" * 1000)
    with pytest.raises(IntegrityError, match="frame 0 of 1"):
        reader.read_frame_into(0, buffer)
    assert buffer == bytes(700) + b"\xff" * 300


def test_read_into_a_larger_buffer_and_scratch(key: SecretKey) -> None:
    file, _ = write(key, [b"abc", b"defgh"])
    reader = ContainerReader(file, key=key, context=CONTEXT)
    window, scratch = np.zeros(10, np.uint8), bytearray(64)
    assert reader.read_frame_into(1, window.data[2:], scratch=scratch) == 5
    assert window.tobytes() == b"\0\0defgh\0\0\0"


def test_same_plaintext_twice_gives_different_bytes(key: SecretKey) -> None:
    one, two = write(key, [b"abc"])[0], write(key, [b"abc"])[0]
    assert one.data[32:] != two.data[32:]


def test_nonces_are_counters_with_a_last_flag() -> None:
    assert AES_256_GCM.nonce(0, is_last=False) == bytes(12)
    assert AES_256_GCM.nonce(258, is_last=True) == bytes(9) + b"\x01\x02\x01"
    assert AEGIS_256.nonce(0, is_last=False) == bytes(32)
    assert AEGIS_256.nonce(258, is_last=True) == bytes(29) + b"\x01\x02\x01"


@every_suite
def test_a_header_of_the_other_suite_opens_nothing(key: SecretKey, suite: Suite) -> None:
    file, record = write(key, [b"abc" * 40], suite=suite)
    file.data[10] = 3 - suite.number
    assert outcome_of(file, key) == "no_key"
    assert read_tail(file).digest == record.digest


def test_a_frame_above_the_limit_is_refused(key: SecretKey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rsc.store.format.container.MAX_FRAME_BYTES", 10)
    writer = ContainerWriter(MemoryFile(), key=key, context=CONTEXT)
    writer.write_frame(bytes(10), num_samples=1)
    with pytest.raises(DataError, match="limits"):
        writer.write_frame(bytes(11), num_samples=1)


def test_blocks_are_those_of_the_file_whatever_the_pieces() -> None:
    data = np.random.default_rng(0).bytes(2 * BLOCK_BYTES + 77)
    expected = b"".join(
        hashlib.sha256(data[start : start + BLOCK_BYTES]).digest()
        for start in range(0, len(data), BLOCK_BYTES)
    )
    for step in (BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 300_000, len(data)):
        hasher = BlockHasher()
        for start in range(0, len(data), step):
            hasher.update(data[start : start + step])
        assert hasher.finish() == expected


def test_a_changed_block_is_found_without_a_key(key: SecretKey) -> None:
    file, record = write(key, [bytes(700_000)] * 4)
    tail = read_tail(file)
    assert tail.digest == record.digest
    assert list(bad_blocks(file, tail)) == []
    file.data[BLOCK_BYTES] ^= 1
    assert list(bad_blocks(file, tail)) == [1]
