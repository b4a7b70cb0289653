"""Build the sandbox's file system (view.py) in a fresh mount namespace, without bwrap.

The new root is a tmpfs with only the listed paths bound into it; everything but the writable ones is
then set read-only, and the old root is let go.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rsc.cluster.sandbox import syscalls
from rsc.cluster.sandbox.mounts import Mount

_OLD = "/.old-root"
_BASE = "/tmp"  # exists everywhere; what lies there stays reachable under the old root meanwhile


def enter_root(mounts: Sequence[Mount]) -> None:
    """Replace this process's root. Needs CAP_SYS_ADMIN in its namespace; raises OSError naming the call."""
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(
        "tmpfs", _BASE, kind="tmpfs", flags=syscalls.MS_NOSUID | syscalls.MS_NODEV, options="mode=0755"
    )
    Path(_BASE + _OLD).mkdir()
    syscalls.pivot_root(_BASE, f"{_BASE}{_OLD}")
    os.chdir("/")
    for mount in mounts:
        _make(mount)
    syscalls.unmount(_OLD)
    Path(_OLD).rmdir()
    syscalls.set_read_only("/", is_read_only=True)
    for mount in mounts:
        _protect(mount)


def _make(mount: Mount) -> None:
    target = Path(mount.target)
    if mount.kind == "link":
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(mount.source)
    elif mount.kind == "tmpfs":
        target.mkdir(parents=True, exist_ok=True)
        syscalls.mount("tmpfs", mount.target, kind="tmpfs", flags=syscalls.MS_NOSUID, options="mode=0700")
        if mount.target == "/dev":
            _link_streams(target)
    elif mount.kind == "proc":
        target.mkdir()
        flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("proc", mount.target, kind="proc", flags=flags)
    else:
        _bind(Path(_OLD + mount.source), target)


def _protect(mount: Mount) -> None:
    """Called parents first. An empty folder is opened alone: what is shown below it stays read-only."""
    if mount.kind in ("tmpfs", "proc"):
        syscalls.set_read_only(mount.target, is_read_only=False, is_recursive=False)
    elif mount.kind == "write":
        syscalls.set_read_only(mount.target, is_read_only=False)
    elif mount.kind == "read":
        syscalls.set_read_only(mount.target, is_read_only=True)


def _link_streams(folder: Path) -> None:
    """The usual links to a process's own descriptors; bubblewrap makes the same."""
    (folder / "fd").symlink_to("/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (folder / name).symlink_to(f"/proc/self/fd/{number}")


def _bind(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    syscalls.mount(str(source), str(target), flags=syscalls.MS_BIND | syscalls.MS_REC)
