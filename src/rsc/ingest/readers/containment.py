"""Does everything that a source folder would bring in lie inside it?

A link that leads out of the folder (`notes.txt -> /proc/self/environ`) would turn a file that nobody meant
into a record. Pipes and devices have no end or no size. Both are refused by name before any reader opens a
file; links to files inside the folder are followed.

Not covered: whoever may write the folder while it is imported; the fingerprint of the files then differs and
nothing is committed. Hidden files, which no reader looks at. The source itself: its path was typed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rsc.errors import DataError


def require_contained(folder: Path) -> None:
    """Raises DataError naming the first file or link that the import must not follow."""
    root = folder.resolve()
    for entry in _walk(folder):
        name = Path(entry.path).relative_to(folder)
        if entry.is_symlink():
            target = Path(os.path.realpath(entry.path))
            if target.exists() and not target.is_relative_to(root):
                raise DataError(
                    f"{name} in {folder} is a link that leads out of the folder",
                    hint=f"import a copy with the file in place of the link: cp -rL {folder} COPY",
                )
            if not target.exists() or target.is_dir() or target.is_file():
                continue
        if not entry.is_file():
            raise DataError(
                f"{name} in {folder} is neither a file nor a folder",
                hint="remove the pipe, socket or device from the folder",
            )


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Everything below that is not a folder, and every link; hidden names are passed over."""
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            entries = list(os.scandir(current))
        except OSError as error:
            raise DataError(
                f"cannot read the folder {current}: {error.strerror}",
                hint="let yourself read it, or import the other folders one by one",
            ) from None
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            else:
                yield entry
