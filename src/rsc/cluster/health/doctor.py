"""What this machine has for RSC: facts first (`look`), verdicts after (`judge`), no torch import.

Each check is one line: a state, what was found, and what to do when it matters. `bad` stops the main
job; `warn` makes it slower or leaves a promise out, which the line says.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rsc.cluster.health.cpu import this_cpu
from rsc.cluster.health.memory_at_rest import core_handler, swap_areas
from rsc.extras import install_command
from rsc.units import format_bytes

State = Literal["ok", "warn", "bad"]
_ORDER: dict[State, int] = {"bad": 0, "warn": 1, "ok": 2}

_FULL_BYTES = 64 * 1024**2  # less takes no checkpoint and no import
_MIN_DISK_BYTES = 4 * 1024**3
"""Quickstart writes under 200 MiB; the rest is room for one data set and its checkpoints."""

_MIN_AES_BYTES_PER_S = 2e9
"""Without AES instructions OpenSSL does 0.1-0.3 GB/s, with them 4-15: below 2 the loader waits for it."""

_NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "fuse.wekafs", "cifs", "smb3"}

_OPTIONAL = {
    "hyperscan": ("the fastest scanner engine", "scan"),
    "pyarrow": ("Parquet sources", "parquet"),
    "pkcs11": ("keys in a PKCS#11 token", "pkcs11"),
    "boto3": ("keys in AWS KMS", "aws"),
    "torchao": ("float8 training", "float8"),
}
"""Module -> what it is for, and the extra that brings it."""

_TRY_NAMESPACES = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x10000000 | 0x40000000) != 0)"
"""CLONE_NEWUSER | CLONE_NEWNET from linux/sched.h."""


@dataclass(frozen=True)
class Check:
    """One line of `rsc doctor`."""

    name: str
    state: State
    found: str
    hint: str = ""


def checks(workspace: Path) -> list[Check]:
    """Look at everything; worst first, then in the order below."""
    looks: list[Callable[[], Check]] = [
        _python,
        _torch,
        _accelerators,
        _cpu,
        _aes,
        _memory,
        lambda: _disk(workspace),
        lambda: _file_system(workspace),
        _namespaces,
        _swap,
        _core_dumps,
        _slurm,
        _optional,
    ]
    return sorted((look() for look in looks), key=lambda check: _ORDER[check.state])


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("python", "ok" if sys.version_info >= (3, 11) else "bad", found, "RSC needs 3.11 or newer")


def _torch() -> Check:
    try:
        found = version("torch")
    except PackageNotFoundError:
        return Check(
            "torch",
            "bad",
            "not installed",
            "training needs it: rm -r .venv and start again without RSC_TORCH=skip",
        )
    major, minor = (int(part) for part in found.split("+")[0].split(".")[:2])
    old = (major, minor) < (2, 11)
    return Check("torch", "bad" if old else "ok", found, "RSC needs 2.11 or newer" if old else "")


def _accelerators() -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check("accelerators", "ok", "none: training runs on the CPU")
    answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    names = [line.split("(")[0].strip() for line in answer.stdout.splitlines() if line.startswith("GPU")]
    if not names:
        return Check(
            "accelerators", "warn", "nvidia-smi finds none", "training runs on the CPU; check the driver"
        )
    return Check("accelerators", "ok", "; ".join(names))


def _cpu() -> Check:
    return Check("cpu", "ok", str(this_cpu()))


def _aes() -> Check:
    """AES-256-GCM of 256 KiB frames for 20 ms of CPU time, as the loader calls it (`decrypt_into` a reused
    buffer): other processes take time from the clock and not from this."""
    cipher, nonce = AESGCM(bytes(32)), bytes(12)
    sealed = cipher.encrypt(nonce, bytes(256 * 1024), None)
    plain = bytearray(256 * 1024)
    calls, started = 0, time.thread_time()
    while (elapsed_s := time.thread_time() - started) < 0.02:
        cipher.decrypt_into(nonce, sealed, None, plain)
        calls += 1
    rate = calls * len(plain) / elapsed_s
    slow = rate < _MIN_AES_BYTES_PER_S
    missing = "the linked OpenSSL does not use this CPU's AES instructions, or the CPU is shared"
    if not this_cpu().flags & {"aes", "pmull"}:
        missing = "no AES instructions in this CPU"
    hint = f"{missing}: encrypted reading will be slow" if slow else ""
    return Check("aes", "warn" if slow else "ok", f"AES-256-GCM {rate / 1e9:.1f} GB/s a core", hint)


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Check(
        "memory", "ok" if total > 3e9 else "warn", format_bytes(total), "two workers want about 3 GB"
    )


def _disk(workspace: Path) -> Check:
    free = shutil.disk_usage(_existing(workspace)).free
    low = free < _MIN_DISK_BYTES
    return Check(
        "disk",
        "bad" if free < _FULL_BYTES else "warn" if low else "ok",
        f"{format_bytes(free)} free for {workspace}",
        "set RSC_HOME to a larger disk",
    )


def _file_system(workspace: Path) -> Check:
    kind = _mount_type(_existing(workspace))
    if kind in _NETWORK_FILE_SYSTEMS:
        return Check(
            "file system",
            "warn",
            f"{kind} under {workspace}",
            "keep RSC_HOME on a local disk: locks and logs live there",
        )
    return Check("file system", "ok", kind)


def _mount_type(path: Path) -> str:
    """Type of the mount that holds a path, from /proc/mounts (longest mount point that is a parent)."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return f"unknown on {platform.system()}"
    holding = [(len(point), kind) for _, point, kind, *_ in mounts if path.is_relative_to(point)]
    return max(holding, default=(0, "unknown"))[1]


