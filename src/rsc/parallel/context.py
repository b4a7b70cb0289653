"""Context parallelism: each `cp` rank holds a part of the sequence; attention sees all of it.

A sequence is cut into 2 * cp chunks and rank r takes chunks r and 2 * cp - 1 - r: with a causal mask an
early chunk has little to look at and a late one much, so every pair is the same work (the pairing of
Llama 3, arXiv:2407.21783 section 3.3.2). Keys and values are gathered over the axis; queries stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from rsc.models.placement import PlacementPlan, Role
from rsc.parallel.exchange import all_gather, gather_parts


def split_context(model: nn.Module, *, plan: PlacementPlan, group: dist.ProcessGroup) -> None:
    """Put a core that looks at the whole sequence into every attention, in place.

    The trunk's positions must be set by `split_sequence`, and come before any tensor-parallel cut.
    """
    held = dict(model.named_modules())
    shared = _Sequence(group)
    held["trunk"].register_forward_pre_hook(shared.listen, with_kwargs=True, prepend=True)
    for name, role in plan.roles.items():
        if role is Role.ATTENTION_CORE and name in held:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, GatheredCore(shared))


def split_sequence(batch: Mapping[str, torch.Tensor], *, rank: int, size: int) -> dict[str, torch.Tensor]:
    """This cp rank's part of every [B, L] tensor, and `positions_L`, the global places of its tokens."""
    length = next(value.shape[1] for name, value in batch.items() if name.endswith("_BL"))
    places_L = chunk_pair(length, rank=rank, size=size)
    cut = {
        name: value[:, places_L.to(value.device)] if name.endswith("_BL") else value
        for name, value in batch.items()
    }
    like_BL = next(value for name, value in cut.items() if name.endswith("_BL"))
    # One row per sample, because a pipeline cuts every tensor of a batch into microbatches by rows.
    return {**cut, "positions_L": places_L.to(like_BL.device).expand(len(like_BL), -1)}


def chunk_pair(length: int, *, rank: int, size: int) -> torch.Tensor:
    """Places of one early and one late chunk, [length / size]."""
    assert length % (2 * size) == 0, "layout.py refuses a length that does not divide by 2 * cp"
    chunks = torch.arange(length).chunk(2 * size)
    return torch.cat([chunks[rank], chunks[2 * size - 1 - rank]])


class _Sequence:
    """What all attention cores of a forward pass need to know about the whole sequence."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.mask_BLM: torch.Tensor | None = None

    def listen(self, trunk: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
        """Before the trunk runs: make the mask of these queries over all keys, once for all blocks."""
        positions_BL, documents_BL = kwargs["positions_L"], kwargs.get("document_ids_BL")
        config: Any = trunk.config
        positions_BM = all_gather(positions_BL, dim=1, group=self.group)
        key_BLM, query_BLM = positions_BM[:, None, :], positions_BL[:, :, None]
        mask_BLM = key_BLM <= query_BLM if config.causal else torch.ones_like(key_BLM <= query_BLM)
        if documents_BL is not None and config.documents == "masked":
            documents_BM = all_gather(documents_BL, dim=1, group=self.group)
            same_BLM = documents_BL[:, :, None] == documents_BM[:, None, :]
            mask_BLM = mask_BLM & same_BLM & (documents_BM >= 0)[:, None, :]
        self.mask_BLM = mask_BLM | (key_BLM == query_BLM)
        kwargs["document_ids_BL"] = None
        return args, kwargs


class GatheredCore(nn.Module):
    """`AttentionCore` over the whole sequence: gather keys and values, mask by place and document.

    Memory for keys and values grows with L, scores with L * L / cp: a ring would hold less, and pays off
    where keys and values of one layer no longer fit.
    """

    def __init__(self, shared: _Sequence) -> None:
        super().__init__()
        self._shared = shared

    def forward(
        self,
        q_BHLE: torch.Tensor,
        k_BGLE: torch.Tensor,
        v_BGLE: torch.Tensor,
        mask_BLM: torch.Tensor | None,
        causal: bool,
    ) -> torch.Tensor:
        """Out [B, H, L, E] for this rank's queries. The mask that comes in knows only a part of L."""
        k_BGME = gather_parts(k_BGLE, dim=2, group=self._shared.group)
        v_BGME = gather_parts(v_BGLE, dim=2, group=self._shared.group)
        mask = self._shared.mask_BLM
        assert mask is not None, "the trunk's hook runs first"
        grouped = q_BHLE.shape[1] != k_BGME.shape[1]
        return F.scaled_dot_product_attention(
            q_BHLE, k_BGME, v_BGME, attn_mask=mask[:, None], enable_gqa=grouped
        )
