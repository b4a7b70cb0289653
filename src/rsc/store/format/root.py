"""root.json: the one small file that binds everything in a data set version, and the names of the rest.

<name>/v0001/root.json                 this; sha256 of its bytes is the version's root hash
<name>/v0001/key.json                  the envelope; outside the hash, rotation replaces it
<name>/v0001/<split>.manifest          shards of a split
<name>/v0001/<split>/000000042.rsc     a shard
<name>/v0001/review/...                policy.toml and report.json (their sha256 are in root.json), approvals
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rsc.errors import ConfigError, IntegrityError
from rsc.store.format.manifest import ManifestTotals
from rsc.store.format.schema import Schema

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"v(\d{4,})")
_REVIEW_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_COUNT_LIMIT = 1 << 63  # entries hold u64, sums stay below i64


def check_name(name: str) -> str:
    """The name of a data set or split. Raises ConfigError unless it is safe in paths and URLs."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        shown = ascii(name) if len(name) <= 64 else f"of {len(name)} characters"
        raise ConfigError(
            f"a name {shown} is not a data set or split name", hint="use a-z, 0-9, . _ -, up to 64"
        )
    return name


def _split_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError("not a split name")
    return name


_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, lt=_COUNT_LIMIT)]
_Name = Annotated[str, AfterValidator(_split_name)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SplitRecord(_Record):
    """One split in root.json."""

    fields: list[dict[str, Any]]
    merkle_root: _Hash
    num_shards: _Count
    num_samples: _Count
    num_frames: _Count
    size_bytes: _Count

    @property
    def totals(self) -> ManifestTotals:
        return ManifestTotals(
            merkle_root=bytes.fromhex(self.merkle_root),
            num_shards=self.num_shards,
            num_samples=self.num_samples,
            num_frames=self.num_frames,
            size_bytes=self.size_bytes,
        )

    @classmethod
    def of(cls, schema: Schema, totals: ManifestTotals) -> SplitRecord:
        return cls(
            fields=schema.to_dict(),
            merkle_root=totals.merkle_root.hex(),
            num_shards=totals.num_shards,
            num_samples=totals.num_samples,
            num_frames=totals.num_frames,
            size_bytes=totals.size_bytes,
        )


class Root(_Record):
    """Everything a version is, in public words. `version_id` is random and part of every shard's context."""

    format: Literal["rsc-dataset-1"] = "rsc-dataset-1"
    name: _Name
    version_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    created: str
    splits: dict[_Name, SplitRecord]
    policy_sha256: _Hash
    report_sha256: _Hash
    facts: dict[str, Any]

    def to_bytes(self) -> bytes:
        return self.model_dump_json(indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Root:
        """Raises IntegrityError (outcome `header`) for anything but a root of this format."""
        try:
            root = cls.model_validate_json(data)
            for split in root.splits.values():
                Schema.from_dict(split.fields)
        except (ValidationError, ConfigError) as error:
            raise IntegrityError(f"root.json is not a data set root: {error}", outcome="header") from None
        return root


def root_hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def shard_context(*, name: str, version_id: str, split: str, shard: int) -> bytes:
    """What a shard is bound to. Names hold no newline, so no two places share a context."""
    return f"rsc-shard-1\n{name}\n{version_id}\n{split}\n{shard}\n".encode()


def shard_path(folder: str, *, split: str, shard: int) -> str:
    return f"{folder}/{split}/{shard:09d}.rsc"


def manifest_path(folder: str, *, split: str) -> str:
    return f"{folder}/{split}.manifest"


def version_folder(name: str, version: int) -> str:
    return f"{name}/v{version:04d}"


def version_number(folder_name: str) -> int | None:
    """`v0012` -> 12; None for any other name."""
    match = _VERSION.fullmatch(folder_name)
    return int(match[1]) if match else None


def is_review_name(name: str) -> bool:
    """Whether `review_path` takes it; a half-written file never does."""
    return _REVIEW_NAME.fullmatch(name) is not None


def review_path(folder: str, name: str) -> str:
    """Raises ConfigError for a name that could leave the review folder."""
    if not is_review_name(name):
        raise ConfigError(
            f"{name!r} is not a file of a review", hint="such as report.json or approvals/ada.json"
        )
    return f"{folder}/review/{name}"
