"""Bytes of source that an import brings in per CPU second of the whole process tree, without scanning.

    python benchmarks/import.py [--json] [--quick]

Each measurement is a process of its own that imports into an empty workspace: read or take, encode, encrypt,
write, fsync, publish. CPU seconds are user and system time of that process and its children, without the
interpreter's start and imports. The corpora are made from a seed.

    arrays   uint16 tokens in samples of 1024, through `import_columns`, 64 MiB a batch
    jsonl    documents of 1 to 8 KiB of words, one object a line, with an id; one process
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import harness
import numpy as np

_TOKENS_PER_SAMPLE = 1024
_BATCH_SAMPLES = (64 << 20) // (2 * _TOKENS_PER_SAMPLE)
_SIZES = {"arrays": (1 << 30, 256 << 20), "jsonl": (256 << 20, 64 << 20)}  # bytes, and with --quick
_SEED = 1


def measure(options: harness.Options) -> harness.Report:
    report = harness.Report()
    for case in _SIZES:
        with tempfile.TemporaryDirectory(prefix="rsc-import-") as folder:
            if case == "jsonl":
                _write_documents(Path(folder) / "documents.jsonl", size_bytes=_size(case, options.quick))
            command = [sys.executable, __file__, "--worker", case, folder, str(_size(case, options.quick))]
            found = [harness.run_worker(command, timeout_s=300)["mb_per_cpu_s"] for _ in range(options.runs)]
        report.add(case, metric="mb_per_cpu_s", subject="rsc", values=found)
    report.notes.append(
        "without scanning; `benchmarks/scan.py` measures the scanner, which is the slower step"
    )
    return report


def _size(case: str, quick: bool) -> int:
    return _SIZES[case][quick]


def _worker(case: str, folder: Path, size_bytes: int) -> dict[str, float]:
    """One import into a new workspace. The policy names a safeguard, because nothing is scanned."""
    from rsc.config import Workspace
    from rsc.ingest.config import ImportOptions
    from rsc.ingest.importer import import_columns, import_source
    from rsc.review.policy import default_policy, policy_to_toml

    root = folder / "home"
    root.mkdir()
    rules = default_policy(single_person=True).model_copy(update={"safeguard": "made from a seed"})
    call: dict[str, Any] = {
        "name": case,
        "workspace": Workspace(root),
        "policy": policy_to_toml(rules),
        "author": "benchmark",
        "options": ImportOptions(scan=False, holdout=0.0),
    }
    import_columns({"tokens": np.zeros((1, 1), np.uint16)}, **{**call, "name": "warm"})  # imports modules
    batches = list(_token_batches(size_bytes)) if case == "arrays" else []
    before_s = _cpu_s()
    if case == "arrays":
        result = import_columns(batches, **call)
        size_bytes = sum(batch["tokens"].nbytes for batch in batches)
    else:
        result = import_source(folder / "documents.jsonl", **call)
        size_bytes = result.source_bytes
    spent_s = _cpu_s() - before_s
    shutil.rmtree(root)
    return {"mb_per_cpu_s": size_bytes / 1e6 / spent_s, "records": result.num_read}


def _cpu_s() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _token_batches(size_bytes: int) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(_SEED)
    for _ in range(size_bytes // (2 * _TOKENS_PER_SAMPLE * _BATCH_SAMPLES)):
        shape = (_BATCH_SAMPLES, _TOKENS_PER_SAMPLE)
        yield {"tokens": rng.integers(0, 50_000, size=shape, dtype=np.uint16)}


def _write_documents(path: Path, *, size_bytes: int) -> None:
    """Words of a vocabulary with Zipf's frequencies, so that text has the look of text."""
    rng = np.random.default_rng(_SEED)
    words = [
        "".join(map(chr, rng.integers(97, 123, size=length))) for length in rng.integers(2, 11, size=20_000)
    ]
    with path.open("w") as file:
        number = 0
        while file.tell() < size_bytes:
            picks = (rng.zipf(1.3, size=rng.integers(170, 1400)) - 1) % len(words)
            text = " ".join(words[pick] for pick in picks.tolist())
            file.write(json.dumps({"id": number, "text": text + "\n"}) + "\n")
            number += 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(_worker(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))))
    else:
        harness.main(__doc__ or "", measure)
