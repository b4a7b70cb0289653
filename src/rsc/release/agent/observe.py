"""Look at an asking process from outside, so that its own isolation report need not be believed.

Everything here is read from /proc of the process whose number the kernel gave with the connection.

Not covered: kernels without /proc; a process that the agent may not look into (then `None`, which the
level `required` treats as a denial); what changes between two looks, a minute apart.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from rsc.store.cache.mover_client import socket_beside

_VSOCK_FILTERED = "2"  # /proc/PID/status Seccomp: 2 is a filter, which sandbox.py installs


def meant_sockets(agent: Path) -> tuple[Path, ...]:
    """What a worker is shown on purpose: the agent's socket and, where data is fetched, the mover's."""
    return tuple(path for path in (agent, socket_beside(agent)) if path.is_socket())


def observe(pid: int, *, allowed_sockets: tuple[Path, ...] = ()) -> tuple[str, ...] | None:
    """What is wrong with the isolation of `pid`, in words; empty when nothing is; None when unseen."""
    try:
        return tuple(_problems(Path(f"/proc/{pid}"), allowed={_identity(path) for path in allowed_sockets}))
    except OSError:
        return None


def _problems(process: Path, *, allowed: set[tuple[int, int]]) -> Iterator[str]:
    if _identity(process / "ns/net") == _identity(Path("/proc/self/ns/net")):
        yield "it shares the agent's network"
        return
    over = sorted(set(_route_devices(process)) - {"lo"})
    if over:
        yield f"its network has routes over {' '.join(over)}"
    status = _status(process)
    if int(status["CapEff"], 16) or int(status["CapPrm"], 16):
        yield "it has capabilities"
    if status["NoNewPrivs"] != "1":
        yield "it can gain privileges"
    if status["Seccomp"] != _VSOCK_FILTERED:
        yield "it has no system call filter"
    for path in _foreign_sockets(process, allowed=allowed):
        yield f"it sees the socket {path}"


def _route_devices(process: Path) -> Iterator[str]:
    for line in (process / "net/route").read_text().splitlines()[1:]:
        yield line.split()[0]
    v6 = process / "net/ipv6_route"
    if v6.exists():
        yield from (line.split()[-1] for line in v6.read_text().splitlines())


def _foreign_sockets(process: Path, *, allowed: set[tuple[int, int]]) -> Iterator[str]:
    """Sockets of the agent's network namespace that the process finds under the same path."""
    for line in Path("/proc/self/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        path = fields[7] if len(fields) == 8 else ""
        if path.startswith("/") and _is_visible(process, path, allowed=allowed):
            yield path


def _is_visible(process: Path, path: str, *, allowed: set[tuple[int, int]]) -> bool:
    try:
        inside = Path(f"{process}/root{path}").stat()
        outside = Path(path).stat()
    except OSError:
        return False
    identity = (inside.st_dev, inside.st_ino)
    is_same = identity == (outside.st_dev, outside.st_ino)
    return is_same and stat.S_ISSOCK(inside.st_mode) and identity not in allowed


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _status(process: Path) -> dict[str, str]:
    lines = (process / "status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
