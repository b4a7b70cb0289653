"""Snapshots on another node: each rank sends its own to the rank `carried` places further, and keeps one.

    rank r   keeps its own snapshot, and a copy of the one of rank r - carried, whose node is another
    a node is lost; new processes have its ranks and no snapshots: rank r + carried sends the copy back

Copies go between the ranks' own process groups, so they cost the job's network what the state weighs, every
`train.snapshot_every` steps, and no storage.

Not covered: two neighbouring nodes lost at a time, or a second one before the next snapshot: then there are
checkpoints. The copy crosses the network as gradients do: plain, over gloo or NCCL.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.distributed as dist

from rsc.checkpoint.snapshot import SnapshotMemory

_SLOTS = 2


@dataclass(frozen=True)
class Neighbours:
    """The snapshots of this rank, and of the one whose copy it keeps."""

    own: SnapshotMemory
    ward: SnapshotMemory | None
    """None where the job has one node."""
    carried: int
    rank: int
    world: int

    def exchange(self, step: int) -> None:
        """After all ranks wrote the snapshot of a step: send mine on, take in my ward's."""
        if self.ward is not None:
            on = {rank: self._keeper_of(rank) for rank in range(self.world)}
            self._send_and_receive(step, on, source=self.own, target=self.ward)

    def newest_common(self, *, above: int, device: torch.device) -> int:
        """The newest step later than `above` of which every rank has its snapshot, here or at its keeper; -1
        for none. Ranks that do not have it themselves have it after this call."""
        ward = self.ward.steps() if self.ward is not None else [-1] * _SLOTS
        mine = torch.tensor([*self.own.steps(), *ward], dtype=torch.int64, device=device)
        table = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(table, mine)
        own = [set(row[:_SLOTS].tolist()) for row in table]
        kept = [set(table[self._keeper_of(rank)][_SLOTS:].tolist()) for rank in range(self.world)]
        step = max(set.intersection(*(own[rank] | kept[rank] for rank in range(self.world))), default=-1)
        if step <= above:
            return -1
        lacking = [rank for rank in range(self.world) if step not in own[rank]]
        back = {self._keeper_of(rank): rank for rank in lacking}
        self._send_and_receive(step, back, source=self.ward, target=self.own)
        return step

    def forget_after(self, step: int) -> None:
        """See SnapshotMemory.forget_after."""
        for memory in (self.own, self.ward):
            if memory is not None:
                memory.forget_after(step)

    def _keeper_of(self, rank: int) -> int:
        return (rank + self.carried) % self.world

    def _send_and_receive(
        self,
        step: int,
        ways: dict[int, int],
        *,
        source: SnapshotMemory | None,
        target: SnapshotMemory | None,
    ) -> None:
        """Snapshots of that step go from rank to rank: from the one's `source` into the other's `target`. A
        rank sends to one and receives from one at most."""
        receiver = ways.get(self.rank)
        sender = next((rank for rank, to in ways.items() if to == self.rank), None)
        with ExitStack() as received:
            works: list[dist.Work | None] = []
            if receiver is not None and source is not None:
                index_bytes, body = source.copy_of(step)
                measures = torch.tensor([index_bytes, len(body)])
                works += [dist.isend(measures, receiver), dist.isend(body, receiver)]
            if sender is not None and target is not None:
                measures = torch.empty(2, dtype=torch.int64)
                dist.recv(measures, sender)
                index_bytes, size_bytes = measures.tolist()
                room = target.receive(step=step, index_bytes=index_bytes, size_bytes=size_bytes)
                works.append(dist.irecv(received.enter_context(room), sender))
            for work in works:
                assert work is not None, "this rank is in its group"
                work.wait()
