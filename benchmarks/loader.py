"""Encrypted, shuffled batches against plaintext loaders, on the same samples, in the same call.

    python benchmarks/loader.py [--quick] [--json] [--cases tokens images text jpeg] [--peers-python PATH]

tokens: 1 GiB of uint16 in samples of 1024; images: 200,000 of 32x32x3 with a label; text: 200,000 documents
of 1 to 8 KiB; jpeg: the CIFAR-10 training images, decoded (skipped where the files are missing). Random
contents, batch 256, one process, files read once before: this measures loaders, not disks.

mb_per_cpu_s counts CPU seconds of the process and its children in the second and later of four epochs (of
peers, which run one, in that one), first_epoch_mb_per_cpu_s those of the first from opening on (imports
before), all_mb_per_cpu_s of all; subjects stop after 8 s. `memmap` is the plaintext control: whole batches
gathered in a full permutation. `rsc` reads data of the cipher that this machine would choose (`auto`),
`rsc_aes_256_gcm` and `rsc_aegis_256` that of one. Of documents, `rsc` and `memmap` deliver
values end to end with offsets, peers what their API gives. `rsc` has the default window of 32 MiB and fills
it in the caller's thread, `rsc_1_thread` and `rsc_2_threads` beside it; `rsc_8mib` has a smaller one.

`decrypt_only` (every frame once, into one buffer) and `gather_only` (batches out of a window in memory) are
the two parts that no encrypted loader can do without: `floor` is 1 / (1/decrypt + 1/gather).
times_memmap, times_litdata and times_floor are formed from the runs of one round each. frames_in_batch says
how many of the frames in written order a batch draws from. `rsc_far_4` and `rsc_far_16` read the tokens
through an empty node cache from storage of 100 ms latency and 50 MB/s a connection (simulated), over so many:
line_filled is their rate over what those carry at most, crossed_per_byte counts what crossed the line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import Options, Report, alternate, main, run_worker
from loader_subjects import CIPHERS, FAR_CONNECTIONS, SMALL_WINDOW_BYTES, Corpus, example_key, open_split

from rsc.loader.order import DEFAULT_WINDOW_BYTES
from rsc.loader.shuffle_quality import measure_shuffle

WORKER = Path(__file__).with_name("loader_subjects.py")
CASES = ("tokens", "images", "text", "jpeg")
WINDOWS = ("rsc", *CIPHERS, "rsc_1_thread", "rsc_2_threads", "rsc_8mib", "memmap")
OURS = {
    "tokens": (*WINDOWS, "decrypt_only", "gather_only"),
    "images": (*WINDOWS, "decrypt_only", "gather_only"),
    "text": (*WINDOWS, "decrypt_only", "gather_only"),
    "jpeg": ("rsc", "rsc_2_threads", "memmap"),
}
PEERS = {
    "litdata": "litdata",
    "mds": "streaming",
    "webdataset": "webdataset",
    "grain": "grain",
    "hf": "datasets",
}
FULL = {"tokens": 524_288, "images": 200_000, "text": 200_000, "jpeg": 50_000}
QUICK_PART = 8  # 128 MiB: the first epoch is a quarter of what is measured, and told apart
QUICK_RUNS = 3
SLOW_PEERS = ("mds", "webdataset", "grain", "hf")  # --quick measures them on tokens only
_FIND = (
    "import importlib.util as u,json,sys;print(json.dumps({m: bool(u.find_spec(m)) for m in sys.argv[1:]}))"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--subjects", nargs="+", help="only these (default: all)")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument(
        "--corpus", type=Path, help="folder to build the corpora in and keep (default: temporary)"
    )


def run(options: Options) -> Report:
    if options.arguments.corpus is None:
        with tempfile.TemporaryDirectory(prefix="rsc-loader-") as folder:
            return run_in(Path(folder), options)
    options.arguments.corpus.mkdir(parents=True, exist_ok=True)
    return run_in(options.arguments.corpus, options)


def run_in(folder: Path, options: Options) -> Report:
    report = Report()
    peers = find_peers(options, report=report)
    for case in options.arguments.cases:
        if not write_corpus(folder, case, part=QUICK_PART if options.quick else 1):
            report.skip(case, reason="cifar10_jpeg.zip not found: set RSC_TEST_DATA to its folder")
            continue
        measure_case(folder, case, peers=peers, options=options, report=report)
    return report


def measure_case(folder: Path, case: str, *, peers: list[str], options: Options, report: Report) -> None:
    wanted = options.arguments.subjects
    subjects = [name for name in (*OURS[case], *peers) if wanted is None or name in wanted]
    if options.quick and case != "tokens":
        subjects = [name for name in subjects if name not in SLOW_PEERS]

    def worker(action: str, subject: str) -> dict[str, float]:
        python = options.arguments.peers_python if subject in PEERS else sys.executable
        return run_worker([python, str(WORKER), action, subject, case, str(folder)], timeout_s=900)

    for subject in ("rsc", *(name for name in subjects if name in CIPHERS)):
        worker("prepare", subject)
    for subject in [name for name in subjects if name in PEERS]:
        try:
            worker("prepare", subject)
            worker("run", subject)
        except RuntimeError as error:
            report.skip(f"{subject} ({case})", reason=str(error).strip().splitlines()[-1])
            subjects.remove(subject)
    measured = alternate(
        subjects,
        runs=options.runs,
        measure=lambda subject: worker("run", subject),
        may_fail=PEERS.keys(),
        failed=lambda subject, reason: report.skip(f"{subject} ({case})", reason=reason),
    )
    for subject, metrics in measured.items():
        for metric, values in metrics.items():
            report.add(case, metric=metric, subject=subject, values=values)
    add_ratios(measured, case, report=report)
    add_ratios(measured, case, report=report, metric="all_mb_per_cpu_s", prefix="all_")
    far = [name for name in FAR_CONNECTIONS if case == "tokens" and (wanted is None or name in wanted)]
    if far:
        add_far(worker, far, runs=options.runs, report=report)
    if case in ("tokens", "images"):
        add_mixing(folder, case, report=report)


def add_far(
    worker: Callable[[str, str], dict[str, float]], subjects: list[str], *, runs: int, report: Report
) -> None:
    """The tokens over a simulated slow line, beside what the line carries."""
    measured = alternate(subjects, runs=runs, measure=lambda name: worker("run", name))
    for subject, metrics in measured.items():
        for metric, values in metrics.items():
            report.add("tokens_far", metric=metric, subject=subject, values=values)
    report.notes.append(
        "tokens_far: latency and line rate are simulated by sleeping; cache and disk are real"
    )


def add_ratios(
    measured: dict[str, dict[str, list[float]]],
    case: str,
    *,
    report: Report,
    metric: str = "mb_per_cpu_s",
    prefix: str = "",
) -> None:
    """Our subjects over the control, over litdata and over the floor; the floor over these."""
    rates = {subject: metrics[metric] for subject, metrics in measured.items()}
    if {"decrypt_only", "gather_only"} <= rates.keys():
        parts = zip(rates["decrypt_only"], rates["gather_only"], strict=True)
        rates["floor"] = [1 / (1 / decrypt + 1 / gather) for decrypt, gather in parts]
    for other in ("memmap", "litdata", "floor"):
        if other not in rates:
            continue
        for subject in (name for name in rates if name.startswith("rsc") or name == "floor" != other):
            pairs = zip(rates[subject], rates[other], strict=True)
            report.add(
                case, metric=f"{prefix}times_{other}", subject=subject, values=[a / b for a, b in pairs]
            )


def add_mixing(folder: Path, case: str, *, report: Report) -> None:
    """What a window costs and buys: the frames that a batch of 256 draws from, beside a full permutation."""
    corpus = Corpus(folder, case)
    with example_key() as key:
        split = open_split(corpus, key)
        for subject, window_bytes in (("rsc", DEFAULT_WINDOW_BYTES), ("rsc_8mib", SMALL_WINDOW_BYTES)):
            quality = measure_shuffle(split.manifest, schema=split.schema, window_bytes=window_bytes)
            report.add(case, metric="frames_in_batch", subject=subject, values=[quality.frames_in_batch])
        report.add(case, metric="frames_in_batch", subject="memmap", values=[quality.frames_in_batch_full])
        split.close()


def find_peers(options: Options, *, report: Report) -> list[str]:
    """The peers that the other interpreter can import; names the rest."""
    found = run_worker([options.arguments.peers_python, "-c", _FIND, *PEERS.values()], timeout_s=60)
    for name, module in PEERS.items():
        if not found[module]:
            report.skip(name, reason=f"{module} is not installed for {options.arguments.peers_python}")
    return [name for name, module in PEERS.items() if found[module]]


def write_corpus(folder: Path, case: str, *, part: int) -> bool:
    """Write the raw files of a case from a fixed seed; False when its source is missing."""
    sizes_path = folder / "sizes.json"
    sizes = json.loads(sizes_path.read_text()) if sizes_path.exists() else {}
    size = FULL[case] // part
    if sizes.get(case) == size:
        return True
    rng = np.random.default_rng(0)
    if case == "tokens":
        rng.integers(0, 50_000, (size, 1024), dtype=np.uint16).tofile(folder / "tokens.bin")
    elif case == "images":
        rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8).tofile(folder / "images.bin")
        rng.integers(0, 10, size).tofile(folder / "labels.bin")
    elif case == "text":
        lengths = rng.integers(1024, 8193, size)
        write_blobs(folder, case, [rng.integers(97, 123, n, dtype=np.uint8).tobytes() for n in lengths])
    else:
        archive = Path(os.environ.get("RSC_TEST_DATA") or "../shared/data") / "cifar10_jpeg.zip"
        if not archive.is_file():
            return False
        with zipfile.ZipFile(archive) as files:
            names = [name for name in files.namelist() if "train/" in name and name.endswith(".jpg")]
            write_blobs(
                folder, case, [files.read(name) for name in names[:: max(len(names) // size, 1)][:size]]
            )
    sizes_path.write_text(json.dumps(sizes | {case: size}))
    return True


def write_blobs(folder: Path, case: str, samples: list[bytes]) -> None:
    (folder / f"{case}.bin").write_bytes(b"".join(samples))
    np.save(folder / f"{case}.offsets.npy", np.cumsum([0] + [len(sample) for sample in samples]))


if __name__ == "__main__":
    main(__doc__ or "", run, quick_runs=QUICK_RUNS, add_arguments=add_arguments)
