"""A job over several nodes, each a process with its agent and ranks; nothing of training is in it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.clock import SystemClock
from rsc.cluster.rendezvous.channel import SECRET_BYTES
from rsc.cluster.rendezvous.hub import Hub
from rsc.cluster.rendezvous.member import Member
from rsc.cluster.rendezvous.message import Message
from rsc.cluster.rendezvous.rank_keys import RankKeys
from rsc.cluster.supervise.agent import Agent
from rsc.cluster.supervise.agents import AgentNodes
from rsc.cluster.supervise.config import SupervisionConfig
from rsc.cluster.supervise.heartbeats import Board, Phase
from rsc.cluster.supervise.local_node import local_node
from rsc.cluster.supervise.places import NodePlace, place_ranks
from rsc.cluster.supervise.spec import Ending, Entry, RankSpec
from rsc.cluster.supervise.supervisor import supervise
from rsc.events import EventLog, read_lines

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nodes are told apart by process groups")
SECRET = bytes(range(SECRET_BYTES))


def show(spec: RankSpec, local_rank: int, **facts: int) -> None:
    Board(spec.board, num_ranks=2).beat(local_rank, phase=Phase.DATA, first_step=0, **facts)


def attempt_of(spec: RankSpec) -> int:
    return int(spec.attempt.split(".")[1])


def meet(spec: RankSpec, local_rank: int) -> list[bytes]:
    """What every rank says to all, as process groups do with their addresses."""
    rank = spec.place.first_rank + local_rank
    keys = RankKeys(spec.keys, timeout_s=60)
    keys.set(f"address/{rank}", str(rank).encode())
    return [keys.get(f"address/{other}") for other in range(spec.place.world)]


def holds_no_connection_of_its_agent(local_rank: int, spec: RankSpec) -> Ending:
    """One that did would keep a node alive that is lost. What the test's own process has does not count."""
    agent = os.getppid()
    test = int(Path(f"/proc/{agent}/stat").read_text().rpartition(")")[2].split()[1])
    assert sockets_of(agent) - sockets_of(test), "the agent has its connection to the job"
    assert not (sockets_of(os.getpid()) & sockets_of(agent)) - sockets_of(test)
    return meets(local_rank, spec)


def sockets_of(pid: int) -> set[str]:
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(path.readlink()))
    return {name for name in found if name.startswith("socket:")}


def meets(local_rank: int, spec: RankSpec) -> Ending:
    assert meet(spec, local_rank) == [str(rank).encode() for rank in range(spec.place.world)]
    show(spec, local_rank, step=1)
    return Ending.FINISHED


def waits_for_trouble(local_rank: int, spec: RankSpec) -> Ending:
    """The first start stands still at step 1 until something ends it; the second finishes at once."""
    meet(spec, local_rank)
    show(spec, local_rank, step=1 + attempt_of(spec))
    if attempt_of(spec) == 0:
        (spec.run / f"ready{spec.place.first_rank + local_rank}").touch()
        time.sleep(600)
    return Ending.FINISHED


def waits_to_be_stopped(local_rank: int, spec: RankSpec) -> Ending:
    (spec.run / f"ready{spec.place.first_rank + local_rank}").touch()
    board = Board(spec.board, num_ranks=2)
    while not board.stop_requested:
        time.sleep(0.01)
    show(spec, local_rank, step=3)
    return Ending.REQUEUE


def run_agent(
    run: Path, name: str, address: tuple[str, int], entry: Entry, silence_s: float, owner: int
) -> None:
    os.close(owner)  # the fork copied it
    os.setpgid(0, 0)  # a node: what is sent to the group meets the agent and its ranks
    with local_node(run, slots=2, entry=entry) as node:
        member = Member.join(SECRET, address=address, patience_s=60)
        code = Agent(node, member, name, silence_s=silence_s).run()
    os._exit(code)


