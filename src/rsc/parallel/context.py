"""Context parallelism: each `cp` rank holds a part of the sequence; attention sees all of it.

`parallel/sequence.py` says which part: an early and a late chunk. Queries stay where they are; keys and
values are gathered over the axis, and a mask by place and document says who may look at whom. With a causal
mask each chunk is multiplied with the keys up to its own end only: 2 * cp + 1 chunks of keys on every rank,
which is the balance that the pairing is for, and about half of all keys.

Memory of a rank for one attention, L positions in all: keys and values of L, kept for backward unless blocks
are recomputed; a mask of L / cp x L bytes, and scores of that size where the kernel makes them. Everything
else is L / cp. A ring would hold keys and values of L / cp; docs/parallel.md says from what length that pays.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from rsc.models.placement import PlacementPlan, Role
from rsc.parallel.collectives import all_gather, gather_parts
from rsc.parallel.sequence import pairs_of


def split_context(model: nn.Module, *, plan: PlacementPlan, group: dist.ProcessGroup) -> None:
    """Put a core that looks at the whole sequence into every attention, in place.

    `lay_out_sequence` tells the trunk this rank's places first. A block gets its mask as an argument,
    because recompute must see the mask of its own forward pass, not of the latest one.
    """
    held = dict(model.named_modules())
    mask = _Mask(group)
    held["trunk"].register_forward_pre_hook(mask.make, with_kwargs=True)
    for name in plan.units:
        if name in held:
            held[name].register_forward_pre_hook(lambda _, args: (*args[:2], mask.mask_BLM, *args[3:]))
    for name, role in plan.roles.items():
        if role is Role.ATTENTION_CORE and name in held:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, GatheredCore(group))


class _Mask:
    """Who may look at whom, from a part of the sequence to all of it; made once for all blocks."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group, self._pairs = group, pairs_of(group)
        self.mask_BLM: torch.Tensor | None = None

    def make(self, trunk: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Before the trunk runs; takes the document ids away, of which the trunk knows only a part."""
        positions_BL, documents_BL = kwargs["positions_L"], kwargs.get("document_ids_BL")
        positions_BL = positions_BL if positions_BL.ndim == 2 else positions_BL[None]
        config: Any = trunk.config
        positions_BM = self._pairs.joined(all_gather(positions_BL, dim=1, group=self._group), dim=1)
        key_BLM, query_BLM = positions_BM[:, None, :], positions_BL[:, :, None]
        mask_BLM = key_BLM <= query_BLM if config.causal else torch.ones_like(key_BLM <= query_BLM)
        if documents_BL is not None and config.documents == "masked":
            documents_BM = self._pairs.joined(all_gather(documents_BL, dim=1, group=self._group), dim=1)
            same_BLM = documents_BL[:, :, None] == documents_BM[:, None, :]
            mask_BLM = mask_BLM & same_BLM & (documents_BM >= 0)[:, None, :]
        self.mask_BLM = mask_BLM | (key_BLM == query_BLM)
        return args, {**kwargs, "document_ids_BL": None}


class GatheredCore(nn.Module):
    """`AttentionCore` over the whole sequence; the mask that comes in knows all keys."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        super().__init__()
        self._group, self._pairs = group, pairs_of(group)

    def forward(
        self,
        q_BHLE: torch.Tensor,
        k_BGLE: torch.Tensor,
        v_BGLE: torch.Tensor,
        mask_BLM: torch.Tensor | None,
        causal: bool,
    ) -> torch.Tensor:
        """Out [B, H, L, E] for this rank's queries."""
        assert mask_BLM is not None, "the trunk's hook runs first"
        k_BGME = self._pairs.joined(gather_parts(k_BGLE, dim=2, group=self._group), dim=2)
        v_BGME = self._pairs.joined(gather_parts(v_BGLE, dim=2, group=self._group), dim=2)
        chunk, keys = q_BHLE.shape[2] // 2, k_BGME.shape[2]
        ends = [end * chunk if causal else keys for end in self._pairs.ends]
        parts = [
            _attend(q_BHLE[:, :, rows], k_BGME[:, :, :end], v_BGME[:, :, :end], mask_BLM[:, rows, :end])
            for rows, end in zip((slice(0, chunk), slice(chunk, None)), ends, strict=True)
        ]
        return torch.cat(parts, dim=2)


def _attend(
    q_BHLE: torch.Tensor, k_BGME: torch.Tensor, v_BGME: torch.Tensor, mask_BLM: torch.Tensor
) -> torch.Tensor:
    grouped = q_BHLE.shape[1] != k_BGME.shape[1]
    return F.scaled_dot_product_attention(
        q_BHLE, k_BGME, v_BGME, attn_mask=mask_BLM[:, None], enable_gqa=grouped
    )
