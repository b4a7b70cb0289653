"""`rsc plan run`: layouts, memory, failures, inverse questions and refusals."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rsc.cli.main import run
from rsc.errors import ConfigError
from rsc.models.counts import count_units
from rsc.plan import report
from rsc.plan.answer import answer, ettr, parts_of
from rsc.plan.fit import load_calibration
from rsc.plan.inverse import Wish, largest_model, smallest_cluster
from rsc.plan.machines import ClusterFile, accelerator, accelerators, cluster_of
from rsc.plan.memory import memory
from rsc.plan.published import machine_facts
from rsc.plan.question import question, tokens_for_loss
from rsc.plan.search import Limits, layouts, search
from rsc.plan.step_time import step_time
from rsc.plan.work import Layouts, Machine, shape_of
from rsc.recipes.recipe import load_recipe

CALIBRATION = load_calibration()
RECIPES = ("llama-8b", "llama-405b", "dense-1t", "moe-1t", "language-moe", "vision", "speech-ctc")


def machine(world: int, name: str = "H100") -> Machine:
    device = accelerator(name)
    return Machine(**machine_facts(device, bits=16, world=world, domain=device.domain))


@pytest.mark.parametrize("name", RECIPES)
def test_a_plan_has_the_parameters_and_bytes_of_the_model(name: str) -> None:
    config = load_recipe(name, overrides=["data.name=none"]).recipe.model
    shape = shape_of(config, sequence=1024)
    assert float(shape.parameters) == count_units(config).total
    held = memory(shape, Layouts(shard=3))
    assert float(held.weights) == 4 * count_units(config).total
    assert float(held.moments) == 8 * count_units(config).total


@pytest.mark.parametrize("name", ["llama-8b", "moe-1t"])
def test_layouts_divide_devices_batch_and_model(name: str) -> None:
    recipe = load_recipe(name, overrides=["data.name=none"]).recipe
    shape = shape_of(recipe.model, sequence=4096)
    for plan in layouts(shape, world=64, batch=128, limits=Limits()):
        assert (np.asarray(plan.world) == 64).all()
        assert (plan.microbatches % 1 == 0).all()
        assert ((np.asarray(plan.dp) * plan.tp * plan.cp) % plan.ep == 0).all()
        assert (int(shape.heads) % np.asarray(plan.tp) == 0).all()


def test_many_layouts_at_once_are_each_alone() -> None:
    shape = shape_of(load_recipe("moe-1t", overrides=["data.name=none"]).recipe.model, sequence=4096)
    plan = next(layouts(shape, world=512, batch=512, limits=Limits()))
    together = step_time(shape, plan, machine(512), CALIBRATION.factors).total
    for at in range(0, len(together), len(together) // 7):
        one = Layouts(**{f.name: float(getattr(plan, f.name)[at]) for f in fields(Layouts)})
        assert float(step_time(shape, one, machine(512), CALIBRATION.factors).total) == pytest.approx(
            together[at]
        )


@pytest.mark.parametrize("better", ["scale_up", "scale_out", "memory", "memory_rate", "matmul"])
def test_a_better_machine_is_never_slower(better: str) -> None:
    shape = shape_of(load_recipe("llama-70b", overrides=["data.name=none"]).recipe.model, sequence=8192)
    times = []
    for scale in (1.0, 1.5, 4.0):
        given = machine(64)
        changed: dict[str, Any] = {better: scale * getattr(given, better)}
        if better == "matmul":
            changed["matmul_narrow"] = scale * given.matmul_narrow
        found = search(
            shape, replace(given, **changed), CALIBRATION.factors, world=64, batch=128, limits=Limits()
        )
        times.append(float(found.seconds[0]))
    assert times[0] >= times[1] * 0.9999
    assert times[1] >= times[2] * 0.9999


def test_progress_with_failures() -> None:
    """arXiv:2410.21680 prints 0.70 for 16,000 GPUs of RSC-1 that save hourly, 0.93 for 5 minutes."""
    between = 86_400 / (2000 * 6.5e-3)
    assert ettr(between, interval_s=3600, write_s=0, restart_s=300) == pytest.approx(0.70, abs=0.03)
    assert ettr(between, interval_s=300, write_s=0, restart_s=300) == pytest.approx(0.93, abs=0.02)
    assert ettr(1.0, interval_s=3600, write_s=60, restart_s=3600) == 0.0
    rare = ettr(1e9, interval_s=3600, write_s=36, restart_s=300)
    assert rare == pytest.approx(1 / 1.01, rel=1e-4)


def test_cost_energy_and_carbon_are_their_formulas_and_unknown_without_prices() -> None:
    ask = question("7B", tokens="10B")
    bare = answer(ask, cluster_of("H100", count=16), CALIBRATION, limits=Limits()).figures
    assert bare["cost"] is None
    assert bare["carbon_kg"] is None
    cluster = cluster_of("H100", count=16, price_per_hour=3.0)
    priced = answer(ask, cluster, CALIBRATION, limits=Limits()).figures
    assert priced["cost"] == pytest.approx(3.0 * 24 * 16 * priced["days"])
    assert priced["energy_kwh"] == pytest.approx(priced["accelerator_hours"] * 0.76 * 975 * 1.2 / 1000)
    assert priced["low_days"] < priced["days"] < priced["high_days"]


def test_inverse_questions_agree_with_the_plan() -> None:
    ask = question("1B", tokens="20B")
    given = smallest_cluster(
        ask, lambda count: cluster_of("H100", count=count), CALIBRATION, wish=Wish(days=0.2), limits=Limits()
    )
    assert given.figures["days"] <= 0.2
    fewer = cluster_of("H100", count=given.cluster.size // 2)
    assert answer(ask, fewer, CALIBRATION, limits=Limits()).figures["days"] > 0.2
    largest = largest_model(cluster_of("H100", count=8), CALIBRATION, days=2.0, limits=Limits())
    assert 1.0 < largest.figures["days"] <= 2.0


def test_tokens_for_a_loss() -> None:
    tokens = tokens_for_loss(2.0, parameters=7e10)
    assert 1.69 + 406.4 / 7e10**0.34 + 410.7 / tokens**0.28 == pytest.approx(2.0)
    with pytest.raises(ConfigError, match="comes down to"):
        tokens_for_loss(1.7, parameters=7e9)


@pytest.mark.parametrize("figure", report.FORMULAS)
def test_every_figure_is_explained(figure: str) -> None:
    given = answer(question("1B", tokens="1B"), cluster_of("A100", count=8), CALIBRATION, limits=Limits())
    assert set(report.FORMULAS) == set(given.figures)
    assert report.explain(given, figure).startswith(f"{figure} = ")


def test_parts_sum_to_the_step() -> None:
    given = answer(question("7B"), cluster_of("H100", count=32), CALIBRATION, limits=Limits())
    assert sum(parts_of(given.step).values()) == pytest.approx(given.figures["step_s"])
    assert given.found.seconds[0] == given.found.seconds.min()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["7B", "--on", "H1000"], "no accelerator 'H1000' is known"),
        (["7B", "--gpus", "0"], "--gpus 0"),
        (["7B", "--gpus", "7", "--batch", "8192"], "no layout divides"),
        (["405B", "--gpus", "8"], "fits nowhere"),
        (["7B", "--tokens", "many"], "is no number of tokens"),
        (["7B", "--tokens", "nan"], "is no number of tokens"),
        (["7B", "--tokens", "1B", "--loss", "2"], "--tokens and --loss"),
        (["7B", "--loss", "1.5"], "comes down to"),
        (["7B", "--budget", "5"], "no price"),
        (["7B", "--gpus", "8", "--deadline", "7d"], "which ask for that number"),
        (["7B", "--days", "7"], "--deadline"),
        ([], "nothing to plan"),
        (["--days", "-1"], "--days -1"),
        (["llama-8c"], "llama-8"),
        (["7B", "--precision", "fp12"], "no precision"),
        (["7B", "--explain", "dais"], "no figure"),
        (["7B", "--on", "none.toml"], "none.toml"),
        (["0.001B"], "parameters"),
        (["405B", "--deadline", "1s"], "no number of accelerators"),
    ],
)
def test_bad_questions_are_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "run", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_hint_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "run", "7B", "--gpus", "7", "--batch", "8192"]) == 2
    tokens = capsys.readouterr().err.split("set --batch to ")[1].split()[0]
    assert run(["plan", "run", "7B", "--gpus", "7", "--batch", tokens]) == 0


def test_a_cluster_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(
        'accelerator = "H100-SXM-80GB"\nnodes = 4\nprice_per_hour = 2.5\ncarbon_kg_per_kwh = 0.4\n'
    )
    assert run(["plan", "run", "7B", "--on", str(file), "--compare", "GB200", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accelerators"] == 32
    assert found["figures"]["cost"] > 0
    assert found["compared"]["figures"]["cost"] is None
    file.write_text('accelerator = "H100-SXM-80GB"\nnode = 4\n')
    assert run(["plan", "run", "7B", "--on", str(file)]) == 2
    assert 'did you mean "nodes"?' in capsys.readouterr().err


def test_the_table_is_sound() -> None:
    for name, device in accelerators().items():
        assert device.source, name
        assert device.matmul(16) <= device.peak(16)
        assert device.matmul(8) <= device.peak(8)
        assert device.peak(16) <= device.peak(8) <= device.peak(4)
    assert ClusterFile(accelerator="x").failures_per_1000_node_days == 6.5
    assert math.isinf(
        answer(
            question("1B"),
            replace(
                cluster_of("H100", count=8),
                config=ClusterFile(accelerator="H100", failures_per_1000_node_days=0),
            ),
            CALIBRATION,
            limits=Limits(),
        ).failures.between_s
    )


@pytest.mark.parametrize(
    "arguments", [["7B", "--gpus", "32"], ["llama-8b", "--on", "h100"], ["llama-8b", "parallel.tp=4"]]
)
def test_run_may_be_left_out(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *arguments, "--json"]) == 0
    short = json.loads(capsys.readouterr().out)
    assert run(["plan", "run", *arguments, "--json"]) == 0
    assert short == json.loads(capsys.readouterr().out)
    if "parallel.tp=4" in arguments:
        assert {each["tp"] for each in short["layouts"]} == {4}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scroe", "rows.json"], 'did you mean "score"'),
        (["machine"], 'did you mean "machines"'),
        (["nothing-like-it"], "neither a verb"),
        (["7Q"], "is no size"),
        (["run", "7Q"], "7B or 1.5T"),
        (["run", "1,5T"], "is no size"),
        (["run", "7B", "--on", "H1000"], 'did you mean "H100"'),
        (["run", "7B", "--on", "mi300"], "tokens"),
        (["run", "7B", "--on", "TPU"], "TPU-v5e"),
        (["run", "7B", "--on", "-"], "no accelerator"),
        (["run", "7B", "train.steps=5"], "7B is a size"),
        (["run", "llama-8b", "train.steps=5", "--tokens", "3B"], "say the same thing"),
        (["run", "llama-8b", "data.sequence_length=512", "--sequence", "256"], "say the same thing"),
        (["run", "llama-8b", "parallel.tp=3", "--gpus", "9"], "does not divide 32 heads"),
        (["run", "llama-8b", "parallel.tp=4", "parallel.pp=4", "--gpus", "8"], "multiple of 16"),
        (["run", "llama-8b", "paralel.tp=4"], 'did you mean "parallel"'),
        (["run", "7B", "--price", "inf"], "--price inf"),
        (["run", "7B", "--sequence", "9" * 400], "--sequence"),
        (["run", "9" * 400 + "B"], "parameters"),
        (["run", "7B", "--deadline", "9" * 400 + "d"], "is not a duration"),
        (["run", "7B", "--loss", "nan"], "--loss nan"),
    ],
)
def test_hopeless_words_are_refused_with_what_would_work(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["plan", *arguments])
    told = capsys.readouterr()
    assert says in told.err + told.out
    assert code == (0 if says == "tokens" else 2)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["405B", "--gpus", "8"], "--gpus"),
        (["70B", "--gpus", "8", "--on", "A100-40GB"], "--gpus"),
        (["llama-8b", "--gpus", "1"], "--on"),
        (["llama-8b", "--gpus", "1"], "--offload"),
        (["7B", "--gpus", "7", "--batch", "8192"], "--gpus"),
        (["llama-8b", "parallel.tp=4", "parallel.pp=4", "--gpus", "9"], "--gpus"),
    ],
)
def test_the_change_that_a_refusal_names_is_enough(
    arguments: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", "run", *arguments]) == 2
    hint = capsys.readouterr().err.split(option, 1)[1]
    value = [] if option == "--offload" else [hint.split()[0].rstrip(",")]
    kept = arguments
    if option in arguments:
        at = arguments.index(option)
        kept = arguments[:at] + arguments[at + 2 :]
    assert run(["plan", "run", *kept, option, *value]) == 0


@pytest.mark.parametrize(
    ("tokens", "sequences"),
    [("16M", 2048), ("4M", 512), ("57344", 7), ("8192", 1), ("100", 1), ("3e9", None)],
)
def test_a_batch_that_is_no_whole_number_of_sequences_becomes_a_round_one(
    tokens: str, sequences: int | None
) -> None:
    found = question("7B", batch_tokens=tokens, sequence=8192).batch
    assert found == sequences if sequences else abs(found * 8192 / 3e9 - 1) <= 0.05
