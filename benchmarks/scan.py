"""Scanning speed on dense and sparse text, and what is found of what was planted.

    python benchmarks/scan.py [--json] [--quick] [--runs N] [--corpus LABELLED.jsonl ...]

`dense` has about 3.5 planted values in 1,000 characters and look-alikes beside them, `sparse` 0.16. The unit
is MB of UTF-8 text per second of CPU time of one process, warm. Subjects: `rsc` (the fastest engine here),
`rsc_re2`, `rsc_re` (the other engines, same findings), `rsc_1_process` and `rsc_2_processes` (wall time of a
pool: their ratio is how it scales), and the
peers presidio (pattern recognisers, no model) and scrubadub where installed.

Recall and precision on planted text say that nothing broke; its author also wrote the rules. Figures that
mean something need a corpus of somebody else: --corpus adds a case named after the file (docs/review.md).
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path

from harness import Options, Report, alternate, main

from rsc.errors import ConfigError
from rsc.review.benchmark.score import Labelled, canonical_type, read_corpus, score
from rsc.review.benchmark.synthetic import planted_posts
from rsc.review.findings import Finding
from rsc.review.scanner.pool import ScanPool
from rsc.review.scanner.scanner import Scanner

CASES = {"dense": (0.225, 0.15), "sparse": (0.0095, 0.01)}
"""Shares of posts with planted values, and with look-alikes."""

_POSTS_PER_DOCUMENT = 20
ScanMany = Callable[[list[str]], list[list[Finding]]]


def measure(options: Options) -> Report:
    report = Report()
    characters = 200_000 if options.quick else 5_000_000
    corpora = {case: _planted(characters, shares=shares) for case, shares in CASES.items()}
    _add_stream(report, texts=[labelled.text for labelled in corpora["sparse"]])
    with ScanPool(1) as alone, ScanPool(2) as pool:
        subjects = _subjects(report, pool=pool)
        subjects["rsc_1_process"] = alone.scan_many
        for case, corpus in corpora.items():
            texts = [labelled.text for labelled in corpus]
            _report_density(report, case, corpus)
            rates = alternate(subjects, runs=options.runs, measure=partial(_rate, subjects, texts=texts))
            for subject, metrics in rates.items():
                for metric, values in metrics.items():
                    report.add(case, metric=metric, subject=subject, values=values)
        for path in options.arguments.corpus:
            corpora[path.stem] = list(read_corpus(path))
        for case, corpus in corpora.items():
            for subject in ("rsc", "presidio", "scrubadub"):
                if subject in subjects:
                    _add_quality(report, case, corpus, subject=subject, scan_many=subjects[subject])
    return report


def _planted(characters: int, *, shares: tuple[float, float]) -> list[Labelled]:
    """Documents of 20 posts, about 1,700 characters each."""
    documents: list[Labelled] = []
    size = 0
    posts = planted_posts(characters // 50, seed=1, planted_share=shares[0], lookalike_share=shares[1])
    while size < characters:
        text, spans = "", list[tuple[int, int, str]]()
        for post in islice(posts, _POSTS_PER_DOCUMENT):
            spans += [(start + len(text), end + len(text), name) for start, end, name in post.spans]
            text += post.text + "\n"
        documents.append(Labelled(text, tuple(spans)))
        size += len(text)
    return documents


def _report_density(report: Report, case: str, corpus: list[Labelled]) -> None:
    characters = sum(len(labelled.text) for labelled in corpus)
    planted = sum(len(labelled.spans) for labelled in corpus)
    density = f"{1000 * planted / characters:.2f} planted in 1,000"
    report.notes.append(f"{case}: {characters} characters in {len(corpus)} texts, {density}")


def _subjects(report: Report, *, pool: ScanPool) -> dict[str, ScanMany]:
    fastest = Scanner()
    subjects: dict[str, ScanMany] = {"rsc": fastest.scan_many}
    report.notes.append(f"rsc uses the engine {fastest.engine}")
    for engine in ("re2", "re"):
        try:
            subjects[f"rsc_{engine}"] = Scanner(engine).scan_many
        except ConfigError as error:
            report.skip(f"rsc_{engine}", reason=error.message)
    subjects["rsc_2_processes"] = pool.scan_many
    for peer, make in (("presidio", _presidio), ("scrubadub", _scrubadub)):
        if find_spec(peer if peer != "presidio" else "presidio_analyzer") is None:
            report.skip(peer, reason="not installed")
        else:
            subjects[peer] = make()
    return subjects


def _add_stream(report: Report, *, texts: list[str]) -> None:
    """How far memory grows while one stream is scanned after another of an eighth of its length."""
    scanner = Scanner()
    peaks = []
    for rounds in (1, 8):
        pieces = chain.from_iterable(texts for _ in range(rounds))
        found = sum(1 for _ in scanner.scan_stream(pieces))
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    size = 8 * sum(map(len, texts)) / 1e6
    report.add("stream", metric="rss_growth_mb", subject="rsc", values=[peaks[1] - peaks[0]])
    report.notes.append(f"stream: {size:.0f} MB with {found} findings, after one of an eighth")


def _rate(subjects: dict[str, ScanMany], subject: str, *, texts: list[str]) -> dict[str, float]:
    """MB/s over what fits three seconds. The workers' CPU time is not ours, so there wall time counts, after
    a round that reached all of them, and the texts go around until the time is up."""
    is_pool = subject in ("rsc_1_process", "rsc_2_processes")
    clock = time.perf_counter if is_pool else time.process_time
    metric = "mb_per_s" if is_pool else "mb_per_cpu_s"
    scan_many = subjects[subject]
    batch = len(texts) if is_pool else 500
    scan_many(texts if is_pool else texts[:200])  # numbering plans and automata are built on first use
    sizes = [len(text.encode()) for text in texts]
    started, size, place = clock(), 0, 0
    while place < len(texts) and clock() - started < 3:
        scan_many(texts[place : place + batch])
        size += sum(sizes[place : place + batch])
        place = 0 if is_pool else place + batch
    return {metric: size / (clock() - started) / 1e6}


def _add_quality(
    report: Report, case: str, corpus: list[Labelled], *, subject: str, scan_many: ScanMany
) -> None:
    if subject != "rsc":
        corpus = corpus[:2000]
    result = score(corpus, scan=lambda text: scan_many([text])[0])
    overall = result.overall
    rates = {"recall": overall.covered, "partial": overall.partial, "precision": overall.precision}
    for metric, rate in rates.items():
        if rate.value is not None:
            report.add(case, metric=metric, subject=subject, values=[rate.value])


def _presidio() -> ScanMany:
    from presidio_analyzer import RecognizerRegistry

    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    recognisers = [r for r in registry.recognizers if type(r).__name__ != "SpacyRecognizer"]

    def scan(text: str) -> list[Finding]:
        results = [found for r in recognisers for found in r.analyze(text, r.supported_entities, None) or ()]
        return [
            Finding(canonical_type(f.entity_type), f.start, f.end, "presidio") for f in results if f.score > 0
        ]

    return lambda texts: [scan(text) for text in texts]


def _scrubadub() -> ScanMany:
    import scrubadub

    scrubber = scrubadub.Scrubber()

    def scan(text: str) -> list[Finding]:
        return [Finding(canonical_type(f.type), f.beg, f.end, "scrubadub") for f in scrubber.iter_filth(text)]

    return lambda texts: [scan(text) for text in texts]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--corpus", type=Path, nargs="+", default=[], help="also score on these labelled corpora (JSON lines)"
    )


if __name__ == "__main__":
    main(__doc__.splitlines()[0], measure, add_arguments=_arguments)
