"""`python tests/parallel/job.py CASES`: train the same tiny model on several meshes, print the losses.

One process imports torch and forks the ranks, so a case costs its steps and not its imports. CASES is a
JSON list of {name, world, parallel: {...}, train: {...}, moe, experts: {...}, domain, optimizer}; the
answer is {name: {losses, norms}}. A case with `relay` does its share of the steps and hands the state on
through checkpoints: {folder, start, stop}.
The control is a plain model in one process: no mesh, no FSDP, torch's own clipping.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from rsc.checkpoint.commit_barrier import Meeting
from rsc.checkpoint.load import Checkpoint, materialise
from rsc.checkpoint.save import CheckpointWriter
from rsc.checkpoint.shards import model_tensors
from rsc.keys.secret import SecretKey
from rsc.loader.ragged import RaggedTensor
from rsc.models.build import build_model
from rsc.models.moe import balance_experts
from rsc.parallel.mesh import build_mesh
from rsc.recipes.recipe import Recipe
from rsc.store.bulk.local import LocalStore
from rsc.train.batches.collate import Binder
from rsc.train.batches.data_counts import Counts, add_counts, fill_counts, fresh_counts
from rsc.train.batches.sample_seeds import Draws
from rsc.train.batches.streams import stream_seed
from rsc.train.engine.engine import Engine, build_engine
from rsc.train.engine.loss import loss_of
from rsc.train.engine.optimizers import build_optimizer, set_learning_rate
from rsc.train.engine.step import Stepper

STEPS = 5
LENGTH = 32
BATCH = 12  # divides by 2, 3 and 4 data-parallel ranks
Found = dict[str, list[float]]
"""`losses`, and `norms` of the gradients before clipping, by step."""
RELAY_KEY = bytes(range(32))


def recipe_of(case: dict[str, Any]) -> Recipe:
    domain = case.get("domain", "language")
    trunk: dict[str, Any] = {"width": 32, "num_layers": 4, "num_heads": 4, "num_kv_heads": 2, "mlp_width": 64}
    if case.get("moe"):
        trunk["moe"] = {"num_experts": 4, "top_k": 2, "expert_width": 32, "num_shared": 1}
        trunk["moe"] |= case.get("experts", {})
    trunk["causal"] = domain.startswith("language")
    return Recipe.model_validate(
        {
            "model": {"trunk": trunk, **DOMAINS[domain]},
            "data": {"name": "none", "sequence_length": LENGTH},
            "train": {
                "steps": STEPS,
                "batch_size": BATCH,
                "optimizer": {
                    "name": case.get("optimizer", "adamw"),
                    "learning_rate": 0.02,
                    "muon_learning_rate": 0.005,  # its matrices are made in bf16, so rounding shows sooner
                    "clip_norm": 0.5,
                    "epsilon": 1e-5,
                },
                **case.get("train", {}),
            },
            "parallel": case.get("parallel", {}),
        }
    )


AUDIO = {"sample_rate": 1000, "window_ms": 16, "hop_ms": 10, "num_mels": 8, "stack": 2, "max_seconds": 1}
DOMAINS: dict[str, dict[str, Any]] = {
    "language": {"text": {}, "head": {"kind": "next_token"}},
    "masked": {"text": {"max_length": 24}, "head": {"kind": "masked_token"}},
    "vision": {
        "image": {"height": 12, "width": 12, "style": "conv", "conv_width": 4},
        "head": {"kind": "classes", "labels": ("a", "b", "c")},
    },
    "speech": {"audio": AUDIO, "head": {"kind": "classes", "labels": ("a", "b", "c")}},
    "ctc": {"audio": AUDIO, "head": {"kind": "ctc", "labels": ("a", "b", "c"), "unit": "characters"}},
    "posts": {
        "text": {"max_length": 24, "ngrams": [2, 3], "ngram_rows": 64, "ngram_width": 8},
        "image": {"height": 12, "width": 12},
        "head": {"kind": "multi_label", "labels": ("a", "b", "c")},
    },
    "bag": {
        "text": {"max_length": 24},
        "bag": {"ngrams": [1, 2], "words": 1, "rows": 64, "min_texts": 1},
        "head": {"kind": "classes", "labels": ("a", "b", "c"), "balance": 0.5},
    },
    "language with drop": {"text": {"drop": 0.3}, "head": {"kind": "next_token"}},
    "crops": {
        "image": {"height": 16, "width": 16, "style": "conv", "conv_width": 4, "augment": "flip_crop"},
        "head": {"kind": "classes", "labels": ("a", "b", "c"), "dropout": 0.3},
    },
    "blanks": {
        "audio": {**AUDIO, "augment": "mask"},
        "head": {"kind": "classes", "labels": ("a", "b", "c"), "dropout": 0.3},
    },
    "pairs": {
        "text": {"max_length": 24},
        "image": {"height": 12, "width": 12},
        "head": {"kind": "contrastive", "projection": 16},
    },
}
"""Nine patches, texts of uneven length: a sequence that no axis divides, so that padding is tried too."""


def global_batch(step: int, domain: str) -> dict[str, Any]:
    """The whole batch of a step, as a loader gives it."""
    generator = torch.Generator().manual_seed(step)
    if domain.startswith("language"):
        return documents(generator)

    def draw(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=generator, dtype=dtype)

    side = DOMAINS[domain].get("image", {}).get("height", 12)
    return {
        "image": draw(0, 256, BATCH, side, side, 3, dtype=torch.uint8),
        "audio": ragged([draw(-9000, 9000, 400 + 37 * row, dtype=torch.int16) for row in range(BATCH)]),
        "text": ragged([draw(97, 123, 5 + row, dtype=torch.uint8) for row in range(BATCH)]),
        "label": labels(draw, domain),
    }


def documents(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Packed language: documents of uneven length, and some targets that do not count."""
    tokens = torch.randint(0, 257, (BATCH, LENGTH + 1), generator=generator)
    borders = torch.rand(BATCH, LENGTH, generator=generator) < 0.1
    targets = tokens[:, 1:].masked_fill(torch.rand(BATCH, LENGTH, generator=generator) < 0.2, -100)
    return {"tokens_BL": tokens[:, :-1], "targets_BL": targets, "document_ids_BL": borders.long().cumsum(1)}


