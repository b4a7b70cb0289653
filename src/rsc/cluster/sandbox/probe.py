"""Measure from inside whether this process is isolated, and whether its memory is kept to itself.

A worker probes before it asks for a key and every minute after; the key agent believes the report only
as far as it can check it from outside (release/agent/observe.py).

Only ENETUNREACH counts as "no way out": it says that this kernel has no route at all. "refused" means
that something answered, "timeout" that packets left, "open" speaks for itself.

Not covered: ways out that need no socket (a shared GPU, a covert channel); sockets below the bound of
the search for foreign ones (its detail says how many entries it looked at).
"""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import select
import socket
import stat
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsc.cluster.sandbox import syscalls

# RFC 5737 and RFC 3849: addresses for documentation; nobody owns a host there
OUTSIDE_V4 = ("192.0.2.1", "198.51.100.1", "203.0.113.1")
OUTSIDE_V6 = ("2001:db8::1",)
_PORT = 443
_CONNECT_WAIT_S = 1.0  # only spent where a route exists, and then the answer is already "not isolated"
_SIOCGIFFLAGS, _IFF_UP = 0x8913, 1
_AF_VSOCK = 40
_SEARCHED = (
    "/run",
    "/var/run",
    "/tmp",
    "/var/tmp",
    "/dev",
    "/home",
    "/root",
    "/var/lib",
    "/srv",
    "/mnt",
    "/media",
)
_SEARCH_DEPTH, _SEARCH_ENTRIES = 4, 20_000
_SKIPPED_MOUNTS = {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue"}


@dataclass(frozen=True)
class ProbeFinding:
    name: str
    is_ok: bool
    detail: str


@dataclass(frozen=True)
class Report:
    """`is_ok` when every finding is."""

    findings: list[ProbeFinding]

    @property
    def is_ok(self) -> bool:
        return all(finding.is_ok for finding in self.findings)

    @property
    def broken(self) -> str:
        """The findings that are not ok, in one line; empty when all are."""
        return "; ".join(f"{f.name}: {f.detail}" for f in self.findings if not f.is_ok)

    def to_json(self) -> dict[str, Any]:
        return {"is_ok": self.is_ok, "findings": [asdict(finding) for finding in self.findings]}


def probe(*, allowed_sockets: Collection[Path] = ()) -> Report:
    """Try every way out. `allowed_sockets` are the unix sockets meant to be reachable (the key agent's)."""
    findings = [_tcp(address) for address in (*OUTSIDE_V4, *OUTSIDE_V6)]
    findings.append(_udp(OUTSIDE_V4[0]))
    checks: tuple[Callable[[], ProbeFinding], ...] = (_interfaces, _routes, _vsock, _privileges)
    findings += [_or_failed(check) for check in checks]
    findings.append(_unix_sockets({str(path) for path in allowed_sockets}))
    return Report(findings)


def hygiene() -> Report:
    """Can the key or the data leave this process's memory by itself: core dumps, swap, another process."""
    checks: tuple[Callable[[], ProbeFinding], ...] = (_core, _dumpable, _swap, _locked_memory)
    return Report([_or_failed(check) for check in checks])


def _tcp(address: str) -> ProbeFinding:
    name = f"tcp {address}"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        attempt = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        return ProbeFinding(name, error.errno == errno.EAFNOSUPPORT, _word(error.errno))
    with attempt:
        attempt.setblocking(False)
        code = attempt.connect_ex((address, _PORT))
        if code == errno.EINPROGRESS:
            select.select([], [attempt], [], _CONNECT_WAIT_S)
            code = attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            code = code if code or _is_connected(attempt) else errno.ETIMEDOUT
            return ProbeFinding(name, False, _word(code))  # a route exists, whatever became of the packet
    return ProbeFinding(name, code == errno.ENETUNREACH, _word(code))


def _udp(address: str) -> ProbeFinding:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attempt:
        try:
            attempt.sendto(b"", (address, _PORT))
        except OSError as error:
            return ProbeFinding(f"udp {address}", error.errno == errno.ENETUNREACH, _word(error.errno))
    return ProbeFinding(f"udp {address}", False, "sent")


def _interfaces() -> ProbeFinding:
    up = [name for _, name in socket.if_nameindex() if _is_up(name)]
    return ProbeFinding("interfaces", up == ["lo"], " ".join(up) or "none is up, not even lo")


def _routes() -> ProbeFinding:
    v4 = [line.split()[0] for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    v6_file = Path("/proc/net/ipv6_route")
    v6 = [line.split()[-1] for line in v6_file.read_text().splitlines()] if v6_file.exists() else []
    over = sorted({*v4, *v6} - {"lo"})
    return ProbeFinding("routes", not over, f"over {' '.join(over)}" if over else "none")


def _vsock() -> ProbeFinding:
    try:
        socket.socket(_AF_VSOCK, socket.SOCK_STREAM).close()
    except OSError as error:
        return ProbeFinding("vsock", True, _word(error.errno))
    return ProbeFinding("vsock", False, "can be created")


def _privileges() -> ProbeFinding:
    """Without no_new_privs the bounding set would count too; with it, nothing in it can be gained."""
    status = process_status()
    kept = [name for name in ("CapEff", "CapPrm", "CapAmb") if int(status[name], 16)]
    lacking = [] if status["NoNewPrivs"] == "1" else ["no_new_privs is off"]
    told = [*(f"{name} is not empty" for name in kept), *lacking]
    return ProbeFinding("privileges", not told, "; ".join(told) or "none, and none to gain")


def _unix_sockets(allowed: set[str]) -> ProbeFinding:
    looked = 0
    for path in _socket_candidates():
        looked += 1
        if looked > _SEARCH_ENTRIES:
            break
        if path not in allowed and _is_socket(path) and _answers(path):
            return ProbeFinding("unix sockets", False, f"{path} is reachable")
    return ProbeFinding("unix sockets", True, f"none foreign among {looked} entries")


def _socket_candidates() -> Iterator[str]:
    roots = [path for path in (*_SEARCHED, *_mounted_folders()) if Path(path).is_dir()]
    seen: set[str] = set()
    for root in roots:
        real = os.path.realpath(root)
        if real not in seen:
            seen.add(real)
            yield from _entries(real, depth=_SEARCH_DEPTH)


def _mounted_folders() -> list[str]:
    """Places that somebody mounted: where a sandbox shows a folder on purpose."""
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        left, _, right = line.partition(" - ")
        if right.split()[0] not in _SKIPPED_MOUNTS and left.split()[4] != "/":
            found.append(left.split()[4])
    return [path for path in found if not path.startswith(("/usr", "/etc", "/sys", "/opt", "/lib", "/bin"))]


def _entries(folder: str, *, depth: int) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        yield entry.path
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _entries(entry.path, depth=depth - 1)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False


def _answers(path: str) -> bool:
    """Whether somebody holds the other end: connected, or bound for another kind of socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attempt:
        attempt.setblocking(False)
        try:
            code = attempt.connect_ex(path)
        except OSError:
            return False
    return code in (0, errno.EPROTOTYPE, errno.EAGAIN, errno.EINPROGRESS)


def process_status(pid: int | str = "self") -> dict[str, str]:
    """The fields of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _core() -> ProbeFinding:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    return ProbeFinding(
        "core dumps", soft == hard == 0, "off" if soft == hard == 0 else f"limit {soft}, at most {hard}"
    )


def _dumpable() -> ProbeFinding:
    is_off = syscalls.prctl(syscalls.PR_GET_DUMPABLE) == 0
    return ProbeFinding(
        "memory is private", is_off, "yes" if is_off else "processes of the same user can read it"
    )


def _swap() -> ProbeFinding:
    areas = Path("/proc/swaps").read_text().splitlines()[1:]
    return ProbeFinding(
        "swap", not areas, "off" if not areas else f"{len(areas)} areas are on; plaintext may reach them"
    )


def _locked_memory() -> ProbeFinding:
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    is_enough = soft == resource.RLIM_INFINITY or soft >= 64 * 1024
    return ProbeFinding(
        "lockable memory", is_enough, "no limit" if soft == resource.RLIM_INFINITY else f"{soft} bytes"
    )


def _or_failed(check: Callable[[], ProbeFinding]) -> ProbeFinding:
    """A check that cannot be made is a check that failed."""
    try:
        return check()
    except (OSError, AttributeError) as error:
        return ProbeFinding(check.__name__.strip("_").replace("_", " "), False, f"cannot be checked: {error}")


def _is_up(name: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe_socket:
        reply = fcntl.ioctl(probe_socket, _SIOCGIFFLAGS, struct.pack("16sH14x", name.encode(), 0))
    flags: int = struct.unpack("16xH14x", reply)[0]
    return bool(flags & _IFF_UP)


def _is_connected(attempt: socket.socket) -> bool:
    try:
        attempt.getpeername()
    except OSError:
        return False
    return True


def _word(code: int | None) -> str:
    words = {0: "open", errno.ECONNREFUSED: "refused", errno.ETIMEDOUT: "timeout"}
    return words.get(code or 0) or errno.errorcode.get(code or 0, f"error {code}")
