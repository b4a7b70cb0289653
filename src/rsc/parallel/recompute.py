"""Activation recompute: forget what a block computed, compute it again when backward needs it.

`full` keeps a block's input only: about a third more FLOPs. `selective` keeps the results of matrix
products and fused attention, which are most of the FLOPs, and recomputes norms, activations and casts, which
are most of the bytes (Korthikanti et al. 2022, arXiv:2205.05198).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

_KEPT = {
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten._scaled_dot_product_flash_attention.default,
    torch.ops.aten._scaled_dot_product_efficient_attention.default,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def recompute(
    model: nn.Module, *, units: tuple[str, ...], mode: Literal["none", "selective", "full"]
) -> None:
    """Make each unit forget its activations, in place; names do not change."""
    if mode == "none":
        return
    held = dict(model.named_modules())
    for name in units:
        if name in held:
            held[name].forward = _forgetting(held[name].forward, mode=mode)


def _forgetting(forward: Callable[..., Any], *, mode: str) -> Callable[..., Any]:
    # The global random state needs no saving: nothing inside a block draws from it.
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if mode == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, _policy)

    def forgetting(*args: Any, **kwargs: Any) -> Any:
        # A function of ours and no `partial`: torch.compile starts at code outside torch, and silently ran
        # blocks uncompiled whose forward was torch's own `checkpoint`.
        return checkpoint(forward, *args, **options, **kwargs)

    return forgetting


def _policy(context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if op in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
