"""Names in a folder of checkpoints. No torch here: the controller copies checkpoints and knows no tensor."""

from __future__ import annotations

import re

ROOT_FILE = "root.rsc"
_STEP = re.compile(r"step-([0-9]{8,16})")
_RANK_FILE = re.compile(r"rank-[0-9]{4,9}-[0-9A-Za-z.-]{1,80}\.rsc")


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def step_of(folder: str) -> int | None:
    """None for a folder that holds no checkpoint."""
    found = _STEP.fullmatch(folder)
    return int(found[1]) if found else None


def is_checkpoint_file(name: str) -> bool:
    """Whether a writer of checkpoints gives files such a name."""
    return name == ROOT_FILE or _RANK_FILE.fullmatch(name) is not None


def rank_file(rank: int, *, attempt: str) -> str:
    return f"rank-{rank:04d}-{attempt}.rsc"
