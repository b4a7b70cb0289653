"""Optimisers over named parameters, and the learning rate of a step as a pure function."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from rsc.models.stems import ImageStem
from rsc.models.trunk import Attention
from rsc.recipes.sections import OptimizerConfig
from rsc.train.engine.muon import Muon, is_muon_weight


def learning_rate_ratio(step: int, *, steps: int, config: OptimizerConfig) -> float:
    """Learning rate of `step` (0-based) over the peak.

    Warm-up: (step + 1) / warmup_steps, so that no step has rate 0. Then by schedule:
    cosine to `min_ratio` at the last step (Loshchilov and Hutter 2017, arXiv:1608.03983);
    wsd: 1 until the last `decay_fraction` of the steps, then linear to `min_ratio`
    (Hu et al. 2024, arXiv:2404.06395); constant: 1.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    start = config.warmup_steps
    if config.schedule == "wsd":
        start = max(start, round(steps * (1 - config.decay_fraction)) - 1)
    progress = min(1.0, max(0.0, (step - start) / max(1, steps - 1 - start)))
    fall = progress if config.schedule == "wsd" else 0.5 * (1 - math.cos(math.pi * progress))
    return 1.0 - (1.0 - config.min_ratio) * fall


def set_learning_rate(
    optimizer: torch.optim.Optimizer, *, step: int, steps: int, config: OptimizerConfig
) -> float:
    """Give every parameter group its rate for `step`; returns the ratio to the peak."""
    ratio = learning_rate_ratio(step, steps=steps, config=config)
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * ratio
    return ratio


def build_optimizer(
    model: nn.Module, *, config: OptimizerConfig, dtype: torch.dtype = torch.bfloat16
) -> torch.optim.Optimizer:
    """AdamW with decoupled weight decay on matrices only (Loshchilov and Hutter 2019, arXiv:1711.05101), or
    Muon for the matrices of the trunk and AdamW for the rest. A bag has a rate and a decay of its own.

    The fused kernel updates parameter and both moments in one pass over memory, on CPU and on CUDA. Muon
    multiplies in `dtype`, as the model does.
    """
    with_muon: list[nn.Parameter] = []
    if config.name == "muon":
        with_muon = [p for name, p in model.named_parameters() if is_muon_weight(name, p)]
    in_bag = [p for name, p in model.named_parameters() if ".bag." in name]
    taken = {id(parameter) for parameter in [*with_muon, *in_bag]}
    decayed, plain = ([p for p in part if id(p) not in taken] for part in split_by_decay(model))
    rate = config.learning_rate
    adam = {"peak_lr": rate, "lr": rate, "betas": (config.beta1, config.beta2), "eps": config.epsilon}
    bag = {"peak_lr": config.bag_learning_rate, "eps": config.bag_epsilon, "weight_decay": 0.0}
    groups: list[dict[str, Any]] = [
        {"params": decayed, **adam, "weight_decay": config.weight_decay},
        {"params": plain, **adam, "weight_decay": 0.0},
        {"params": in_bag, **adam, **bag},
    ]
    groups = [group for group in groups if group["params"]]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    muon = {
        "rule": "muon",
        "peak_lr": config.muon_learning_rate,
        "lr": config.muon_learning_rate,
        "momentum": config.muon_momentum,
        "weight_decay": config.weight_decay,
    }
    by_heads = split_by_heads(model, parameters=with_muon)
    matrices = [{**muon, "params": params, "heads": heads} for heads, params in by_heads.items()]
    return Muon([*matrices, *({"rule": "adamw", **group} for group in groups)], dtype=dtype)


def split_by_heads(
    model: nn.Module, *, parameters: list[nn.Parameter]
) -> dict[tuple[int, int] | None, list[nn.Parameter]]:
    """Fused projections of attention by (query heads a group, features of a head); all others under None."""
    heads = {
        id(module.qkv.weight): (module.queries_per_group, module.head_width)
        for module in model.modules()
        if isinstance(module, Attention)
    }
    found: dict[tuple[int, int] | None, list[nn.Parameter]] = {}
    for parameter in parameters:
        found.setdefault(heads.get(id(parameter)), []).append(parameter)
    return found


def split_by_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters that decay (matrices) and those that do not (norms, biases, embeddings, learnt positions),
    in model order."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    tables |= {id(module.places) for module in model.modules() if isinstance(module, ImageStem)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in parameters if p.ndim >= 2 and id(p) not in tables]
    plain = [p for p in parameters if p.ndim < 2 or id(p) in tables]
    return decayed, plain
