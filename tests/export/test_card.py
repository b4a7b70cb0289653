from __future__ import annotations

import json
import math
from dataclasses import fields, replace

import pytest

from rsc.export.card import CardData, CardFacts, MeasureFacts, RunFacts, SliceFacts, to_json, to_markdown

FACTS = CardFacts(
    name="language-posts",
    domain="language",
    num_parameters=3_456_789,
    layout="llama",
    context="256 bytes",
    data=[
        CardData(
            name="posts",
            version=3,
            root_hash="a1" * 32,
            split="train",
            num_samples=900,
            key_period="data/posts/2026-11",
            review_state="approved",
            approvers=["Reviewer One"],
            single_person=True,
            policy_hash="b2" * 32,
            report_hash="c3" * 32,
            purposes=["research"],
            expires="2027-02-19",
            findings={"email": 412, "phone": 77},
        )
    ],
    run=RunFacts(
        run="2026-11-21-language-0a1b",
        recipe="language",
        recipe_hash="d4" * 32,
        code_version="0.1.0",
        code_hash="e5" * 20,
        seed=0,
        steps=400,
        precision="bf16",
        machine="2 cores",
        layout="dp_shard 2",
        started="2026-11-21T09:00:00.000Z",
        finished="2026-11-21T09:01:00.000Z",
        restarts=1,
        energy_wh=None,
    ),
    measures=[MeasureFacts("bits per byte", 2.0123, 1.98, 2.04, split="validation", count=64)],
    slices=[SliceFacts("all", 100, (0.1, 0.05, 0.2), (0.3, 0.2, 0.4))],
    intended_use=["trying RSC"],
    limits=["small"],
)


@pytest.mark.parametrize(
    "words",
    [
        "posts v3, split train, 900 samples",
        "approved by Reviewer One (single-person mode",
        "data/posts/2026-11",
        "d4" * 32,
        "sources " + "e5" * 20,
        "| energy | unknown |",
        "| bits per byte | 2.012 | 1.98 to 2.04 | validation | 64 |",
        "| all | 100 | 0.100 (0.050 to 0.200) | 0.300 (0.200 to 0.400) |",
        "email 412, phone 77",
        "- trying RSC",
        "- small",
    ],
)
def test_the_page_says(words: str) -> None:
    assert words in to_markdown(FACTS)


def test_measured_energy_names_its_meter() -> None:
    run = replace(FACTS.run, energy_wh=12.34, energy_source="RAPL")
    assert "| energy | 12.3 Wh, measured (RAPL) |" in to_markdown(replace(FACTS, run=run))


def test_two_people_are_not_called_one() -> None:
    data = [replace(FACTS.data[0], single_person=False)]
    assert "single-person" not in to_markdown(replace(FACTS, data=data))


@pytest.mark.parametrize(("findings", "words"), [(None, "unknown"), ({}, "nothing")])
def test_nothing_found_is_not_the_same_as_unknown(findings: dict[str, int] | None, words: str) -> None:
    data = [replace(FACTS.data[0], findings=findings)]
    assert f"| found by the gate | {words} |" in to_markdown(replace(FACTS, data=data))


def test_sabotage_and_parents_are_told() -> None:
    run = replace(FACTS.run, faults_injected="rank=1,step=30,kind=sigkill", parent="run 2026-11-20-x")
    page = to_markdown(replace(FACTS, run=run))
    assert "rank=1,step=30,kind=sigkill" in page
    assert "| started from | run 2026-11-20-x |" in page


def test_no_evaluation_is_said_not_hidden() -> None:
    assert "Not evaluated" in to_markdown(replace(FACTS, measures=[]))


def test_json_holds_every_fact() -> None:
    values = json.loads(to_json(FACTS))
    assert set(values) == {field.name for field in fields(CardFacts)}
    assert values["data"][0]["findings"] == {"email": 412, "phone": 77}


def test_json_has_null_where_no_interval_was_computed() -> None:
    measures = [MeasureFacts("calibration error", 0.05, math.nan, math.nan, split="test", count=64)]
    slices = [SliceFacts("empty", 0, (math.nan, 0.0, 1.0), (math.nan, 0.0, 1.0))]
    text = to_json(replace(FACTS, measures=measures, slices=slices))
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (values["measures"][0]["value"], values["measures"][0]["low"]) == (0.05, None)
    assert values["slices"][0]["false_positive_rate"] == [None, 0.0, 1.0]
    page = to_markdown(replace(FACTS, measures=measures, slices=slices))
    assert "| empty | 0 | no such samples | no such samples |" in page
