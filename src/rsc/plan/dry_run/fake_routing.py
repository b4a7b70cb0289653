"""Stand-ins in dry runs for what looks at values, which fake tensors have not.

Routing: every expert gets the same number of rows. CTC: the alignment is left out, whose tables are small
beside the scores of all positions.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from rsc.models.heads import Answers, CtcHead, Want
from rsc.models.moe import MoE
from rsc.parallel.collectives import trade_rows
from rsc.parallel.mesh import Mesh
from rsc.parallel.tensor import local


def evenly(model: nn.Module, *, mesh: Mesh) -> None:
    """Give mixtures of experts and a CTC head the forward passes below, in place. Weights stay."""
    for module in model.modules():
        if isinstance(module, MoE):
            module.forward = _Even(module, mesh)  # type: ignore[method-assign]
        elif isinstance(module, CtcHead):
            module.forward = partial(_unaligned, module)  # type: ignore[method-assign]


def _unaligned(
    head: CtcHead, hidden_BLD: torch.Tensor, real_BL: torch.Tensor, answers: Answers, want: Want
) -> dict[str, torch.Tensor]:
    scores_BLK = head.linear(hidden_BLD).float().log_softmax(-1)
    return {"total": scores_BLK.sum(), "count": real_BL.any(1).sum()}


class _Even:
    def __init__(self, moe: MoE, mesh: Mesh) -> None:
        self._moe = moe
        self._mesh = mesh

    def __call__(self, x_BLD: torch.Tensor, real_BL: torch.Tensor | None = None) -> torch.Tensor:
        """As MoE.forward, uncounted: scores, rows in expert order, experts, rows back, weighted sum."""
        moe, config = self._moe, self._moe.router.config
        x_ND = x_BLD.flatten(0, 1)
        scores_NX = F.linear(x_ND.float(), local(moe.router.weight).float()).softmax(-1)
        weights_NK = scores_NX[:, : config.top_k]
        rows_MD = x_ND.repeat_interleave(config.top_k, dim=0)
        answers_MD = self._experts(rows_MD)
        answers_NKD = answers_MD.view(*weights_NK.shape, -1)
        out_ND = torch.einsum("nkd,nk->nd", answers_NKD, weights_NK.to(answers_NKD.dtype))
        if moe.shared is not None:
            out_ND = out_ND + moe.shared(x_ND)
        return out_ND.view_as(x_BLD)

    def _experts(self, rows_MD: torch.Tensor) -> torch.Tensor:
        """To the experts' ranks and back, the same number of rows to each."""
        ep = self._mesh.layout.ep
        share = -(-rows_MD.shape[0] // ep)
        padded_MD = F.pad(rows_MD, (0, 0, 0, share * ep - rows_MD.shape[0]))
        if ep == 1:
            return self._answer(padded_MD)
        splits, group = [share] * ep, self._mesh.group("ep")
        arrived_MD = trade_rows(padded_MD, sent=splits, received=splits, group=group)
        answers_MD = trade_rows(self._answer(arrived_MD), sent=splits, received=splits, group=group)
        return answers_MD[: rows_MD.shape[0]]

    def _answer(self, rows_MD: torch.Tensor) -> torch.Tensor:
        """Every local expert takes an equal share: three batched products, with the FLOPs of the loop."""
        gate, up, down = (local(getattr(self._moe.experts, name)) for name in ("gate", "up", "down"))
        share = -(-rows_MD.shape[0] // gate.shape[0])
        padded_MD = F.pad(rows_MD, (0, 0, 0, share * gate.shape[0] - rows_MD.shape[0]))
        rows_XCD = padded_MD.view(gate.shape[0], share, -1)
        hidden_XCF = F.silu(rows_XCD @ gate.transpose(1, 2)) * (rows_XCD @ up.transpose(1, 2))
        return (hidden_XCF @ down.transpose(1, 2)).flatten(0, 1)[: rows_MD.shape[0]]
