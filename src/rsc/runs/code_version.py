"""Which code this is: what a run's lineage says about who made it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import rsc


def code_facts() -> dict[str, str]:
    return {"version": rsc.__version__, "sources_sha256": sources_digest()}


def sources_digest() -> str:
    """SHA-256 over this package's Python files, names and bytes: says which code trained, git or not."""
    root = Path(rsc.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
