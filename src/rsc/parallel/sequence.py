"""Where a sequence lies: whole in the stems and in heads that pool, in parts inside the trunk.

    stems [B, L, D] -- pad -- chunk pair of this cp rank -- part of this tp rank --> blocks
    blocks --> parts of tp -- chunk pairs of cp -- unpad --> head [B, L, D]

Stems need neighbours (convolutions, n-grams) and heads like CTC need every position, so every tp and cp
rank runs both on the same samples. Lengths that do not divide are padded with positions nobody looks at.

Where stem and head work position by position (`cuts_batch` of the plan), context parallelism cuts the
batch instead (`split_batch`): then no rank ever holds L positions of anything but keys and values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from rsc.models.placement import PlacementPlan, Role
from rsc.parallel.collectives import gather_parts, gather_same, take_part
from rsc.parallel.mesh import Mesh

Batch = Mapping[str, torch.Tensor]


def lay_out_sequence(model: nn.Module, *, plan: PlacementPlan, mesh: Mesh) -> None:
    """Cut at the trunk's entry, put together at its exit; in place. Any stage of a pipeline may ask."""
    cp = None if plan.cuts_batch or mesh.layout.cp == 1 else mesh.group("cp")
    tp = None if mesh.layout.tp == 1 else mesh.group("tp")
    whole: Any = model
    parts = Parts(tp=tp, cp=cp, has_stems=whole.stems is not None)
    whole.trunk.register_forward_pre_hook(parts.enter, with_kwargs=True, prepend=True)
    if whole.head is not None and plan.roles["head"] is Role.WHOLE:
        whole.trunk.register_forward_hook(parts.leave)
        if cp is not None:
            whole.head.register_forward_hook(_Once(is_first=dist.get_rank(cp) == 0))


