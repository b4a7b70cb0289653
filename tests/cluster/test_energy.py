from __future__ import annotations

from pathlib import Path

import pytest

from rsc.cluster.accounting.energy import EnergyMeter, counters


def zone(root: Path, name: str, *, used_uj: int, label: str = "package-0") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{label}\n")
    (folder / "max_energy_range_uj").write_text("1000000000\n")
    (folder / "energy_uj").write_text(f"{used_uj}\n")
    return folder


def test_packages_are_added_up_and_their_parts_are_not(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", used_uj=5_000_000)
    second = zone(tmp_path, "intel-rapl:1", used_uj=0, label="package-1")
    zone(tmp_path, "intel-rapl:0:0", used_uj=0, label="core")
    with EnergyMeter(counters(tmp_path)) as meter:
        (first / "energy_uj").write_text("3605000000")
        (second / "energy_uj").write_text("1800000000")
    assert meter.used_wh == pytest.approx(1.5)
    assert meter.source == "RAPL package-0, RAPL package-1"


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    only = zone(tmp_path, "intel-rapl:0", used_uj=900_000_000)
    with EnergyMeter(counters(tmp_path)) as meter:
        (only / "energy_uj").write_text("200000000")
        meter.look()
        (only / "energy_uj").write_text("260000000")
    assert meter.used_wh == pytest.approx(360 / 3600)


def test_without_a_meter_it_is_unknown(tmp_path: Path) -> None:
    with EnergyMeter(counters(tmp_path)) as meter:
        pass
    assert meter.used_wh is None or "NVML" in meter.source
