"""Swap that keeps plaintext is told from swap that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsc.cluster.health.memory_at_rest import core_handler, swap_areas

HEADER = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


@pytest.mark.parametrize(
    ("device", "files", "keeps"),
    [
        ("/dev/sda2", {}, "plaintext"),
        ("/swapfile", {}, "plaintext"),
        ("/dev/dm-1", {"dm-1/dm/uuid": "CRYPT-PLAIN-cryptswap\n"}, "ciphertext"),
        ("/dev/dm-1", {"dm-1/dm/uuid": "LVM-abc\n"}, "plaintext"),
        ("/dev/zram0", {"zram0/backing_dev": "none\n"}, "memory"),
        ("/dev/zram0", {"zram0/backing_dev": "/dev/sda3\n"}, "plaintext"),
    ],
)
def test_what_a_swap_area_keeps(tmp_path: Path, device: str, files: dict[str, str], keeps: str) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
    swaps = tmp_path / "swaps"
    swaps.write_text(f"{HEADER}{device}  partition 1024 0 -2\n")
    (area,) = swap_areas(swaps=swaps, blocks=tmp_path)
    assert (area.size_bytes, area.keeps) == (1 << 20, keeps)


def test_no_swap_and_no_proc_are_no_areas(tmp_path: Path) -> None:
    (tmp_path / "swaps").write_text(HEADER)
    assert swap_areas(swaps=tmp_path / "swaps") == []
    assert swap_areas(swaps=tmp_path / "absent") == []
    assert core_handler(pattern=tmp_path / "absent") == ""
