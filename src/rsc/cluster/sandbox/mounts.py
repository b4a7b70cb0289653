"""What a sandboxed process can see of the file system: an empty root with only the listed paths in it.

A list of what to show, not of what to hide: a socket or a secret at a place nobody thought of stays
outside. Both ways into the sandbox (bwrap, and our own launcher) build the same view from this list.

Some folders must stay hidden all the same (keys, identities, the log's key), and a shown one can lie above
them: a workspace in /opt, Python started in the home folder. There an empty folder is put in their place.

Not covered: files of secrets that somebody keeps in a system folder (/etc), copies and second mounts of what
is hidden, and what becomes of a folder that does not exist yet when the view is planned.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rsc.errors import ConfigError, IsolationRefused

# Programs, libraries and their settings; then links into /usr, which are folders on older systems
SYSTEM = ("/usr", "/etc", "/opt", "/nix", "/gnu", "/sys")
MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
EMPTY = ("/tmp", "/var/tmp", "/run", "/dev", "/dev/shm")
# Besides these every /dev/nvidia*; no vsock, no RDMA, no disks
DEVICES = ("null", "zero", "full", "random", "urandom", "kfd", "dri")

Kind = Literal["tmpfs", "read", "write", "device", "link", "proc"]


@dataclass(frozen=True)
class Mount:
    kind: Kind
    target: str
    source: str = ""
    """Path outside, or the text of a link."""


def plan_view(
    *, readable: Iterable[Path], writable: Iterable[Path], hidden: Iterable[Path] = ()
) -> list[Mount]:
    """Mounts in the order in which they must be made: parents before what lies in them.

    Python itself (its prefixes and import path) is always readable. Raises ConfigError for a path to
    show that does not exist, IsolationRefused for one that lies above or inside a hidden folder.
    """
    readable, writable = list(readable), list(writable)
    hidden = [path.resolve() for path in hidden if path.is_dir()]
    _require_apart([*readable, *writable], hidden)
    mounts = [Mount("tmpfs", path) for path in EMPTY] + [Mount("proc", "/proc")]
    mounts += [Mount("read", path, path) for path in SYSTEM if Path(path).is_dir()]
    mounts += [_merged(path) for path in MERGED if os.path.lexists(path)]
    mounts += [Mount("device", str(node), str(node)) for node in _device_nodes()]
    shown = _existing([*python_paths(hidden), *readable])
    mounts += [Mount("read", path, path) for path in _outermost(shown)]
    mounts += [Mount("write", path, path) for path in sorted(_existing(writable))]
    mounts += _masks(mounts, hidden)
    return sorted(mounts, key=lambda mount: Path(mount.target).parts)


def python_paths(hidden: Iterable[Path] = ()) -> list[Path]:
    """Where this interpreter loads code from: its own folders whole, and the import path.

    Of an entry above the home folder, or above what is hidden, the modules alone: `cd ~ && python -m rsc`
    puts the whole home folder on the import path.
    """
    prefixes = [sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.realpath(sys.executable)]
    own = [Path(text).absolute() for text in prefixes if text and _is_there(text)]
    found = [path.parent if path.is_file() and path.name.startswith("python") else path for path in own]
    kept_apart = [*hidden, Path.home().resolve()]
    for path in (Path(text).absolute() for text in sys.path if text and _is_there(text)):
        is_above = any(each.is_relative_to(path.resolve()) for each in kept_apart)
        found += _modules(path) if is_above else [path]
    return found


def _modules(folder: Path) -> list[Path]:
    """What can be imported from a folder, but for packages that have no `__init__.py`."""
    files = [path for ending in ("*.py", "*.so") for path in folder.glob(ending)]
    return sorted([*files, *(path.parent for path in folder.glob("*/__init__.py"))])


def _require_apart(shown: Iterable[Path], hidden: Sequence[Path]) -> None:
    for path in (each.resolve() for each in shown):
        for secret in hidden:
            if secret.is_relative_to(path) or path.is_relative_to(secret):
                raise IsolationRefused(
                    f"{path} would be shown inside the sandbox, and {secret} must not be",
                    hint="keep what a run reads or writes apart from the keys of the workspace",
                )


def _masks(mounts: Iterable[Mount], hidden: Sequence[Path]) -> list[Mount]:
    """Empty folders in the place of the hidden ones, wherever a mount shows them."""
    shown = [(mount, Path(mount.source).resolve()) for mount in mounts if mount.kind in ("read", "write")]
    targets = {
        str(Path(mount.target) / secret.relative_to(source))
        for mount, source in shown
        for secret in hidden
        if secret.is_relative_to(source)
    }
    return [Mount("tmpfs", target) for target in targets]


def _is_there(path: str) -> bool:
    try:
        return Path(path).exists()
    except PermissionError:
        return False  # the interpreter lies in a folder this user may not enter; it runs all the same


def _merged(path: str) -> Mount:
    link = Path(path)
    return Mount("link", path, str(link.readlink())) if link.is_symlink() else Mount("read", path, path)


def _device_nodes() -> list[Path]:
    names = [Path("/dev") / name for name in DEVICES]
    return [path for path in (*names, *sorted(Path("/dev").glob("nvidia*"))) if path.exists()]


def _existing(paths: Iterable[Path]) -> set[str]:
    found = set()
    for path in paths:
        if not path.exists():
            raise ConfigError(f"cannot show {path} inside the sandbox: it does not exist")
        found.add(str(path.resolve()))
    return found


def _outermost(paths: set[str]) -> Sequence[str]:
    """Leave out what lies inside another shown folder or inside the system's."""
    kept: list[str] = []
    for path in sorted(paths):
        if not any(Path(path).is_relative_to(parent) for parent in (*SYSTEM, *kept)):
            kept.append(path)
    return kept
