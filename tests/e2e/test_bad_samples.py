"""Bad samples in a folder of files, the whole way: counted and named, and training does not mind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.e2e.conftest import Rsc

SMALL = [
    "train.steps=2",
    "train.batch_size=8",
    "train.threads=1",
    "parallel.workers=1",
    "model.trunk.width=32",
    "model.trunk.num_layers=1",
    "model.trunk.num_heads=2",
    "model.trunk.mlp_width=32",
]

pytestmark = pytest.mark.slow


def bring(rsc: Rsc, source: Path, *settings: str) -> str:
    """Import and approve; returns what the import printed."""
    told = rsc("data", "import", str(source), *settings, "--name", source.stem, "--safeguard", "made up")
    rsc("data", "approve", source.stem, "--note", "made up")
    return told.stdout + told.stderr


def bad_of(rsc: Rsc, recipe: str, *settings: str, name: str) -> dict[str, int]:
    """What was counted as bad when the training split is read again after training."""
    run = rsc.json("train", recipe, f"data.name={name}", *SMALL, *settings)
    assert run["state"] == "finished"
    bad: dict[str, int] = rsc.json("eval", run["run"], "--split", "train")["details"]["bad"]
    return bad


def test_pictures(rsc: Rsc, tmp_path: Path) -> None:
    folder, generator = tmp_path / "pictures", np.random.default_rng(0)
    for kind in ("light", "dark", "unheard-of"):
        (folder / "train" / kind).mkdir(parents=True)
        for number in range(6 if kind != "unheard-of" else 1):
            pixels = generator.integers(0, 255, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "train" / kind / f"{number}.jpg")
    light = folder / "train" / "light"
    (light / "corrupt.jpg").write_bytes((light / "0.jpg").read_bytes()[:200])
    (light / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(light / "pixel.jpg")
    Image.new("CMYK", (30, 30)).save(light / "cmyk.jpg")
    told = bring(rsc, folder, "holdout=0")
    assert "2 x not a picture" in told
    assert "light/corrupt.jpg" in told
    labels = 'model.head.labels=["light", "dark"]'
    assert bad_of(rsc, "vision", labels, "model.image.conv_width=4", name="pictures") == {"label": 1}


def test_recordings(rsc: Rsc, tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    for kind, speed in (("low", 0.3), ("high", 1.2)):
        (folder / "train" / kind).mkdir(parents=True)
        for number in range(6):
            samples = 0.5 * np.sin(np.arange(4000) * speed).astype(np.float32)
            soundfile.write(folder / "train" / kind / f"{number}.wav", samples, 8000)
    low = folder / "train" / "low"
    soundfile.write(low / "stereo.wav", np.full((4000, 2), 0.1, np.float32), 8000)
    soundfile.write(low / "rate.wav", np.full(11025, 0.1, np.float32), 44100)
    soundfile.write(low / "long.wav", np.zeros(40000, np.float32), 8000)
    soundfile.write(low / "nan.wav", np.full(4000, np.nan, np.float32), 8000, subtype="FLOAT")
    soundfile.write(low / "none.wav", np.zeros(0, np.float32), 8000)
    (low / "broken.wav").write_bytes(b"RIFF1234WAVEjunk")
    told = bring(rsc, folder, "holdout=0")
    assert "1 x a sound of no length" in told
    assert "1 x not a sound file" in told
    labels = 'model.head.labels=["low", "high"]'
    assert bad_of(rsc, "speech", labels, name="sounds") == {"sound_cut": 1, "not_finite": 1}


def test_texts_and_a_class_without_samples(rsc: Rsc, tmp_path: Path) -> None:
    rows = [{"text": "a bad word", "class": "hate"}, {"text": "so so", "class": "offensive"}] * 8
    rows += [{"text": "", "class": "hate"}, {"text": "x" * 2000, "class": "hate"}]
    rows += [{"text": "odd", "class": "unheard-of"}]
    source = tmp_path / "posts.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    bring(rsc, source, "holdout=0")
    assert bad_of(rsc, "harmful-content", name="posts") == {"text_empty": 1, "text_cut": 1, "label": 1}


def test_a_shape_that_does_not_fit_is_told_before_the_first_step(rsc: Rsc, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    for kind in ("light", "dark"):
        (folder / kind).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / kind / f"{number}.png")
    bring(rsc, folder, "holdout=0", "image_size=16")
    labels = 'model.head.labels=["light", "dark"]'
    done = rsc("train", "vision", "data.name=tiles", labels, *SMALL, expect=2)
    assert "field image holds [16, 16, 3], the model wants [32, 32, 3]" in done.stderr
