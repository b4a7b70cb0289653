"""Tokens a second, MFU and memory of Llama-shaped models on one GPU: format, compile, recompute, optimiser.

    python benchmarks/train_gpu.py [--case llama1b llama8b] [--subject NAME ...] [--json] [--quick]

Random tokens, the model, head, loss and optimiser of `rsc train`, one process; weights, gradients and moments
are bf16, so that 8 B parameters fit one card (a run on several cards keeps parts of them, in float32).
MFU counts 6 FLOPs per parameter and token (embedding rows left out, the head counted) plus 6 x layers x width
x length for causal attention, over the card's dense bf16 peak, which is the denominator for float8 too; what
recompute does twice counts once. `documents` is bf16 with two documents in each sequence, which takes a mask.
A subject that does not fit is named under "skipped", as is everything where there is no GPU; `--case tiny
--device cpu` tries the benchmark itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from harness import Options, Report, main

from rsc.errors import ConfigError
from rsc.models.build import Model, build_model
from rsc.models.config import ModelConfig
from rsc.models.heads import Want
from rsc.parallel.float8 import use_float8
from rsc.parallel.recompute import recompute
from rsc.recipes.recipe import load_recipe
from rsc.recipes.sections import OptimizerConfig
from rsc.train.engine.optimizers import build_optimizer

# Dense bf16 peaks in FLOP/s, vendor data sheets (NVIDIA A100, H100, H200, B200); SXM figures but for the two.
PEAKS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}
WARM_UP = 3  # steps: the first compiles, the second finds the optimiser's state made


@dataclass(frozen=True)
class Case:
    recipe: str
    length: int
    batch: int
    settings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    float8: bool = False
    compile: bool = True
    recompute: Literal["none", "selective", "full"] = "none"
    optimizer: Literal["adamw", "muon"] = "adamw"
    documents: int = 1


SMALL = ("model.trunk.width=96", "model.trunk.num_layers=2", "model.trunk.mlp_width=128")
CASES = {
    "llama1b": Case("llama-1b", 4096, 8),
    "llama8b": Case("llama-8b", 4096, 1),
    "tiny": Case("llama-10m", 64, 2, settings=SMALL),
}
SUBJECTS = {
    "bf16": Subject(),
    "bf16_eager": Subject(compile=False),
    "bf16_selective": Subject(recompute="selective"),
    "bf16_full": Subject(recompute="full"),
    "bf16_muon": Subject(optimizer="muon"),
    "bf16_documents": Subject(documents=2),
    "float8": Subject(float8=True),
    "float8_selective": Subject(float8=True, recompute="selective"),
}


@dataclass(frozen=True)
class Measured:
    seconds: list[float]
    """Of whole steps, warm."""
    first_s: float
    """The first step, with its compiling."""
    peak_bytes: int
    losses: list[float]


def measure(options: Options) -> Report:
    report = Report()
    device = torch.device(options.arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        report.skip("rsc", reason="no GPU")
        return report
    card = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU: the figures mean nothing"
    report.notes.append(f"{card}, torch {torch.__version__}")
    for name in options.arguments.case:
        case, config = CASES[name], model_config(CASES[name])
        for subject in options.arguments.subject:
            try:
                found = train(
                    case, config=config, subject=SUBJECTS[subject], device=device, steps=options.runs
                )
            except (torch.OutOfMemoryError, ConfigError) as error:
                report.skip(f"{name} {subject}", reason=str(error).splitlines()[0])
                continue
            finally:
                forget(device)
            add(report, name, subject=subject, found=found, peak=peak_of(card))
    return report


def add(report: Report, name: str, *, subject: str, found: Measured, peak: float | None) -> None:
    case = CASES[name]
    rates = [case.batch * case.length / s for s in found.seconds]
    report.add(name, metric="tokens_per_s", subject=subject, values=rates)
    if peak is not None:
        flops = flops_per_token(model_config(case), length=case.length)
        report.add(name, metric="mfu", subject=subject, values=[rate * flops / peak for rate in rates])
    report.add(name, metric="peak_gib", subject=subject, values=[found.peak_bytes / 2**30])
    report.add(name, metric="first_step_s", subject=subject, values=[found.first_s])
    report.add(name, metric="loss", subject=subject, values=found.losses[-1:])


def train(case: Case, *, config: ModelConfig, subject: Subject, device: torch.device, steps: int) -> Measured:
    """Whole steps on the same tokens: forward, backward, clipping, update."""
    model = placed_model(config, subject=subject, device=device)
    optimizer = build_optimizer(model, config=OptimizerConfig(name=subject.optimizer))
    batch = batch_of(case, config=config, documents=subject.documents, device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    timed = list(timed_steps(model, optimizer, batch=batch, count=WARM_UP + steps))
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    seconds, losses = zip(*timed, strict=True)
    return Measured(list(seconds[WARM_UP:]), seconds[0], peak, list(losses))


def timed_steps(
    model: Model, optimizer: torch.optim.Optimizer, *, batch: dict[str, torch.Tensor], count: int
) -> Iterator[tuple[float, float]]:
    """Seconds and loss of each step; the loss is read after the clock has stopped."""
    for _ in range(count):
        wait_for(batch["tokens_BL"].device)
        start = time.perf_counter()
        optimizer.zero_grad()
        outputs = model(batch, Want.LOSS)
        mean = outputs["total"] / outputs["count"]
        mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        wait_for(batch["tokens_BL"].device)
        yield time.perf_counter() - start, float(mean.detach())


def batch_of(case: Case, *, config: ModelConfig, documents: int, device: torch.device) -> dict[str, Any]:
    assert config.text is not None, "every case reads text"
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.length + 1)
    tokens = torch.randint(0, config.text.vocabulary, shape, generator=generator).to(device)
    batch = {"tokens_BL": tokens[:, :-1].contiguous(), "targets_BL": tokens[:, 1:].contiguous()}
    if documents > 1:
        ids = torch.arange(case.length, device=device) * documents // case.length
        batch["document_ids_BL"] = ids.expand(case.batch, -1).contiguous()
    return batch


def model_config(case: Case) -> ModelConfig:
    settings = ["data.name=none", "model.text.tokenizer=bytes", *case.settings]
    return load_recipe(case.recipe, overrides=settings).recipe.model


def placed_model(config: ModelConfig, *, subject: Subject, device: torch.device) -> Model:
    """In bf16, filled on the device; then what a recipe's settings would do to it, in the engine's order."""
    model = build_model(config, device="meta").to(torch.bfloat16).to_empty(device=device)
    fill(model)
    units = model.placement_plan().units
    if subject.float8:
        use_float8(model, units=units, device=device)
    recompute(model, units=units, mode=subject.recompute)
    if subject.compile:
        for block in model.trunk.blocks.values():
            block.compile()
    return model


@torch.no_grad()
def fill(model: Model) -> None:
    """Values of the right size; `initialise` draws on the CPU, minutes for 8 B."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.02) if parameter.ndim > 1 else parameter.fill_(1.0)
    for buffer in model.buffers():
        buffer.zero_()


def flops_per_token(config: ModelConfig, *, length: int) -> float:
    assert config.text is not None
    model = build_model(config, device="meta")
    table = config.text.rows * config.trunk.width
    weights = sum(parameter.numel() for parameter in model.parameters()) - table
    attention = config.trunk.num_layers * config.trunk.num_heads * config.trunk.head_features * length
    return 6 * weights + 6 * attention


def peak_of(card: str) -> float | None:
    return next((peak for name, peak in PEAKS.items() if name in card), None)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def forget(device: torch.device) -> None:
    """Nothing of one subject stays for the next: neither its memory nor its compiled blocks."""
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    real = [name for name in CASES if name != "tiny"]
    parser.add_argument("--case", nargs="*", choices=list(CASES), default=real)
    parser.add_argument("--subject", nargs="*", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")


if __name__ == "__main__":
    main(__doc__ or "", measure, default_runs=10, add_arguments=add_arguments)
