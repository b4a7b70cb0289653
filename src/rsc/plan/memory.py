"""Bytes on the fullest rank, by part, from closed forms over columns (work.py). No torch here.

Weights, gradients and moments are exact. Activations are those of a block with fused attention that saves
what autograd of plain PyTorch saves, or, for software without it, of Korthikanti et al. 2022
(arXiv:2205.05198, eq. 1 to 4). Not covered: fragmentation of the allocator, kernels' workspaces, buffers of
NCCL (1 to 3 GiB a device), uneven experts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rsc.plan.work import Layouts, Machine, Shape

RESERVE = 0.08
"""Of a device's memory, what the parts above must leave free for all that is not covered."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank."""

    weights: Any
    gradients: Any
    moments: Any
    """With the master copy of the weights, where weights are kept in 16 bits."""
    gathered: Any
    activations: Any

    @property
    def total(self) -> Any:
        return sum(np.asarray(part) for part in self.parts().values())

    def parts(self) -> dict[str, Any]:
        return dict(vars(self))


def memory(shape: Shape, plan: Layouts) -> Memory:
    s, p = shape, plan
    tp, pp, copies, shard = np.asarray(p.tp), np.asarray(p.pp), p.copies, np.asarray(p.shard)
    one_end = np.asarray(s.vocabulary) * s.width + s.other_weights / 2  # the embedding, or the scores
    ends = np.where(pp > 1, one_end, s.edge_weights) / tp
    blocks = s.block_weights / tp / pp
    experts = s.expert_weights / tp / pp / np.asarray(p.ep)
    expert_copies = np.maximum(copies * tp / np.asarray(p.ep), 1) / np.where(np.asarray(p.ep) > 1, tp, 1)
    expert_copies = np.maximum(expert_copies, 1)

    def held(bytes_each: float, *, divided: Any) -> Any:
        dense = (blocks + ends) / np.where(divided, copies, 1)
        return bytes_each * (dense + experts / np.where(divided, expert_copies, 1))

    trained = np.asarray(s.trainable)
    # FSDP keeps float32 weights, cut; the others 16 bit weights, with a float32 copy beside the moments.
    weights = np.where(shard == 3, held(4, divided=True), held(2, divided=False))
    gradients = trained * np.where(shard == 3, held(4, divided=True), held(4, divided=shard >= 2))
    moments = trained * np.where(shard == 3, held(8, divided=True), held(12, divided=shard >= 1))
    two = 2 * (blocks + experts) / np.asarray(s.layers) * pp + ends
    whole = blocks + experts + ends  # a pipeline gathers once a step, and holds its stage until then
    gathered = np.where(shard == 3, 2 * np.where(pp > 1, whole, np.minimum(two, whole)), 0.0)
    offload = np.asarray(p.offload)
    return Memory(weights, gradients, np.where(offload, 0.0, moments), gathered, _activations(s, p))


def activation_bytes_per_token(shape: Shape, plan: Layouts) -> tuple[Any, Any]:
    """(saved by one block without recompute, by one with the plan's) for a token on a rank."""
    s, p = shape, plan
    tp = np.asarray(p.tp)
    stream = np.where(np.asarray(p.sequence_parallel), tp, 1)
    share = s.expert_layers / np.asarray(s.layers)
    q, kv = np.asarray(s.heads) * s.head_width, np.asarray(s.kv_heads) * s.head_width
    inner = (1 - share) * np.asarray(s.mlp_width) + share * (
        np.asarray(s.top_k) * s.expert_width + s.shared_width
    )
    routed = share * 4 * np.asarray(s.top_k) * s.width
    gated = np.where(s.gated, 8.0, 4.0) * inner
    copied = np.where(kv < q, 2 * kv, 0.0)  # keys of groups lie between queries: attention wants them alone
    queries = np.where(np.asarray(s.kv_heads) == tp, 6 * q, 8 * q)  # and one group's queries lie together
    fused = s.width * (4 / stream + 4) + 8 / stream
    fused = fused + (copied + queries + 4 * kv + gated + routed + 4 * np.asarray(s.heads)) / tp
    old = s.width * 10 / stream + (24 * np.asarray(s.width) + 5 * np.asarray(s.heads) * s.sequence) / tp
    whole = np.where(np.asarray(p.unfused), old, fused)
    selective = np.where(
        np.asarray(p.unfused),
        s.width * (10 / stream + 24 / tp),
        2 * s.width / stream + 4 * s.width + (4 * q + 4 * kv + gated / 2 + routed) / tp,
    )
    kept = np.select(
        [np.asarray(p.recompute) == 2, np.asarray(p.recompute) == 1], [2 * s.width / stream, selective], whole
    )
    return whole, kept


def _activations(s: Shape, p: Layouts) -> Any:
    """Of every microbatch in flight, and of one block in its backward pass."""
    whole, kept = activation_bytes_per_token(s, p)
    tokens = p.micro * np.asarray(s.sequence) / p.cp
    pp, virtual = np.asarray(p.pp), np.asarray(p.virtual)
    per_rank = np.asarray(s.layers) / pp
    count = p.microbatches
    flying = np.where(virtual > 1, 1 + (pp - 1) / (pp * virtual), 1.0) * pp
    flying = np.minimum(flying, np.maximum(count, 1))
    once = np.where(np.asarray(p.recompute) == 2, whole, 0.0)
    scores = 6 * tokens * np.asarray(s.vocabulary) / p.tp
    first = 2 * s.width / np.where(np.asarray(p.sequence_parallel), p.tp, 1)
    return tokens * (per_rank * flying * kept + once + first) + np.where(pp > 1, 0.0, scores)


def fits(shape: Shape, plan: Layouts, machine: Machine) -> Any:
    return memory(shape, plan).total <= (1 - RESERVE) * np.asarray(machine.memory)
