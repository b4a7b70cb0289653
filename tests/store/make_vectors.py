"""Writes tests/vectors/: files with one expected outcome each. Run it from the root of the project:

    python -m tests.store.make_vectors

Everything is derived from fixed seeds, so a second run writes the same bytes; a test compares. Files are
put together from primitives, not by the writer under test: most of them are files it would never write.

A vector is a head of `name: value` lines, an empty line, and the file itself:

    expect      ok no_key header frame truncated trailing
    key         the data key to read with, hex
    context     hex
    digest      the digest to expect, hex; may be absent
    plaintext   sha256 of all frames one after the other; only for ok
    note        what is special
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.store.gcm import two_key_ciphertext
from tests.store.spec_reader import END, MAGIC, SUITES, block_list, file_keys, nonce, seal

FOLDER = Path(__file__).resolve().parent.parent / "vectors" / "container"
KEY, OTHER_KEY = bytes(range(32)), bytes(range(32, 64))
CONTEXT = b"rsc-shard-1\nposts\n00112233445566778899aabbccddeeff\ntrain\n7\n"
FRAMES = (b"first frame", b"the second frame is longer", b"", b"last")


@dataclass(frozen=True)
class Vector:
    """`name` begins with the expected outcome."""

    name: str
    file: bytes
    key: bytes = KEY
    context: bytes = CONTEXT
    digest: bytes | None = None
    plaintext: bytes | None = None
    note: str = ""

    def to_bytes(self) -> bytes:
        lines = [
            f"expect: {self.name.partition('-')[0]}",
            f"key: {self.key.hex()}",
            f"context: {self.context.hex()}",
        ]
        if self.digest is not None:
            lines.append(f"digest: {self.digest.hex()}")
        if self.plaintext is not None:
            lines.append(f"plaintext: {hashlib.sha256(self.plaintext).hexdigest()}")
        if self.note:
            lines.append(f"note: {self.note}")
        return "\n".join(lines).encode() + b"\n\n" + self.file


@dataclass(frozen=True)
class Forge:
    """A container put together part by part; every part can be replaced by what should not be there.

    `suite` is the one that seals; `start` says it, unless that is given too.
    """

    suite: int = 1
    frames: tuple[bytes, ...] = FRAMES
    key: bytes = KEY
    context: bytes = CONTEXT
    seed: str = "a"
    start: bytes | None = None
    commitment: bytes | None = None
    mac: bytes | None = None
    frame_nonce: Callable[[int], bytes] | None = None
    sealed: tuple[bytes, ...] | None = None
    entries: tuple[tuple[int, int], ...] | None = None
    table_nonce: bytes | None = None
    after_frames: bytes = b""
    blocks: bytes | None = None
    trailer: tuple[int, int, int] | None = None

    @property
    def salt(self) -> bytes:
        return hashlib.sha256(b"salt " + self.seed.encode()).digest()

    def header(self) -> bytes:
        _, mac_key, commitment = file_keys(self.key, self.salt, self.suite)
        start = self.start or start_of(self.suite)
        unsigned = start + self.salt + (self.commitment or commitment)
        return unsigned + (self.mac or hmac.digest(mac_key, unsigned + self.context, "sha256"))

    def seal(self, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
        return seal(self.suite, file_keys(self.key, self.salt, self.suite)[0], nonce, plain, associated)

    def sealed_frames(self) -> tuple[bytes, ...]:
        if self.sealed is not None:
            return self.sealed
        header, frame_nonce = self.header(), self.frame_nonce or partial(nonce, last=0, suite=self.suite)
        return tuple(self.seal(frame_nonce(i), frame, header) for i, frame in enumerate(self.frames))

    def body(self) -> bytes:
        return self.header() + b"".join(self.sealed_frames()) + self.after_frames

    def tail(self) -> bytes:
        body = self.body()
        blocks = block_list(body) if self.blocks is None else self.blocks
        entries = self.entries
        if entries is None:
            entries = tuple((len(frame), number) for number, frame in enumerate(self.frames))
        plain = b"".join(struct.pack("<II", *entry) for entry in entries)
        table_nonce = self.table_nonce or nonce(len(entries), 1, self.suite)
        table = self.seal(table_nonce, plain, self.header() + blocks)
        size = len(body) + len(blocks) + len(table) + 32
        return blocks + table + struct.pack("<8sQQQ", END, *(self.trailer or (len(body), len(entries), size)))

    def build(self) -> bytes:
        return self.body() + self.tail()

    def digest(self) -> bytes:
        return hashlib.sha256(self.tail()).digest()


def start_of(suite: int) -> bytes:
    """The first 32 bytes of a header."""
    return MAGIC + struct.pack("<HH", 1, suite) + bytes(20)


Make = Callable[..., Forge]
GOOD = Forge()


def pattern(size: int, *, seed: int = 0) -> bytes:
    """Bytes that repeat only after 32 * 2^32."""
    blocks = (hashlib.sha256(struct.pack("<II", seed, number)).digest() for number in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def ok(name: str, forge: Forge, *, note: str = "", with_digest: bool = False) -> Vector:
    return Vector(
        name,
        file=forge.build(),
        key=forge.key,
        context=forge.context,
        digest=forge.digest() if with_digest else None,
        plaintext=b"".join(forge.frames),
        note=note,
    )


def good_files(make: Make) -> Iterator[Vector]:
    yield ok("ok-no-frames", make(frames=()))
    for size in (0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 4095, 4096, 4097):
        yield ok(f"ok-one-frame-{size:05d}", make(frames=(pattern(size),)))
    for size in (31, 32, 33):
        yield ok(f"ok-frames-around-{size}", make(frames=tuple(pattern(size, seed=i) for i in range(3))))
    yield ok("ok-four-frames", make())
    yield ok("ok-digest", make(), with_digest=True)
    yield ok("ok-many-frames", make(frames=tuple(pattern(3, seed=i) for i in range(300))))
    yield ok("ok-empty-frames", make(frames=(b"",) * 5))
    yield ok("ok-two-blocks", make(frames=(pattern((1 << 20) - 128 - tag_bytes(make)), pattern(99, seed=1))))
    for name, context in (
        ("empty", b""),
        ("nul", bytes(3)),
        ("long", pattern(2000)),
        ("utf8", "gr\u00fc\u00df".encode()),
    ):
        yield ok(f"ok-context-{name}", make(context=context))
    for name, key in (("zeros", bytes(32)), ("ones", b"\xff" * 32), ("other", OTHER_KEY)):
        yield ok(f"ok-key-{name}", make(key=key))
    huge = tuple((len(frame), (1 << 32) - 1) for frame in FRAMES)
    yield ok("ok-most-samples", make(entries=huge), note="2^32 - 1 samples in every frame")
    trailer_inside = END + struct.pack("<QQQ", 128, 0, 160)
    yield ok("ok-trailer-in-plaintext", make(frames=(trailer_inside,)))


def truncated_files(make: Make) -> Iterator[Vector]:
    good = make()
    whole = good.build()
    ends, end = [], 128
    for sealed in good.sealed_frames():
        end += len(sealed)
        ends.append(end)
    tail = {"blocks": end, "table": end + 32, "trailer": len(whole) - 32}
    cuts = {f"at-frame-{number}": at for number, at in enumerate([128, *ends[:-1]])}
    cuts |= {f"at-{name}": at for name, at in tail.items()}
    cuts |= {f"inside-frame-{number}": at - 1 for number, at in enumerate(ends)}
    cuts |= {f"at-byte-{size:03d}": size for size in (0, 1, 7, 8, 9, 31, 32, 64, 96, 127, 129, 207, 208)}
    cuts |= {f"by-{missing:02d}": len(whole) - missing for missing in (1, 2, 8, 16, 24, 31, 33)}
    for name, size in cuts.items():
        yield Vector(f"truncated-{name}", file=whole[:size])
    two = make(frames=(pattern(100), pattern(100, seed=1)))
    for dropped in (0, 1):
        kept = tuple(sealed for number, sealed in enumerate(two.sealed_frames()) if number != dropped)
        shorter = replace(two, sealed=kept, blocks=block_list(two.body()))
        yield Vector(
            f"truncated-frame-{dropped}-dropped",
            file=shorter.build(),
            note="the trailer was adjusted, the table still lists the frame",
        )
    entries = tuple((len(frame) + 1, 0) for frame in FRAMES)
    yield Vector(
        "truncated-table-claims-more",
        file=make(entries=entries).build(),
        note="an authentic table that adds up to more than the body",
    )
    one_more = (*((len(frame), 0) for frame in FRAMES), (0, 0))
    yield Vector("truncated-table-claims-a-frame", file=make(entries=one_more).build())
    size = len(whole)
    body = len(good.body())
    for name, claimed in (("one-more", size + 1), ("most", (1 << 64) - 1)):
        yield Vector(f"truncated-trailer-claims-{name}", file=make(trailer=(body, 4, claimed)).build())


def trailing_files(make: Make) -> Iterator[Vector]:
    good = make()
    whole = good.build()
    additions = {
        "zero": b"\0",
        "newline": b"\n",
        "31-zeros": bytes(31),
        "32-zeros": bytes(32),
        "33-zeros": bytes(33),
        "4096": pattern(4096),
        "magic": END,
        "trailer-again": whole[-32:],
        "tail-again": good.tail(),
        "file-again": whole,
        "other-file": make(seed="b").build(),
        "empty-trailer": END + bytes(24),
    }
    for name, addition in additions.items():
        yield Vector(f"trailing-{name}", file=whole + addition)
    body = len(good.body())
    for name, claimed in (("one-less", len(whole) - 1), ("zero", 0)):
        yield Vector(f"trailing-trailer-claims-{name}", file=make(trailer=(body, 4, claimed)).build())
    yield Vector(
        "trailing-after-the-frames",
        file=make(after_frames=b"more").build(),
        note="before the block list, hashed and counted in the trailer",
    )
    entries = tuple((len(frame), 0) for frame in FRAMES[:3])
    yield Vector("trailing-frame-not-in-table", file=make(entries=entries).build())


def header_files(make: Make) -> Iterator[Vector]:
    whole, start = make().build(), start_of(make().suite)
    for position in range(8):
        yield Vector(f"header-magic-{position}", file=flipped(whole, position))
    starts = {
        "version-0": MAGIC + b"\0\0" + start[10:],
        "version-2": MAGIC + b"\2\0" + start[10:],
        "version-257": MAGIC + b"\1\1" + start[10:],
        "suite-0": start_of(0),
        "suite-3": start_of(3),
        "suite-256-more": start_of(make().suite + 256),
        "reserved-first": start[:12] + b"\1" + bytes(19),
        "reserved-last": start[:12] + bytes(19) + b"\1",
    }
    for name, changed in starts.items():
        yield Vector(
            f"header-{name}",
            file=make(start=changed).build(),
            note="everything else is right, the MAC included",
        )
    for position in (96, 111, 127):
        yield Vector(f"header-mac-{position}", file=flipped(whole, position))
    yield Vector("header-mac-zeros", file=make(mac=bytes(32)).build())
    contexts = {
        "empty": b"",
        "prefix": CONTEXT[:-1],
        "longer": CONTEXT + b"\n",
        "other-shard": CONTEXT.replace(b"7", b"8"),
        "other-split": CONTEXT.replace(b"train", b"test"),
        "other-set": CONTEXT.replace(b"posts", b"chats"),
        "other-version": CONTEXT.replace(b"0011", b"0012"),
    }
    for name, context in contexts.items():
        yield Vector(f"header-context-{name}", file=whole, context=context)
    yield Vector(
        "header-digest-of-another",
        file=whole,
        digest=make(seed="b").digest(),
        note="a good file of the same place, but not the recorded one",
    )
    yield Vector("header-text-mode", file=whole.replace(b"\r\n", b"\n"))
    yield Vector("header-byte-order-mark", file=b"\xef\xbb\xbf" + whole)
    yield Vector("header-of-png", file=b"\x89PNG\r\n\x1a\n" + whole[8:])
    yield Vector("header-one-wrong-byte", file=b"R")
    yield Vector("header-moved-mac", file=make(mac=make(context=b"elsewhere").header()[96:]).build())


def no_key_files(make: Make) -> Iterator[Vector]:
    whole = make().build()
    near = bytes([KEY[0] ^ 1]) + KEY[1:]
    for name, key in (("other", OTHER_KEY), ("one-bit", near), ("zeros", bytes(32)), ("reversed", KEY[::-1])):
        yield Vector(f"no_key-{name}", file=whole, key=key)
    for position in (32, 63):
        yield Vector(f"no_key-salt-{position}", file=flipped(whole, position))
    for position in (64, 95):
        yield Vector(f"no_key-commitment-{position}", file=flipped(whole, position))
    yield Vector("no_key-commitment-zeros", file=make(commitment=bytes(32)).build())
    yield Vector("no_key-cut", file=whole[:150], key=OTHER_KEY, note="the key is looked at first")
    other = start_of(other_suite(make))
    yield Vector("no_key-suite-flipped", file=other + whole[32:], note="a changed suite, nothing else")
    yield Vector(
        "no_key-suite-of-another",
        file=make(start=other).build(),
        note="the header says the other suite, and its MAC is right for this one",
    )


def two_key_files() -> Iterator[Vector]:
    """Of AES-256-GCM only: to two keys, AEGIS-256 is not known to open so cheaply with the same header."""
    yield two_key_file("no_key-two-keys", key=OTHER_KEY)
    yield two_key_file("ok-two-keys", key=KEY)


def two_key_file(name: str, *, key: bytes) -> Vector:
    """Frame 0 authenticates under the frame keys of KEY and of OTHER_KEY; the commitment is KEY's."""
    forge = Forge(frames=(bytes(32),), seed="two keys")
    keys = [file_keys(data_key, forge.salt)[0] for data_key in (KEY, OTHER_KEY)]
    sealed = two_key_ciphertext(keys[0], keys[1], nonce=nonce(0, 0), associated_data=forge.header())
    plain = AESGCM(keys[0]).decrypt(nonce(0, 0), sealed, forge.header())
    forge = replace(forge, frames=(plain,), sealed=(sealed,))
    note = "frame 0 opens under both keys; only the commitment tells them apart"
    return Vector(name, file=forge.build(), key=key, plaintext=plain if key == KEY else None, note=note)


