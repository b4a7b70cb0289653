"""The nodes of a job behind their agents: who is there, which ranks are where, what became of them.

A start takes the nodes that are there: those of the start before keep their places, a spare takes the place
of a node that was lost, and where there is none the job goes on with the largest world that its mesh allows.
A node is lost when its connection ends, or when nothing was heard of it for `silence_s`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from rsc.cluster.rendezvous.hub import Event, Heard, Hub, Joined, Left
from rsc.cluster.rendezvous.key_value import KeyValues
from rsc.cluster.rendezvous.message import Message
from rsc.cluster.supervise.heartbeats import ROW
from rsc.cluster.supervise.local_node import DEATH_S
from rsc.cluster.supervise.places import NodePlace, place_ranks
from rsc.cluster.supervise.spec import Placement
from rsc.errors import DataError, ResourceError
from rsc.events import EventLog

_LOOK_S = 0.2
_LONGEST_LOOK_S = 1.0  # a longer gap between two looks: this process stood still, not the nodes
_DUMP_S = 8.0
_ALIVE_SHARE = 0.1


class Starters(Protocol):
    """Who starts agents on nodes."""

    def is_coming(self, node: str) -> bool:
        """Whether an agent of that node may still join; starts one again that has ended, within bounds."""
        ...

    def end(self, node: str) -> None:
        """End what was started there."""
        ...


@dataclass
class _Node:
    name: str
    peer: int
    slots: int
    heard_s: float


@dataclass
class AgentNodes:
    hub: Hub
    starters: Starters
    names: Sequence[str]
    """Nodes of the job in their order, spares last."""
    workers: int
    """Ranks that the job wants."""
    worlds: Sequence[int]
    """Numbers of ranks for which there is a mesh."""
    silence_s: float
    join_s: float
    """How long a first start waits for nodes; a later one waits `rejoin_s` for those that were lost."""
    rejoin_s: float
    events: EventLog
    owner: int
    """Descriptor on which the job's owner writes wishes; closed: it is gone."""
    now_s: Callable[[], float] = time.monotonic
    _there: dict[str, _Node] = field(default_factory=dict)
    _places: list[NodePlace] = field(default_factory=list)
    _pids: dict[int, int] = field(default_factory=dict)
    _codes: dict[int, int] = field(default_factory=dict)
    _reports: dict[int, dict[str, Any]] = field(default_factory=dict)
    _keys: KeyValues = field(default_factory=KeyValues)
    _attempt: str = ""
    _answers: dict[str, Message] = field(default_factory=dict)
    """What nodes said to the last question (`dump`, `end`)."""
    _stop: bool = False
    _is_stop_sent: bool = False
    _is_owner_gone: bool = False
    _looked_s: float = 0.0
    _said_s: float = 0.0

    def __post_init__(self) -> None:
        self._rows: np.ndarray[Any, np.dtype[Any]] = np.zeros(self.workers, ROW)
        self._looked_s = self.now_s()
        self.hub.watch(self.owner, call=self._hear_owner)

    @property
    def pids(self) -> Mapping[int, int]:
        return self._pids

    @property
    def rows(self) -> np.ndarray[Any, np.dtype[Any]]:
        return self._rows

    def start(self, attempt: str) -> None:
        nodes = self._gather(is_first=not self._attempt)
        self._places = place_ranks(nodes, before=self._places, workers=self.workers, worlds=self.worlds)
        world = sum(place.num_ranks for place in self._places)
        self._attempt, self._is_stop_sent = attempt, False
        self._keys, self._pids, self._codes, self._reports = KeyValues(), {}, {}, {}
        self._rows = np.zeros(world, ROW)
        self._rows["first_step"], self._rows["beat_s"] = -1, self.now_s()
        self.events.append("placed", world=world, nodes=[place.node for place in self._places])
        carried = self._places[0].num_ranks if len({p.num_ranks for p in self._places}) == 1 else 0
        for place in self._places:
            facts = asdict(
                Placement(world, place.first_rank, place.num_ranks, "", carried if world > carried else 0)
            )
            del facts["interface"]
            self._say(place.node, "start", place=facts)
        while len(self._pids) < world and not self._codes:  # or one was lost meanwhile
            self.wait()

    def exit_codes(self) -> dict[int, int]:
        return dict(self._codes)

    def reports(self, ranks: Iterable[int]) -> dict[int, dict[str, Any]]:
        return {rank: self._reports[rank] for rank in ranks if rank in self._reports}

    def dump(self, ranks: Iterable[int]) -> set[int]:
        wanted = set(ranks)
        answers = self._ask("dump", patience_s=_DUMP_S, ranks=sorted(wanted))
        return {rank for message in answers.values() for rank in message.facts["answered"]} & wanted

    def end(self) -> list[int]:
        answers = self._ask("end", patience_s=DEATH_S + _DUMP_S)
        for place in self._places:
            if place.node in self._there and place.node not in answers:
                self._lose_peer(self._there[place.node].peer, "its agent does not answer")
        self._pids = {}
        return [rank for message in answers.values() for rank in message.facts["left"]]

    def reap(self) -> None:
        self.end()

    def request_stop(self) -> None:
        self._stop = True

    def pause(self, seconds: float) -> None:
        until_s = self.now_s() + seconds
        while (left_s := until_s - self.now_s()) > 0:
            self._look(timeout_s=left_s)

    def wait(self) -> None:
        self._look(timeout_s=_LOOK_S)

    def quit(self) -> None:
        """Send the agents home."""
        for node in list(self._there):
            self._say(node, "quit")

    def _gather(self, *, is_first: bool) -> dict[str, int]:
        """Wait until there are enough nodes, or no more will come; their slots by name, in order.

        Raises ResourceError where that is too few for any mesh.
        """
        deadline_s = self.now_s() + (self.join_s if is_first else self.rejoin_s)
        while True:
            there = {name: self._there[name].slots for name in self.names if name in self._there}
            missing = [name for name in self.names if name not in there]
            coming = [name for name in missing if self.starters.is_coming(name)]
            if sum(there.values()) >= self.workers or not coming or self.now_s() > deadline_s:
                break
            self.wait()
        if not any(world <= sum(there.values()) for world in self.worlds):
            raise ResourceError(
                f"{len(there)} of {len(self.names)} nodes are there, with room for {sum(there.values())} "
                f"ranks; the smallest mesh of this recipe has {min(self.worlds)}",
                hint="see the lines of the nodes above; `rsc runs resume` goes on once they are back",
            )
        return there

    def _ask(self, kind: str, *, patience_s: float, **facts: Any) -> dict[str, Message]:
        """Put a question to every node of this start and wait for the answers of those that stay."""
        self._answers = {}
        asked = [place.node for place in self._places if place.node in self._there]
        for node in asked:
            self._say(node, kind, **facts)
        deadline_s = self.now_s() + patience_s
        while self.now_s() < deadline_s:
            if all(node in self._answers or node not in self._there for node in asked):
                break
            self._look(timeout_s=_LOOK_S, is_ending=True)
        return self._answers

    def _look(self, *, timeout_s: float, is_ending: bool = False) -> None:
        for event in self.hub.wait(timeout_s=timeout_s):
            self._take(event)
        now_s = self.now_s()
        stood_still_s = max(0.0, now_s - self._looked_s - _LONGEST_LOOK_S)
        self._looked_s = now_s
        for node in list(self._there.values()):
            node.heard_s += stood_still_s
            if now_s - node.heard_s > self.silence_s:
                self._lose_peer(node.peer, f"nothing was heard of it for {self.silence_s:.0f} s")
        if now_s - self._said_s > _ALIVE_SHARE * self.silence_s:
            self._said_s = now_s
            for name in self._there:
                self._say(name, "alive")
        if self._stop and not self._is_stop_sent and self._pids:
            self._is_stop_sent = True
            for place in self._places:
                self._say(place.node, "stop")
        if self._is_owner_gone and not is_ending:
            raise KeyboardInterrupt

    def _take(self, event: Event) -> None:
        match event:
            case Joined():
                pass  # it says who it is
            case Left(peer, reason):
                self._lose_peer(peer, reason)
            case Heard(peer, message):
                try:
                    self._hear(peer, message)
                except (LookupError, TypeError, ValueError, DataError):
                    self._lose_peer(peer, "it wrote what no agent writes")

    def _hear(self, peer: int, message: Message) -> None:
        facts = message.facts
        if message.kind == "here":
            self._welcome(peer, name=str(facts["node"]), slots=int(facts["slots"]))
            return
        node = next((node for node in self._there.values() if node.peer == peer), None)
        if node is None:
            self.hub.drop(peer)
            return
        node.heard_s = self.now_s()
        if message.kind == "leave":
            self._stop = True
        if facts["attempt"] != self._attempt:
            return
        ranks = next((place.ranks for place in self._places if place.node == node.name), range(0))
        match message.kind:
            case "started":
                self._pids.update({int(rank): int(pid) for rank, pid in facts["pids"] if rank in ranks})
            case "rows":
                self._note_rows(ranks, message)
            case "ended":
                self._codes.update({int(rank): int(code) for rank, code in facts["codes"] if rank in ranks})
                self._reports.update({int(rank): dict(r) for rank, r in facts["reports"] if rank in ranks})
            case "dumped" | "gone":
                self._answers[node.name] = message
            case "set":
                self._keys.put(str(facts["key"]), message.payload)
            case "ask":
                key = str(facts["key"])
                self._keys.ask(key, lambda value: self._say(node.name, "value", value, key=key))

    def _note_rows(self, ranks: range, message: Message) -> None:
        rows = np.frombuffer(message.payload, ROW).copy()
        if len(rows) != len(ranks):
            raise ValueError("rows of other ranks")
        rows["beat_s"] += self.now_s() - float(message.facts["now_s"])  # into this process's clock
        self._rows[ranks.start : ranks.stop] = rows

    def _welcome(self, peer: int, *, name: str, slots: int) -> None:
        if name not in self.names or slots < 1:
            raise ValueError("a node that is not of this job")
        if name in self._there:  # started again while we thought that the one before is alive
            self._lose(name, "its agent was started again")
        self._there[name] = _Node(name, peer, slots, self.now_s())
        self.events.append("node_joined", node=name)

    def _lose_peer(self, peer: int, reason: str) -> None:
        for node in [node for node in self._there.values() if node.peer == peer]:
            self._lose(node.name, reason)
            self.starters.end(node.name)
        self.hub.drop(peer)

    def _lose(self, name: str, reason: str) -> None:
        """Its ranks count as ended; who has a place is not replaced before the next start."""
        node = self._there.pop(name)
        self.hub.drop(node.peer)
        self.events.append("node_lost", node=name, reason=reason)
        for place in self._places:
            if place.node != name:
                continue
            for rank in set(place.ranks) - self._codes.keys():
                self._codes[rank] = ResourceError.exit_code
                self._reports[rank] = {
                    "kind": "node",
                    "message": f"node {name} was lost: {reason}",
                    "exit_code": ResourceError.exit_code,
                    "hint": None,
                }

    def _say(self, name: str, kind: str, payload: bytes = b"", **facts: Any) -> None:
        if name in self._there:
            message = Message(kind, {"attempt": self._attempt, **facts}, payload)
            self.hub.send(self._there[name].peer, message)

    def _hear_owner(self) -> None:
        if os.read(self.owner, 4096):
            self._stop = True
        else:
            self._is_owner_gone = True
            self.hub.unwatch(self.owner)
