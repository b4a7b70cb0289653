"""Arrow tables in files (Parquet, Arrow streams, Feather), in memory, or batch by batch. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rsc.errors import DataError
from rsc.ingest.readers.tables.arrow_types import import_pyarrow

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 1024
_FILE_MAGIC = b"ARROW1"
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"  # Arrow columnar format, "IPC Streaming Format"


class TableFile(Protocol):
    """One file of tables: how many pieces, and the batches of a range of them."""

    @property
    def path(self) -> Path: ...

    @property
    def split(self) -> str | None: ...

    @property
    def constants(self) -> Mapping[str, str]:
        """Columns that stand in the path of the file (`label=dog/`) and not in it."""
        ...

    def schema(self) -> pyarrow.Schema: ...

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(rows, bytes) of each piece."""
        ...

    def batches(self, start: int, stop: int) -> Iterator[pyarrow.RecordBatch]: ...


@dataclass(frozen=True)
class ParquetFile:
    """Pieces are row groups."""

    path: Path
    split: str | None
    constants: Mapping[str, str] = field(default_factory=dict)

    def schema(self) -> pyarrow.Schema:
        return self._open().schema_arrow

    def pieces(self) -> Iterator[tuple[int, int]]:
        metadata = self._open().metadata
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            yield group.num_rows, group.total_byte_size

    def batches(self, start: int, stop: int) -> Iterator[pyarrow.RecordBatch]:
        with _told(self.path, what="Parquet"):
            groups = list(range(start, stop))
            yield from self._open().iter_batches(batch_size=BATCH_ROWS, row_groups=groups)

    def _open(self) -> Any:
        with _told(self.path, what="Parquet"):
            return import_pyarrow("pyarrow.parquet").ParquetFile(self.path)


@dataclass(frozen=True)
class ArrowFile:
    """An Arrow stream or file on disk; pieces are its record batches."""

    path: Path
    split: str | None
    constants: Mapping[str, str] = field(default_factory=dict)

    def schema(self) -> pyarrow.Schema:
        with _told(self.path, what="Arrow"), self._open() as (reader, _):
            return reader.schema

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Raises DataError for a stream without its end mark (it may lack batches) or with bytes after it."""
        with _told(self.path, what="Arrow"), self._open() as (reader, source):
            for batch in _batches(reader):
                yield batch.num_rows, batch.nbytes
            if not hasattr(reader, "num_record_batches"):
                self._require_end(source)

    def batches(self, start: int, stop: int) -> Iterator[pyarrow.RecordBatch]:
        with _told(self.path, what="Arrow"), self._open() as (reader, _):
            for index, batch in enumerate(_batches(reader)):
                if index >= stop:
                    return
                if index >= start:
                    yield from (batch.slice(at, BATCH_ROWS) for at in range(0, batch.num_rows, BATCH_ROWS))

    def _require_end(self, source: Any) -> None:
        end, size = source.tell(), source.size()
        source.seek(max(0, end - len(_STREAM_END)))
        if source.read(len(_STREAM_END)) != _STREAM_END:
            raise DataError(
                f"{self.path.name} is not a whole Arrow file: it has no end mark, so batches may be missing",
                hint="fetch it again, or write it anew",
            )
        if end != size:
            raise DataError(
                f"{self.path.name} has {size - end} bytes after its end",
                hint="give streams that were joined as files of their own",
            )

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        arrow = import_pyarrow("pyarrow")
        with arrow.memory_map(str(self.path)) as source:
            is_file = source.read(len(_FILE_MAGIC)) == _FILE_MAGIC
            source.seek(0)
            yield (arrow.ipc.open_file(source) if is_file else arrow.ipc.open_stream(source)), source


def _batches(reader: Any) -> Iterator[pyarrow.RecordBatch]:
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(index) for index in range(reader.num_record_batches))
    return iter(reader)


@dataclass(frozen=True)
class MemoryTable:
    """A table in memory; pieces are its record batches."""

    table: Any
    split: str | None = None
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return Path("table")

    def schema(self) -> pyarrow.Schema:
        return self.table.schema

    def pieces(self) -> Iterator[tuple[int, int]]:
        for batch in self._batches():
            yield batch.num_rows, batch.nbytes

    def batches(self, start: int, stop: int) -> Iterator[pyarrow.RecordBatch]:
        yield from self._batches()[start:stop]

    def _batches(self) -> list[pyarrow.RecordBatch]:
        if not hasattr(self.table, "to_batches"):
            return [self.table]
        return list(self.table.to_batches(max_chunksize=BATCH_ROWS))


@dataclass(frozen=True)
class StreamedTable:
    """Batches that come once, as the caller makes them."""

    source: Iterator[Any]
    first_schema: Any
    split: str | None = None
    constants: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return Path("stream")

    def schema(self) -> pyarrow.Schema:
        return self.first_schema

    def pieces(self) -> Iterator[tuple[int, int]]:
        return iter(())

    def batches(self, start: int, stop: int) -> Iterator[pyarrow.RecordBatch]:
        """All that is left. Raises DataError for a batch with other columns than the first."""
        for item in self.source:
            if not item.schema.equals(self.first_schema):
                raise DataError(
                    "a batch has other columns or types than the first one",
                    hint="give batches of one schema; a list of tables may have types that differ",
                )
            yield from item.to_batches(max_chunksize=BATCH_ROWS) if hasattr(item, "to_batches") else [item]


@contextmanager
def _told(path: Path, *, what: str) -> Iterator[None]:
    """A damaged page is an OSError of the codec, a damaged footer an ArrowInvalid."""
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path.name} is missing") from None
    except (OSError, import_pyarrow("pyarrow").ArrowException) as error:
        raise DataError(
            f"{path.name} is not a whole {what} file: {error}", hint="fetch it again, or write it anew"
        ) from None
