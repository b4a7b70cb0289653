"""A rank's state in memory that outlives its process: a lost worker costs N steps, no read of storage.

    supervisor   makes one anonymous memory file per rank; keeps it while workers come and go
    rank         copies its state into the older of two slots every N steps; the slot's step is written last
    restart      ranks agree on the newest step that all of them have, and copy it back

A slot is: step (-1 while it is being written), rank, bytes of the index, index (JSON), tensors. Only the same
layout can take it up: every rank keeps its own boxes. Where a job has several nodes, another node keeps a
copy (neighbours.py).

Not covered: the loss of a job's only node or of its supervisor, for which there are checkpoints; the memory
holds plain weights, as the workers' own memory does, and swap is the machine's affair.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rsc.checkpoint.format import ALIGNMENT, dtype_of
from rsc.checkpoint.shards import Piece

_HEADER = struct.Struct("<qqQ")
_INDEX_BYTES = 1 << 20  # room for the index and the loader's state; 2,000 tensors need a quarter of it
_TENSORS_AT = _HEADER.size + _INDEX_BYTES


@dataclass(frozen=True)
class Snapshot:
    """What a slot holds, tensors not yet copied."""

    step: int
    state: dict[str, Any]
    layout: str
    entries: list[tuple[str, str, tuple[int, ...], tuple[int, ...], int]]
    """(name, number format, whole shape, local shape, start)."""

    def shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Whole shape and number format of every tensor."""
        return {name: (whole, dtype_of(dtype)) for name, dtype, whole, _, _ in self.entries}


