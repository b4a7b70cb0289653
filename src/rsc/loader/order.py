"""Which sample comes at which position of a run: a formula, nothing stored, numpy only.

    epoch -> round -> lane -> section -> window -> sample

A data set of N samples in written order is cut into *sections* of `section_samples` consecutive samples
(one shard's worth, so that shards of equal size are exactly sections). A keyed bijection permutes the
sections of an epoch; a *round* deals one section to each of `lanes` lanes. What is left when fewer than
`lanes` full sections remain is laid end to end and cut into `lanes` equal parts, so lanes differ by one
sample at most and no sample is lost or repeated. Global positions go round the lanes: position p of a round
is sample p // lanes of lane p % lanes. Inside a section the frames are permuted (the reader knows the
frames, see frames.py), and the samples of each *window* of `window_samples` are permuted among themselves.

Rank r of R takes the positions that are r modulo R. So the global order never depends on the number of
ranks, any position is found in O(1), a reader's state is one integer, and when R divides `lanes` each rank
reads only its own lanes: every frame is read by one rank.

Positions count on through the epochs: epoch e holds [e * N, (e + 1) * N).

Not covered: sets of variable length whose heavy samples lie together. Windows have a size in samples, by the
means of the set, so where many neighbours are far above the mean a window takes as much more memory. Import
such sources in mixed order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rsc.errors import ConfigError

Indices = NDArray[np.uint64]
Int64s = NDArray[np.int64]

# Rounds of the Feistel network; each changes both halves. On domains of a few elements four rounds are
# visibly not uniform over 20,000 keys, eight are (tests/loader/test_order.py); it runs once a section.
_FEISTEL_ROUNDS = 8
# Constants of splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK_64 = (1 << 64) - 1

DEFAULT_WINDOW_BYTES = 32 << 20
_MAX_LANES = 64
_FRAME_SLACK = 0.02  # tags, offsets and tables: 32 frames of "256 KiB" should fit into 8 MiB
_MIN_FRAMES_PER_LANE = 4  # a lane's first and last frame are shared with its neighbours

# What a derived key is for, so that no two permutations share one.
_FOR_SECTIONS, _FOR_FRAMES, _FOR_WINDOW, _FOR_SLICES = range(4)


@dataclass(frozen=True, slots=True)
class SampleRun:
    """Samples [start, stop) in written order."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class PlannedWindow:
    """Positions [start, stop) of the run whose samples are shuffled together, lane by lane.

    `first` is where the window begins within each lane's section; lane l holds `lane_sizes[l]` samples of it.
    """

    epoch: int
    round: int
    start: int
    stop: int
    first: int
    lane_sizes: Int64s = field(repr=False, compare=False)


