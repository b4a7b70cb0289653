"""The corpus of the control nanoGPT (github.com/karpathy/nanoGPT)."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np


def write_nanogpt_corpus(folder: Path, *, text: str, cut: int) -> None:
    """Letters as nanoGPT's train.py reads them; without meta.pkl it would train GPT-2's 50,304 tokens."""
    letters = sorted(set(text))
    number = {letter: index for index, letter in enumerate(letters)}
    ids = np.array([number[letter] for letter in text], np.uint16)
    folder.mkdir(parents=True)
    ids[:cut].tofile(folder / "train.bin")
    ids[cut:].tofile(folder / "val.bin")
    meta = {"vocab_size": len(letters), "stoi": number, "itos": dict(enumerate(letters))}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
