"""Memory of batches is used again, and never while anything still looks at it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

from rsc.loader import memory as memory_module
from rsc.loader.loader import Batch, Loader
from rsc.loader.memory import BatchMemory
from rsc.loader.ragged import RaggedTensor
from rsc.store.splits import SplitReader

SIZE = 300 << 10

HOLDERS: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
    "array": lambda piece: piece,
    "view of a view": lambda piece: piece[5:][:-7][1:],
    "other dtype": lambda piece: piece.view(np.int32)[1:].reshape(-1, 1),
    "memoryview": lambda piece: piece.data[3:],
    "tensor": lambda piece: torch.from_numpy(piece),
    "tensor of a view": lambda piece: torch.from_numpy(piece[64:]).view(torch.int16)[2:],
    "storage": lambda piece: torch.from_numpy(piece).untyped_storage(),
    "array of a tensor": lambda piece: torch.from_numpy(piece)[4:].numpy()[1:],
}


@pytest.mark.parametrize("name", HOLDERS)
def test_a_piece_is_reused_when_its_last_view_is_gone_and_not_before(name: str) -> None:
    pool = BatchMemory()
    piece = pool.take(SIZE)
    address = piece.ctypes.data
    held = HOLDERS[name](piece)
    del piece
    assert pool.take(SIZE).ctypes.data != address
    del held
    assert pool.take(SIZE).ctypes.data == address


@pytest.mark.parametrize("seed", range(3))
def test_no_piece_that_is_held_is_written_by_another(seed: int) -> None:
    """Random sizes around the limits, up to twenty held at a time, dropped in any order."""
    random, pool = Random(seed), BatchMemory()
    held: list[tuple[int, Any]] = []
    for mark in count(1):
        if mark == 100:
            break
        piece = pool.take(random.choice([0, 1, 1000, (256 << 10) - 1, 256 << 10, SIZE, 3 << 20]))
        piece[:] = mark % 251
        held.append((mark % 251, HOLDERS[random.choice(["view of a view", "memoryview", "tensor"])](piece)))
        del piece
        while len(held) > random.randrange(21):
            held.pop(random.randrange(len(held)))
        assert all((np.asarray(view).view(np.uint8) == mark).all() for mark, view in held[-3:])
    assert all((np.asarray(view).view(np.uint8) == mark).all() for mark, view in held)


def test_a_piece_of_another_size_replaces_one_that_is_too_small() -> None:
    pool = BatchMemory()
    for size in range(SIZE, 20 * SIZE, SIZE):
        assert len(pool.take(size)) == size
    assert len(pool._blocks) == 1


@pytest.mark.parametrize("keep", ["every batch", "every third", "values alone"])
def test_batches_that_are_kept_stay_as_they_were_delivered(
    mixed: SplitReader, monkeypatch: pytest.MonkeyPatch, keep: str
) -> None:
    """Whatever their size, over three epochs; some cross windows and are joined."""
    monkeypatch.setattr(memory_module, "_POOLED_BYTES", range(1, 64 << 20))
    options: dict[str, Any] = {"batch_size": 37, "window_bytes": 4096, "lanes": 4, "epochs": 3}
    kept: list[tuple[Any, Any]] = []
    with Loader(mixed, numbered=True, **options) as loader:
        for number, batch in enumerate(loader):
            if keep != "every third" or number % 3 == 0:
                text = batch["text"]
                assert isinstance(text, RaggedTensor)
                parts = text.values if keep == "values alone" else batch
                kept.append((parts, _copied(parts)))
    assert len(kept) > 15
    for batch, copied in kept:
        assert _is_equal(batch, copied)


def test_sample_numbers_do_not_hold_a_window(numbers: SplitReader) -> None:
    """They were a view of it: the next window was filled in fresh memory."""
    options: dict[str, Any] = {"batch_size": 10, "window_bytes": 1 << 16, "lanes": 1}
    with Loader(numbers, numbered=True, **options) as loader:
        batch = next(loader)
        assert loader._windows[0].window.numbers is not None
        held = batch["sample_number"]
        assert isinstance(held, torch.Tensor)
        assert not np.shares_memory(held.numpy(), loader._windows[0].window.numbers)


def _copied(parts: Batch | torch.Tensor) -> Any:
    if isinstance(parts, torch.Tensor):
        return parts.clone()
    return {
        name: RaggedTensor(column.values.clone(), column.offsets.clone())
        if isinstance(column, RaggedTensor)
        else column.clone()
        for name, column in parts.items()
    }


def _is_equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, RaggedTensor):
        return torch.equal(left.values, right.values) and torch.equal(left.offsets, right.offsets)
    return all(_is_equal(left[name], right[name]) for name in right)
