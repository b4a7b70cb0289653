"""Contrastive models under data parallelism: a rank's samples are compared with those of all ranks.

Each rank answers for its own rows, in both directions, against everybody's: the sum over ranks is the loss
of one process. Only unit vectors [B, P] travel.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from rsc.models.placement import PlacementPlan, Role
from rsc.parallel.collectives import gather_parts


def share_company(model: nn.Module, *, plan: PlacementPlan, group: dist.ProcessGroup) -> None:
    """Let the head see the rows of the group, in place. Every rank brings as many."""
    for name, role in plan.roles.items():
        if role is Role.COMPANY:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, _Everybody(group))


class _Everybody(nn.Module):
    def __init__(self, group: dist.ProcessGroup) -> None:
        super().__init__()
        self._group = group

    def forward(self, rows_BP: torch.Tensor) -> tuple[torch.Tensor, int]:
        rows_MP = gather_parts(rows_BP, dim=0, group=self._group)
        return rows_MP, dist.get_rank(self._group) * len(rows_BP)
