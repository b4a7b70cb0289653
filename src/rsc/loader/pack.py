"""Documents packed end to end into sequences of one length, for language models.

    documents, in the order of the seed        "to be", "or not"
    stream: a separator leads each document    S t o _ b e S o r _ n o t
    rows of L tokens, targets one further on   [S t o _] -> [t o _ b]   [b e S o] -> [e S o r]   ...

The last token of a document has the separator as its target (here the document ends), the separator has the
first token of its own document: no target needs to be masked, and a model can be started with the separator
alone. `document_ids_BL` tells which tokens of a row belong together; attention must not cross them.

Shapes: B rows of this rank, L tokens a row.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from rsc.errors import ConfigError
from rsc.loader.loader import Loader
from rsc.loader.order import DEFAULT_WINDOW_BYTES
from rsc.loader.ragged import RaggedTensor
from rsc.store.splits import SplitReader

BYTE_SEPARATOR = 256
IGNORED_TARGET = -100  # what torch's cross_entropy leaves out by default
_DOCUMENTS_AT_ONCE = 256


class PackedLoader:
    """An iterator of {"tokens_BL", "targets_BL", "document_ids_BL"}, all int64 [B, L].

    Rows are dealt to the ranks one by one, so the global sequence of rows depends on the data and the seed
    only, and every state can be taken up at any world size. Every rank reads every document and keeps its
    own rows: text is a small part of what a step costs, and it keeps the state at three numbers.

    Endless, or `epochs` long: then the last rows are filled up with separators whose targets are ignored,
    and all ranks take the same number of steps of the same shape. Raises ConfigError for a field that is not
    of variable length.
    """

    def __init__(
        self,
        split: SplitReader,
        *,
        sequence_length: int,
        batch_size: int,
        field: str = "text",
        separator: int = BYTE_SEPARATOR,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
        epochs: int | None = None,
        window_bytes: int = DEFAULT_WINDOW_BYTES,
        lanes: int | None = None,
        threads: int = 0,
        connections: int = 16,
    ) -> None:
        if not 0 <= rank < world_size or batch_size < 1:
            raise ConfigError(
                f"rank {rank} of {world_size} with batch size {batch_size}: not a place in a job"
            )
        if any(f.name == field and not f.is_ragged for f in split.schema.fields):
            raise ConfigError(f"field {field!r} has a fixed shape and cannot be packed", hint="use Loader")
        self._documents = Loader(
            split,
            batch_size=_DOCUMENTS_AT_ONCE,
            seed=seed,
            epochs=epochs,
            fields=(field,),
            window_bytes=window_bytes,
            lanes=lanes,
            threads=threads,
            connections=connections,
        )
        self._field = field
        self._separator = separator
        self._length = sequence_length
        self._batch_size = batch_size
        self._rank, self._world_size = rank, world_size
        self._pending = _Pending(document=0, skipped=0)

    @property
    def epoch(self) -> float:
        """Epochs begun, by documents."""
        return self._pending.document / self._documents.order.num_samples

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        return self.take(self._batch_size)

    def take(self, batch_size: int) -> dict[str, torch.Tensor]:
        """The next `batch_size` rows of every rank. Raises StopIteration at the end of the last epoch."""
        rows = batch_size * self._world_size
        wanted = rows * self._length
        self._read(wanted + 1)
        tokens, documents = self._pending.take(wanted)
        if len(documents) == 0:
            raise StopIteration
        return self._batch(tokens, documents, rows=rows)

    def state_dict(self) -> dict[str, Any]:
        """JSON values, a few hundred bytes, the same on every rank and for any world size."""
        documents = self._documents.state_dict() | {"position": self._pending.document}
        packing = {"sequence_length": self._length, "separator": self._separator}
        return {
            "documents": documents,
            "skipped": self._pending.skipped,
            "packing": packing,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the batch that `state` was taken at. Raises ConfigError for other data or packing."""
        expected = self.state_dict()["packing"]
        if state.get("packing") != expected:
            raise ConfigError(f"the state packs with {state.get('packing')}, this loader with {expected}")
        self._documents.load_state_dict(state["documents"])
        self._pending = _Pending(document=self._documents.position, skipped=int(state["skipped"]))

    def close(self) -> None:
        self._documents.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, wanted: int) -> None:
        """Read documents until `wanted` tokens are pending or there are no more."""
        while self._pending.size < wanted and not self._pending.is_ended:
            first = self._documents.position
            batch = next(self._documents, None)
            if batch is None:
                self._pending.end(separator=self._separator, document=first)
                return
            column = batch[self._field]
            assert isinstance(column, RaggedTensor), "checked when the loader was made"
            self._pending.append(*_with_separators(column, separator=self._separator, first=first))

    def _batch(
        self, tokens: NDArray[np.int32], documents: NDArray[np.int64], *, rows: int
    ) -> dict[str, torch.Tensor]:
        """This rank's rows of a step: every `world_size`-th. A short last step is filled up."""
        shape = (rows, self._length)
        missing = rows * self._length - len(documents)
        targets = np.pad(tokens[1:], (0, missing), constant_values=IGNORED_TARGET)
        inputs = np.pad(tokens[:-1], (0, missing), constant_values=self._separator)
        documents = np.pad(documents, (0, missing), constant_values=documents[-1] + 1)
        ours = slice(self._rank, None, self._world_size)
        ids = documents.reshape(shape)[ours]
        return {
            "tokens_BL": torch.from_numpy(inputs.reshape(shape)[ours].astype(np.int64)),
            "targets_BL": torch.from_numpy(targets.reshape(shape)[ours].astype(np.int64)),
            "document_ids_BL": torch.from_numpy(ids - ids[:, :1]),
        }


