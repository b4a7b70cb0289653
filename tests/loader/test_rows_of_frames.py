from __future__ import annotations

import numpy as np
import pytest

from rsc.errors import IntegrityError
from rsc.loader.layout import ArenaLayout, aligned, lay_out, runs_of
from rsc.store.format.columns import Ragged, slice_columns
from rsc.store.format.frames import decode_frame
from tests.loader.conftest import MIXED, mixed_columns
from tests.store.conftest import encode_frame

COUNTS = [12, 1, 30, 7]


@pytest.fixture
def frames() -> list[bytearray]:
    """Consecutive samples of fixed and variable fields, some of them empty, in frames of several sizes."""
    ends = np.cumsum(COUNTS).tolist()
    columns = mixed_columns(ends[-1])
    pairs = zip(ends, COUNTS, strict=True)
    return [encode_frame(MIXED, slice_columns(columns, end - count, end)) for end, count in pairs]


def laid(frames: list[bytearray], *, counts: list[int] = COUNTS) -> tuple[np.ndarray, ArenaLayout]:
    """The frames in one arena that is dirty elsewhere, the first not at its start."""
    sizes = np.array([len(frame) for frame in frames])
    starts = 128 + np.cumsum(aligned(sizes)) - aligned(sizes)
    arena = np.full(int(starts[-1] + sizes[-1]) + 64, 0xFF, np.uint8)
    for start, frame in zip(starts.tolist(), frames, strict=True):
        arena[start : start + len(frame)] = frame
    return arena, lay_out(MIXED, arena, starts=starts, sizes=sizes, num_samples=np.array(counts))


def test_every_row_is_where_decoding_frame_by_frame_finds_it(frames: list[bytearray]) -> None:
    arena, layout = laid(frames)
    row = 0
    for number, (frame, count) in enumerate(zip(frames, COUNTS, strict=True)):
        columns = decode_frame(MIXED, frame, count)
        for field in MIXED.fields:
            column = columns[field.name]
            if isinstance(column, Ragged):
                values = arena[: len(arena) // 64 * 64].view(field.storage)
                bounds = layout.ragged[field.name]
                for i in range(count):
                    found = values[bounds.starts[row + i] : bounds.stops[row + i]]
                    assert np.array_equal(found, column[i])
            else:
                start = int(layout.fixed[field.name][number])
                assert arena[start : start + column.nbytes].tobytes() == column.tobytes()
        row += count


@pytest.mark.parametrize("change", ["short", "long", "more", "fewer", "backwards", "beyond"])
def test_bytes_that_are_no_frames_of_the_schema_are_refused(frames: list[bytearray], change: str) -> None:
    """As `decode_frame` refuses them: a wrong one among good ones, never a read of its neighbours."""
    counts = list(COUNTS)
    text_offsets = aligned(counts[2] * 8) + aligned(counts[2] * 6)
    if change == "short":
        frames[2] = frames[2][:-64]
    elif change == "long":
        frames[2] += bytes(64)
    elif change in ("more", "fewer"):
        counts[2] += 40 if change == "more" else -20
    elif change == "backwards":
        frames[2][text_offsets : text_offsets + 4] = (1 << 20).to_bytes(4, "little")
    else:
        last = text_offsets + 4 * (counts[2] - 1)
        frames[2][last : last + 4] = (1 << 20).to_bytes(4, "little")
    with pytest.raises(IntegrityError) as decoding:
        decode_frame(MIXED, frames[2], counts[2])
    with pytest.raises(IntegrityError) as error:
        laid(frames, counts=counts)
    assert error.value.facts["outcome"] == decoding.value.facts["outcome"] == "frame"


def test_runs_are_counted_one_after_the_other() -> None:
    runs = runs_of(np.array([5, 100, 7]), counts=np.array([3, 0, 2]), step=10)
    assert runs.tolist() == [5, 15, 25, 7, 17]
