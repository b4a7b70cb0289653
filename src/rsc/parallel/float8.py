"""float8 training of the blocks' matrix products, by torchao (extra `float8`).

Weights stay float32, everything between the products bf16; each product scales its operands by their
largest value (tensorwise, Micikevicius et al. 2022, arXiv:2209.05433). A CPU has no float8 products, so
there it is emulated: the numbers of a GPU, not its speed.

Under tensor parallelism each rank scales its own part of a weight by that part's largest value: finer than
one scale for the whole, and no message. So float8 losses depend a little on tp, as they do on the kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rsc.errors import ConfigError
from rsc.extras import install_command
from rsc.parallel.tensor import ColumnParallel, Product, RowParallel, local

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
            hint=f"{install_command('float8')}, or set train.precision=bf16",
        ) from None
    config = Float8LinearConfig(emulate=device.type == "cpu")
    held = dict(model.named_modules())
    for unit in (held[name] for name in units if name in held):
        convert_to_float8_training(unit, config=config, module_filter_fn=_fits)
        for module in unit.modules():
            if isinstance(module, ColumnParallel | RowParallel) and _fits(module, ""):
                module.product = _product(config)


def _fits(module: nn.Module, name: str) -> bool:
    if not isinstance(module, nn.Linear | ColumnParallel | RowParallel):
        return False
    return all(size % _MULTIPLE == 0 for size in local(module.weight).shape)


def _product(config: Any) -> Product:
    """torchao's product as a function of its weight: tensor parallelism holds parts of weights itself."""
    from torchao.float8.float8_linear import Float8Linear, matmul_with_hp_or_float8_args

    settings = Float8Linear(_MULTIPLE, _MULTIPLE, bias=False, config=config, device="meta").linear_mm_config

    def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = matmul_with_hp_or_float8_args.apply(x, weight.t(), settings, config)
        return out

    return product
