"""The courier copies the newest checkpoint, tells what fails, and waits for the last one at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from rsc.checkpoint.replicas import Copies
from rsc.control.checkpoint_copier import Courier
from rsc.errors import ResourceError
from rsc.events import EventLog, read_lines


class FakeCopies:
    """Answers each `push` as told; the first one waits until the test lets it go."""

    def __init__(self, answer: Callable[[int], bool] = lambda step: True) -> None:
        self._answer = answer
        self.pushed: list[int] = []
        self.is_pushing, self.may_go = threading.Event(), threading.Event()

    def push(self, step: int) -> bool:
        self.pushed.append(step)
        self.is_pushing.set()
        self.may_go.wait()
        return self._answer(step)


def courier(copies: FakeCopies, folder: Path, clock: Any, said: list[str]) -> Courier:
    events = EventLog(folder / "events.jsonl", clock=clock)
    return Courier(cast(Copies, copies), events=events, say=said.append)


def told(folder: Path) -> list[tuple[str, int]]:
    return [(event["kind"], event["step"]) for event in read_lines(folder / "events.jsonl")]


def courier_at_work(folder: Path, clock: Any) -> tuple[FakeCopies, Courier]:
    """It copies step 10 until `may_go`, and step 20 waits."""
    copies = FakeCopies()
    ours = courier(copies, folder, clock, [])
    ours.offer(10)
    copies.is_pushing.wait()
    ours.offer(20)
    return copies, ours


def test_what_waited_is_passed_over_for_the_newest(tmp_path: Path, clock: Any) -> None:
    copies, ours = courier_at_work(tmp_path, clock)
    ours.offer(30)
    copies.may_go.set()
    ours.close(finish=True)
    assert copies.pushed == [10, 30]
    assert told(tmp_path) == [("checkpoint_copied", 10), ("checkpoint_copied", 30)]


def test_an_end_in_a_hurry_drops_what_waits(tmp_path: Path, clock: Any) -> None:
    copies, ours = courier_at_work(tmp_path, clock)
    ours.close(finish=False)
    copies.may_go.set()
    ours.close(finish=True)
    assert copies.pushed == [10]


def fails(step: int) -> bool:
    raise ResourceError("the store does not answer")


def is_gone(step: int) -> bool:
    raise FileNotFoundError("retention took it")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (fails, "the store does not answer"),
        (lambda step: False, "another machine has committed this step of the run"),
        (is_gone, "checkpoint.keep took it before the store was ready: a newer one follows"),
    ],
    ids=["store fails", "another machine", "pruned"],
)
def test_a_copy_that_fails_is_told_and_the_next_is_tried(
    tmp_path: Path, clock: Any, answer: Callable[[int], bool], reason: str
) -> None:
    said: list[str] = []
    copies = FakeCopies(lambda step: step == 20 or answer(step))
    ours = courier(copies, tmp_path, clock, said)
    copies.may_go.set()
    ours.offer(10)
    copies.is_pushing.wait()
    ours.offer(20)
    ours.close(finish=True)
    assert said == [f"checkpoint of step 10 was not copied: {reason}"]
    assert told(tmp_path) == [("checkpoint_copy_failed", 10), ("checkpoint_copied", 20)]
