"""What a recipe leaves open, decided once and written down: a resumed run must not choose anew. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rsc.layers import Resolved
from rsc.models.config import TOKENIZER_FILE
from rsc.recipes.recipe import Recipe


def pin(
    resolved: Resolved, *, versions: Mapping[str, int], workers: int, tokenizer_sha256: str = ""
) -> Resolved:
    """The settings with the versions of the data, the number of workers and the content of the tokenizer's
    file, of which the run keeps a copy beside its settings."""
    data = resolved.values["data"]
    data = {**data, "version": versions[data["name"]]}
    if data.get("mix_with"):
        data["mix_with"] = [{**each, "version": versions[each["name"]]} for each in data["mix_with"]]
    values = {
        **resolved.values,
        "data": data,
        "parallel": {**resolved.values["parallel"], "workers": workers},
    }
    chosen = {"data.version": "newest approved", "parallel.workers": "this machine"}
    if tokenizer_sha256:
        model = resolved.values["model"]
        text = {**model["text"], "tokenizer": TOKENIZER_FILE, "tokenizer_sha256": tokenizer_sha256}
        values["model"] = {**model, "text": text}
        chosen["model.text.tokenizer_sha256"] = "the file's content"
    kept = {
        key: origin for key, origin in resolved.provenance.items() if origin != "default" or key not in chosen
    }
    return Resolved(name=resolved.name, values=values, provenance={**chosen, **kept})


def count_workers(recipe: Recipe) -> int:
    """What the recipe says; else what its degrees multiply to; else one per GPU, or one for the whole CPU.

    Two ranks on two cores spend on exchanging weights what one process with two threads computes with:
    1.3 times more tokens a second in one process (10 M parameters, benchmarks/train_cpu.py).
    """
    parallel = recipe.parallel
    if parallel.workers:
        return parallel.workers
    others = parallel.dp_replicate * parallel.cp * parallel.tp * parallel.pp
    if parallel.dp_shard or others > 1:
        return others * max(1, parallel.dp_shard)
    return len(list(Path("/dev").glob("nvidia[0-9]*"))) or 1
