from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

from rsc.train.allocator import keep_freed_memory

_FAULTS = """
import resource, sys
from rsc.train.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(10):
    blocks = [b"x" * (8 << 20) for _ in range(8)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_blocks_cost_no_new_pages() -> None:
    """Ten "steps" that take 64 MiB and free it: page faults in each by default, in the first one here."""

    def faults(how: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", _FAULTS, how]))

    assert faults("default") - faults("kept") > 5 * (64 << 20) // resource.getpagesize()


def test_it_says_whether_it_took_effect() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
