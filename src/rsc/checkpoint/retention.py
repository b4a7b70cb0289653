"""Which checkpoints stay: the newest `keep`, and for good those at multiples of `keep_every`."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rsc.checkpoint.names import ROOT_FILE, folder_name, step_of
from rsc.checkpoint.read_counts import CheckpointFiles
from rsc.store.bulk.interface import BulkStore


def finished(store: CheckpointFiles) -> list[int]:
    """Steps of committed checkpoints, oldest first."""
    steps = ((name, step_of(name)) for name in store.children(""))
    return sorted(step for name, step in steps if step is not None and ROOT_FILE in store.children(name))


def to_delete(steps: Iterable[int], *, keep: int, keep_every: int) -> list[int]:
    """The steps that retention gives up. The newest is always kept."""
    ordered = sorted(steps)
    return [step for step in ordered[: -max(1, keep)] if not keep_every or step % keep_every]


def prune(store: BulkStore, *, keep: int, keep_every: int, besides: Collection[int] = ()) -> list[int]:
    """Delete what retention gives up; returns those steps. The root goes first, so none is half there.

    Steps `besides` stay and count for nothing: a damaged one must not push out the good one before it.
    """
    counted = [step for step in finished(store) if step not in besides]
    gone = to_delete(counted, keep=keep, keep_every=keep_every)
    for step in gone:
        store.delete(f"{folder_name(step)}/{ROOT_FILE}")
        store.delete_folder(folder_name(step))
    return gone


def remove_leftovers(store: BulkStore) -> None:
    """Delete what a killed writer left without a root. Only while nobody writes."""
    done = {folder_name(step) for step in finished(store)}
    for name in store.children(""):
        if name not in done:
            store.delete_folder(name)
