"""A tokenizer goes with the data, the run and the export: no later step depends on the file it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import TINY, Rsc, write_posts

MODEL = ["model.trunk.num_kv_heads=2"]


@pytest.fixture
def posts(rsc: Rsc, tmp_path: Path) -> Path:
    """Posts stored as ids; the path of their tokenizer."""
    path = tmp_path / "bpe.json"
    source = str(write_posts(tmp_path / "posts.jsonl"))
    rsc("data", "import", source, "--name", "posts", f"tokenizer={path}", "vocabulary=300")
    rsc("data", "approve", "posts", "--note", "a test")
    return path


def test_from_ids_to_an_export_that_was_moved(rsc: Rsc, posts: Path, tmp_path: Path) -> None:
    refused = rsc("train", "llama-10m", "data.name=posts", *TINY, *MODEL, expect=2)
    assert "ids of a tokenizer" in refused.stderr
    hint = next(line for line in refused.stderr.splitlines() if line.startswith("hint: set "))
    settings = hint.removeprefix("hint: set ").split()

    run = Path(rsc.json("train", "llama-10m", "data.name=posts", *TINY, *MODEL, *settings)["path"])
    posts.write_text("another file is there by now")
    assert json.loads((run / "tokenizer.json").read_text())["model"]["type"] == "BPE"

    assert rsc.json("eval", run.name)["data"] == "posts"
    said = rsc.json("generate", run.name, "--prompt", "post number", "--temperature", "0", "--bytes", "5")
    out = tmp_path / "out"
    rsc("runs", "export", run.name, "--to", str(out))
    moved = out.rename(tmp_path / "moved")
    (run / "tokenizer.json").rename(run / "gone.json")
    assert (
        rsc.json("generate", str(moved), "--prompt", "post number", "--temperature", "0", "--bytes", "5")
        == said
    )
    (moved / "tokenizer.json").write_text((run / "gone.json").read_text().replace('"Ġ', '"X'))
    wrong = rsc("generate", str(moved), "--prompt", "post", expect=2)
    assert "is not the tokenizer of this model" in wrong.stderr