class SnapshotMemory:
    """Two slots in one memory file. Written by one rank; read by the process that takes its place.

    What the file holds of another rank than `rank` is as if it were not there.
    """

    def __init__(self, descriptor: int, *, rank: int) -> None:
        self._descriptor, self._rank = descriptor, rank
        self._maps: dict[int, mmap.mmap] = {}

    def write(self, *, step: int, pieces: Sequence[Piece], state: Mapping[str, Any], layout: str) -> None:
        """Copy the state into the older slot. Raises ValueError when the index has no room."""
        entries, end = [], 0
        for piece in pieces:
            local = piece.tensor
            entries.append(
                (piece.name, str(local.dtype).removeprefix("torch."), piece.whole, tuple(local.shape), end)
            )
            end += -(-local.numel() * local.element_size() // ALIGNMENT) * ALIGNMENT
        index = json.dumps({"state": dict(state), "layout": layout, "entries": entries}).encode()
        if len(index) > _INDEX_BYTES:
            raise ValueError(f"the index of a snapshot has {len(index)} bytes, above {_INDEX_BYTES}")
        size = _TENSORS_AT + -(-end // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = self._slot(self._oldest(), size=size)
        memory[: _HEADER.size] = _HEADER.pack(-1, self._rank, len(index))
        memory[_HEADER.size : _HEADER.size + len(index)] = index
        _copy(memory, [piece.tensor for piece in pieces], [entry[4] for entry in entries], to_memory=True)
        memory[: _HEADER.size] = _HEADER.pack(step, self._rank, len(index))

    def copy_of(self, step: int) -> tuple[int, torch.Tensor]:
        """Bytes of the index, and everything behind the header as it lies there: for `receive` elsewhere."""
        slot = self._slot_of(step)
        return self._header(slot)[1], self._behind_header(self._slot(slot, size=self._room()))

    @contextmanager
    def receive(self, *, step: int, index_bytes: int, size_bytes: int) -> Iterator[torch.Tensor]:
        """Where a copy goes that has these measures; the slot counts once the context ends well."""
        memory = self._slot(self._oldest(), size=_HEADER.size + size_bytes)
        memory[: _HEADER.size] = _HEADER.pack(-1, self._rank, index_bytes)
        yield self._behind_header(memory)[:size_bytes]
        memory[: _HEADER.size] = _HEADER.pack(step, self._rank, index_bytes)

    def _behind_header(self, memory: mmap.mmap) -> torch.Tensor:
        return torch.frombuffer(memory, dtype=torch.uint8, offset=_HEADER.size)

    def _oldest(self) -> int:
        """The slot to write next."""
        steps = self.steps()
        return steps.index(min(steps))

    def steps(self) -> list[int]:
        """Step of each slot; -1 for an empty one."""
        return [self._header(slot)[0] for slot in range(2)]

    def find(self, step: int) -> Snapshot:
        """The snapshot of that step. Raises KeyError when no slot has it."""
        slot = self._slot_of(step)
        _, length = self._header(slot)
        index = json.loads(os.pread(self._descriptor, length, self._start(slot) + _HEADER.size))
        entries = [
            (name, dtype, tuple(whole), tuple(shape), start)
            for name, dtype, whole, shape, start in index["entries"]
        ]
        return Snapshot(step, index["state"], index["layout"], entries)

    @torch.no_grad()
    def read_into(self, snapshot: Snapshot, pieces: Sequence[Piece]) -> None:
        """Copy the tensors back. Raises ValueError when names or shapes are not those that were written."""
        expected = [(name, dtype_of(dtype), shape) for name, dtype, _, shape, _ in snapshot.entries]
        if expected != [(piece.name, piece.tensor.dtype, tuple(piece.tensor.shape)) for piece in pieces]:
            raise ValueError("the snapshot holds other tensors than this rank")
        memory = self._slot(self._slot_of(snapshot.step), size=self._room())
        starts = [entry[4] for entry in snapshot.entries]
        _copy(memory, [piece.tensor for piece in pieces], starts, to_memory=False)

    def forget_after(self, step: int) -> None:
        """Empty the slots of later steps: the run goes on at `step`, on another way than theirs. A rank that
        kept one would find it where the others, at that step again, find their new one."""
        for slot, theirs in enumerate(self.steps()):
            if theirs > step:
                os.pwrite(self._descriptor, _HEADER.pack(-1, 0, 0), self._start(slot))

    def _slot_of(self, step: int) -> int:
        steps = self.steps()
        if step not in steps:
            raise KeyError(step)
        return steps.index(step)

    def _header(self, slot: int) -> tuple[int, int]:
        raw = os.pread(self._descriptor, _HEADER.size, self._start(slot)) if self._room() else b""
        step, rank, length = _HEADER.unpack(raw) if len(raw) == _HEADER.size else (-1, 0, 0)
        return (step if length and rank == self._rank else -1), length

    def _room(self) -> int:
        return os.fstat(self._descriptor).st_size // 2

    def _start(self, slot: int) -> int:
        return slot * self._room()

    def _slot(self, slot: int, *, size: int) -> mmap.mmap:
        """One slot as memory, growing the file at its first use: every slot of a run has one size.

        It stays mapped: with pages to find anew a snapshot of 48 MiB cost 3.6 memcpys, now 1.5.
        """
        size = -(-size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        if self._room() < size:
            os.ftruncate(self._descriptor, 2 * size)
            self._maps.clear()
            for start in (0, size):  # another mesh's: where a slot began there is now something else
                os.pwrite(self._descriptor, _HEADER.pack(-1, 0, 0), start)
        if slot not in self._maps:
            self._maps[slot] = mmap.mmap(self._descriptor, self._room(), offset=self._start(slot))
        return self._maps[slot]


def new_memory() -> int | None:
    """Descriptor of an empty memory file; None where the system has none: then there are only checkpoints."""
    if not hasattr(os, "memfd_create"):
        return None
    return os.memfd_create("snapshot", os.MFD_CLOEXEC)


def _copy(
    memory: mmap.mmap, tensors: Sequence[torch.Tensor], starts: Sequence[int], *, to_memory: bool
) -> None:
    whole = torch.frombuffer(memory, dtype=torch.uint8, offset=_TENSORS_AT)
    for tensor, start in zip(tensors, starts, strict=True):
        size = tensor.numel() * tensor.element_size()
        if not size:
            continue
        place = whole[start : start + size].view(tensor.dtype).view(tensor.shape)
        if to_memory:
            place.copy_(tensor)
        else:
            tensor.copy_(place)
    del whole