@dataclass(frozen=True)
class Order:
    """The order of a data set under one seed. Raises ConfigError for an empty set or sizes below one."""

    num_samples: int
    seed: int
    lanes: int
    section_samples: int
    window_samples: int

    def __post_init__(self) -> None:
        for name in ("num_samples", "lanes", "section_samples", "window_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"order: {name} is {getattr(self, name)}, it must be at least 1", name=name)

    @property
    def facts(self) -> dict[str, int]:
        """What states of a run must agree on, besides the data."""
        names = ("seed", "lanes", "section_samples", "window_samples")
        return {name: getattr(self, name) for name in names}

    @property
    def num_rounds(self) -> int:
        """Rounds that deal whole sections; a last shorter round follows unless they cover everything."""
        return self.num_samples // self.section_samples // self.lanes

    @property
    def round_samples(self) -> int:
        return self.section_samples * self.lanes

    def window_at(self, position: int) -> PlannedWindow:
        """The window that holds `position`. The next one is `window_at(window.stop)`."""
        epoch, offset = divmod(position, self.num_samples)
        round_ = min(offset // self.round_samples, self.num_rounds)
        round_start = round_ * self.round_samples
        round_size = min(self.round_samples, self.num_samples - round_start)
        first = (offset - round_start) // self.lanes // self.window_samples * self.window_samples
        start = round_start + first * self.lanes
        stop = min(start + self.window_samples * self.lanes, round_start + round_size)
        return PlannedWindow(
            epoch=epoch,
            round=round_,
            start=epoch * self.num_samples + start,
            stop=epoch * self.num_samples + stop,
            first=first,
            lane_sizes=_share_equally(stop - start, parts=self.lanes),
        )

    def section(self, epoch: int, *, round_: int, lane: int) -> list[SampleRun]:
        """What a lane reads in a round, as runs of the written order: one run, or a few in the last round."""
        return self.sections(epoch, round_=round_, lanes=np.array([lane]))[0]

    def sections(self, epoch: int, *, round_: int, lanes: Int64s) -> list[list[SampleRun]]:
        """`section` of each of `lanes`."""
        if round_ < self.num_rounds:
            return [[self._dealt(epoch, round_ * self.lanes + lane)] for lane in lanes.tolist()]
        return self._slices_of_rest(epoch, lanes=lanes)

    def _slices_of_rest(self, epoch: int, *, lanes: Int64s) -> list[list[SampleRun]]:
        """Sections of the last round: what whole rounds do not cover, in equal parts, one for each lane."""
        sections = self.num_samples // self.section_samples
        dealt = self.num_rounds * self.lanes
        rest = [self._dealt(epoch, number) for number in range(dealt, sections)]
        rest.append(SampleRun(sections * self.section_samples, self.num_samples))
        sizes = _share_equally(self.num_samples - dealt * self.section_samples, parts=self.lanes)
        dealing = shuffled(self.lanes, key=_derive(self.seed, _FOR_SLICES, epoch))
        stops = np.empty(self.lanes, np.int64)
        stops[dealing] = np.cumsum(sizes[dealing])
        return [
            _cut(rest, start=int(stops[lane] - sizes[lane]), stop=int(stops[lane])) for lane in lanes.tolist()
        ]

    def frame_order(self, num_frames: int, *, epoch: int, round_: int, lane: int) -> Int64s:
        """In which order a lane reads the `num_frames` frames of its section."""
        return shuffled(num_frames, key=_derive(self.seed, _FOR_FRAMES, epoch, round_, lane))

    def positions(self, window: PlannedWindow, *, lanes: Int64s) -> list[Int64s]:
        """For each of `lanes`, the positions of its samples of the window, in the order the lane reads them.

        Lanes that hold the same number of samples are shuffled in one go: 7 ns a sample.
        """
        sizes = window.lane_sizes[lanes]
        window_key = _derive(self.seed, _FOR_WINDOW, window.epoch, window.round, window.first)
        keys = _derive_each(window_key, lanes.astype(np.uint64))
        found: list[Int64s] = [np.empty(0, np.int64)] * len(lanes)
        for size in {*sizes[:1].tolist(), *sizes[-1:].tolist()} - {0}:  # never more than two sizes, in order
            members = np.flatnonzero(sizes == size)
            places = shuffled(size, key=keys[members, None])
            positions = places * self.lanes + (window.start + lanes[members])[:, None]
            for member, row in zip(members.tolist(), positions, strict=True):
                found[member] = row
        return found

    def _dealt(self, epoch: int, number: int) -> SampleRun:
        """The section that is dealt as the `number`-th of an epoch."""
        sections = self.num_samples // self.section_samples
        section = permute(number, size=sections, key=_derive(self.seed, _FOR_SECTIONS, epoch))
        return SampleRun(section * self.section_samples, (section + 1) * self.section_samples)


def choose_order(
    *,
    num_samples: int,
    num_frames: int,
    section_samples: int,
    frame_samples: int,
    frame_bytes: int,
    seed: int,
    is_ragged: bool,
    window_bytes: int = DEFAULT_WINDOW_BYTES,
    lanes: int | None = None,
) -> Order:
    """The order of a split whose frames hold about `frame_samples` samples in `frame_bytes`.

    Lanes, a power of two up to 64, share `window_bytes`. Frames with the same number of samples fill windows
    exactly, so one frame a lane will do; others (`is_ragged`) cross from window to window and are copied
    then, so a lane gets four. Depends on the data, the seed and these numbers only, never on ranks. Raises
    ConfigError for no lanes.
    """
    frame_bytes = max(round(frame_bytes * (1 - _FRAME_SLACK)), 1)
    if lanes is None:
        lane_bytes = frame_bytes * (4 if is_ragged else 1)
        most = min(window_bytes / lane_bytes, num_frames / _MIN_FRAMES_PER_LANE, _MAX_LANES)
        lanes = 1 << max(int(most).bit_length() - 1, 0)
    if lanes < 1:
        raise ConfigError(f"an order needs lanes, not {lanes}", hint="leave `lanes` out to have them chosen")
    frames_per_window = max(window_bytes // (lanes * frame_bytes), 1)
    return Order(
        num_samples=num_samples,
        seed=seed,
        lanes=lanes,
        section_samples=section_samples,
        window_samples=frames_per_window * max(frame_samples, 1),
    )


def mean_sizes(*, num_samples: int, num_shards: int, num_frames: int, size_bytes: int) -> dict[str, int]:
    """Sizes for `choose_order` where samples vary: the means of the split.

    The first frame may say nothing of the others: short posts before books, or one huge sample alone in it.
    """
    return {
        "section_samples": max(num_samples // num_shards, 1),
        "frame_samples": max(round(num_samples / num_frames), 1),
        "frame_bytes": size_bytes // num_frames,
    }


def lanes_of_rank(order: Order, window: PlannedWindow, *, rank: int, world_size: int) -> Int64s:
    """The lanes that hold at least one position of this window for the rank."""
    every = np.arange(order.lanes, dtype=np.int64)
    is_ours = (window.start + every - rank) % math.gcd(order.lanes, world_size) == 0
    return np.flatnonzero(is_ours)


def read_amplification(lanes: int, *, world_size: int) -> int:
    """How many ranks read each frame, of whole samples or packed documents: 1 when they divide the lanes."""
    return world_size // math.gcd(world_size, lanes)


def shuffled(size: int, *, key: int | Indices) -> Int64s:
    """The numbers below `size` in an order chosen by `key`: sorted by a hash of key and number.

    Every order is equally likely. With keys [n, 1] the result is [n, size], a row for each key. For what
    fits in memory; `permute` is for what does not.
    """
    number = np.arange(size, dtype=np.uint64)
    low = np.uint64((1 << max((size - 1).bit_length(), 1)) - 1)
    keyed = _mix((number + np.uint64(1)) * np.uint64(_GOLDEN) + np.asarray(key, np.uint64))
    keyed = (keyed & ~low) | number  # the number breaks ties, and is what we want in the end
    keyed.sort(axis=-1)
    return (keyed & low).astype(np.int64)


def permute(index: int, *, size: int, key: int) -> int:
    """Where a number below `size` goes in a bijection chosen by `key`, without a table.

    A Feistel network on the smallest power of two that holds `size`, walked again while the result lies
    outside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"): under two steps on average.
    Not a cipher: the order of samples is no secret.
    """
    bits = (size - 1).bit_length()
    index = _feistel(index, bits=bits, key=key)
    while index >= size:
        index = _feistel(index, bits=bits, key=key)
    return index


def _feistel(index: int, *, bits: int, key: int) -> int:
    """One pass over [0, 2^bits): the halves are added to each other's hash in turn."""
    low_bits = bits // 2
    low_mask, high_mask = (1 << low_bits) - 1, (1 << (bits - low_bits)) - 1
    high, low = index >> low_bits, index & low_mask
    for number in range(_FEISTEL_ROUNDS):
        high = (high + _derive(key, 2 * number, low)) & high_mask
        low = (low + _derive(key, 2 * number + 1, high)) & low_mask
    return (high << low_bits) | low


def _derive(seed: int, *parts: int) -> int:
    """A 64-bit key for one use, from the seed and what the use is."""
    state = _splitmix(seed & _MASK_64)
    for part in parts:
        state = _splitmix(state ^ _splitmix(part & _MASK_64))
    return state


def _derive_each(seed: int, parts: Indices) -> Indices:
    """A 64-bit key for each part."""
    return _mix(parts * np.uint64(_GOLDEN) + np.uint64(_splitmix(seed & _MASK_64)))


def _mix(value: Indices) -> Indices:
    """splitmix64's finaliser on an array, in place."""
    value ^= value >> np.uint64(30)
    value *= np.uint64(_MIX_1)
    value ^= value >> np.uint64(27)
    value *= np.uint64(_MIX_2)
    value ^= value >> np.uint64(31)
    return value


def _splitmix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK_64
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK_64
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK_64
    return value ^ (value >> 31)


def _share_equally(total: int, *, parts: int) -> Int64s:
    """How many of `total` each part gets when dealt one by one: the first parts hold one more."""
    each, over = divmod(total, parts)
    return np.full(parts, each, np.int64) + (np.arange(parts) < over)


def _cut(runs: list[SampleRun], *, start: int, stop: int) -> list[SampleRun]:
    """The samples [start, stop) of the runs laid end to end."""
    cut: list[SampleRun] = []
    before = 0
    for run in runs:
        size = run.stop - run.start
        low, high = max(start - before, 0), min(stop - before, size)
        if low < high:
            cut.append(SampleRun(run.start + low, run.start + high))
        before += size
    return cut
