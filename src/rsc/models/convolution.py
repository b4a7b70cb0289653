"""The convolutional body of an image stem: whole pictures in, one vector per `patch` pixels of a side out.

Shapes: B batch, C channels, H x W pixels of a picture, or places of a map. Maps lie in memory as
[B, H, W, C] throughout ("channels last"): so bf16 convolutions run on AMX and on a GPU's tensor cores.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from rsc.models.config import ImageConfig


class ConvBody(nn.Module):
    """[B, C, H, W] -> [B, out_channels, H / patch, W / patch], a stage per halving.

    Narrow at half the sides, four times as wide from a quarter on, each stage a convolution and a residual
    one: about the make-up of airbench (Jordan 2024, arXiv:2404.00498), which learns quickly from little. The
    first convolution looks at 6 x 6 pixels in steps of 2, so that no map is as large as the picture: there
    norms and sums, which wait for memory, would take more time than the products of all other stages.
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        width = config.conv_width
        first = {"kernel": 3} if config.patch == 1 else {"kernel": 6, "stride": 2}
        layers: list[nn.Module] = [ConvNorm(config.channels, width, **first), Residual(width)]
        for _ in range(int(math.log2(config.patch)) - 1):
            wider = 4 * config.conv_width
            layers += [ConvNorm(width, wider, pool=2), Residual(wider)]
            width = wider
        self.layers = nn.Sequential(*layers)
        self.out_channels = width

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return self.layers(x_BCHW.contiguous(memory_format=torch.channels_last))  # type: ignore[no-any-return]


class ConvNorm(nn.Module):
    """Convolution, the largest of each pool x pool places, layer norm over channels, SiLU.

    No batch statistics: they would tie samples, microbatches and ranks to each other.
    """

    def __init__(self, inner: int, outer: int, *, kernel: int = 3, stride: int = 1, pool: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inner, outer, kernel, stride=stride, padding=(kernel - stride + 1) // 2, bias=False
        )
        self.norm = nn.LayerNorm(outer)
        self.pool = pool

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = self.conv(x_BCHW)
        if self.pool > 1:  # before the norm, which then has a quarter of the places to read
            x_BCHW = F.max_pool2d(x_BCHW, self.pool)
        return F.silu(self.norm(x_BCHW.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """x + a convolution of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = ConvNorm(width, width)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return x_BCHW + self.inner(x_BCHW)  # type: ignore[no-any-return]
