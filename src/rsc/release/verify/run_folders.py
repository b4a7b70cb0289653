"""Nothing in a run folder leads out of it: the files that workers can write are plain, and theirs alone.

RSC reads them without following links (rsc/untrusted.py), so a link harms nobody; it says that the code which
trained tried to be read from elsewhere, and people and other programs do follow links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime

from rsc.errors import DataError
from rsc.release.verify.checks import VerifyContext
from rsc.release.verify.promise import Breach, Promise, judge
from rsc.untrusted import UntrustedFolder


def run_folders_plain(house: VerifyContext) -> Promise:
    runs = UntrustedFolder(house.workspace.runs)
    looked, breaches = 0, []
    for path in _below(runs):
        looked += 1
        if (what := planted(runs, path)) is not None:
            changed = datetime.fromtimestamp((runs.root / path).lstat().st_mtime, UTC)
            breaches.append(Breach(f"runs/{path} {what}", since=changed))
    return judge("run folders plain", breaches, told=f"{looked} files of runs, none leads out of its folder")


def planted(folder: UntrustedFolder, path: str) -> str | None:
    """Why RSC does not read a file: a link, a FIFO, another name elsewhere; None for a plain one."""
    try:
        folder.exists(path)
    except DataError as error:
        return error.message.removeprefix(f"{path} in {folder.root} ")
    return None


def _below(folder: UntrustedFolder) -> Iterator[str]:
    """Whatever is no folder, without following links."""
    if not folder.root.is_dir():
        return
    with folder.folder() as top:
        for above, folders, names, fd in os.fwalk(".", dir_fd=top, follow_symlinks=False):
            links = [name for name in folders if _is_link(name, fd)]
            yield from (os.path.normpath(f"{above}/{name}") for name in (*names, *links))


def _is_link(name: str, folder: int) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