class Parts:
    """The parts of one forward pass; remembers the length between entry and exit."""

    def __init__(
        self, *, tp: dist.ProcessGroup | None, cp: dist.ProcessGroup | None, has_stems: bool
    ) -> None:
        self._tp, self._cp, self._has_stems = tp, cp, has_stems
        self._tp_size = dist.get_world_size(tp) if tp is not None else 1
        self._pairs = pairs_of(cp) if cp is not None else ChunkPairs(rank=0, size=1)
        self._length = 0

    def enter(self, trunk: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Before the trunk: `positions_L` tells the whole length; later stages get hidden states in parts."""
        hidden, positions, documents_BL = args[0], kwargs["positions_L"], kwargs.get("document_ids_BL")
        self._length = positions.shape[-1]
        padded = self._pairs.fitting(self._length, parts=self._tp_size)
        extra = padded - self._length
        if extra:
            positions = torch.arange(padded, device=positions.device)
            if documents_BL is None:
                documents_BL = positions.new_zeros(hidden.shape[0], self._length)
            documents_BL = F.pad(documents_BL, (0, extra), value=-1)
        if self._cp is not None:
            positions = self._pairs.cut(positions, dim=positions.ndim - 1)
            documents_BL = None if documents_BL is None else self._pairs.cut(documents_BL, dim=1)
        if self._has_stems:
            hidden = self._cut(F.pad(hidden, (0, 0, 0, extra)) if extra else hidden)
        kwargs = {**kwargs, "positions_L": positions, "document_ids_BL": documents_BL}
        if documents_BL is not None:
            kwargs["real_BL"] = self._own_part(documents_BL >= 0)
        return (hidden, *args[1:]), kwargs

    def leave(self, trunk: nn.Module, args: Any, hidden: torch.Tensor) -> torch.Tensor:
        """After the trunk: [B, L, D] as the head wants it."""
        if self._tp is not None:
            hidden = gather_same(hidden, dim=1, group=self._tp)
        if self._cp is not None:
            hidden = self._pairs.joined(gather_parts(hidden, dim=1, group=self._cp), dim=1)
        return hidden[:, : self._length]

    def _cut(self, hidden: torch.Tensor) -> torch.Tensor:
        if self._cp is not None:
            hidden = self._pairs.cut(hidden, dim=1)
        return hidden if self._tp is None else take_part(hidden, dim=1, group=self._tp)

    def _own_part(self, whole_BL: torch.Tensor) -> torch.Tensor:
        """Of [B, L] what belongs to the hidden states of this tp rank."""
        rank = 0 if self._tp is None else dist.get_rank(self._tp)
        return whole_BL.chunk(self._tp_size, dim=1)[rank]


@dataclass(frozen=True)
class _Once:
    """Every cp rank computes the same loss of the same samples; one of them counts it."""

    is_first: bool

    def __call__(self, head: nn.Module, args: Any, out: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value * self.is_first for name, value in out.items()} if "total" in out else out


@dataclass(frozen=True)
class ChunkPairs:
    """A sequence in 2 * size chunks, of which rank r holds r and 2 * size - 1 - r.

    With a causal mask an early chunk has little to look at and a late one much, so every pair is the same
    work (the pairing of Llama 3, arXiv:2407.21783 section 3.3.2).
    """

    rank: int
    size: int

    @property
    def ends(self) -> tuple[int, int]:
        """Where the early and the late chunk end, in chunks: what a causal query in them may look at."""
        return self.rank + 1, 2 * self.size - self.rank

    def fitting(self, length: int, *, parts: int = 1) -> int:
        """The smallest length from `length` on that divides into the chunks, and a rank's pair into parts."""
        multiple = (2 * self.size if self.size > 1 else 1) * parts
        return -(-length // multiple) * multiple

    def cut(self, whole: torch.Tensor, *, dim: int) -> torch.Tensor:
        """[.., L, ..] -> this rank's [.., L / size, ..]."""
        chunks = whole.chunk(2 * self.size, dim=dim)
        assert len(chunks) == 2 * self.size, "`fitting` comes first"
        return torch.cat([chunks[self.rank], chunks[2 * self.size - 1 - self.rank]], dim=dim)

    def joined(self, pairs: torch.Tensor, *, dim: int) -> torch.Tensor:
        """The pairs of all ranks in rank order -> the sequence in its own order."""
        chunks = pairs.chunk(2 * self.size, dim=dim)
        return torch.cat([*chunks[0::2], *reversed(chunks[1::2])], dim=dim)


def pairs_of(group: dist.ProcessGroup) -> ChunkPairs:
    return ChunkPairs(rank=dist.get_rank(group), size=dist.get_world_size(group))


def split_batch(batch: Batch, *, pairs: ChunkPairs, parts: int, ignored: int) -> dict[str, torch.Tensor]:
    """This cp rank's part of a batch of tokens: every [B, L] tensor, and `positions_L`, the global places.

    `parts` is tp. Targets are padded with `ignored`, and padding belongs to document -1. Lengths of texts
    mean nothing in a part, so they become document ids.
    """
    batch = dict(batch)
    B, L = batch["tokens_BL"].shape
    place_L = torch.arange(pairs.fitting(L, parts=parts), device=batch["tokens_BL"].device)
    lengths_B = batch.pop("text_length_B", None)
    if lengths_B is not None:
        batch["document_ids_BL"] = (place_L[:L] < lengths_B[:, None]).long() - 1
    elif len(place_L) > L:
        batch.setdefault("document_ids_BL", torch.zeros_like(batch["tokens_BL"]))
    # One row of places per sample, because a pipeline cuts every tensor of a batch into microbatches by rows.
    whole = {**batch, "positions_L": place_L.expand(B, -1)}
    fillers = {"tokens_BL": 0, "targets_BL": ignored, "document_ids_BL": -1}
    for name, filler in fillers.items():
        if name in whole:
            whole[name] = F.pad(whole[name], (0, len(place_L) - L), value=filler)
    return {
        name: pairs.cut(value, dim=1) if name in fillers or name == "positions_L" else value
        for name, value in whole.items()
    }


def local_length(length: int, *, plan: PlacementPlan, cp: int, tp: int) -> int:
    """Positions of a trunk's hidden states on one rank, for `length` positions of the batch it is given."""
    cut_here = 1 if plan.cuts_batch else cp
    return ChunkPairs(rank=0, size=cut_here).fitting(length, parts=tp) // (cut_here * tp)
