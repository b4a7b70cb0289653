"""Tokens a second and loss of a 10.6 M-parameter GPT on this CPU, beside its peers.

    python benchmarks/train_cpu.py [--nanogpt-dir PATH] [--json] [--quick] [--runs N]

6 layers, 384 wide, 6 heads, block 256, batch 16 of tinyshakespeare, the same optimiser settings for all.
`rsc` is the command a user types (`rsc train llama-10m`): encrypted data set, two worker processes with one
thread each, FSDP, loader, metrics; rates are those of its own metrics file. `nanogpt` is its unmodified
train.py (fp32: it ignores --dtype on a CPU), `hf_gpt2_bf16` the Hugging Face Trainer, `plain_bf16` a
textbook loop under autocast, both in one process with two threads. Rates leave the first steps out. The
loss is the mean of the last tenth of the steps. `matmuls_*` are the matrix products of a step alone, at the
rate they reach by themselves: the roofline.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness import Options, Report, alternate, main, run_worker

LAYERS, WIDTH, HEADS, BLOCK, BATCH = 6, 384, 6, 256, 16
RATE, WARMUP_STEPS, SKIPPED = 1e-3, 10, 5
TOKENS = BATCH * BLOCK
ROOT = Path(__file__).resolve().parent.parent


def measure(options: Options) -> Report:
    report = Report()
    steps = 25 if options.quick else 100
    text = corpus()
    with tempfile.TemporaryDirectory(prefix="rsc-bench-") as folder:
        place = Path(folder)
        (place / "corpus.txt").write_text(text)
        prepare_rsc(place)
        subjects = ["rsc", *peers(place, options, text, report)]
        found = alternate(
            subjects,
            runs=options.runs,
            measure=lambda subject: run_subject(subject, place=place, steps=steps),
        )
    for subject, metrics in found.items():
        for metric, values in metrics.items():
            report.add("gpt10m", metric=metric, subject=subject, values=values)
    roofline(report)
    return report


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
        report.skip("hf_gpt2_bf16", reason="pip install transformers accelerate")
    yield "plain_bf16"


def run_subject(subject: str, *, place: Path, steps: int) -> dict[str, float]:
    if subject == "rsc":
        return run_rsc(place, steps=steps)
    if subject == "nanogpt":
        return run_nanogpt(place, steps=steps)
    command = [sys.executable, __file__, "--worker", subject, str(place / "corpus.txt"), str(steps)]
    return run_worker(command, timeout_s=3600)


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


def run_rsc(place: Path, *, steps: int) -> dict[str, float]:
    settings = [f"train.steps={steps}", f"train.optimizer.learning_rate={RATE}"]
    settings += [f"train.optimizer.warmup_steps={WARMUP_STEPS}", "train.optimizer.schedule=constant"]
    run = json.loads(rsc(place, "train", "llama-10m", "data.name=corpus", *settings, "--json"))
    lines = (Path(run["path"]) / "metrics" / "rank0.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return figures([r["step_s"] for r in records], losses=[r["loss"] for r in records])


def figures(seconds: list[float], *, losses: list[float]) -> dict[str, float]:
    """Rate of the median step, and the loss at the end."""
    tail = losses[-max(1, len(losses) // 10) :]
    return {
        "tokens_per_s": TOKENS / statistics.median(seconds[SKIPPED:]),
        "loss": statistics.fmean(tail),
    }


def prepare_nanogpt(place: Path, *, source: Path, text: str) -> None:
    """A copy of the folder with the corpus in the form its train.py reads."""
    shutil.copytree(source, place / "nanogpt", ignore=shutil.ignore_patterns(".git", "assets"))
    data = place / "nanogpt" / "data" / "corpus"
    data.mkdir(parents=True)
    letters = sorted(set(text))
    number = {letter: index for index, letter in enumerate(letters)}
    ids = np.array([number[letter] for letter in text], np.uint16)
    cut = int(0.9 * len(ids))
    ids[:cut].tofile(data / "train.bin")
    ids[cut:].tofile(data / "val.bin")
    meta = {"vocab_size": len(letters), "stoi": number, "itos": dict(enumerate(letters))}
    (data / "meta.pkl").write_bytes(pickle.dumps(meta))


def run_nanogpt(place: Path, *, steps: int) -> dict[str, float]:
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
    return figures([float(ms) / 1000 for _, ms in found], losses=[float(loss) for loss, _ in found])


def work(subject: str, corpus_file: str, steps: int) -> None:
    """In a process of its own: train a peer and print its figures."""
    data = np.frombuffer(Path(corpus_file).read_bytes(), np.uint8)
    train = {"plain_bf16": train_plain, "hf_gpt2_bf16": train_hf}[subject]
    seconds, losses = train(data, steps=steps)
    print(json.dumps(figures(seconds, losses=losses)))


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
    for name, dtype in (("matmuls_fp32", torch.float32), ("matmuls_bf16", torch.bfloat16)):
        seconds = []
        for _ in range(5):
            total = 0.0
            for rows, columns in shapes:
                x, w = torch.ones(TOKENS, columns, dtype=dtype), torch.ones(rows, columns, dtype=dtype)
                y = x @ w.T
                start = time.perf_counter()
                torch.matmul(x, w.T, out=y)
                torch.matmul(y, w, out=x)
                torch.matmul(y.T, x, out=w)
                total += time.perf_counter() - start
            seconds.append(LAYERS * total)
        report.add(
            "gpt10m", metric="roofline_tokens_per_s", subject=name, values=[TOKENS / s for s in seconds]
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--nanogpt-dir", type=Path, help="a clone of github.com/karpathy/nanoGPT")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(__doc__ or "", measure, default_runs=3, add_arguments=add_arguments)
