"""Tokens a second, and loss by step and by time, of a 10.6 M-parameter GPT on this CPU, beside its peers.

    python benchmarks/train_cpu.py [--nanogpt-dir PATH] [--json] [--quick] [--runs N]

6 layers, 384 wide, 6 heads, block 256, batch 16 of tinyshakespeare, the same optimiser settings for all.
`rsc` is the command a user types (`rsc train llama-10m`): encrypted data set, loader, checkpoint; its
seconds are those of its own metrics file; `rsc_muon` is the same with that optimiser. `nanogpt` is its
unmodified train.py (fp32: it ignores --dtype on a CPU), `hf_gpt2_bf16` the Hugging Face Trainer (extra
`benchmarks`), `plain_bf16` a textbook loop under autocast. Each has a process of its own with all cores; they
take turns.

    tokens_per_s       of the median step, the first ones left out; ratio_to_X: over X in the same turn
    loss_after_N_steps, loss_after_S_s   mean of a tenth of the steps, up to that point; start-up not counted
    seconds_to_loss    until that mean is what nanoGPT (else the plain loop) has after its last step
    roofline           the step's matrix products alone, at the rate they reach by themselves, by direction
    share              where a step of rsc spends its time, by torch's profiler, one thread
"""

from __future__ import annotations

import argparse
import bisect
import importlib.util
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from harness import Options, Report, main, run_worker
from nanogpt import write_nanogpt_corpus

LAYERS, WIDTH, HEADS, BLOCK, BATCH = 6, 384, 6, 256, 16
RATE, WARMUP_STEPS, SKIPPED = 1e-3, 10, 5
TOKENS = BATCH * BLOCK
ROOT = Path(__file__).resolve().parent.parent
CASE = "gpt10m"


