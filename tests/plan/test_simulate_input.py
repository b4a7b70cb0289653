"""What cannot be simulated is refused before any event: scenarios, overrides, traces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rsc.cli import main as front
from rsc.errors import ConfigError, DataError
from rsc.plan.sim.core import simulate
from rsc.plan.sim.outcome import figures
from rsc.plan.sim.replicate import SimulatedRun, combine, run_all
from rsc.plan.sim.scenario import load_scenario
from rsc.plan.sim.traces import jobs_of

REFUSED = {
    "workload.single_job_gpus=64": "on a cluster of 32",
    "workload.single_job_gpus=12": "fills no whole nodes",
    "failures.rate_per_node_day=650": "less than or equal to 100",
    "failures.rate_per_node_day=-1": "greater than or equal to 0",
    "checkpoint.restart_s=1e9": "nothing ever finishes",
    "checkpoint.interval_s=-5": "greater than or equal to 0",
    "checkpoint.interval_s=1h": "number",
    "checkpoint.interval_s=nan": "checkpoint.interval_s",
    "repair.spare=2": "unknown key",
    "workload.jobs_per_day=0": "no jobs",
    "workload.jobs_per_day=1e9": "at most",
    "workload.endings.failed=1": "add up",
    "cluster.nodes=0": "greater than or equal to 1",
    "days=0": "greater than 0",
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_scenario_that_cannot_be_is_refused(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert front.run(["simulate", "laptop-lab", override]) == ConfigError.exit_code
    said = capsys.readouterr()
    assert REFUSED[override] in said.err
    assert (said.out, "defect" in said.err) == ("", False)


def test_a_name_that_is_no_scenario_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.run(["simulate", "rcs-1"]) == ConfigError.exit_code
    assert '"rsc-1"' in capsys.readouterr().err


TRACES = {
    "rsc": "submit_s,gpus,run_s,qos,state\n0,1,60,high,COMPLETED\n5,8,90,,FAILED\n9,0,5,,COMPLETED\n",
    "philly": "submitted_time,num_gpus,runtime,status\n2017-10-01 00:00:00,1,60,Pass\n"
    "2017-10-01 00:00:05,8,90,Failed\n",
    "helios": "submit_time,gpu_num,duration,state,user\n2020-04-01 00:00:00,1,60,COMPLETED,a\n"
    "2020-04-01 00:00:05,8,90,FAILED,b\n",
    "alibaba": "submit_time,num_gpu,duration,user\n100,0.5,60,a\n105,8,90,b\n",
    "sacct": "Submit|AllocTRES|ElapsedRaw|State|Account\n"
    "2026-01-01T00:00:00|cpu=8,gres/gpu=1|60|COMPLETED|a\n"
    "2026-01-01T00:00:05|gres/gpu=8,mem=1G|90|FAILED|b\n2026-01-01T00:00:09|cpu=1|5|COMPLETED|b\n",
}  # fmt: skip


@pytest.mark.parametrize("layout", TRACES)
def test_the_same_jobs_in_every_layout(layout: str, tmp_path: Path) -> None:
    trace = tmp_path / "jobs.csv"
    trace.write_text(TRACES[layout])
    scenario, _ = load_scenario(
        "laptop-lab", overrides=(f"workload.trace={trace}", f"workload.trace_layout={layout}", "days=1")
    )
    jobs = jobs_of(scenario)
    assert jobs is not None
    assert (jobs.submit_s, jobs.gpus, jobs.work_s) == ([0.0, 5.0], [1, 8], [60.0, 90.0])
    assert figures(simulate(scenario, seed=1, jobs=jobs))["attempt_states"].keys() <= {"COMPLETED", "FAILED"}


BAD_ROWS = {
    "-1,1,60": "negative",
    "0,1,-60": "negative",
    ",1,60": "missing",
    "0,,60": "not a number",
    "0,1,": "not a number",
    "0,1,nan": "not a number",
    "0,1.5,60": "whole number",
    "0,-1,60": "0 to 10,000,000",
    "0,64,60": "on a cluster of 32",
    "0,1,86400000000": "milliseconds",
    "0,1,5\n1700000000000,1,5": "milliseconds",
    "2026-13-01,1,60": "no date",
}


@pytest.mark.parametrize("rows", BAD_ROWS)
def test_a_line_of_a_trace_that_cannot_be_is_refused(rows: str, tmp_path: Path) -> None:
    trace = tmp_path / "jobs.csv"
    trace.write_text(f"submit_s,gpus,run_s\n{rows}\n")
    scenario, _ = load_scenario("laptop-lab", overrides=(f"workload.trace={trace}",))
    with pytest.raises(DataError, match=BAD_ROWS[rows]):
        jobs_of(scenario)


@pytest.mark.parametrize(
    "data", [b"", b"a,b\n1,2\n", b"submit_s,gpus,run_s\n", b"\xff\xfe\x00", b"submit_s\0,gpus,run_s\n1,1,1"]
)
def test_a_file_that_is_no_trace_is_refused(data: bytes, tmp_path: Path) -> None:
    trace = tmp_path / "jobs.csv"
    trace.write_bytes(data)
    scenario, _ = load_scenario("laptop-lab", overrides=(f"workload.trace={trace}",))
    with pytest.raises(DataError):
        jobs_of(scenario)


def test_any_number_of_cores_gives_the_same_figures_and_a_sweep_goes_on(tmp_path: Path) -> None:
    _, values = load_scenario("laptop-lab", overrides=("days=5",))
    told: list[int] = []
    tasks = [SimulatedRun(values, seed) for seed in range(3)]

    def remember(done: int, of: int) -> None:
        told.append(done)

    alone = run_all(tasks, cores=1, folder=None, told=remember)
    run_all(tasks[:1], cores=1, folder=tmp_path, told=remember)
    (tmp_path / tasks[1].file_name).write_text("{cut")
    told.clear()
    shared = run_all(tasks, cores=2, folder=tmp_path, told=remember)
    assert told == [2, 3]
    assert [json.loads(json.dumps(alone[task])) for task in tasks] == [
        json.loads(json.dumps(shared[task])) for task in tasks
    ]
    goodput = combine([alone[task] for task in tasks])["goodput"]
    assert goodput["low"] < goodput["mean"] < goodput["high"]


def test_json_has_every_setting_and_figure(capsys: pytest.CaptureFixture[str]) -> None:
    assert front.run(["simulate", "laptop-lab", "days=2", "repair.spares=1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["settings"]["repair"]["spares"] == 1
    assert result["figures"]["unaccounted_gpu_s"]["mean"] < 1
