"""MDS shards (MosaicML Streaming, format version 2): a folder with index.json, raw or Zstandard.

    shard = num_samples u32 | offsets u32 [n + 1], from the start of the file | column config | samples
    sample = u32 size of each column without a fixed one | values, one after the other

Pickled columns are refused: reading them would run code that the source brings along.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.chunks import Row, chunks
from rsc.ingest.readers.mds_values import TEXTS, Decoder, codec
from rsc.ingest.readers.media.codec import MediaCodec
from rsc.ingest.readers.source import BadRecord, Chunk, Part, Source, own_name
from rsc.ingest.readers.split_names import SPLIT_NAMES
from rsc.ingest.readers.tables.infer_fields import chosen_names, stored_names
from rsc.store.format.schema import Field

INDEX = "index.json"
_MAX_SHARD_BYTES = 1 << 32  # offsets are u32


@dataclass(frozen=True)
class _Column:
    """One column: how its bytes become the value of a field."""

    name: str
    encoding: str
    size: int | None
    field: Field
    decode: Decoder

    def value(self, data: bytes, *, notes: Counter[str]) -> Any:
        if isinstance(self.decode, MediaCodec):
            return self.decode.value(data, notes=notes)
        return self.decode(data)


@dataclass(frozen=True)
class _Shard:
    path: Path
    is_packed: bool
    num_samples: int
    size_bytes: int
    split: str | None
    hashes: tuple[tuple[str, str], ...] = ()
    """Algorithm and digest of the file, as the index has them."""


@dataclass
class MdsFolder(Source):
    """Reader of one folder, or of one that has `train`, `val` ... folders of shards."""

    root: Path
    options: ImportOptions
    kind: str = field(default="mds", init=False)

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs; decoders are found there again."""
        return {"root": self.root, "options": self.options, "kind": self.kind}

    def fields(self) -> tuple[Field, ...]:
        return tuple(column.field for column in self._columns.values())

    def media(self) -> dict[str, str]:
        return {c.field.name: "image" for c in self._columns.values() if c.encoding in ("jpeg", "png")}

    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(shard.split for shard in self._shards if shard.split))

    def files(self) -> list[Path]:
        return [*self._indexes, *(shard.path for shard in self._shards)]

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        """A part is a shard: MDS keeps them small."""
        first_record = 0
        for number, shard in enumerate(self._shards):
            yield Part(number, first_record=first_record, size_bytes=shard.size_bytes, span=number)
            first_record += shard.num_samples

    def name_of(self, part: Part) -> str:
        path: Path = self._shards[part.span].path
        return path.name

    def read(self, part: Part) -> Iterator[Chunk]:
        """Raises DataError for a shard that is not what the index says."""
        shard = self._shards[part.span]
        rows = self._rows(shard, first_record=part.first_record)
        yield from chunks(rows, fields=self.fields(), split=shard.split)

    def _rows(self, shard: _Shard, *, first_record: int) -> Iterator[Row]:
        data = _shard_bytes(shard)
        offsets = _offsets(data, shard)
        for index in range(shard.num_samples):
            number, sample = first_record + index, data[offsets[index] : offsets[index + 1]]
            notes: Counter[str] = Counter()
            values = self._values(bytes(sample), shard, index, number=number, notes=notes)
            yield Row(number, values, len(sample), tuple(notes.elements()))

    def _values(
        self, sample: bytes, shard: _Shard, index: int, *, number: int, notes: Counter[str]
    ) -> dict[str, Any] | BadRecord:
        try:
            pieces = self._pieces(sample)
            return {
                column.field.name: column.value(pieces[name], notes=notes)
                for name, column in self._columns.items()
            }
        except DataError as error:
            reason = error.message
        except (ValueError, IndexError, KeyError):
            reason = "a value is not in its column's encoding"
        return BadRecord(number, f"{shard.path.name} sample {index}", reason, raw=sample)

    def _pieces(self, sample: bytes) -> dict[str, bytes]:
        """Bytes of each column. Raises DataError when the sizes do not add up."""
        names, sizes, at = self._layout["column_names"], [], 0
        for size in self._layout["column_sizes"]:
            if not size:
                size = int.from_bytes(sample[at : at + 4], "little")
                at += 4
            sizes.append(size)
        if at + sum(sizes) != len(sample):
            raise DataError("the sizes of its columns do not add up")
        pieces = {}
        for name, size in zip(names, sizes, strict=True):
            pieces[name] = sample[at : at + size]
            at += size
        return pieces

    @cached_property
    def _indexes(self) -> list[Path]:
        if (self.root / INDEX).exists():
            return [self.root / INDEX]
        found = sorted(self.root.glob(f"*/{INDEX}"))
        if not found or any(path.parent.name.lower() not in SPLIT_NAMES for path in found):
            raise DataError(f"{self.root} holds no {INDEX} of MDS shards")
        return found

    @cached_property
    def _layout(self) -> dict[str, Any]:
        """Column names, encodings and sizes, the same in every shard."""
        layouts = [
            {name: shard[name] for name in ("column_names", "column_encodings", "column_sizes")}
            for path in self._indexes
            for shard in _index_shards(path)
        ]
        if not layouts or any(layout != layouts[0] for layout in layouts):
            raise DataError(f"the shards of {self.root} differ in their columns", hint="import them apart")
        return layouts[0]

    @cached_property
    def _columns(self) -> dict[str, _Column]:
        layout = self._layout
        encodings = dict(zip(layout["column_names"], layout["column_encodings"], strict=True))
        sizes = dict(zip(layout["column_names"], layout["column_sizes"], strict=True))
        names = chosen_names(list(encodings), options=self.options)
        texts = [name for name in names if encodings[name] in TEXTS]
        stored = stored_names(names, texts=texts, options=self.options)
        return {
            name: _Column(
                name, encodings[name], sizes[name], *codec(stored[name], encodings[name], self.options)
            )
            for name in names
        }

    @cached_property
    def _shards(self) -> list[_Shard]:
        found = []
        for index in self._indexes:
            split = None if index.parent == self.root else SPLIT_NAMES[index.parent.name.lower()]
            for record in _index_shards(index):
                found.append(_shard(index.parent, record, split=split))
        return found


