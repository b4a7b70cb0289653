"""Controls of domains.py that need a training loop of their own, each in a process of its own.

python benchmarks/controls.py small_resnet FOLDER SECONDS
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn


def small_resnet(folder: Path, *, seconds: float) -> dict[str, float]:
    """A residual network of 8 convolutions with batch norm on CIFAR-10, for so many seconds of training.

    Nesterov SGD, one cycle of the learning rate by elapsed time, each picture mirrored and shifted as rsc
    does it, bf16 autocast in channels last: what a practised user would write. Half as wide as Page's
    ResNet-9 (github.com/davidcpage/cifar10-fast), which takes twice the CPU time a step and so learns less.
    """
    torch.manual_seed(0)
    train_x, train_y = pictures(folder / "train")
    test_x, test_y = pictures(folder / "test")
    model = Resnet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    start = time.perf_counter()
    while (share := (time.perf_counter() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 0.2 * (share / 0.2 if share < 0.2 else (1 - share) / 0.8) + 1e-4
        rows = torch.randint(0, len(train_x), (128,))
        x = shifted(train_x[rows])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), train_y[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        parts = zip(test_x.split(250), test_y.split(250), strict=True)
        hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in parts)
    return {"accuracy": hits / len(test_x), "wall_s": seconds}


class Resnet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, 32), conv(32, 64), nn.MaxPool2d(2), Residual(64),
            conv(64, 128), nn.MaxPool2d(2), conv(128, 256), nn.MaxPool2d(2), Residual(256),
            nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.125 * self.body(x)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.both = nn.Sequential(conv(width, width), conv(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.both(x)


def conv(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())


def pictures(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels centred on 0 [N, 3, 32, 32], and class numbers."""
    files = sorted(folder.glob("*/*.jpg"))
    names = sorted({file.parent.name for file in files})
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) * 4
    return x, torch.tensor([names.index(file.parent.name) for file in files])


def shifted(x: torch.Tensor) -> torch.Tensor:
    """Each picture mirrored half of the time and moved by up to 4 pixels, edges reflected; channels last."""
    mirrored = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    padded = F.pad(mirrored, (4, 4, 4, 4), mode="reflect").permute(0, 2, 3, 1)
    down, right = torch.randint(0, 9, (2, len(x), 1)) + torch.arange(32)
    picture = torch.arange(len(x))[:, None, None]
    return padded[picture, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


if __name__ == "__main__":
    name, place, limit = sys.argv[1:]
    print(json.dumps({"small_resnet": small_resnet}[name](Path(place), seconds=float(limit))))