@dataclass(frozen=True)
class Curve:
    """One training: seconds and loss of each step."""

    seconds: list[float]
    losses: list[float]

    @property
    def tokens_per_s(self) -> float:
        return TOKENS / statistics.median(self.seconds[SKIPPED:])

    @property
    def total_s(self) -> float:
        return sum(self.seconds)

    def loss_after(self, steps: int) -> float:
        """Mean of the tenth of the run that ends there, at least 3 steps."""
        width = max(3, len(self.losses) // 10)
        return statistics.fmean(self.losses[max(0, steps - width) : steps])

    def steps_after(self, seconds: float) -> int:
        """Steps that were finished by then, at least 1."""
        return max(1, bisect.bisect_right(list(accumulate(self.seconds)), seconds))

    def seconds_to(self, loss: float) -> float | None:
        """Time of the first step with that loss; None where it was not reached."""
        ends_s = accumulate(self.seconds)
        return next((s for step, s in enumerate(ends_s, 1) if self.loss_after(step) <= loss), None)


def measure(options: Options) -> Report:
    report = Report()
    steps = 20 if options.quick else 60
    text = corpus()
    with tempfile.TemporaryDirectory(prefix="rsc-bench-") as folder:
        place = Path(folder)
        (place / "corpus.txt").write_text(text)
        prepare_rsc(place)
        subjects = ["rsc", "rsc_muon", *peers(place, options, text, report)]
        curves: dict[str, list[Curve]] = {subject: [] for subject in subjects}
        for _ in range(options.runs):
            for subject in subjects:
                curves[subject].append(run_subject(subject, place=place, steps=steps))
    add_rates(report, curves)
    add_losses(report, curves, steps=steps)
    roofline(report)
    shares = run_worker([sys.executable, __file__, "--worker", "shares", "", "3"], timeout_s=600)
    for part, share in shares.items():
        report.add(CASE, metric="share", subject=part, values=[share])
    return report


def add_rates(report: Report, curves: Mapping[str, list[Curve]]) -> None:
    rates = {subject: [curve.tokens_per_s for curve in found] for subject, found in curves.items()}
    for subject, values in rates.items():
        report.add(CASE, metric="tokens_per_s", subject=subject, values=values)
    for peer in rates.keys() - {"rsc", "rsc_muon"}:
        for subject in ("rsc", "rsc_muon"):
            ratios = [ours / theirs for ours, theirs in zip(rates[subject], rates[peer], strict=True)]
            report.add(CASE, metric=f"ratio_to_{peer}", subject=subject, values=ratios)


def add_losses(report: Report, curves: Mapping[str, list[Curve]], *, steps: int) -> None:
    """At equal steps, at equal time (all that the fastest run took), and the time to an equal loss."""
    equal_s = min(curve.total_s for found in curves.values() for curve in found)
    control = curves["nanogpt" if "nanogpt" in curves else "plain_bf16"]
    target = statistics.median(curve.loss_after(steps) for curve in control)
    report.notes.append(f"seconds_to_loss: {target:.3f}")
    for subject, found in curves.items():
        for mark in (steps // 4, steps // 2, steps):
            values = [curve.loss_after(mark) for curve in found]
            report.add(CASE, metric=f"loss_after_{mark}_steps", subject=subject, values=values)
        values = [curve.loss_after(curve.steps_after(equal_s)) for curve in found]
        report.add(CASE, metric=f"loss_after_{equal_s:.0f}_s", subject=subject, values=values)
        reached = [s for curve in found if (s := curve.seconds_to(target)) is not None]
        report.add(CASE, metric="seconds_to_loss", subject=subject, values=reached)


def corpus() -> str:
    """tinyshakespeare from the folder of real data, else Python's own documentation, said in the notes."""
    folder = Path(os.environ.get("RSC_TEST_DATA") or ROOT.parent / "shared" / "data")
    path = folder / "tinyshakespeare.txt"
    if path.exists():
        return path.read_text()
    from pydoc_data.topics import topics

    return "\n".join(topics.values())


def peers(place: Path, options: Options, text: str, report: Report) -> Iterator[str]:
    if options.arguments.nanogpt_dir:
        prepare_nanogpt(place, source=options.arguments.nanogpt_dir, text=text)
        yield "nanogpt"
    else:
        report.skip("nanogpt", reason="give its folder with --nanogpt-dir")
    if importlib.util.find_spec("accelerate") and importlib.util.find_spec("transformers"):
        yield "hf_gpt2_bf16"
    else:
        report.skip("hf_gpt2_bf16", reason="not installed: the extra `benchmarks`")
    yield "plain_bf16"


def run_subject(subject: str, *, place: Path, steps: int) -> Curve:
    if subject.startswith("rsc"):
        return run_rsc(place, steps=steps, optimizer="muon" if subject == "rsc_muon" else "adamw")
    if subject == "nanogpt":
        return run_nanogpt(place, steps=steps)
    command = [sys.executable, __file__, "--worker", subject, str(place / "corpus.txt"), str(steps)]
    return Curve(**run_worker(command, timeout_s=3600))


def prepare_rsc(place: Path) -> None:
    for arguments in (
        ["data", "import", str(place / "corpus.txt"), "--name", "corpus"],
        ["data", "approve", "corpus", "--note", "a public text"],
    ):
        rsc(place, *arguments)


def rsc(place: Path, *arguments: str) -> str:
    environment = {**os.environ, "RSC_HOME": str(place / "home")}
    command = [sys.executable, "-m", "rsc", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"rsc {' '.join(arguments)}: {done.stderr[-800:]}")
    return done.stdout


def run_rsc(place: Path, *, steps: int, optimizer: str) -> Curve:
    settings = [f"train.steps={steps}", f"train.optimizer.learning_rate={RATE}"]
    settings += [f"train.optimizer.warmup_steps={WARMUP_STEPS}", "train.optimizer.schedule=constant"]
    settings += [f"train.optimizer.name={optimizer}"]
    run = json.loads(rsc(place, "train", "llama-10m", "data.name=corpus", *settings, "--json"))
    lines = (Path(run["path"]) / "metrics" / "rank0.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return Curve([r["step_s"] for r in records], losses=[r["loss"] for r in records])


def prepare_nanogpt(place: Path, *, source: Path, text: str) -> None:
    """A copy of the folder with the corpus in the form its train.py reads."""
    shutil.copytree(source, place / "nanogpt", ignore=shutil.ignore_patterns(".git", "assets"))
    write_nanogpt_corpus(place / "nanogpt" / "data" / "corpus", text=text, cut=int(0.9 * len(text)))


def run_nanogpt(place: Path, *, steps: int) -> Curve:
    settings = {
        "device": "cpu", "compile": False, "dataset": "corpus", "eval_only": False, "eval_iters": 1,
        "eval_interval": 10**6, "log_interval": 1, "block_size": BLOCK, "batch_size": BATCH,
        "n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "max_iters": steps, "dropout": 0.0,
        "gradient_accumulation_steps": 1, "learning_rate": RATE, "decay_lr": False, "beta2": 0.95,
        "always_save_checkpoint": False, "out_dir": str(place / "nanogpt-out"),
    }  # fmt: skip
    command = [sys.executable, "train.py", *(f"--{name}={value}" for name, value in settings.items())]
    done = subprocess.run(command, cwd=place / "nanogpt", capture_output=True, text=True, check=False)
    found = re.findall(r"^iter \d+: loss ([\d.]+), time ([\d.]+)ms", done.stdout, re.MULTILINE)
    if done.returncode or not found:
        raise RuntimeError(f"nanogpt: {done.stderr[-800:]}")
    return Curve([float(ms) / 1000 for _, ms in found], losses=[float(loss) for loss, _ in found])


def work(subject: str, corpus_file: str, steps: int) -> None:
    """In a process of its own: train a peer and print its curve, or say where our step goes."""
    if subject == "shares":
        print(json.dumps(shares_of_step(steps)))
        return
    data = np.frombuffer(Path(corpus_file).read_bytes(), np.uint8)
    train = {"plain_bf16": train_plain, "hf_gpt2_bf16": train_hf}[subject]
    seconds, losses = train(data, steps=steps)
    print(json.dumps({"seconds": seconds, "losses": losses}))


def batches(data: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    generator = np.random.default_rng(0)
    while True:
        starts = generator.integers(0, len(data) - BLOCK - 1, BATCH)
        rows = np.stack([data[start : start + BLOCK + 1] for start in starts]).astype(np.int64)
        yield rows[:, :-1], rows[:, 1:]


def train_plain(data: np.ndarray, *, steps: int) -> tuple[list[float], list[float]]:
    """A GPT as a textbook writes it: LayerNorm, GELU, fused attention, autocast, AdamW."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            parts = self.qkv(self.first(x)).view(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(*parts, is_causal=True).transpose(1, 2).flatten(2)
            x = x + self.out(mixed)
            return x + self.down(F.gelu(self.up(self.second(x))))

    class Gpt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(256, WIDTH), nn.Embedding(BLOCK, WIDTH)
            self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
            self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 256, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.tokens(x) + self.places.weight[: x.shape[1]]
            return self.head(self.norm(self.blocks(hidden)))

    torch.manual_seed(0)
    model, seconds, losses = Gpt(), [], []
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * LAYERS) if "down" in name else 0.02)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    for step, (x, y) in zip(range(steps), batches(data), strict=False):
        start = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARMUP_STEPS)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(torch.from_numpy(x))
        loss = F.cross_entropy(logits.float().flatten(0, 1), torch.from_numpy(y).flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    return seconds, losses


def train_hf(data: np.ndarray, *, steps: int) -> tuple[list[float], list[float]]:
    """GPT-2 of the same size through the Hugging Face Trainer in bf16."""
    import torch
    import transformers

    class Rows(torch.utils.data.IterableDataset):
        def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
            for x, _ in batches(data):
                for row in x:
                    yield {"input_ids": torch.from_numpy(row), "labels": torch.from_numpy(row)}

    seconds: list[float] = []
    losses: list[float] = []

    class Watch(transformers.TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            self.start = time.perf_counter()

        def on_step_end(self, *_: object, **__: object) -> None:
            seconds.append(time.perf_counter() - self.start)

        def on_log(self, *_: object, logs: dict[str, float], **__: object) -> None:
            if "loss" in logs:
                losses.append(logs["loss"])

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=256, n_positions=BLOCK, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        settings = transformers.TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=BATCH, learning_rate=RATE, bf16=True,
            use_cpu=True, adam_beta2=0.95, weight_decay=0.1, warmup_steps=WARMUP_STEPS, logging_steps=1,
            lr_scheduler_type="constant_with_warmup", save_strategy="no", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        trainer = transformers.Trainer(
            transformers.GPT2LMHeadModel(config), settings, train_dataset=Rows(), callbacks=[Watch()]
        )
        trainer.train()
    return seconds, losses


def roofline(report: Report) -> None:
    """Rate of the step's matrix products alone, as tokens a second: what is left to gain."""
    import torch

    shapes = [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (1024, WIDTH), (1024, WIDTH), (WIDTH, 1024)]
    flops = 2 * LAYERS * TOKENS * sum(rows * columns for rows, columns in shapes)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        seconds = {"forward": 0.0, "inputs": 0.0, "weights": 0.0}
        for rows, columns in shapes:
            x, w = torch.ones(TOKENS, columns, dtype=dtype), torch.ones(rows, columns, dtype=dtype)
            y = x @ w.T
            seconds["forward"] += LAYERS * best_s(torch.matmul, x, w.T, out=y)
            seconds["inputs"] += LAYERS * best_s(torch.matmul, y, w, out=torch.empty_like(x))
            seconds["weights"] += LAYERS * best_s(torch.matmul, y.T, x, out=torch.empty_like(w))
        for direction, total_s in seconds.items():
            rate = flops / total_s / 1e9
            report.add(CASE, metric=f"{precision}_gflops", subject=f"matmul_{direction}", values=[rate])
        tokens_per_s = TOKENS / sum(seconds.values())
        report.add(
            CASE, metric="roofline_tokens_per_s", subject=f"matmuls_{precision}", values=[tokens_per_s]
        )


def best_s(product: Callable[..., object], *factors: object, out: object) -> float:
    """Seconds of the fastest of ten: a roof is not what a busy machine gives."""
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        product(*factors, out=out)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


# What torch's profiler calls the parts of a step, with everything below them; the rest of the step is
# elementwise work between them, the loader left out.
PARTS = {
    "attention": ("Attend", "AttendBackward"),
    "norms": ("RmsNorm", "RmsNormBackward"),
    "loss": ("_LinearCrossEntropy", "_LinearCrossEntropyBackward"),
    "optimiser": ("update",),
    "weight_copies": ("copies",),
}


def shares_of_step(steps: int) -> dict[str, float]:
    """Share of a step's time in each part, of `rsc`'s own engine and random tokens."""
    import torch
    import torch.distributed as dist
    from torch.profiler import ProfilerActivity, profile

    from rsc.parallel.mesh import build_mesh
    from rsc.recipes.recipe import load_recipe
    from rsc.train.allocator import keep_freed_memory
    from rsc.train.engine.engine import build_engine
    from rsc.train.engine.precision import choose_precision
    from rsc.train.engine.step import Stepper

    keep_freed_memory()
    torch.set_num_threads(1)
    recipe = load_recipe("llama-10m", overrides=["data.name=none"]).recipe
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = build_mesh(recipe.layout(world=1), rank=0, device=torch.device("cpu"))
    engine = build_engine(recipe, mesh=mesh, dtype=choose_precision().dtype)
    stepper = Stepper(engine, config=recipe.train.optimizer, steps=100)
    tokens = torch.randint(0, 256, (BATCH, BLOCK + 1), generator=torch.Generator().manual_seed(0))
    batch = {"tokens_BL": tokens[:, :-1].contiguous(), "targets_BL": tokens[:, 1:].contiguous()}
    for step in range(3):
        stepper.run(step, batches=[batch])
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for step in range(3, 3 + steps):
            stepper.run(step, batches=[batch])
    dist.destroy_process_group()
    totals = {event.key: event.cpu_time_total for event in profiler.key_averages()}
    own = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    totals["update"] = sum(us for key, us in totals.items() if key.startswith("Optimizer.step"))
    totals["copies"] = totals.get("aten::to", 0.0) + totals.get("ToCopyBackward0", 0.0)
    whole = sum(own.values())
    shares = {part: sum(totals.get(key, 0.0) for key in keys) / whole for part, keys in PARTS.items()}
    shares["matmul"] = own["aten::mm"] / whole
    return {part: round(share, 4) for part, share in shares.items()} | {
        "rest": round(1 - sum(shares.values()), 4)
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nanogpt-dir", type=Path, help="a clone of github.com/karpathy/nanoGPT")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(__doc__ or "", measure, default_runs=2, add_arguments=add_arguments)