@dataclass
class Machines:
    """Nodes as process groups; those in `broken` do not come back."""

    run: Path
    entry: Entry
    silence_s: float = 60.0
    address: tuple[str, int] = ("", 0)
    owner: int = -1
    via: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Nodes that reach the job over another address."""
    broken: set[str] = field(default_factory=set)
    running: dict[str, BaseProcess] = field(default_factory=dict)

    def is_coming(self, node: str) -> bool:
        if node in self.broken:
            return False
        if node not in self.running or not self.running[node].is_alive():
            address = self.via.get(node, self.address)
            arguments = (self.run, node, address, self.entry, self.silence_s, self.owner)
            self.running[node] = get_context("fork").Process(target=run_agent, args=arguments)
            self.running[node].start()
        return True

    def end(self, node: str) -> None:
        self.broken.add(node)

    def signal(self, node: str, number: signal.Signals) -> None:
        os.killpg(self.running[node].pid or 0, number)

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.join()


@dataclass
class Job:
    nodes: AgentNodes
    machines: Machines
    owner: int
    """Where a controller writes its wishes."""
    log: Path

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in read_lines(self.log) if event["kind"] == kind]

    def drive(self, *, when_ready: Callable[[], None] = lambda: None, ranks: int = 0) -> int:
        """To its end; `when_ready` is called once, when that many ranks stand."""
        look = self.nodes.wait
        pending = [when_ready]

        def wait() -> None:
            if pending and len(list(self.machines.run.glob("ready*"))) >= ranks > 0:
                pending.pop()()
            look()

        self.nodes.wait = wait  # type: ignore[method-assign]
        return supervise(self.nodes, config=SupervisionConfig(), events=self.nodes.events)


Start = Callable[..., Job]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Makes a job; its signals, processes and sockets are gone after the test."""
    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    open_files: list[Callable[[], None]] = []
    (tmp_path / "logs").mkdir()

    def make(entry: Entry, *, names: str, workers: int, silence_s: float = 60.0) -> Job:
        hub = Hub(SECRET, host="127.0.0.1")
        ours, theirs = os.pipe()
        machines = Machines(tmp_path, entry, silence_s, hub.address, theirs)
        log = tmp_path / "logs" / "events.jsonl"
        nodes = AgentNodes(
            hub,
            machines,
            names=names.split(),
            workers=workers,
            worlds=range(2, workers + 1, 2),
            silence_s=silence_s,
            join_s=60,
            rejoin_s=60,
            events=EventLog(log, clock=SystemClock()),
            owner=ours,
        )
        open_files.extend([machines.close, hub.close, lambda: os.close(ours)])
        return Job(nodes, machines, theirs, log)

    yield make
    for close in open_files:
        close()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ranks_of_all_nodes_meet_and_finish(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    job = start(meets, names="a b c", workers=6)
    assert job.drive() == 0
    assert job.told("placed")[0]["nodes"] == ["a", "b", "c"]
    told = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert sorted(line["rank"] for line in told if line["kind"] == "worker") == list(range(6))
    assert told[-1] == {"kind": "end", "ending": "finished", "step": 1}


@pytest.mark.skipif(
    os.geteuid() != 0, reason="descriptors of a process that hides its memory are root's to see"
)
def test_ranks_hold_no_connection_of_their_agent(start: Start) -> None:
    job = start(holds_no_connection_of_its_agent, names="a b", workers=4)
    assert job.drive() == 0
    assert not job.told("failure")


def test_a_rank_that_dies_ends_the_start_on_all_nodes(start: Start) -> None:
    job = start(waits_for_trouble, names="a b", workers=4)
    code = job.drive(when_ready=lambda: os.kill(job.nodes.pids[3], signal.SIGKILL), ranks=4)
    assert code == 0
    (failure,) = job.told("failure")
    assert (failure["rank"], failure["reason"]) == (3, "sigkill")
    assert [place["nodes"] for place in job.told("placed")] == [["a", "b"], ["a", "b"]]


def test_a_spare_takes_the_place_of_a_lost_node(start: Start) -> None:
    """The spare is the one that comes last."""
    job = start(waits_for_trouble, names="a b c spare", workers=6)

    def lose() -> None:
        job.machines.signal(job.told("placed")[0]["nodes"][1], signal.SIGKILL)

    assert job.drive(when_ready=lose, ranks=6) == 0
    before, after = (place["nodes"] for place in job.told("placed"))
    assert (after[0], after[2]) == (before[0], before[2])
    assert {after[1]} == {"a", "b", "c", "spare"} - set(before)
    (failure,) = job.told("failure")
    assert (failure["rank"], failure["reason"]) == (2, "node")


def test_without_a_spare_the_job_goes_on_with_fewer_ranks(start: Start) -> None:
    job = start(waits_for_trouble, names="a b c", workers=6)
    assert job.drive(when_ready=lambda: job.machines.signal("a", signal.SIGKILL), ranks=6) == 0
    assert [(place["world"], place["nodes"]) for place in job.told("placed")] == [
        (6, ["a", "b", "c"]),
        (4, ["b", "c"]),
    ]


def test_a_node_that_only_hangs_is_lost_and_ends_its_ranks_when_it_wakes(start: Start) -> None:
    job = start(waits_for_trouble, names="a b", workers=4, silence_s=1.5)
    pids: list[int] = []

    def hang() -> None:
        pids.extend(job.nodes.pids[rank] for rank in (2, 3))
        job.machines.signal("b", signal.SIGSTOP)

    assert job.drive(when_ready=hang, ranks=4) == 0
    (lost,) = job.told("node_lost")
    assert lost["node"] == "b"
    assert "nothing was heard" in lost["reason"]
    assert job.told("placed")[-1]["nodes"] == ["a"]
    job.machines.signal("b", signal.SIGCONT)
    job.machines.running["b"].join()
    assert not any(is_there(pid) for pid in pids)


def test_an_agent_that_does_not_hear_of_the_job_ends_its_ranks_itself(start: Start) -> None:
    """The job stands still: who waits for it may not train on, for it may have given the node up."""
    job = start(waits_for_trouble, names="a", workers=2, silence_s=1.0)

    def stand_still() -> None:
        pids = list(job.nodes.pids.values())
        while any(is_there(pid) for pid in pids):
            time.sleep(0.02)
        raise KeyboardInterrupt

    assert job.drive(when_ready=stand_still, ranks=2) == 130


def waits_to_go(local_rank: int, spec: RankSpec) -> Ending:
    (spec.run / f"ready{spec.place.first_rank + local_rank}").touch()
    while not (spec.run / "go").exists() and attempt_of(spec) == 0:
        time.sleep(0.01)
    return meets(local_rank, spec)


@pytest.fixture
def network(start: Start) -> Iterator[Callable[[Job, str], BaseProcess]]:
    """Puts a process between a node and the job: stopped, it is a network that is cut and resets nothing."""
    made: list[BaseProcess] = []

    def between(job: Job, node: str) -> BaseProcess:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            arguments = (listener, job.machines.address, job.owner)
            process = get_context("fork").Process(target=pass_on, args=arguments)
            process.start()
            job.machines.via[node] = listener.getsockname()
        made.append(process)
        return process

    yield between
    for process in made:
        process.kill()
        process.join()


def pass_on(listener: socket.socket, target: tuple[str, int], owner: int) -> None:
    os.close(owner)
    near, _ = listener.accept()
    far = socket.create_connection(target)
    other = {near: far, far: near}
    while True:
        for sock in select.select([near, far], [], [])[0]:
            if not (data := sock.recv(1 << 16)):
                return
            other[sock].sendall(data)


Network = Callable[[Job, str], BaseProcess]


def test_a_network_that_is_cut_for_a_while_costs_nothing(start: Start, network: Network) -> None:
    job = start(waits_to_go, names="a b", workers=4, silence_s=8.0)
    between = network(job, "b")

    def cut() -> None:
        os.kill(between.pid or 0, signal.SIGSTOP)
        job.nodes.pause(1.5)
        os.kill(between.pid or 0, signal.SIGCONT)
        (job.machines.run / "go").touch()

    assert job.drive(when_ready=cut, ranks=4) == 0
    assert len(job.told("placed")) == 1
    assert not job.told("node_lost")


def test_behind_a_network_that_is_cut_for_good_a_node_ends_its_ranks(start: Start, network: Network) -> None:
    job = start(waits_to_go, names="a b", workers=4, silence_s=2.0)
    between = network(job, "b")
    pids: list[int] = []

    def cut() -> None:
        pids.extend(job.nodes.pids[rank] for rank in (2, 3))
        os.kill(between.pid or 0, signal.SIGSTOP)

    assert job.drive(when_ready=cut, ranks=4) == 0
    (lost,) = job.told("node_lost")
    assert lost["node"] == "b"
    assert job.told("placed")[-1]["nodes"] == ["a"]
    job.machines.running["b"].join()
    assert not any(is_there(pid) for pid in pids)


def test_too_few_nodes_for_any_mesh_end_the_job_with_the_numbers(
    start: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    job = start(waits_for_trouble, names="a", workers=2)
    assert job.drive(when_ready=lambda: job.machines.signal("a", signal.SIGKILL), ranks=2) == 4
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert told["kind"] == "failed"
    assert "0 of 1 nodes are there" in told["reason"]


def test_a_wish_to_stop_reaches_the_ranks_of_all_nodes(start: Start) -> None:
    job = start(waits_to_be_stopped, names="a b", workers=4)
    assert job.drive(when_ready=lambda: os.write(job.owner, b"stop\n") and None, ranks=4) == 75


def test_a_node_that_is_asked_to_leave_stops_the_whole_job(start: Start) -> None:
    """As a scheduler does: SIGTERM to an agent, or to one rank's parent, is a checkpoint of all ranks."""
    job = start(waits_to_be_stopped, names="a b", workers=4)
    assert (
        job.drive(when_ready=lambda: os.kill(job.machines.running["b"].pid or 0, signal.SIGTERM), ranks=4)
        == 75
    )


def test_without_its_owner_a_job_ends_and_leaves_no_rank(start: Start) -> None:
    job = start(waits_for_trouble, names="a b", workers=4)
    pids: list[int] = []

    def leave() -> None:
        pids.extend(job.nodes.pids.values())
        os.close(job.owner)

    assert job.drive(when_ready=leave, ranks=4) == 130
    assert len(pids) == 4
    assert not any(is_there(pid) for pid in pids)


@pytest.mark.parametrize(
    "nonsense",
    [
        Message("here"),
        Message("here", {"node": "nobody", "slots": 2}),
        Message("here", {"node": "a", "slots": "many"}),
        Message("here", {"node": "a", "slots": -1}),
        Message("rows", {"attempt": ""}, b"x"),
    ],
    ids=lambda message: str(message.facts),
)
def test_a_member_that_says_nonsense_is_sent_away_and_the_job_goes_on(
    start: Start, nonsense: Message
) -> None:
    job = start(meets, names="a b", workers=4)
    process = get_context("fork").Process(target=say, args=(job.machines.address, nonsense))
    process.start()
    assert job.drive() == 0
    process.kill()
    process.join()


def say(address: tuple[str, int], message: Message) -> None:
    member = Member.join(SECRET, address=address, patience_s=60)
    member.send(message)
    time.sleep(600)


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@given(
    st.lists(st.integers(1, 8), min_size=1, max_size=8),
    st.integers(1, 40),
    st.sets(st.integers(0, 7)),
)
def test_ranks_have_room_one_place_each_and_nodes_keep_theirs(
    sizes: list[int], workers: int, lost: set[int]
) -> None:
    slots = {f"n{number}": size for number, size in enumerate(sizes)}
    worlds = range(1, workers + 1)
    before = place_ranks(slots, before=[], workers=workers, worlds=worlds)
    left = {name: size for name, size in slots.items() if int(name[1:]) not in lost}
    for room, places in ((slots, before), (left, None)):
        if not room:
            continue
        places = places or place_ranks(room, before=before, workers=workers, worlds=worlds)
        ranks = [rank for place in places for rank in place.ranks]
        assert ranks == list(range(min(workers, sum(room.values()))))
        assert all(place.num_ranks <= room[place.node] for place in places)
        assert len({place.node for place in places}) == len(places)


def test_a_node_that_stayed_has_the_ranks_it_had() -> None:
    before = [NodePlace("a", 0, 2), NodePlace("b", 2, 2), NodePlace("c", 4, 2)]
    after = place_ranks({"a": 2, "c": 2, "d": 2}, before=before, workers=6, worlds=[2, 6])
    assert after == [NodePlace("a", 0, 2), NodePlace("d", 2, 2), NodePlace("c", 4, 2)]
    with pytest.raises(ValueError, match="no mesh"):
        place_ranks({"a": 2}, before=before, workers=6, worlds=[6])