def labels(draw: Callable[..., torch.Tensor], domain: str) -> Any:
    if domain == "ctc":
        return ragged([draw(97, 100, 3, dtype=torch.uint8) for _ in range(BATCH)])
    return draw(0, 2, BATCH, 3) if domain == "posts" else draw(0, 3, BATCH)


def ragged(samples: list[torch.Tensor]) -> RaggedTensor:
    offsets = torch.tensor([0, *accumulate(map(len, samples))])
    return RaggedTensor(values=torch.cat(samples), offsets=offsets)


def rows_of(batch: dict[str, Any], part: slice) -> dict[str, Any]:
    return {
        name: column.chosen(part) if isinstance(column, RaggedTensor) else column[part]
        for name, column in batch.items()
    }


def counts_of(case: dict[str, Any], *, recipe: Recipe) -> Counts:
    """What the head counts in its data before the first step, if it counts at all."""
    counts = fresh_counts(recipe.model)
    if counts:
        batch = Binder(recipe.model).bind(global_batch(0, case["domain"])).batch
        add_counts(counts, batch, config=recipe.model)
    return counts


def control(case: dict[str, Any]) -> Found:
    """One process, plain PyTorch."""
    recipe = recipe_of(case)
    model = build_model(recipe.model, seed=stream_seed(recipe.train.seed, "weights"))
    fill_counts([model], counts_of(case, recipe=recipe))
    optimizer = build_optimizer(model, config=recipe.train.optimizer, dtype=torch.float32)
    found: Found = {"losses": [], "norms": []}
    for step in range(STEPS):
        set_learning_rate(optimizer, step=step, steps=STEPS, config=recipe.train.optimizer)
        draws = Draws(stream_seed(recipe.train.seed, "step", step))
        record = loss_of(model, global_batch(step % 2, case.get("domain", "language")), draws=draws)
        loss = record.total / record.count
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.train.optimizer.clip_norm)
        optimizer.step()
        balance_experts(model, add_over_ranks=lambda tensor: None)
        found["losses"].append(loss.item())
        found["norms"].append(norm.item())
    return found