def _existing(path: Path) -> Path:
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def _namespaces() -> Check:
    if platform.system() != "Linux":
        return Check(
            "isolation",
            "warn",
            f"no network namespaces on {platform.system()}",
            "workers will say `not isolated`",
        )
    allowed = subprocess.run([sys.executable, "-c", _TRY_NAMESPACES], capture_output=True).returncode == 0
    if not allowed:
        hint = "workers will say `not isolated`; sysctl kernel.unprivileged_userns_clone=1 allows it"
        return Check("isolation", "warn", "the kernel refuses user namespaces", hint)
    tool = (
        "bubblewrap"
        if shutil.which("bwrap")
        else "own unshare (bubblewrap would hide more: apt install bubblewrap)"
    )
    return Check("isolation", "ok", f"user and network namespaces; {tool}")


def _swap() -> Check:
    """Key pages are locked, data pages are not: what is swapped out in the clear stays on the disk."""
    areas = swap_areas()
    if not areas:
        return Check("memory at rest", "ok", "no swap")
    clear = [area for area in areas if area.keeps == "plaintext"]
    found = ", ".join(f"{area.name} ({format_bytes(area.size_bytes)}, {area.keeps})" for area in areas)
    hint = "data in memory can reach this disk unencrypted: swapoff it, or set up swap on dm-crypt or zram"
    return Check("memory at rest", "warn" if clear else "ok", f"swap on {found}", hint if clear else "")


def _core_dumps() -> Check:
    """Commands and workers of RSC are left out; a notebook that uses it is, from its first key on."""
    handler = core_handler()
    where = f"core_pattern {handler!r}" if handler else "core_pattern unknown"
    return Check("core dumps", "ok", f"{where}; processes of RSC write none")


def _slurm() -> Check:
    if shutil.which("sinfo") is None:
        return Check("slurm", "ok", "not here: runs start on this machine")
    answer = subprocess.run(["sinfo", "--version"], capture_output=True, text=True, timeout=30)
    said = (answer.stdout.strip() or answer.stderr.strip()).splitlines()
    first = said[0] if said else f"sinfo ended with code {answer.returncode}"
    hint = "" if answer.returncode == 0 else "runs start on this machine; slurm.conf is not usable"
    return Check("slurm", "ok" if answer.returncode == 0 else "warn", first, hint)


def _optional() -> Check:
    missing = [
        f"{name} ({use}: {install_command(extra)})"
        for name, (use, extra) in _OPTIONAL.items()
        if find_spec(name) is None
    ]
    present = [name for name in _OPTIONAL if find_spec(name) is not None]
    found = f"present: {', '.join(present) or 'none'}" + (
        f"; absent: {'; '.join(missing)}" if missing else ""
    )
    return Check("optional parts", "ok", found)