def frame_files(make: Make) -> Iterator[Vector]:
    good, suite = make(), make().suite
    whole, sealed, header = good.build(), good.sealed_frames(), good.header()
    start = 128
    for number, frame in enumerate(sealed):
        stop = start + len(frame)
        yield Vector(f"frame-{number}-first-byte", file=flipped(whole, start))
        yield Vector(f"frame-{number}-last-byte", file=flipped(whole, stop - 1))
        start = stop
    for name, position in (("block-list", start), ("table", start + 32), ("table-tag", len(whole) - 33)):
        yield Vector(f"frame-{name}", file=flipped(whole, position))
    same = make(frames=tuple(pattern(20, seed=i) for i in range(3)))
    a, b, c = same.sealed_frames()
    other = make(frames=same.frames, seed="b").sealed_frames()
    orders = {
        "swapped": (b, a, c),
        "rotated": (c, a, b),
        "repeated": (a, a, c),
        "last-repeated": (a, b, b),
        "from-another-file": (a, other[1], c),
        "all-from-another-file": other,
        "zeros": (a, bytes(len(b)), c),
    }
    for name, frames in orders.items():
        yield Vector(
            f"frame-{name}",
            file=replace(same, sealed=frames).build(),
            note="block list, table and trailer are right for these bytes",
        )
    width = SUITES[suite][1] - 1
    nonces: dict[str, Callable[[int], bytes]] = {
        "counter-from-1": lambda number: nonce(number + 1, 0, suite),
        "counter-little-endian": lambda number: number.to_bytes(width, "little") + b"\0",
        "counter-wraps": lambda number: nonce((1 << 8 * width) - 4 + number, 0, suite),
        "last-flag-on-all": lambda number: nonce(number, 1, suite),
        "last-flag-on-last": lambda number: nonce(number, int(number == 3), suite),
        "flag-2": lambda number: nonce(number, 2, suite),
        "counter-constant": lambda number: nonce(0, 0, suite),
    }
    for name, frame_nonce in nonces.items():
        yield Vector(f"frame-{name}", file=make(frame_nonce=frame_nonce).build())
    for name, table_nonce in {
        "not-last": nonce(4, 0, suite),
        "counter-0": nonce(0, 1, suite),
        "counter-5": nonce(5, 1, suite),
        "counter-end": nonce((1 << 8 * width) - 1, 1, suite),
    }.items():
        yield Vector(f"frame-table-{name}", file=make(table_nonce=table_nonce).build())
    for name, associated in (
        ("nothing", b""),
        ("half-header", header[:64]),
        ("unsigned-header", header[:96]),
    ):
        frames = tuple(good.seal(nonce(i, 0, suite), frame, associated) for i, frame in enumerate(FRAMES))
        yield Vector(f"frame-associated-data-{name}", file=make(sealed=frames).build())
    body, size = len(good.body()), len(whole)
    trailers = {
        "no-frames": (body, 0, size),
        "one-frame-less": (body, 3, size),
        "one-frame-more": (body, 5, size),
        "counter-end-32": (body, 1 << 32, size),
        "counter-end-64": (body, (1 << 64) - 1, size),
        "body-one-less": (body - 1, 4, size),
        "body-one-more": (body + 1, 4, size),
        "body-traded-for-a-frame": (body - 8, 5, size),
        "tag-of-the-other-suite": (body + tag_bytes(make) - SUITES[other_suite(make)][2], 4, size),
        "body-below-header": (127, 4, size),
        "body-zero": (0, 4, size),
        "body-most": ((1 << 64) - 1, 4, size),
        "body-is-file": (size, 4, size),
    }
    for name, trailer in trailers.items():
        yield Vector(f"frame-trailer-{name}", file=make(trailer=trailer).build())
    yield Vector("frame-blocks-zeros", file=good.body() + bytes(32) + good.tail()[32:])
    over = ((1 << 30) + 1, 1)
    yield Vector(
        "frame-table-above-the-limit",
        file=make(entries=(over,) * 4).build(),
        note="an authentic table with frames of 2^30 + 1 bytes",
    )
    yield Vector(
        "frame-header-of-another",
        file=make(seed="b").header() + whole[128:],
        note="a good header of the same place",
    )
    yield Vector("frame-tail-of-another", file=good.body() + make(seed="b").tail())
    sealed = make(suite=other_suite(make), frames=(pattern(40), pattern(50))).sealed_frames()
    entries = tuple((len(frame) - tag_bytes(make), 1) for frame in sealed)
    yield Vector(
        "frame-sealed-by-the-other-suite",
        file=make(sealed=sealed, entries=entries).build(),
        note="frames of the same key, salt and place in the other suite, under a right header and tail",
    )


def tag_bytes(make: Make) -> int:
    return SUITES[make().suite][2]


def other_suite(make: Make) -> int:
    return 3 - int(make().suite)


KINDS = (good_files, truncated_files, trailing_files, header_files, no_key_files, frame_files)


def flipped(file: bytes, position: int) -> bytes:
    return file[:position] + bytes([file[position] ^ 1]) + file[position + 1 :]


def vectors() -> list[Vector]:
    """All of them, by name. Names are unique."""
    found = [vector for kind in KINDS for vector in kind(Forge)] + list(two_key_files())
    found += [
        replace(vector, name=vector.name.replace("-", "-aegis-", 1))
        for kind in KINDS
        for vector in kind(partial(Forge, suite=2))
    ]
    assert len({vector.name for vector in found}) == len(found), "two vectors share a name"
    return sorted(found, key=lambda vector: vector.name)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    for vector in vectors():
        (FOLDER / vector.name).write_bytes(vector.to_bytes())


if __name__ == "__main__":
    main()