def on_mesh(case: dict[str, Any], *, rank: int, store: Any) -> Found:
    recipe = recipe_of(case)
    layout = recipe.layout(world=case["world"])
    device = torch.device("cpu")
    mesh = build_mesh(layout, rank=rank, device=device, has_experts=bool(case.get("moe")))
    dtype = torch.bfloat16 if recipe.train.precision in ("bf16", "float8") else torch.float32
    engine = build_engine(recipe, mesh=mesh, dtype=dtype)
    fill_counts(engine.placed.modules, counts_of(case, recipe=recipe))
    stepper = Stepper(engine, config=recipe.train.optimizer, steps=STEPS)
    size = BATCH // recipe.train.accumulate  # as a loader gives them: one piece of the step after the other
    parts = [slice(start + layout.dp_rank(rank), start + size, layout.dp) for start in range(0, BATCH, size)]
    relay = case.get("relay", {"start": 0, "stop": STEPS})
    if relay["start"]:
        take_over(engine, relay)
    found: Found = {"losses": [], "norms": []}
    for step in range(relay["start"], relay["stop"]):
        whole = global_batch(step % 2, case.get("domain", "language"))
        batches = [rows_of(whole, part) for part in parts]
        if case.get("validate"):
            total, count = engine.evaluate(batches[0], draws=engine.draws("validation"))
            assert (count > 0) == (total > 0)
        record = stepper.run(step, batches=batches)
        found["losses"].append(record.loss)
        found["norms"].append(record.grad_norm)
    if relay["stop"] < STEPS:
        hand_on(engine, relay, rank=rank, store=store)
    return found


def hand_on(engine: Engine, relay: dict[str, Any], *, rank: int, store: Any) -> None:
    """Write a checkpoint of this mesh."""
    writer = CheckpointWriter(
        LocalStore(Path(relay["folder"])),
        run="relay",
        key=SecretKey.from_buffer(bytearray(RELAY_KEY)),
        rank=rank,
        attempt=f"{relay['start']}",
        meeting=Meeting(store, world=dist.get_world_size()),
        events=Silent(),
        keep=9,
    )
    writer.save(step=relay["stop"], pieces=engine.pieces(), state={})
    writer.wait()
    dist.barrier()


def take_over(engine: Engine, relay: dict[str, Any]) -> None:
    """Read the checkpoint of another mesh."""
    key = SecretKey.from_buffer(bytearray(RELAY_KEY))
    checkpoint = Checkpoint(LocalStore(Path(relay["folder"])), step=relay["start"], run="relay", key=key)
    names = {tensor: name for name, tensor in model_tensors(engine.placed.modules)}
    materialise([engine.optimizer], names=names, shapes=checkpoint.shapes())
    checkpoint.read_into(engine.pieces())


class Silent:
    def append(self, kind: str, **facts: Any) -> None:
        assert kind == "checkpoint", facts


def rank_main(rank: int, world: int, port: int, cases: list[dict[str, Any]], answers: str) -> None:
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(100, exit=True)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = dist.TCPStore("127.0.0.1", port, world, rank == 0, wait_for_workers=False)
    timeout = timedelta(seconds=300)  # eight ranks may share two busy cores
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timeout)
    found = {case["name"]: on_mesh(case, rank=rank, store=store) for case in cases}
    Path(answers, f"{rank}.json").write_text(json.dumps(found))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_world(world: int, cases: list[dict[str, Any]]) -> list[dict[str, Found]]:
    """The losses and norms as every rank saw them."""
    with tempfile.TemporaryDirectory() as answers:
        mp.start_processes(
            rank_main, args=(world, free_port(), cases, answers), nprocs=world, start_method="fork", join=True
        )
        return [json.loads(Path(answers, f"{rank}.json").read_text()) for rank in range(world)]


def main(cases: list[dict[str, Any]]) -> dict[str, Any]:
    if any(case.get("train", {}).get("precision") == "float8" for case in cases):
        import_module("torchao.float8")  # once, and not by each rank
    result: dict[str, Any] = {}
    for world, group in groupby(cases, key=lambda case: case["world"]):
        ranks = run_world(world, list(group))
        for name in ranks[0]:
            result[name] = {**ranks[0][name], "agree": all(rank[name] == ranks[0][name] for rank in ranks)}
    torch.set_num_threads(1)
    for plain in {control_name(case): case for case in cases}.values():
        wanted = {name: plain[name] for name in ("domain", "moe", "experts", "optimizer") if name in plain}
        result[control_name(plain)] = {**control(wanted), "agree": True}
    return result


def control_name(case: dict[str, Any]) -> str:
    """Cases that must give the same losses."""
    parts = [case.get("domain", "language"), "moe" if case.get("moe") else "dense"]
    return " ".join(["control", *parts, *([case["optimizer"]] if "optimizer" in case else [])])


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
