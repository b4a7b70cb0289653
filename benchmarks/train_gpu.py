"""Tokens a second and MFU of Llama-shaped models on one GPU, bf16 and float8, compiled per block.

    python benchmarks/train_gpu.py [--case llama1b llama8b] [--precision bf16 float8] [--json] [--quick]

Random tokens, the model, head, loss and optimiser of `rsc train`, one process. MFU counts 6 FLOPs per
parameter and token (embedding rows left out, the head counted) plus 6 x layers x width x length for causal
attention, over the card's dense bf16 peak, which is the denominator for float8 too. A case that does not
fit the card's memory is named under "skipped", as is everything where there is no GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import torch
from harness import Options, Report, main

from rsc.models.build import Model, build_model, initialise
from rsc.models.heads import Want
from rsc.train.config import OptimizerConfig
from rsc.train.optim import build_optimizer
from rsc.train.recipe import load_recipe

# Dense bf16 peaks in FLOP/s, vendor data sheets (NVIDIA A100, H100, H200, B200); SXM figures.
PEAKS = {"A100": 312e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}


@dataclass(frozen=True)
class Case:
    recipe: str
    length: int
    batch: int


CASES = {"llama1b": Case("llama-1b", 4096, 8), "llama8b": Case("llama-8b", 4096, 1)}


def measure(options: Options) -> Report:
    report = Report()
    if not torch.cuda.is_available():
        report.skip("rsc", reason="no GPU")
        return report
    report.notes.append(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    for name in options.arguments.case:
        for precision in options.arguments.precision:
            subject = f"rsc_{precision}"
            try:
                seconds = step_seconds(CASES[name], precision=precision, options=options)
            except (torch.OutOfMemoryError, ImportError) as error:
                report.skip(f"{name} {subject}", reason=str(error).splitlines()[0])
                continue
            case = CASES[name]
            rates = [case.batch * case.length / s for s in seconds]
            report.add(name, metric="tokens_per_s", subject=subject, values=rates)
            peak = peak_of(torch.cuda.get_device_name())
            if peak:
                shares = [rate * flops_per_token(case) / peak for rate in rates]
                report.add(name, metric="mfu", subject=subject, values=shares)
    return report


def step_seconds(case: Case, *, precision: str, options: Options) -> list[float]:
    """Seconds of whole steps: forward, backward, clipping, AdamW on weights held in bf16."""
    model = gpu_model(case, precision=precision)
    optimizer = build_optimizer(model, config=OptimizerConfig())
    shape = (case.batch, case.length + 1)
    tokens = torch.randint(0, 100_000, shape, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
    batch = {"tokens_BL": tokens[:, :-1], "targets_BL": tokens[:, 1:].contiguous()}
    seconds = []
    for _ in range(3 + options.runs):
        torch.cuda.synchronize()
        start = time.perf_counter()
        optimizer.zero_grad()
        outputs = model(batch, Want.LOSS)
        (outputs["total"] / outputs["count"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    del model, optimizer
    torch.cuda.empty_cache()
    assert statistics.median(seconds[3:]) > 0
    return seconds[3:]


def gpu_model(case: Case, *, precision: str) -> Model:
    settings = ["data.name=none", "model.text.tokenizer=bytes"]
    config = load_recipe(case.recipe, overrides=settings).recipe.model
    model = build_model(config, device="meta").to(torch.bfloat16).to_empty(device="cuda")
    initialise(model, seed=0)
    if precision == "float8":
        from torchao.float8 import convert_to_float8_training

        convert_to_float8_training(model, module_filter_fn=lambda _, name: "trunk.blocks" in name)
    for number, block in model.trunk.blocks.items():
        model.trunk.blocks[number] = torch.compile(block)
    return model


def flops_per_token(case: Case) -> float:
    config = load_recipe(case.recipe, overrides=["data.name=none"]).recipe.model
    assert config.text is not None
    model = build_model(config, device="meta")
    table = config.text.rows * config.trunk.width
    weights = sum(parameter.numel() for parameter in model.parameters()) - table
    attention = config.trunk.num_layers * config.trunk.num_heads * config.trunk.head_features * case.length
    return 6 * weights + 6 * attention


def peak_of(name: str) -> float | None:
    return next((peak for card, peak in PEAKS.items() if card in name), None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--case", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--precision", nargs="*", choices=["bf16", "float8"], default=["bf16", "float8"])


if __name__ == "__main__":
    main(__doc__ or "", measure, default_runs=10, add_arguments=add_arguments)
