"""Does any file of the workspace hold what should be encrypted? By name, and by looking at the bytes.

A shard or checkpoint must begin as a container and be incompressible where it is sampled; every other
file must be one of those that RSC writes in the open on purpose, at its place.

Not covered: data sets in an object store (`rsc data verify` reads them); exports (`runs/*/export`, open by
their purpose); metrics, events and logs of a run, which
hold what the training code wrote; a file that is encrypted by something else, or compressed; copies
outside the workspace.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from rsc.config import Workspace
from rsc.errors import DataError
from rsc.release.verify.promise import Breach
from rsc.untrusted import UntrustedFolder

CONTAINER_MAGIC = b"\x89RSC\r\n\x1a\n"  # docs/format.md, section "header"
_SAMPLE_BYTES, _NUM_SAMPLES = 4096, 4
_HEADER_BYTES = 256  # the header is readable on purpose
_RANDOM_RATIO = 0.97  # zlib makes 4 KiB of random bytes longer, and text a third as long

_OPEN_FILES = {  # relative to the folder named; everything else has to be a container
    "data": re.compile(
        r"[^/]+/(v\d{4,}|\.staging-[0-9a-f]+)/"
        r"(root\.json|key\.json|claim|progress\.json|[^/]+\.manifest"
        r"|review/(policy\.toml|report\.json|decisions\.json|carried\.json|approvals/[^/]+\.json))"
    ),
    "runs": re.compile(r"[^/]+/(export/.+|(?!checkpoints/)([^/]+/)?[^/]+)"),
    "cache": re.compile(r"ledger|plans/[^/]+|[0-9a-f]{2}/[0-9a-f]{64}\.tail"),
}
# The second and later chunks of a shard in the cache, and one that is being fetched, have no header.
_INNER_CHUNK = re.compile(r"[0-9a-f]{64}\.([1-9]\d*|\d+\.part|tail\.part)")


def plaintext_files(workspace: Workspace) -> tuple[int, list[Breach]]:
    """(files looked at, those that should not be as they are)."""
    looked, breaches = 0, []
    for part, pattern in _OPEN_FILES.items():
        folder = workspace.root / part
        if part == "data" and isinstance(workspace.bulk, Path):
            folder = workspace.bulk
        for path in _files(folder):
            looked += 1
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                what: str | None = "is a link, and what it leads to is not looked at"
            else:
                what = None if pattern.fullmatch(relative) else _not_encrypted(folder, relative)
            if what is not None:
                changed = datetime.fromtimestamp(path.lstat().st_mtime, UTC)
                breaches.append(
                    Breach(f"{part}/{relative} {what}", data=_data_of(part, relative), since=changed)
                )
    return looked, breaches


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())


def _not_encrypted(folder: Path, relative: str) -> str | None:
    """Why this cannot be a container; None when it looks like one."""
    path = folder / relative
    try:
        with os.fdopen(UntrustedFolder(folder).open(relative), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            is_inner = _INNER_CHUNK.fullmatch(path.name) is not None
            if not is_inner and file.read(len(CONTAINER_MAGIC)) != CONTAINER_MAGIC:
                return "is no encrypted container and none of the files that belong there"
            for number in range(_NUM_SAMPLES):
                start = _HEADER_BYTES + number * max(0, size - _HEADER_BYTES - _SAMPLE_BYTES) // _NUM_SAMPLES
                file.seek(start)
                sample = file.read(_SAMPLE_BYTES)
                if (
                    len(sample) == _SAMPLE_BYTES
                    and len(zlib.compress(sample)) < _RANDOM_RATIO * _SAMPLE_BYTES
                ):
                    return "is a container with readable contents"
    except FileNotFoundError:
        return None  # removed while we looked
    except DataError as error:
        return error.message.removeprefix(f"{relative} in {folder} ")
    return None


def _data_of(part: str, relative: str) -> str | None:
    return relative.split("/")[0] if part == "data" else None
