"""Scan on several processes. The findings are those of one `Scanner`, in the same order."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from multiprocessing import get_context
from types import TracebackType

from rsc.hardening import harden_process
from rsc.interrupts import deaf_children
from rsc.review.findings import Finding
from rsc.review.scanner.prefilter import compiled_for
from rsc.review.scanner.recogniser import Recogniser
from rsc.review.scanner.rules import ALL_RULES
from rsc.review.scanner.scanner import EngineName, Scanner

_BATCH_CHARACTERS = 1 << 19  # one task: sending it costs 0.3 ms and 0.5 ms a MB, scanning it 10 ms and more


class ScanPool:
    """Stands in for a `Scanner` where many texts are scanned; a context manager that ends its processes."""

    def __init__(self, processes: int, *, engine: EngineName = "auto") -> None:
        self.engine = engine
        self.rules = ALL_RULES
        self.recognisers: tuple[Recogniser, ...] = ()
        compiled = compiled_for(engine, rules=self.rules)
        self._executor = ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), initializer=_start, initargs=(engine, compiled)
        )
        with deaf_children():
            for _ in range(processes):
                self._executor.submit(_started)  # so that all start now, not one by one as batches come

    def __enter__(self) -> ScanPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(cancel_futures=True)

    def scan(self, text: str) -> list[Finding]:
        return self.scan_many([text])[0]

    def scan_many(self, texts: Sequence[str]) -> list[list[Finding]]:
        """Like `Scanner.scan_many`; a dead worker raises BrokenProcessPool, nothing is left out silently."""
        tasks = self._executor.map(_scan_batch, _batches(texts))
        return list(chain.from_iterable(tasks))


def _batches(texts: Sequence[str]) -> list[list[str]]:
    batches: list[list[str]] = []
    size = _BATCH_CHARACTERS
    for text in texts:
        if size >= _BATCH_CHARACTERS:
            batches.append([])
            size = 0
        batches[-1].append(text)
        size += len(text)
    return batches


_worker: list[Scanner] = []
"""The scanner of a worker process."""


def _start(engine: EngineName, compiled: tuple[bytes, ...]) -> None:
    harden_process()
    _worker.append(Scanner(engine, compiled=compiled))


def _started() -> None:
    """The first task of a worker."""


def _scan_batch(texts: list[str]) -> list[list[Finding]]:
    return _worker[0].scan_many(texts)
