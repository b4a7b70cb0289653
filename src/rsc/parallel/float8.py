"""float8 training of the blocks' matrix products, by torchao (extra `float8`).

Weights stay float32, everything between the products bf16; each product scales its operands by their
largest value (tensorwise, Micikevicius et al. 2022, arXiv:2209.05433). A CPU has no float8 products, so
there it is emulated: the numbers of a GPU, not its speed.
"""

from __future__ import annotations

import torch
from torch import nn

from rsc.errors import ConfigError

_MULTIPLE = 16  # float8 kernels of cuBLAS want both sides of a weight to be multiples of 16


def use_float8(model: nn.Module, *, units: tuple[str, ...], device: torch.device) -> None:
    """Replace the linear layers inside the blocks, in place; names do not change.

    Raises ConfigError where torchao is not installed.
    """
    try:
        from torchao.float8 import Float8LinearConfig, convert_to_float8_training
    except ImportError:
        raise ConfigError(
            "train.precision = float8 needs torchao, which is not installed",
            hint='install the extra: pip install "openrsc[float8]", or set train.precision=bf16',
        ) from None
    config = Float8LinearConfig(emulate=device.type == "cpu")
    held = dict(model.named_modules())
    for name in units:
        if name in held:
            convert_to_float8_training(held[name], config=config, module_filter_fn=_fits)


def _fits(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and all(size % _MULTIPLE == 0 for size in module.weight.shape)
