"""A second party's memory of the log: checkpoints it has seen, each on top of the one before.

A witness keeps signed checkpoints in a file of its own, on its own machine. Who holds one can tell when
the log was rewritten or cut back, which the log's owner could otherwise hide.

Not covered: records after the newest checkpoint that the witness holds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from rsc.audit.note import TreeHead, Verifier, open_checkpoint, parse_checkpoint
from rsc.durable import write_all
from rsc.errors import IntegrityError


class Witness:
    """A file of checkpoints as JSON lines, oldest first. It is only ever appended to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, note: bytes, *, verifier: Verifier) -> TreeHead:
        """Keep a checkpoint. Raises IntegrityError for a bad signature, or when it contradicts one held.

        Whether the log between two checkpoints is the same is seen by `verify_log`, which is given `known`.
        """
        checkpoint = open_checkpoint(note, verifier=verifier)
        held = self.known()
        if held and checkpoint.size < max(held):
            raise IntegrityError(
                f"the log is offered with {checkpoint.size} records; this witness has seen {max(held)}",
                hint="the log was cut back: ask its owner, and keep this file",
                outcome="truncated",
            )
        if held.get(checkpoint.size, checkpoint.root) != checkpoint.root:
            raise IntegrityError(
                f"two different logs of {checkpoint.size} records under {checkpoint.origin}",
                hint="the log was rewritten: ask its owner, and keep this file",
                outcome="frame",
            )
        if checkpoint.size not in held:
            self._append(json.dumps({"size": checkpoint.size, "note": note.decode()}).encode() + b"\n")
        return checkpoint

    def known(self) -> dict[int, bytes]:
        """Root by tree size, of every checkpoint held. Raises IntegrityError when the file is damaged."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return {}
        try:
            found = [parse_checkpoint(json.loads(line)["note"].encode()) for line in lines]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(f"{self._path.name} is not a witness file", outcome="header") from None
        return {checkpoint.size: checkpoint.root for checkpoint in found}

    def _append(self, data: bytes) -> None:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
