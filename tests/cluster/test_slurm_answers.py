"""What Slurm prints, read: recorded output, edges, and text that is none of Slurm's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.cluster.slurm.duration import format_duration, parse_duration_s
from rsc.cluster.slurm.explain import why_ended, why_waiting
from rsc.cluster.slurm.facts import (
    Facts,
    ask_facts,
    parse_config,
    parse_gpus,
    parse_licenses,
    parse_nodes,
    parse_partitions,
)
from rsc.cluster.slurm.holders import parse_holders
from rsc.cluster.slurm.jobs import LIVE, SlurmJob, parse_past, parse_queue, past_jobs
from rsc.errors import ConfigError, ResourceError

RECORDED = Path(__file__).parents[1] / "vectors" / "slurm" / "22.05.8"


def recorded(name: str) -> str:
    return (RECORDED / name).read_bytes().decode(errors="replace")


class RecordedSlurm:
    """Answers with what was recorded, and counts the questions."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask(self, *argv: str) -> str:
        self.asked.append(" ".join(argv))
        if argv[0] == "sinfo":
            return recorded("sinfo-drained.txt")
        if "partition" in argv:
            return recorded("partitions.txt")
        if "config" in argv:
            return recorded("config.txt")
        raise ResourceError("scontrol failed: No licenses configured in Slurm.")


def test_a_cluster_is_asked_with_four_calls() -> None:
    slurm = RecordedSlurm()
    facts = ask_facts(slurm)
    assert len(slurm.asked) == 4
    assert facts.version == "22.05.8"
    assert facts.default_partition == "batch"
    assert not facts.has_accounting
    assert facts.requeue_wait_s == 6
    batch = facts.partitions["batch"]
    assert [(node.name, node.is_out, node.gpus, node.gpu_types) for node in batch.nodes] == [
        *((f"n{number}", False, 4, ("h100",)) for number in (1, 2, 3)),
        ("n4", True, 4, ("h100",)),
    ]
    assert batch.nodes[3].reason == "nvlink: 11 of 12 | links up"
    assert facts.partitions["short"].max_time_s == 300
    assert batch.max_time_s is batch.max_nodes is None


def test_names_that_hold_anything_shift_no_column() -> None:
    jobs = parse_queue(recorded("squeue-invalid-utf8.txt"))
    hostile = jobs["14"]
    assert hostile.name.startswith('a|b\ufffd "quoted"')
    assert (hostile.state, hostile.nodes, hostile.user, hostile.reason) == ("RUNNING", "n[1-2]", "root", "")
    assert jobs["17_1"].reason == "JobArrayTaskLimit"
    assert jobs["15"].start == ""


def test_who_holds_what() -> None:
    (held,) = parse_holders(recorded("holders.txt"))
    assert (held.user, held.partition, held.gpus) == ("root", "batch", 2 * 2 + 2 * 2 + 1 + 1)
    (counted,) = parse_holders(
        "ann  long  2  N/A  cpu=64,mem=1T,node=2,billing=64,gres/gpu=16,gres/gpu:h100=16\n"
    )
    assert (counted.gpus, counted.cpus, counted.nodes) == (16, 64, 2)


def test_each_start_of_a_requeued_job_is_one_record() -> None:
    text = (
        "7|PREEMPTED|0:0|2026-12-01T01:00:00|2026-12-01T01:05:00|n1|None|x\n"
        "7|CANCELLED by 1000|0:15|2026-12-01T01:06:00|2026-12-01T01:07:00|n2|None|x|y\n"
    )
    starts = parse_past(text)["7"]
    assert [each.state for each in starts] == ["PREEMPTED", "CANCELLED"]
    assert "higher QOS" in why_ended(starts[0])


def test_without_accounting_the_past_is_empty() -> None:
    slurm = RecordedSlurm()
    assert past_jobs(slurm, ["1", "2"]) == {}
    assert past_jobs(slurm, []) == {}
    assert len(slurm.asked) == 1


@given(st.text())
def test_no_text_breaks_a_reader(text: str) -> None:
    parse_queue(text)
    parse_past(text)
    parse_holders(text)
    parse_partitions(text, nodes=parse_nodes(text))
    parse_licenses(text)
    parse_config(text)
    parse_gpus(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("1:30", 90), ("01:00:00", 3600), ("2-0", 172800), ("1-02:03", 93780),
        ("1-02:03:04", 93784), ("UNLIMITED", None), ("infinite", None), ("", None), ("N/A", None),
    ],
)  # fmt: skip
def test_times(text: str, seconds: int | None) -> None:
    assert parse_duration_s(text) == seconds


@given(st.integers(0, 10**9))
def test_a_time_that_is_written_is_read_again(seconds: int) -> None:
    assert parse_duration_s(format_duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["1h", "-5", "1:2:3:4", "\u0661", "1-", "a", "1 2"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no time of Slurm"):
        parse_duration_s(text)


def pending(reason: str, **more: str) -> SlurmJob:
    return SlurmJob("12", "PENDING", reason, partition="batch", num_nodes="4", **more)


@pytest.mark.parametrize(
    ("reason", "words", "change"),
    [
        ("Resources", "partition batch: 4 nodes: 1 idle, 2 in use, 1 down or drained", "fewer nodes"),
        ("Priority", "higher priority", "slurm.time"),
        ("BeginTime", "credentials", "cred_expire"),
        ("PartitionNodeLimit", "more nodes", "never starts"),
        ("ReqNodeNotAvail, UnavailableNodes:n4", "down, drained or reserved", "node is back"),
        (
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            "down, drained, or reserved",
            "fewer nodes",
        ),
        ("launch failed requeued held", "start failed on a node", "rsc runs resume"),
        ("launch_failed_requeued_held", "start failed on a node", "rsc runs resume"),
        ("JobHeldUser", "holds it", "scontrol release 12"),
        ("QOSMaxGRESPerUser", "the QOS night is at its limit", "other jobs"),
        ("AssocGrpCpuLimit", "its account or user is at its limit", "other jobs"),
        ("SomethingOfALaterSlurm", "Slurm says SomethingOfALaterSlurm", ""),
        ("", "not looked at it yet", ""),
    ],
)
def test_why_a_job_waits(reason: str, words: str, change: str) -> None:
    why = why_waiting(pending(reason, qos="night"), ask_facts(RecordedSlurm()))
    assert words in why.sentence
    assert change in why.change


@given(st.text(), st.sampled_from(sorted(LIVE)))
def test_any_reason_has_a_sentence(reason: str, state: str) -> None:
    assert why_waiting(SlurmJob("1", state, reason), Facts("", {}, {})).sentence
    assert why_ended(SlurmJob("1", state, reason))
