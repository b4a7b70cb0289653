"""Objects in a store as sources: `rsc data import s3://bucket/posts.jsonl.gz`, or all below a prefix.

Objects are read by ranges and never lie on disk. Credentials come from the environment, as for data sets in a
store (docs/tiers.md).
"""

from __future__ import annotations

from pathlib import PurePosixPath

from rsc.errors import DataError
from rsc.ingest.readers.elsewhere.held import HeldFile
from rsc.store.bulk.locations import open_store
from rsc.store.bulk.objects import ObjectStore

SCHEMES = ("s3", "gs", "az")
_RANGE_BYTES = 1 << 20  # the start of an object is read several times, its parts in larger ranges


class StoredObject(HeldFile):
    """One object. Raises ResourceError where the store does not answer, at any time."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        super().__init__(path)
        self._store = store
        self._key = path
        self._reader = store.open(path)

    @property
    def size_bytes(self) -> int:
        return self._reader.size_bytes

    @property
    def block_bytes(self) -> int:
        return _RANGE_BYTES

    def stamp(self) -> tuple[int, str]:
        """Asked for anew each time. Raises DataError for an object that is gone."""
        try:
            return self._store.stamp(self._key)
        except FileNotFoundError:
            raise DataError(f"{self._key} is no longer in its bucket; nothing was committed") from None

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._reader.read_into(offset, buffer)


def is_stored(source: str) -> bool:
    return source.partition("://")[0] in SCHEMES and "://" in source


def stored_objects(source: str) -> list[StoredObject]:
    """The object of this name, or else all below it, in order of their names; hidden ones are left out.

    Raises DataError where there is none.
    """
    scheme, _, rest = source.partition("://")
    bucket, _, path = rest.partition("/")
    store = open_store(f"{scheme}://{bucket}")
    assert isinstance(store, ObjectStore), "the schemes are those of object stores"
    if path and not path.endswith("/"):
        try:
            return [StoredObject(store, path)]
        except FileNotFoundError:
            pass  # it may be a prefix
    folder = path.rstrip("/")
    names = sorted(name for name in store.walk(folder) if _is_below(name, folder))
    if not names:
        raise DataError(
            f"there is no object {source}, and none below it",
            hint=f"look at the names: aws s3 ls {source}" if scheme == "s3" else "look at the bucket's names",
        )
    return [StoredObject(store, name) for name in names]


def _is_below(name: str, folder: str) -> bool:
    """Whether an object counts as a file of the folder: not hidden, and no mark of a folder itself."""
    inner = PurePosixPath(name).relative_to(folder) if folder else PurePosixPath(name)
    return not name.endswith("/") and not any(part.startswith((".", "_")) for part in inner.parts)
