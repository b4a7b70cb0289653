"""A checkpoint in storage: encrypted containers, complete from the moment its root is there.

    step-00000030/
        rank-0003-<attempt>.rsc   this rank's boxes as one byte stream in frames, then one frame of index
        root.rsc                  put last: JSON with step, state, digest of each file, Merkle root over them

The same on a folder and on an object store: one atomic put commits. A start of the workers (an attempt)
writes names of its own, so it never mixes with what a killed one left.

Every frame is authenticated with the run's key and bound to (run, step, file), so bytes of another
step, run or rank fail. Tensors are raw little-endian bytes: nothing is unpickled, ever.

Not covered: an attacker with write access can delete the newest checkpoint and so make a run go on
from an older one; file sizes and the number of ranks are visible.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from rsc.checkpoint.shards import Piece
from rsc.errors import IntegrityError
from rsc.parallel.boxes import Box

FORMAT = "rsc-checkpoint/1"
FRAME_BYTES = 1 << 20  # the store's largest frame: fewest tags per byte, still small beside a state
ALIGNMENT = 64  # each box starts on a cache line of the staging buffer


@dataclass(frozen=True)
class BoxEntry:
    """Where one box lies in a rank's byte stream."""

    name: str
    dtype: str
    whole: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    start: int
    size_bytes: int

    @property
    def box(self) -> Box:
        return Box(self.offset, self.shape)


@dataclass(frozen=True)
class FileRecord:
    name: str
    digest: str
    size_bytes: int


@dataclass(frozen=True)
class CheckpointRoot:
    run: str
    step: int
    world: int
    state: dict[str, Any]
    """What is the same on every rank: loader state, counters, layout. JSON values only."""
    files: tuple[FileRecord, ...]
    merkle_root: str

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def context_of(*, run: str, step: int, file: str) -> bytes:
    """What a container is bound to: its bytes authenticate in this place only."""
    return f"{FORMAT}/{run}/{step}/{file}".encode()


def plan_entries(pieces: Iterable[Piece]) -> list[BoxEntry]:
    """Lay this rank's own boxes one behind another in a byte stream."""
    entries, start = [], 0
    for piece in pieces:
        if not piece.is_ours or piece.box.is_empty:
            continue
        size = piece.tensor.numel() * piece.tensor.element_size()
        entries.append(
            BoxEntry(
                name=piece.name,
                dtype=str(piece.tensor.dtype).removeprefix("torch."),
                whole=piece.whole,
                offset=piece.box.offset,
                shape=piece.box.shape,
                start=start,
                size_bytes=size,
            )
        )
        start += -(-size // ALIGNMENT) * ALIGNMENT
    return entries


def stream_bytes(entries: Sequence[BoxEntry]) -> int:
    """Length of the byte stream."""
    return -(-(entries[-1].start + entries[-1].size_bytes) // ALIGNMENT) * ALIGNMENT if entries else 0


def encode_index(entries: Sequence[BoxEntry]) -> bytes:
    return json.dumps([list(asdict(entry).values()) for entry in entries], separators=(",", ":")).encode()


def decode_index(data: bytes) -> list[BoxEntry]:
    """Inverse of `encode_index`. The bytes are authenticated, so a misfit is our own mistake."""
    return [
        BoxEntry(name, dtype, tuple(whole), tuple(offset), tuple(shape), start, size)
        for name, dtype, whole, offset, shape, start, size in json.loads(data)
    ]


def encode_root(root: CheckpointRoot) -> bytes:
    return json.dumps({"format": FORMAT, **asdict(root)}, separators=(",", ":")).encode()


def decode_root(data: bytes) -> CheckpointRoot:
    """Read the root. Raises IntegrityError when it is of another format or its Merkle root does not fit."""
    values = json.loads(data)
    if values.pop("format", None) != FORMAT:
        raise IntegrityError("this checkpoint has another format", outcome="header")
    values["files"] = tuple(FileRecord(**record) for record in values["files"])
    root = CheckpointRoot(**values)
    if merkle_root(root.files) != root.merkle_root:
        raise IntegrityError("the checkpoint's files do not fit its Merkle root", outcome="frame")
    return root


def merkle_root(files: Sequence[FileRecord]) -> str:
    """RFC 6962 tree hash over (name, digest, size): 0x00 before a leaf, 0x01 before a node."""
    leaves = [
        hashlib.sha256(f"\0{file.name}\n{file.digest}\n{file.size_bytes}".encode()).digest() for file in files
    ]
    return _subtree(leaves).hex()


def _subtree(leaves: Sequence[bytes]) -> bytes:
    if len(leaves) <= 1:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + _subtree(leaves[:half]) + _subtree(leaves[half:])).digest()


def dtype_of(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise IntegrityError(f"{name!r} is not a number format", outcome="frame")
    return dtype