def is_litdata_index(index: Path) -> bool:
    try:
        return isinstance(json.loads(index.read_bytes())["chunks"], list)
    except (KeyError, TypeError, ValueError, OSError):
        return False


def is_mds_index(index: Path) -> bool:
    """Other formats have an index.json too. One that cannot be read is ours where shards lie beside it."""
    try:
        return isinstance(json.loads(index.read_bytes())["shards"], list)
    except (KeyError, TypeError):
        return False
    except (ValueError, OSError):
        return any(index.parent.glob("*.mds*"))


def _shard(folder: Path, record: dict[str, Any], *, split: str | None) -> _Shard:
    """The packed file where it is there, else the raw one."""
    raw, packed = record["raw_data"], record.get("zip_data")
    num_samples = int(record["samples"])
    if packed is None or not (folder / own_name(packed["basename"])).exists():
        return _Shard(
            folder / own_name(raw["basename"]), False, num_samples, int(raw["bytes"]), split, _hashes(raw)
        )
    compression = str(record.get("compression"))
    if not compression.startswith("zstd"):
        raise DataError(f"{packed['basename']} is packed with {compression}", hint="only zstd is read")
    return _Shard(
        folder / packed["basename"], True, num_samples, int(packed["bytes"]), split, _hashes(packed)
    )


def _hashes(record: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    found = record.get("hashes")
    return (
        tuple((str(name), str(digest)) for name, digest in found.items()) if isinstance(found, dict) else ()
    )


def _index_shards(index: Path) -> list[dict[str, Any]]:
    try:
        shards: list[dict[str, Any]] = json.loads(index.read_bytes())["shards"]
        if all(shard["format"] == "mds" and shard["version"] == 2 for shard in shards):
            for shard in shards:
                _check(shard)
            return shards
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{index} is not an index of MDS version 2")


def _check(shard: dict[str, Any]) -> None:
    """Raises KeyError, TypeError or ValueError for what a shard's record in the index lacks."""
    names, encodings, sizes = (shard[name] for name in ("column_names", "column_encodings", "column_sizes"))
    if not len(names) == len(encodings) == len(sizes) or len(set(names)) < len(names):
        raise ValueError
    if not all(isinstance(name, str) for name in (*names, *encodings)):
        raise TypeError
    if not all(size is None or (isinstance(size, int) and size >= 0) for size in sizes):
        raise TypeError
    for file in (shard["raw_data"], *([shard["zip_data"]] if shard.get("zip_data") else [])):
        str.encode(file["basename"])
        int(file["bytes"])
    if int(shard["samples"]) < 0:
        raise ValueError


def _shard_bytes(shard: _Shard) -> memoryview:
    data = shard.path.read_bytes()
    if len(data) != shard.size_bytes:
        raise DataError(
            f"{shard.path.name} has {len(data)} bytes, its index says {shard.size_bytes}: cut short?"
        )
    for algorithm, digest in shard.hashes:
        if algorithm in hashlib.algorithms_guaranteed and hashlib.new(algorithm, data).hexdigest() != digest:
            raise DataError(f"{shard.path.name} does not have the {algorithm} of its index")
    if shard.is_packed:
        try:
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=_MAX_SHARD_BYTES)
        except zstandard.ZstdError as error:
            raise DataError(f"{shard.path.name} does not unpack: {error}") from None
    return memoryview(data)


def _offsets(data: memoryview, shard: _Shard) -> list[int]:
    count = shard.num_samples
    head = 4 * (count + 2)
    if len(data) < head or int.from_bytes(data[:4], "little") != count:
        raise DataError(f"{shard.path.name} does not hold the {count} samples of the index")
    offsets: list[int] = np.frombuffer(data[4:head], "<u4").astype(np.int64).tolist()
    if offsets[0] < head or offsets[-1] != len(data) or offsets != sorted(offsets):
        raise DataError(f"{shard.path.name} is cut short or not an MDS shard")
    return offsets
