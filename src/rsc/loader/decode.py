"""A stage after the loader: encoded files of a batch become one tensor, on threads, ahead of their use.

    images = DecodedLoader(loader, field="jpeg", decode=read_png, shape=(32, 32, 3), threads=2)
    batch = next(images)       # {"jpeg": uint8 [B, 32, 32, 3], "jpeg_is_good": bool [B], "label": ...}
    images.bad                 # [BadSample(sample=4711, reason="UnidentifiedImageError"), ...]

A file that cannot be decoded is zeros in the batch, False in `<field>_is_good`, counted, and named by its
sample number in the split, so that it can be looked up; it never stops a run. Decoders release the
interpreter lock while they work (Pillow does), so threads add up, save for files so small that handing the
lock over takes longer than decoding: those are left to one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from rsc.errors import ConfigError
from rsc.loader.loader import SAMPLE_NUMBER, Batch, Column, Loader
from rsc.loader.ragged import RaggedTensor

Decode: TypeAlias = "Callable[[bytes], NDArray[Any]]"

_FILES = Column("uint8", None)
_NAMED = 1000  # bad samples kept by name; all are counted
_PARTS_PER_THREAD = 4  # files differ in cost: smaller parts even that out
_WORTH_THREADS_BYTES = 3 << 10
"""Mean size of a batch's files from which threads share it. Rate of two threads over one, JPEG by Pillow:
32 x 32 (1 kB) 0.75, 96 x 96 (2.3 kB) 0.9, 128 x 128 (3.1 kB) 1.2, 192 x 192 (5 kB) 1.35, 256 x 256 1.6."""


@dataclass(frozen=True)
class BadSample:
    """A file that was not decoded: its number in the written order of the split, and the kind of error."""

    sample: int
    reason: str


@dataclass(frozen=True)
class _Pending:
    """A batch whose files are being decoded, and the loader's state after it."""

    batch: Batch
    values: torch.Tensor
    parts: list[Future[list[BadSample]]]
    is_good: torch.Tensor
    state: dict[str, Any]


class DecodedLoader:
    """A Loader whose variable field arrives as a tensor [B, *shape]. The loader must be `numbered`.

    `decode` takes the bytes of one file and gives an array of `shape`; whatever it raises makes the sample
    bad, and so does another shape. `ahead` batches are decoded while one is used. State is the loader's own,
    as after the last batch delivered. Raises ConfigError for a field that the loader does not deliver, or
    that holds no files.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        field: str,
        decode: Decode,
        shape: tuple[int, ...],
        dtype: torch.dtype = torch.uint8,
        threads: int = 1,
        ahead: int = 2,
    ) -> None:
        if not loader.is_numbered or field not in loader.fields:
            raise ConfigError(
                f"cannot decode {field!r}: the loader has {', '.join(loader.fields)}, "
                f"numbered is {loader.is_numbered}",
                hint="open the loader with this field and numbered=True",
            )
        if loader.columns[field] != _FILES:
            raise ConfigError(
                f"cannot decode {field!r}: it is {loader.columns[field]}, files are {_FILES}",
                hint="use the loader's batches as they are, or name a field of kind bytes",
            )
        self._loader = loader
        self._field = field
        self._decode = decode
        self._shape = shape
        self._dtype = dtype
        self._ahead = ahead
        self._num_parts = max(threads, 1) * _PARTS_PER_THREAD
        self._pool = ThreadPoolExecutor(max(threads, 1), thread_name_prefix="rsc-decode")
        self._one_thread = ThreadPoolExecutor(1, thread_name_prefix="rsc-decode-small")
        self._queue: deque[_Pending] = deque()
        self._state = loader.state_dict()
        self._is_moving = False
        self.num_bad = 0
        self.bad: list[BadSample] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """The next batch. Where it raises, the same batch can be asked for again."""
        if self._is_moving:  # Ctrl-C cut short the way back from an error before
            self.load_state_dict(self._state)
        self._is_moving = True
        try:
            batch = self._next()
        except StopIteration:
            self._is_moving = False
            raise
        except BaseException:
            self.load_state_dict(self._state)
            raise
        self._is_moving = False
        return batch

    def _next(self) -> Batch:
        while len(self._queue) <= self._ahead:
            batch = next(self._loader, None)
            if batch is None:
                break
            self._queue.append(self._start(batch))
        if not self._queue:
            raise StopIteration
        return self._finish(self._queue.popleft())

    def state_dict(self) -> dict[str, Any]:
        return self._state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._is_moving = True
        self._queue.clear()
        self._loader.load_state_dict(state)
        self._state = state
        self._is_moving = False

    def close(self) -> None:
        """Stop the threads, and the loader."""
        self._queue.clear()
        for pool in (self._pool, self._one_thread):
            pool.shutdown(wait=True, cancel_futures=True)
        self._loader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, batch: Batch) -> _Pending:
        files, numbers = batch[self._field], batch[SAMPLE_NUMBER]
        assert isinstance(files, RaggedTensor), "checked when the loader was made"
        assert isinstance(numbers, torch.Tensor)
        values = torch.zeros((len(files), *self._shape), dtype=self._dtype)
        is_good = torch.ones(len(files), dtype=torch.bool)
        places = files.bounds()
        is_small = sum(stop - start for start, stop in places) < _WORTH_THREADS_BYTES * len(places)
        pool, num_parts = (self._one_thread, 1) if is_small else (self._pool, self._num_parts)
        cuts = np.linspace(0, len(files), num_parts + 1).astype(int).tolist()
        view = files.values.numpy().data
        common: dict[str, Any] = {"values": values.numpy(), "is_good": is_good.numpy()}
        parts = [
            pool.submit(self._decode_part, view, numbers, places=places[first:stop], first=first, **common)
            for first, stop in pairwise(cuts)
        ]
        return _Pending(batch, values, parts, is_good, self._loader.state_dict())

    def _finish(self, pending: _Pending) -> Batch:
        bad = [each for part in pending.parts for each in part.result()]
        self.num_bad += len(bad)
        self.bad += bad[: _NAMED - len(self.bad)]
        self._state = pending.state
        return pending.batch | {self._field: pending.values, f"{self._field}_is_good": pending.is_good}

    def _decode_part(
        self,
        view: memoryview,
        numbers: torch.Tensor,
        *,
        places: list[tuple[int, int]],
        first: int,
        values: NDArray[Any],
        is_good: NDArray[np.bool_],
    ) -> list[BadSample]:
        """Decode the files of rows `first` and on to their rows of `values`; returns the bad ones."""
        bad: list[BadSample] = []
        for row, (start, stop) in enumerate(places, start=first):
            try:
                values[row] = self._checked(self._decode(bytes(view[start:stop])))
            except Exception as error:  # decoders raise many kinds; none may stop a run
                is_good[row] = False
                bad.append(BadSample(int(numbers[row]), type(error).__name__))
        return bad

    def _checked(self, array: NDArray[Any]) -> NDArray[Any]:
        """numpy would stretch a shape like (1, 1, 3) over the picture."""
        if array.shape != self._shape:
            raise ShapeError(f"{array.shape} instead of {self._shape}")
        return array


class ShapeError(ValueError):
    """A file decoded to another shape than the batch has."""
