"""Read checkpoints: find the newest one that authenticates, copy what overlaps our boxes.

The mesh that wrote does not matter: every rank asks for its own boxes. Only the frames that hold a
wanted box are read and decrypted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from rsc.checkpoint.format import (
    FRAME_BYTES,
    BoxEntry,
    CheckpointRoot,
    FileRecord,
    context_of,
    decode_index,
    decode_root,
    dtype_of,
)
from rsc.checkpoint.names import ROOT_FILE, folder_name
from rsc.checkpoint.read_counts import CheckpointFiles
from rsc.checkpoint.retention import finished
from rsc.checkpoint.shards import Piece
from rsc.errors import IntegrityError
from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import RandomAccess
from rsc.store.format.container import ContainerReader


@dataclass(frozen=True)
class Damaged:
    step: int
    reason: str


class Checkpoint:
    """One committed checkpoint. Raises IntegrityError on the first byte that does not authenticate."""

    def __init__(self, store: CheckpointFiles, *, step: int, run: str, key: SecretKey) -> None:
        self._store = store
        self._run = run
        self._key = key
        self.step = step
        root = self._open(ROOT_FILE)
        self.root: CheckpointRoot = decode_root(bytes(root.read_frame(0)))
        root.close()
        for file in self.root.files:
            self._expect_size(file)

    def entries(self) -> Iterator[tuple[Boxes, BoxEntry]]:
        """Every saved box with the opened file that holds it, file by file in the order of their bytes."""
        for file in self.root.files:
            reader = self._open(file.name, digest=bytes.fromhex(file.digest))
            boxes = Boxes(reader)
            for entry in decode_index(bytes(reader.read_frame(reader.num_frames - 1))):
                yield boxes, entry
            reader.close()

    def shapes(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Whole shape and number format of every saved tensor."""
        return {entry.name: (entry.whole, dtype_of(entry.dtype)) for _, entry in self.entries()}

    @torch.no_grad()
    def read_into(self, pieces: Sequence[Piece]) -> None:
        """Fill the local tensors. Raises IntegrityError when a box is not covered by what was saved."""
        wanted = {piece.name: piece for piece in pieces}
        missing = {piece.name: piece.tensor.numel() for piece in pieces}
        for boxes, entry in self.entries():
            piece = wanted.get(entry.name)
            common = piece.box.overlap(entry.box) if piece else None
            if piece is None or common is None:
                continue
            source = boxes.read(entry)[common.within(entry.box)]
            target = piece.tensor[common.within(piece.box)]
            target.copy_(source)
            missing[entry.name] -= source.numel()
        short = [name for name, count in missing.items() if count > 0]
        if short:
            raise IntegrityError(
                f"checkpoint of step {self.step} lacks {len(short)} tensors, first {short[0]}",
                outcome="frame",
            )

    def _open(self, name: str, *, digest: bytes | None = None) -> ContainerReader:
        context = context_of(run=self._run, step=self.step, file=name)
        source = self._source(name)
        return ContainerReader(source, key=self._key, context=context, expected_digest=digest)

    def _source(self, name: str) -> RandomAccess:
        try:
            return self._store.open(f"{folder_name(self.step)}/{name}")
        except FileNotFoundError:
            raise IntegrityError(f"{name} of step {self.step} is missing", outcome="truncated") from None

    def _expect_size(self, file: FileRecord) -> None:
        source = self._source(file.name)
        found = source.size_bytes
        source.close()
        if found != file.size_bytes:
            outcome = "truncated" if found < file.size_bytes else "trailing"
            raise IntegrityError(f"{file.name} has {found} bytes, not {file.size_bytes}", outcome=outcome)


class Boxes:
    """The saved boxes of one file. The last frame stays: it may hold hundreds of small boxes."""

    def __init__(self, reader: ContainerReader) -> None:
        self._reader = reader
        self._number = -1
        self._frame = torch.empty(FRAME_BYTES, dtype=torch.uint8)

    def read(self, entry: BoxEntry) -> torch.Tensor:
        """One box in its own shape, decrypted; valid until the next call."""
        first, last = entry.start // FRAME_BYTES, (entry.start + entry.size_bytes - 1) // FRAME_BYTES
        plain = (
            self._frame if first == last else torch.empty((last - first + 1) * FRAME_BYTES, dtype=torch.uint8)
        )
        held, self._number = self._number, -1  # a frame that does not authenticate leaves zeros
        for place, number in enumerate(range(first, last + 1)):
            part = plain[place * FRAME_BYTES : (place + 1) * FRAME_BYTES]
            if number != held:
                self._reader.read_frame_into(number, memoryview(part.numpy()))  # type: ignore[arg-type]
            elif first != last:
                part.copy_(self._frame)
        if first != last:
            self._frame.copy_(plain[-FRAME_BYTES:])
        self._number = last
        start = entry.start - first * FRAME_BYTES
        return plain[start : start + entry.size_bytes].view(dtype_of(entry.dtype)).view(entry.shape)


def checkpoints(store: CheckpointFiles, *, run: str, key: SecretKey) -> Iterator[Checkpoint | Damaged]:
    """Newest first: each checkpoint opened, or what is wrong with it."""
    for step in reversed(finished(store)):
        try:
            yield Checkpoint(store, step=step, run=run, key=key)
        except IntegrityError as error:
            yield Damaged(step, error.message)
        except OSError as error:
            yield Damaged(step, error.strerror or type(error).__name__)


def newest_good(store: CheckpointFiles, *, run: str, key: SecretKey) -> Checkpoint | None:
    """The newest checkpoint whose root authenticates and whose files have their sizes."""
    found = checkpoints(store, run=run, key=key)
    return next((item for item in found if isinstance(item, Checkpoint)), None)


@torch.no_grad()
def materialise(
    optimizers: Sequence[torch.optim.Optimizer],
    *,
    names: dict[torch.Tensor, str],
    shapes: dict[str, tuple[tuple[int, ...], torch.dtype]],
) -> None:
    """Give each weight the empty optimiser state that the checkpoint has for it, ready to be filled.

    `names` maps weights to their names. State of the weight's shape takes its placement; a single number
    stays on the host, as fused AdamW on CPU and its capturable form on GPU both accept.
    """
    kept: dict[str, dict[str, tuple[tuple[int, ...], torch.dtype]]] = {}
    for full, shape in shapes.items():
        part, _, rest = full.partition("/")
        if part == "optimizer":
            name, _, key = rest.rpartition("/")
            kept.setdefault(name, {})[key] = shape
    for optimizer in optimizers:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            for key, (whole, dtype) in kept.get(names[parameter], {}).items():
                optimizer.state[parameter][key] = (
                    torch.zeros_like(parameter, dtype=dtype)
                    if whole
                    else torch.zeros((), dtype=dtype, device=parameter.device)
                )
