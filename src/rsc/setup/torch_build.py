"""Which build of torch an environment gets: a small CPU build wherever one can be had, else the index's own.

The plain wheel of x86-64 Linux brings CUDA: 3 GB to download, 6 GB on disk, where the CPU build takes 200 MB.
pip always prefers the newest version, so a CPU build of a somewhat older version is looked for by hand.
"""

from __future__ import annotations

import re
import urllib.request
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from rsc.setup.pip import Offer, release_of

OLDEST = (2, 11)
FINAL = re.compile(r"\d+(\.\d+)*(\.post\d+)?(\+[a-z0-9.]+)?")
GPU_PACKAGE = re.compile(r"(nvidia|cuda|triton|pytorch-triton|rocm)\b", re.IGNORECASE)
LARGEST_CPU_BUILD_BYTES = 350_000_000
"""CPU builds of 2.11 to 2.14 have 70 to 200 MB; builds with CUDA or ROCm have 500 MB to 4 GB."""
LOOK_S = 3.0
"""How long a server may take to show the metadata or the size of a wheel."""


@dataclass(frozen=True)
class Wheel:
    """What can be known of a wheel without downloading it. None where the server does not say."""

    size_bytes: int | None
    requirements: tuple[str, ...] | None

    @property
    def is_cpu_build(self) -> bool:
        """Whether it brings no GPU libraries, beside it or inside. Unknown counts as no."""
        if self.requirements is not None and any(GPU_PACKAGE.match(each) for each in self.requirements):
            return False
        if self.size_bytes is None:
            return self.requirements is not None
        return self.size_bytes < LARGEST_CPU_BUILD_BYTES


def new_enough(offers: Iterable[Offer]) -> list[Offer]:
    """Final releases only, from OLDEST on."""
    return [offer for offer in offers if is_new_enough(offer.version)]


def is_new_enough(version: str | None) -> bool:
    return version is not None and FINAL.fullmatch(version) is not None and release_of(version) >= OLDEST


def cpu_builds(offers: Sequence[Offer]) -> list[Offer]:
    """The CPU builds among `offers`, in their order: by the label `+cpu`, else by a look at the wheel."""
    unlabelled = [offer for offer in offers if not offer.label]
    with ThreadPoolExecutor(max_workers=8) as pool:
        seen = dict(zip(unlabelled, pool.map(look_at, unlabelled), strict=True))
    return [offer for offer in offers if offer.label == "cpu" or (offer in seen and seen[offer].is_cpu_build)]


def look_at(offer: Offer) -> Wheel:
    url = offer.url.partition("#")[0]
    if url.startswith("file:"):
        return _local_wheel(Path(urllib.request.url2pathname(url.removeprefix("file://"))))
    return Wheel(size_bytes=_size_on_server(url), requirements=_metadata_on_server(url))


def _local_wheel(path: Path) -> Wheel:
    try:
        with zipfile.ZipFile(path) as wheel:
            name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            return Wheel(path.stat().st_size, _requirements(wheel.read(name)))
    except (OSError, StopIteration, zipfile.BadZipFile):
        return Wheel(None, None)


def _size_on_server(url: str) -> int | None:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=LOOK_S) as response:
            return int(response.headers["Content-Length"])
    except (OSError, HTTPException, ValueError, TypeError):
        return None


def _metadata_on_server(url: str) -> tuple[str, ...] | None:
    """From the file that an index may serve beside a wheel (PEP 658)."""
    try:
        with urllib.request.urlopen(f"{url}.metadata", timeout=LOOK_S) as response:
            return _requirements(response.read(1_000_000))
    except (OSError, HTTPException, ValueError):
        return None


def _requirements(metadata: bytes) -> tuple[str, ...]:
    lines = re.findall(r"^Requires-Dist: *(.+)$", metadata.decode(errors="replace"), re.MULTILINE)
    return tuple(line for line in lines if "extra ==" not in line)
