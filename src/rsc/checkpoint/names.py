"""Names in a folder of checkpoints. No torch here: the controller copies checkpoints and knows no tensor."""

from __future__ import annotations

ROOT_FILE = "root.rsc"


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: str) -> int:
    return int(folder.removeprefix("step-"))


def rank_file(rank: int, *, attempt: str) -> str:
    return f"rank-{rank:04d}-{attempt}.rsc"
