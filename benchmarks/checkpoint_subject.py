"""One way to save a state of 64 float32 tensors, measured once: `checkpoint_subject.py SUBJECT MIB FOLDER`.

Prints {"held_s", "durable_s", "cpu_s"} of the third save: the first ones also allocate. `held_s` is how long
the training thread waits, `durable_s` how long until the bytes are safe, `cpu_s` what all threads used.
torch's own savers do not sync; as a checkpoint that is not synced is not one, `durable_s` has the fsync of
what they wrote in it.

Everybody keeps the last checkpoint until the new one is safe and deletes it then, not timed: overwriting in
place would reuse the page cache of the old one, and lose both in a crash.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch._C._distributed_c10d import HashStore

from rsc.checkpoint.commit_barrier import Meeting
from rsc.checkpoint.save import CheckpointWriter
from rsc.checkpoint.shards import Piece
from rsc.keys.secret import SecretKey
from rsc.parallel.boxes import Box
from rsc.store.bulk.local import LocalStore

NUM_TENSORS = 64
State = dict[str, torch.Tensor]
Seconds = tuple[float, float]
"""(held, durable)"""


def make_state(mib: int) -> State:
    numel = mib * (1 << 20) // 4 // NUM_TENSORS
    return {f"weight{number}": torch.full((numel,), float(number)) for number in range(NUM_TENSORS)}


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memcpy(state: State, folder: Path) -> Iterator[Seconds]:
    target = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    while True:
        held = timed(lambda: [target[name].copy_(tensor) for name, tensor in state.items()])
        yield held, float("nan")


def plain_fsync(state: State, folder: Path) -> Iterator[Seconds]:
    def write(path: Path) -> None:
        with path.open("wb", buffering=0) as file:
            for tensor in state.values():
                view = memoryview(tensor.numpy()).cast("B")
                for start in range(0, len(view), 1 << 20):
                    file.write(view[start : start + (1 << 20)])
            os.fsync(file.fileno())

    for path in new_paths(folder):
        spent = timed(lambda path=path: write(path))
        yield spent, spent


def torch_save(state: State, folder: Path) -> Iterator[Seconds]:
    for path in new_paths(folder):
        held = timed(lambda path=path: torch.save(state, path))
        yield held, held + timed(lambda: sync_all(folder))


def dcp_save(state: State, folder: Path) -> Iterator[Seconds]:
    alone()
    for path in new_paths(folder):
        held = timed(lambda path=path: dcp.save(state, checkpoint_id=path))
        yield held, held + timed(lambda: sync_all(folder))


def dcp_async(state: State, folder: Path) -> Iterator[Seconds]:
    alone()
    for path in new_paths(folder):
        start = time.perf_counter()
        future: Any = dcp.async_save(state, checkpoint_id=path)
        held = time.perf_counter() - start
        future.result()
        sync_all(folder)
        yield held, time.perf_counter() - start


def new_paths(folder: Path) -> Iterator[Path]:
    """A new name for each save; what the one before wrote goes when its turn is over."""
    for number in itertools.count():
        yield folder / f"save{number}"
        for old in folder.glob(f"save{number - 1}"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()


def rsc(state: State, folder: Path) -> Iterator[Seconds]:
    return saved_by_rsc(state, folder)


def rsc_sync(state: State, folder: Path) -> Iterator[Seconds]:
    """`checkpoint.asynchronous = false`: training waits until the state is durable."""
    return ((durable, durable) for _, durable in saved_by_rsc(state, folder))


def saved_by_rsc(state: State, folder: Path) -> Iterator[Seconds]:
    durable_at = [0.0]

    class Events:
        def append(self, kind: str, **facts: Any) -> None:
            assert kind == "checkpoint", facts
            durable_at[0] = time.perf_counter()

    pieces = [
        Piece(name, tuple(tensor.shape), Box((0,), tuple(tensor.shape)), tensor, is_ours=True)
        for name, tensor in state.items()
    ]
    writer = CheckpointWriter(
        LocalStore(folder),
        run="benchmark",
        key=SecretKey.generate(),
        rank=0,
        attempt="0",
        meeting=Meeting(HashStore(), world=1),
        events=Events(),
        keep=1,
    )
    step = 0
    while True:
        step += 1
        start = time.perf_counter()
        held = writer.save(step=step, pieces=pieces, state={})
        writer.wait()
        yield held, durable_at[0] - start


def alone() -> None:
    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)


def sync_all(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


SUBJECTS = {
    work.__name__: work for work in (rsc, rsc_sync, memcpy, plain_fsync, torch_save, dcp_save, dcp_async)
}


def main(subject: str, mib: int, folder: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(dir=folder) as own:
        saves = SUBJECTS[subject](make_state(mib), Path(own))
        next(saves)
        next(saves)
        os.sync()  # what earlier work left unwritten is not ours to pay for
        before_s = time.process_time()
        held, durable = next(saves)
        cpu_s = time.process_time() - before_s
    return {"held_s": held, "cpu_s": cpu_s, **({} if durable != durable else {"durable_s": durable})}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
