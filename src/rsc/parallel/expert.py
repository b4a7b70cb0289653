"""Expert parallelism: each `ep` rank holds some experts; tokens travel to them and back.

    rows sorted by expert -- all-to-all --> rows of my experts -- MLPs -- all-to-all --> rows in the old order

Splits are as the router chose them, different on every rank and step; the counts go ahead in a message of
their own. No token is dropped, so the answer is that of one process.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Shard, distribute_tensor

from rsc.models.placement import PlacementPlan, Role
from rsc.parallel.collectives import trade_rows


def split_experts(model: nn.Module, *, plan: PlacementPlan, mesh: DeviceMesh) -> None:
    """Cut the stacked expert weights by dim 0 over `mesh` (the ep axis) and exchange rows around them."""
    held = dict(model.named_modules())
    for name, role in plan.roles.items():
        if role is Role.EXPERTS and name in held:
            experts = held[name]
            for part, parameter in list(experts.named_parameters(recurse=False)):
                placed = distribute_tensor(parameter.data, mesh, [Shard(0)])
                experts.register_parameter(part, nn.Parameter(placed))
            exchange = _Exchange(mesh.get_group())
            experts.register_forward_pre_hook(exchange.out)
            experts.register_forward_hook(exchange.back)


class _Exchange:
    """The way out and the way back of one expert layer; remembers the splits between the two."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._size = dist.get_world_size(group)

    def out(self, _: nn.Module, args: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows [M, D] sorted by expert, counts [X]) -> (rows of my experts, counts of my experts)."""
        sorted_MD, counts_X = args
        sent_PX = counts_X.view(self._size, -1)  # P ranks, X / P experts each
        received_PX = torch.empty_like(sent_PX)
        dist.all_to_all_single(received_PX, sent_PX.contiguous(), group=self._group)
        self._sent, self._received = sent_PX.sum(1).tolist(), received_PX.sum(1).tolist()
        arrived = trade_rows(sorted_MD, sent=self._sent, received=self._received, group=self._group)
        self._order = _by_expert(received_PX)
        return arrived[self._order], received_PX.sum(0)

    def back(self, _: nn.Module, args: Any, answers_MD: torch.Tensor) -> torch.Tensor:
        by_sender = answers_MD[self._order.argsort()]
        return trade_rows(by_sender, sent=self._received, received=self._sent, group=self._group)


def _by_expert(received_PX: torch.Tensor) -> torch.Tensor:
    """Rows arrive in blocks by sender, each sorted by expert; the order that sorts them all by expert."""
    experts_PX = torch.arange(received_PX.shape[1], device=received_PX.device).expand_as(received_PX)
    return experts_PX.flatten().repeat_interleave(received_PX.flatten()).argsort(stable=True)
