"""Put stems, trunk and head together, and give every parameter its first value.

A first value depends on (seed, parameter name) alone, so a model split over any mesh or any pipeline
starts from the same numbers as one process.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping

import torch
from torch import nn

from rsc.models.config import ModelConfig, TrunkConfig
from rsc.models.heads import NextTokenHead, Want
from rsc.models.moe import MoE
from rsc.models.placement import PlacementPlan, placement_plan
from rsc.models.stems import TextStem
from rsc.models.trunk import Block, GatedMLP, Trunk

Batch = Mapping[str, torch.Tensor]

INIT_STD = 0.02  # GPT-2 (Radford et al. 2019): normal(0, 0.02), and 1 / sqrt(2 layers) of it where
# a block writes to the residual stream, so that its variance does not grow with depth.


class Model(nn.Module):
    """stems -> trunk -> head. A pipeline stage sets `stems` or `head` to None and pops foreign blocks.

    Batch keys (B batch, L positions): `tokens_BL`; `targets_BL` (-100: not counted);
    `document_ids_BL` and `positions_L` optional.
    """

    stems: nn.ModuleDict | None
    head: nn.Module | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.stems = nn.ModuleDict(_stems(config))
        self.trunk = Trunk(config.trunk, blocks=_blocks(config.trunk))
        self.head = _head(config)

    def forward(self, batch: Batch, want: Want = Want.LOSS) -> dict[str, torch.Tensor]:
        """What `want` names, as a dict of tensors. Three hops: embed, run, answer."""
        return self.answer(self.run(self.embed(batch), batch), batch, want)

    def embed(self, batch: Batch) -> torch.Tensor:
        """Inputs of the batch as one sequence of vectors [B, L, D]."""
        assert self.stems is not None, "this pipeline stage has no stems"
        return self.stems["text"](batch["tokens_BL"])  # type: ignore[no-any-return]

    def run(self, hidden_BLD: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The blocks this process holds, and the last norm if it holds that. [B, L, D] -> [B, L, D]."""
        return self.trunk(  # type: ignore[no-any-return]
            hidden_BLD, positions_L=batch.get("positions_L"), document_ids_BL=batch.get("document_ids_BL")
        )

    def answer(self, hidden_BLD: torch.Tensor, batch: Batch, want: Want) -> dict[str, torch.Tensor]:
        assert self.head is not None, "this pipeline stage has no head"
        return self.head(hidden_BLD, batch.get("targets_BL"), want)  # type: ignore[no-any-return]

    def placement_plan(self) -> PlacementPlan:
        return placement_plan(self.config)

    def initial_value(self, name: str, *, shape: torch.Size, seed: int) -> torch.Tensor:
        """The whole first value of one parameter, float32 on the CPU, the same wherever it is asked for."""
        if name.endswith("norm.weight"):
            return torch.ones(shape)
        std = INIT_STD
        if name.endswith(("attention.out.weight", "mlp.down.weight", "shared.down.weight", "experts.down")):
            std /= math.sqrt(2 * self.config.trunk.num_layers)
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        return torch.empty(shape).normal_(0.0, std, generator=generator)


def build_model(config: ModelConfig, *, seed: int = 0, device: str | torch.device = "cpu") -> Model:
    """A float32 model on `device`. On `meta` nothing is allocated; call `initialise` once it is placed."""
    with torch.device(device):
        model = Model(config)
    if torch.device(device).type != "meta":
        initialise(model, seed=seed)
    return model


@torch.no_grad()
def initialise(model: Model, *, seed: int) -> None:
    """Fill every (unsharded) parameter with its first value, at most one whole parameter extra in memory;
    buffers (the routers' biases and counts) start at zero."""
    for name, parameter in model.named_parameters():
        parameter.copy_(model.initial_value(name, shape=parameter.shape, seed=seed))
    for buffer in model.buffers():
        buffer.zero_()


def _blocks(config: TrunkConfig) -> Iterator[Block]:
    for layer in range(config.num_layers):
        if config.moe is not None and config.has_experts(layer):
            yield Block(config, mlp=MoE(config.moe, width=config.width))
        else:
            yield Block(config, mlp=GatedMLP(width=config.width, mlp_width=config.mlp_width))


def _stems(config: ModelConfig) -> dict[str, nn.Module]:
    stems: dict[str, nn.Module] = {}
    if config.text is not None:
        stems["text"] = TextStem(config.text, width=config.trunk.width)
    return stems


def _head(config: ModelConfig) -> nn.Module:
    assert config.text is not None, "config.py refuses a next_token head without text"
    return NextTokenHead(width=config.trunk.width, rows=config.text.rows, vocabulary=config.text.vocabulary)
