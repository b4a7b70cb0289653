"""The ranks of this node: forked, watched, asked, ended; and the keys by which they meet."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rsc.cluster.rendezvous.key_value import KeyConflict, KeyValues
from rsc.cluster.rendezvous.message import Message
from rsc.cluster.rendezvous.rank_keys import AgentEnd
from rsc.cluster.supervise.exits import EndsOf
from rsc.cluster.supervise.heartbeats import Board
from rsc.cluster.supervise.ranks import Ranks
from rsc.cluster.supervise.reports import read_errors
from rsc.cluster.supervise.spec import Entry, Placement, RankSpec
from rsc.cluster.supervise.stack_dumps import request_dumps

DEATH_S = 30.0  # for SIGKILL to end a rank: one that waits for a dead disk or device is not ended by it


@dataclass
class LocalNode:
    run: Path
    entry: Entry
    slots: int
    """Ranks that have room here."""
    board_path: Path
    memories: tuple[int, ...] = ()
    """A descriptor per rank that outlives its process, if any."""
    wards: tuple[int, ...] = ()
    """The same for ranks of another node."""
    tell_key: Callable[[str, bytes], None] = lambda key, value: None
    ask_key: Callable[[str], None] = lambda key: None
    """To the job, where there is more than this node: a key that was set here, one that is wanted here."""
    private: list[socket.socket] = field(default_factory=list)
    """Connections of this process that end with it: no rank holds them open."""
    ranks: Ranks | None = None
    keys: KeyValues = field(default_factory=KeyValues)
    _ends: dict[int, AgentEnd] = field(default_factory=dict)
    _ended: EndsOf | None = None
    _wanted: set[str] = field(default_factory=set)
    """Keys that the job was asked for."""

    def __post_init__(self) -> None:
        self.board = Board(self.board_path, num_ranks=self.slots)
        self._local_world = self.slots

    def start(self, attempt: str, *, place: Placement) -> None:
        self.board.clear()
        self._local_world = place.local_world
        self.keys, self._wanted = KeyValues(), set()
        self.ranks = Ranks(
            partial(self._spec, attempt, place), ranks=place.ranks, entry=self.entry, private=self.private
        )
        self._ends = {rank: AgentEnd(sock) for rank, sock in self.ranks.sockets.items()}
        self._ended = EndsOf(self.ranks.pids.values())

    def _spec(self, attempt: str, place: Placement, keys: Any) -> RankSpec:
        return RankSpec(
            run=self.run,
            attempt=attempt,
            place=place,
            board=self.board_path,
            keys=keys,
            memories=self.memories,
            wards=self.wards,
        )

    @property
    def pids(self) -> Mapping[int, int]:
        return self.ranks.pids if self.ranks is not None else {}

    @property
    def rows(self) -> np.ndarray[Any, np.dtype[Any]]:
        return self.board.rows[: self._local_world]

    def exit_codes(self) -> dict[int, int]:
        return self.ranks.exit_codes() if self.ranks is not None else {}

    def reports(self, ranks: Iterable[int]) -> dict[int, dict[str, Any]]:
        return read_errors(self.run, ranks)

    def dump(self, ranks: Iterable[int]) -> set[int]:
        assert self.ranks is not None
        there = self.ranks
        return request_dumps(
            self.run,
            ranks,
            board=self.board,
            send=lambda rank: there.signal(signal.SIGUSR2, ranks=[rank]),
        )

    def end(self) -> list[int]:
        if self.ranks is None:
            return []
        gone = self.ranks.exit_codes()
        left = self.ranks.end(
            ranks=[rank for rank in self.ranks.pids if rank not in gone], patience_s=DEATH_S
        )
        self._close()
        return left

    def reap(self) -> None:
        if self.ranks is not None:
            self.ranks.reap()
        self._close()

    def look(self, files: Collection[int] = ()) -> set[int]:
        """Sleep until a rank ends, or one of `files` can be read, which are returned; answer ranks."""
        asked = {end.sock.fileno(): rank for rank, end in self._ends.items()}
        if self._ended is None:
            self._ended = EndsOf(())
        readable = self._ended.wait([*files, *asked])
        for number in readable & asked.keys():
            self._hear(asked[number])
        return readable & set(files)

    def _hear(self, rank: int) -> None:
        questions = self._ends[rank].hear()
        if questions is None:
            self._ends.pop(rank).sock.close()
            return
        for question in questions:
            try:
                self._take(question, end=self._ends[rank])
            except (KeyConflict, LookupError, TypeError):  # no rank of ours asks so
                self._ends.pop(rank).sock.close()
                return

    def _take(self, question: Message, *, end: AgentEnd) -> None:
        match question.kind:
            case "set":
                key = str(question.facts["key"])
                self.keys.put(key, question.payload)
                self.tell_key(key, question.payload)
            case "get":
                key = str(question.facts["key"])
                self._want(key)
                self.keys.ask(key, lambda value: end.answer(Message("value", payload=value)))
            case "check":
                wanted = [str(key) for key in question.facts["keys"]]
                for key in wanted:
                    self._want(key)
                end.answer(Message("checked", {"all": self.keys.values.keys() >= set(wanted)}))

    def _want(self, key: str) -> None:
        """Ask the job for a key that is not known here, once."""
        if key not in self.keys.values and key not in self._wanted:
            self._wanted.add(key)
            self.ask_key(key)

    def _close(self) -> None:
        if self.ranks is not None:
            self.ranks.close()
            self.ranks = None
        if self._ended is not None:
            self._ended.__exit__()
            self._ended = None
        self._ends = {}


@dataclass
class OneNode:
    """A job of one node: its agent and the job are one process, whose owner holds its stdin."""

    node: LocalNode

    def start(self, attempt: str) -> None:
        self.node.start(attempt, place=Placement.on_this_node(self.node.slots))

    @property
    def pids(self) -> Mapping[int, int]:
        return self.node.pids

    @property
    def rows(self) -> np.ndarray[Any, np.dtype[Any]]:
        return self.node.rows

    def exit_codes(self) -> dict[int, int]:
        return self.node.exit_codes()

    def reports(self, ranks: Iterable[int]) -> dict[int, dict[str, Any]]:
        return self.node.reports(ranks)

    def dump(self, ranks: Iterable[int]) -> set[int]:
        return self.node.dump(ranks)

    def end(self) -> list[int]:
        return self.node.end()

    def reap(self) -> None:
        self.node.reap()

    def request_stop(self) -> None:
        self.node.board.request_stop()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self) -> None:
        """A word on stdin asks for a checkpoint and an end; where it is closed, all ends at once."""
        stdin = sys.stdin.fileno()
        if self.node.look([stdin]):
            if not os.read(stdin, 4096):
                raise KeyboardInterrupt
            self.request_stop()


@contextmanager
def local_node(
    run: Path, *, slots: int, entry: Entry, memories: tuple[int, ...] = (), wards: tuple[int, ...] = ()
) -> Iterator[LocalNode]:
    with tempfile.TemporaryDirectory() as folder:
        yield LocalNode(run, entry, slots, Path(folder) / "board", memories=memories, wards=wards)
