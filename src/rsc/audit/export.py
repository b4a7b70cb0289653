"""The log for somebody else: a copy of its published form, verified with nothing but the public key."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from rsc.audit.disk import LocalDisk
from rsc.audit.log import AuditLog
from rsc.audit.note import TreeHead, Verifier, open_checkpoint
from rsc.audit.verify import LogReport, verify_log
from rsc.errors import ConfigError


def export_log(log: AuditLog, *, source: Path, target: Path) -> TreeHead:
    """Publish, then copy checkpoint, tiles and public key to the new folder `target`. The signing key stays.

    Raises ConfigError when `target` exists.
    """
    note = log.checkpoint()
    try:
        target.mkdir(parents=True)
    except FileExistsError:
        raise ConfigError(f"{target} exists", hint="choose a new folder; nothing was overwritten") from None
    shutil.copy(source / "log.vkey", target / "log.vkey")
    if (source / "tile").exists():
        shutil.copytree(source / "tile", target / "tile")
    (target / "checkpoint").write_bytes(note)
    return open_checkpoint(note, verifier=log.verifier)


def verify_folder(folder: Path, *, key: str, known: Mapping[int, bytes] | None = None) -> LogReport:
    """Check an exported log. `key` is the verifier key, got by another way than the log.

    Raises ConfigError for a key that is none and for a folder without a checkpoint.
    """
    if not (folder / "checkpoint").is_file():
        raise ConfigError(f"{folder} holds no checkpoint", hint="make it with `rsc audit export`")
    return verify_log(LocalDisk(folder), verifier=Verifier.from_text(key), known=known)
