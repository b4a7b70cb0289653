"""`rsc plan data`: arithmetic on measured rates, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rsc.cli.main import run
from rsc.plan.data_plane import KINDS, DataQuestion, measured, plan_data, to_text

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def planned(**changes: Any) -> dict[str, Any]:
    return plan_data(DataQuestion(**{"size": 1e18, "gpus": 16_000, **changes}))


def test_an_exabyte_on_16000() -> None:
    found = planned()
    assert found["reading"]["to_gpus_bytes_per_s"] == 16e12
    assert found["reading"]["epoch_s"] == 62_500
    assert found["reading"]["cache_bytes"] == 0
    assert found["sharding"]["shards"] == pytest.approx(1e18 / 2**28, abs=1)
    assert found["reviews"] == {"versions": 1000, "signatures": 2000}
    assert found["keys"]["alive"] == 12_000
    assert found["scan"]["core_hours"] == pytest.approx(1e12 * (1 / 123.2 + 1 / 237.7) / 3600)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cache_spares_its_share_of_the_reads(share: float) -> None:
    found = planned(bulk_rate=share * 16e12)["reading"]
    assert found["cache_bytes"] == pytest.approx((1 - share) * 1e18)
    assert found["first_epoch_s"] == pytest.approx(found["epoch_s"] / share)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1.0, 1e9, 1e15, 1e20])
def test_every_size_has_an_answer(kind: str, size: float) -> None:
    found = planned(kind=kind, size=size, gpus=3)
    assert found["sharding"]["shards"] >= 1
    assert ("unknown" in to_text(found)) == (kind == "images")


def test_few_shards_are_advised_against() -> None:
    assert "read it evenly" in to_text(planned(size=1e12))
    assert "read it evenly" not in to_text(planned())


def test_rates_are_those_of_the_results() -> None:
    """Each table names its file; the figures are its medians."""
    rows = {
        name: json.loads((RESULTS / Path(table["source"]).name).read_text())["rows"]
        for name, table in measured().items()
        if isinstance(table, dict)
    }

    def median(name: str, case: str, metric: str) -> float:
        found = [r for r in rows[name] if (r["case"], r["metric"], r["subject"]) == (case, metric, "rsc")]
        return float(found[0]["value"])

    known = measured()
    for name, how in (("scan", "sparse"), ("scan", "dense"), ("loader", "tokens"), ("loader", "text")):
        found = median(name, how, "mb_per_cpu_s")
        assert known[name][f"{how}_mb_per_core_s"] == pytest.approx(found, rel=1e-3)
    found = median("import", "jsonl", "mb_per_cpu_s")
    assert known["import"]["text_mb_per_core_s"] == pytest.approx(found, rel=1e-3)
    assert known["index"]["open_s"] == pytest.approx(median("index", "4e9", "open_s"), rel=1e-2)
    assert known["keys"]["releases_per_s"] == pytest.approx(median("keys", "release", "per_s"), rel=1e-2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--size", "1 banana", "--gpus", "8"], "size"),
        (["--size", "0", "--gpus", "8"], "--size 0"),
        (["--size", "1EB", "--gpus", "0"], "--gpus 0"),
        (["--size", "1EB", "--gpus", "-5"], "--gpus -5"),
        (["--size", "1EB", "--gpus", "8", "--kind", "smells"], "text, tokens, images"),
        (["--size", "1EB", "--gpus", "8", "--keep-days", "nan"], "--keep-days nan"),
        (["--size", "1EB", "--gpus", "8", "--scan-cores", "0"], "--scan-cores 0"),
        (["--gpus", "8"], "--size"),
        (["--size", "9" * 400 + "EB", "--gpus", "8"], "is not a size"),
        (["--size", "1EB", "--gpus", "9" * 400], "--gpus 999"),
    ],
)
def test_what_cannot_be_planned_is_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "data", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "data", "--size", "1EB", "--gpus", "16000", "--bulk-rate", "4TB"]) == 0
    told = capsys.readouterr().out
    assert "17h 21m" in told
    assert "2026-11-22" in told
