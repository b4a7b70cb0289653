"""A recipe's model on a mesh with its optimiser: everything that makes a step, nothing that reads data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from rsc.checkpoint.shards import Piece, state_pieces
from rsc.models.build import build_model, positions_by_stem
from rsc.models.counts import model_flops
from rsc.models.moe import balance_experts, forget_loads
from rsc.parallel.apply import How, Placed, fill, parallelize
from rsc.parallel.layout import Layout
from rsc.parallel.mesh import Mesh
from rsc.recipes.recipe import Recipe
from rsc.train.batches.sample_seeds import Draws
from rsc.train.batches.streams import stream_seed
from rsc.train.engine.loss import LossRecord, Objective, loss_record
from rsc.train.engine.optimizers import build_optimizer
from rsc.train.init_weights import inheriting


@dataclass
class Work:
    """What the last backward passes were asked to do."""

    flops: float = 0.0
    """Of the samples of this data-parallel rank."""
    bad: Counter[str] = field(default_factory=Counter)
    """What was wrong with those samples, in the words of train/batches/collate.py."""


@dataclass(frozen=True)
class Engine:
    placed: Placed
    optimizer: torch.optim.Optimizer
    objective: Objective
    seed: int
    work: Work = field(default_factory=Work)

    def backward(self, batches: Sequence[Mapping[str, Any]], *, step: int) -> list[LossRecord]:
        """Forward and backward of a step's loader batches; nothing on a pipeline rank that sees no loss."""
        draws = self.draws("step", step)
        self.work.flops, self.work.bad = 0.0, Counter()
        answers = []
        for batch in batches:
            bound = self.objective.bind(batch, draws=draws)
            draws = draws.after(rows_of(batch))
            self.work.flops += self._flops(bound.batch)
            self.work.bad.update(bound.bad)
            answers.append((self.placed.backward(bound.batch), bound.bad))
        return [loss_record(outputs, bad=bad) for outputs, bad in answers if outputs]

    def draws(self, *stream: str | int) -> Draws:
        """Of this rank's first batch in a stream, in the order of the loader (loader/loader.py): sample k of
        a step is row k // dp of rank k % dp. So every mesh draws alike for it."""
        mesh = self.placed.mesh
        first = mesh.layout.dp_rank(mesh.rank)
        return Draws(stream_seed(self.seed, *stream), first=first, stride=mesh.layout.dp)

    def evaluate(self, batch: Mapping[str, Any], *, draws: Draws | None = None) -> tuple[float, int]:
        """Summed loss and items of one batch, without gradients; zeros on ranks that see no loss."""
        modules = self.placed.modules
        try:
            for module in modules:
                module.eval()
            outputs = self.placed.evaluate(self.objective.bind(batch, draws=draws).batch)
        finally:
            for module in modules:
                module.train()
        return (float(outputs["total"]), int(outputs["count"])) if outputs else (0.0, 0)

    def _flops(self, batch: Mapping[str, torch.Tensor]) -> float:
        config = self.placed.modules[0].config
        return model_flops(config, rows=rows_of(batch), positions=positions_by_stem(batch, config=config))

    def pieces(self) -> list[Piece]:
        """The state of this rank, for checkpoints."""
        return state_pieces(self.placed.modules, [self.optimizer], is_writer=self.placed.mesh.is_writer)

    def update(self, *, divisor: float) -> None:
        """The optimiser step on the gradients over `divisor`, and the routers' move towards even load.

        The optimiser divides while it reads them: a pass of its own over all gradients takes a third of
        AdamW's time. `grad_scale` is where torch's fused optimisers look, made for torch.amp.GradScaler.
        """
        self.optimizer.grad_scale = torch.tensor(divisor, device=self.placed.mesh.device)  # type: ignore[attr-defined]
        self.optimizer.step()
        for module in self.placed.modules:
            balance_experts(module, add_over_ranks=self._add_over_stage)

    def skip(self) -> None:
        """Leave a step out: nothing of its batches stays."""
        for module in self.placed.modules:
            forget_loads(module)

    def _add_over_stage(self, tensor: torch.Tensor) -> None:
        """Sum over all ranks that hold these routers, which see different tokens."""
        for axis in ("dp_replicate", "fsdp", "tp"):
            dist.all_reduce(tensor, group=self.placed.mesh.group(axis))


def rows_of(batch: Mapping[str, Any]) -> int:
    """Samples of a loader's batch."""
    return len(next(iter(batch.values())))


def build_engine(
    recipe: Recipe, *, mesh: Mesh, dtype: torch.dtype, inherited: Mapping[str, torch.Tensor] | None = None
) -> Engine:
    """Build on meta, place, fill with first values (`inherited` ones where they fit), add the optimiser."""
    model = build_model(recipe.model, device="meta")
    placed = parallelize(model, mesh=mesh, how=_how(recipe, layout=mesh.layout, mesh=mesh, dtype=dtype))
    seed = stream_seed(recipe.train.seed, "weights")

    def first_value(name: str, shape: torch.Size) -> torch.Tensor:
        return model.initial_value(name, shape=shape, seed=seed)

    initial_value = inheriting(first_value, weights=inherited or {})
    fill(placed.modules, device=mesh.device, initial_value=initial_value)
    whole = nn.ModuleList(placed.modules)
    optimizer = build_optimizer(whole, config=recipe.train.optimizer, dtype=dtype)
    split_groups_by_mesh(optimizer)
    return Engine(placed, optimizer, Objective(placed.modules[0]), seed=recipe.train.seed)


def _how(recipe: Recipe, *, layout: Layout, mesh: Mesh, dtype: torch.dtype) -> How:
    return How(
        config=recipe.parallel,
        dtype=dtype,
        float8=recipe.train.precision == "float8",
        recompute=recipe.train.recompute,
        compile_blocks=compiles(recipe, device=mesh.device),
        local_batch=recipe.train.batch_size // (layout.dp * recipe.train.accumulate),
    )


def compiles(recipe: Recipe, *, device: torch.device) -> bool:
    """Whether each block is compiled. On a CPU it pays nothing; zero bubble does not go with it."""
    if recipe.train.compile == "auto":
        return device.type == "cuda" and not recipe.parallel.splits_backward
    return recipe.train.compile == "blocks"


def split_groups_by_mesh(optimizer: torch.optim.Optimizer) -> None:
    """One parameter group per device mesh: a fused update takes tensors of one mesh only."""
    groups = []
    for group in optimizer.param_groups:
        by_mesh: dict[Any, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            mesh = parameter.device_mesh if isinstance(parameter, DTensor) else None
            by_mesh.setdefault(mesh, []).append(parameter)
        groups += [{**group, "params": parameters} for parameters in by_mesh.values()]
    optimizer.param_groups[:] = groups
