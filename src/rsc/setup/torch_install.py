"""Put a torch into an environment: the ways to get one, in order, until one works.

1. a CPU build that pip's configuration offers, 2. PyTorch's CPU index, 3. the build that pip takes by itself.
With a GPU, or on macOS, the third comes first. Each way that fails says why in one line.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from rsc.errors import ResourceError
from rsc.setup.pip import INSTALL, Listing, Offer, Pip, PipAnswer
from rsc.setup.torch_build import OLDEST, cpu_builds, look_at, new_enough

PYTORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PYTORCH_SILENCE_S = 5
PYTORCH_LIST_S = 20
"""How long PyTorch's index may stay silent, and take for its list: a second where it can be reached."""
Way = Callable[[], bool]
"""One way to a torch. False where it led to none."""

AT_LEAST = f"torch>={OLDEST[0]}.{OLDEST[1]}"
HINT = (
    "set RSC_TORCH to a requirement or a wheel that pip can reach here, RSC_WHEELS to a folder made by "
    "`rsc bundle`, or RSC_TORCH=skip to go without training and evaluation"
)


@dataclass(frozen=True)
class TorchInstaller:
    """`command` is what pip does with a wheel: install it here, or download it for another machine.

    `target` are pip's options for that machine. `wants_gpu`: the build that pip takes by itself is the one.
    """

    pip: Pip
    say: Callable[[str], None]
    cpu_index: str
    wants_gpu: bool
    offered_by: str = "your pip configuration"
    command: tuple[str, ...] = INSTALL
    target: tuple[str, ...] = ()

    def install(self, wanted: str) -> None:
        """`wanted` is RSC_TORCH: empty, cpu, cuda, or a requirement. Raises ResourceError."""
        if wanted not in ("", "cpu", "cuda"):
            self._install_requirement(wanted)
            return
        listing = self._list_offers()
        own_build: Way = partial(self._install_own_build, listing)
        cpu_build: list[Way] = [
            partial(self._install_offered, listing),
            partial(self._install_from_pytorch, listing),
        ]
        by_machine = [own_build, *cpu_build] if self.wants_gpu else [*cpu_build, own_build]
        ways = {"cpu": cpu_build, "cuda": [own_build]}.get(wanted, by_machine)
        if not any(way() for way in ways):
            raise ResourceError(f"no {AT_LEAST} could be had; the lines above say why", hint=HINT)

    def _take(self, requirement: str, *options: str) -> PipAnswer:
        return self.pip.run(*self.command, *self.target, *options, requirement)

    def _install_requirement(self, wanted: str) -> None:
        self.say(f"torch: {wanted} (from RSC_TORCH)")
        answer = self._take(wanted)
        if answer.code != 0:
            raise ResourceError(f"pip could not take {wanted} (from RSC_TORCH): {answer.reason}", hint=HINT)

    def _list_offers(self) -> Listing:
        listing = self.pip.offers("torch", *self.target)
        for page in listing.silent:
            self.say(f"torch: {page} does not answer")
        if listing.silent and listing.is_index_read:
            self.pip.wait_briefly()
        elif listing.silent:
            self.say("no package index answers: using only the wheel folders of your pip configuration")
            self.pip.ask_no_index()
        return listing

    def _install_offered(self, listing: Listing) -> bool:
        builds = cpu_builds(new_enough(listing.offers))
        if not builds:
            self.say(f"torch: {self.offered_by} offers no CPU build")
        return self._install_newest(builds, source=f"that {self.offered_by} offers")

    def _install_from_pytorch(self, known: Listing) -> bool:
        at = ("--index-url", self.cpu_index)
        once = ("--retries", "0", "--timeout", str(PYTORCH_SILENCE_S))
        listing = self.pip.offers("torch", *self.target, *at, *once, limit_s=PYTORCH_LIST_S)
        more = [offer for offer in new_enough(listing.offers) if offer not in known.offers]
        builds = [offer for offer in more if offer.label == "cpu"]
        if not builds:
            self.say(f"torch: no CPU build from PyTorch's index: {self._why_none(listing)}")
        return self._install_newest(builds, *at, "--timeout", "15", source="from PyTorch's index")

    def _why_none(self, listing: Listing) -> str:
        if listing.is_offline:
            return "pip is set to use no index"
        if listing.is_cut_short or any(page.startswith(self.cpu_index) for page in listing.silent):
            return "it does not answer"
        return "it has none that fits"

    def _install_newest(self, offers: Iterable[Offer], *options: str, source: str) -> bool:
        """The newest of `offers` that constraints allow."""
        for offer in offers:
            self.say(f"torch: {offer.version}, the CPU build {source}{_size(look_at(offer).size_bytes)}")
            answer = self._take(offer.requirement, "--no-deps", *options)
            if answer.code == 0:
                return True
            self.say(f"torch: {offer.version} not taken: {answer.reason}")
        return False

    def _install_own_build(self, listing: Listing) -> bool:
        self.say(f"torch: the build that pip takes by itself{_cost(new_enough(listing.offers))}")
        answer = self._take(AT_LEAST)
        if answer.code != 0:
            self.say(f"torch: not taken: {answer.reason}")
        return answer.code == 0


def has_gpu() -> bool:
    """A GPU that CUDA can use; or macOS, whose only build uses the GPU."""
    if platform.system() == "Darwin":
        return True
    if shutil.which("nvidia-smi") is None:
        return False
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f" ({max(1, round(size_bytes / 1e6))} MB)"


def _cost(offers: list[Offer]) -> str:
    """What the newest offer weighs. The sum of a CUDA build is measured: torch 2.15 on x86-64 Linux."""
    if not offers:
        return ""
    wheel = look_at(offers[0])
    beside = "" if wheel.is_cpu_build else "; with GPU libraries about 3 GB to download, 6 GB on disk"
    return f": {offers[0].version}{_size(wheel.size_bytes)} or the newest that constraints allow{beside}"