class _Pending:
    """Tokens read but not yet delivered, each with the position of its document in the run.

    `document` and `skipped` say where the next token is: the latter counts tokens of that document that
    were delivered before.
    """

    def __init__(self, *, document: int, skipped: int) -> None:
        self.document = document
        self.skipped = skipped
        self.is_ended = False
        self._to_drop = skipped
        self._tokens = np.empty(0, np.int32)
        self._documents = np.empty(0, np.int64)

    @property
    def size(self) -> int:
        return len(self._tokens)

    def append(self, tokens: NDArray[np.int32], documents: NDArray[np.int64]) -> None:
        self._tokens = np.concatenate([self._tokens, tokens[self._to_drop :]])
        self._documents = np.concatenate([self._documents, documents[self._to_drop :]])
        self._to_drop = 0

    def end(self, *, separator: int, document: int) -> None:
        """The stream ends with a separator that is only a target: the end of the last document."""
        self.append(np.array([separator], np.int32), np.array([document], np.int64))
        self.is_ended = True

    def take(self, wanted: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Up to `wanted` tokens and one more as the last target, and the documents of all but that one."""
        count = max(min(wanted, self.size - 1), 0)
        tokens, documents = self._tokens[: count + 1], self._documents[:count]
        if count:
            head = int(self._documents[count])
            since = int(np.searchsorted(self._documents, head))
            before = self.skipped if head == self.document else 0
            self.document, self.skipped = head, count - since + before
        self._tokens, self._documents = self._tokens[count:], self._documents[count:]
        return tokens, documents


def _with_separators(
    documents: RaggedTensor, *, separator: int, first: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Documents end to end, a separator before each; and for each token the number of its document."""
    values, offsets_tensor = documents.packed()
    offsets = offsets_tensor.numpy()
    numbers = np.repeat(np.arange(len(documents)), np.diff(offsets) + 1)
    is_separator = np.zeros(len(numbers), np.bool_)
    is_separator[offsets[:-1] + np.arange(len(documents))] = True
    tokens = np.full(len(numbers), separator, np.int32)
    tokens[~is_separator] = values.numpy()
    return tokens, numbers + first
