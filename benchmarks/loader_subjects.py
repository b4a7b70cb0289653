"""One measurement of one loader, in a process of its own; benchmarks/loader.py calls it.

    python loader_subjects.py prepare SUBJECT CASE CORPUS     write the subject's own format
    python loader_subjects.py run SUBJECT CASE CORPUS         4 epochs, peers one; prints a JSON line

Subjects other than `rsc` need only numpy, torch and their own library, so that they can run in another
environment. Every subject delivers shuffled batches of 256 as its documentation proposes, without worker
processes; its bytes are those of the samples it delivered, whatever type it turned them into. Batches of
documents are values end to end with offsets for `rsc` and `memmap`, and what their own API gives for peers.
"""

from __future__ import annotations

import gc
import io
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch

BATCH = 256
EPOCHS = 4  # of ours and the control, which take a third of a second each
CIPHERS = {"rsc_aes_256_gcm": "aes-256-gcm", "rsc_aegis_256": "aegis-256"}
"""Subjects that read data of one cipher; all else of ours reads what this machine would write."""
TIME_LIMIT_S = 8.0  # peers that would take minutes are cut off here; rates are per CPU second
TOKENS = 1024
IMAGE = (32, 32, 3)


class Corpus:
    """The raw files of a case, as arrays: what every format is written from, and the memmap control."""

    def __init__(self, folder: Path, case: str, *, cipher: str = "auto") -> None:
        self.folder = folder
        self.case = case
        self.size = json.loads((folder / "sizes.json").read_text())[case]
        self.cipher = cipher
        self.stored = f"rsc-{case}" if cipher == "auto" else f"rsc-{cipher}-{case}"

    @property
    def epoch_bytes(self) -> int:
        """Of the samples of one epoch."""
        names = ("images", "labels") if self.case == "images" else (self.case,)
        return sum((self.folder / f"{name}.bin").stat().st_size for name in names)

    def tokens(self) -> np.ndarray:
        return np.memmap(self.folder / "tokens.bin", np.uint16, "r").reshape(-1, TOKENS)

    def images(self) -> tuple[np.ndarray, np.ndarray]:
        images = np.memmap(self.folder / "images.bin", np.uint8, "r").reshape(-1, *IMAGE)
        return images, np.memmap(self.folder / "labels.bin", np.int64, "r")

    def blobs(self) -> tuple[np.ndarray, np.ndarray]:
        """Variable-length samples (text, jpeg): bytes end to end, offsets int64 [n + 1]."""
        values = np.memmap(self.folder / f"{self.case}.bin", np.uint8, "r")
        return values, np.load(self.folder / f"{self.case}.offsets.npy")

    def samples(self, *, share: float = 1.0) -> Iterator[dict[str, Any]]:
        """The first part of the corpus as a peer's writer wants it: one dict a sample."""
        count = int(self.size * share)
        if self.case == "tokens":
            tokens = self.tokens()
            yield from ({"tokens": np.array(tokens[i])} for i in range(count))
        elif self.case == "images":
            images, labels = self.images()
            yield from ({"image": np.array(images[i]), "label": int(labels[i])} for i in range(count))
        else:
            values, offsets = self.blobs()
            yield from ({self.case: values[offsets[i] : offsets[i + 1]].tobytes()} for i in range(count))


Batches = Iterator[int]  # bytes of the samples in each batch


def size_of(batch: Any) -> int:
    """Bytes of a delivered batch: arrays and tensors by what they hold, documents by their length."""
    if isinstance(batch, dict):
        return sum(size_of(value) for value in batch.values())
    if isinstance(batch, torch.Tensor | np.ndarray):
        return int(batch.nbytes)
    if isinstance(batch, bytes | str | memoryview):
        return len(batch)
    if isinstance(batch, list | tuple):
        return sum(size_of(value) for value in batch)
    return 8


# The control: a plaintext memory map, whole batches gathered in a full permutation.


def run_memmap(corpus: Corpus) -> Batches:
    gather = _memmap_gather(corpus)
    rng = np.random.default_rng(1)
    for _ in range(EPOCHS):
        order = rng.permutation(corpus.size)
        for i in range(0, len(order), BATCH):
            yield gather(order[i : i + BATCH])


def _memmap_gather(corpus: Corpus) -> Callable[[np.ndarray], int]:
    """A function that delivers the chosen samples as one batch, and says its bytes."""
    if corpus.case == "tokens":
        tokens = corpus.tokens()
        return lambda chosen: size_of(torch.from_numpy(tokens[chosen]))
    if corpus.case == "images":
        images, labels = corpus.images()
        return lambda chosen: size_of([torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen])])
    values, offsets = corpus.blobs()
    values = np.asarray(values)  # slices of np.memmap itself take ten times as long
    view = memoryview(values)

    def gather(chosen: np.ndarray) -> int:
        bounds = zip(offsets[chosen].tolist(), offsets[chosen + 1].tolist(), strict=True)
        if corpus.case == "jpeg":
            return size_of(decode_all([bytes(view[start:stop]) for start, stop in bounds]))
        return size_of(_end_to_end([values[start:stop] for start, stop in bounds]))

    return gather


def _end_to_end(documents: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Documents as training code wants them: values and offsets [n + 1]."""
    offsets = np.zeros(len(documents) + 1, np.int64)
    np.cumsum([len(document) for document in documents], out=offsets[1:])
    return torch.from_numpy(np.concatenate(documents)), torch.from_numpy(offsets)


def decode_all(files: list[bytes]) -> torch.Tensor:
    """uint8 [n, 32, 32, 3] with Pillow, one after the other."""
    return torch.from_numpy(np.stack([_decode_rgb(file) for file in files]))


# RSC: encrypted.


def prepare_rsc(corpus: Corpus) -> None:
    from rsc.store.bulk.local import LocalStore
    from rsc.store.format.columns import Ragged
    from rsc.store.format.schema import Field, Schema
    from rsc.store.format.suites import suite_for
    from rsc.store.split_writer import SplitWriter
    from rsc.store.splits import SplitPlace
    from rsc.store.writer import FRAME_BYTES, SHARD_BYTES

    store = LocalStore(corpus.folder)
    store.delete_folder(corpus.stored)
    fields = {
        "tokens": (Field("tokens", "tensor", "uint16", (TOKENS,)),),
        "images": (Field("image", "tensor", "uint8", IMAGE), Field("label", "tensor", "int64")),
        "text": (Field("text", "string"),),
        "jpeg": (Field("jpeg", "bytes"),),
    }[corpus.case]
    place = SplitPlace(store, folder=corpus.stored, name="benchmark", version_id="0", split="train")
    schema = Schema(fields)
    with example_key() as key:
        sizes = {"frame_bytes": FRAME_BYTES, "shard_bytes": SHARD_BYTES}
        writer = SplitWriter(place, schema=schema, key=key, suite=suite_for(corpus.cipher), **sizes)
        for start in range(0, corpus.size, 1000):
            stop = min(start + 1000, corpus.size)
            if corpus.case == "tokens":
                writer.append({"tokens": corpus.tokens()[start:stop]})
            elif corpus.case == "images":
                images, labels = corpus.images()
                writer.append({"image": images[start:stop], "label": labels[start:stop]})
            else:
                values, offsets = corpus.blobs()
                part = offsets[start : stop + 1]
                writer.append(
                    {corpus.case: Ragged(values=values[part[0] : part[-1]], offsets=part - part[0])}
                )
        totals = writer.finish()
    facts = {
        name: getattr(totals, name) for name in ("num_shards", "num_samples", "num_frames", "size_bytes")
    }
    facts |= {"merkle_root": totals.merkle_root.hex(), "schema": schema.to_dict()}
    (corpus.folder / f"{corpus.stored}.json").write_text(json.dumps(facts))


def run_rsc(corpus: Corpus, *, threads: int = 0, window_bytes: int | None = None) -> Batches:
    """Documents end to end with offsets, files decoded, all else as delivered."""
    with example_key() as key, _loader(corpus, key, threads=threads, window_bytes=window_bytes) as loader:
        for batch in loader:
            if corpus.case == "text":
                yield size_of((batch["text"].values, batch["text"].offsets))
            else:
                yield sum(size_of(column) for name, column in batch.items() if name in _DELIVERED)


_DELIVERED = ("tokens", "image", "label", "jpeg")
SMALL_WINDOW_BYTES = 8 << 20


def _decode_rgb(file: bytes) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def _loader(corpus: Corpus, key: Any, *, threads: int, window_bytes: int | None) -> Any:
    from rsc.loader.decode import DecodedLoader
    from rsc.loader.loader import Loader
    from rsc.loader.order import DEFAULT_WINDOW_BYTES

    is_jpeg = corpus.case == "jpeg"
    options: dict[str, Any] = {"batch_size": BATCH, "seed": 1, "epochs": EPOCHS}
    options["window_bytes"] = window_bytes or DEFAULT_WINDOW_BYTES
    loader = Loader(open_split(corpus, key), threads=0 if is_jpeg else threads, numbered=is_jpeg, **options)
    if is_jpeg:
        return DecodedLoader(loader, field="jpeg", decode=_decode_rgb, shape=IMAGE, threads=max(1, threads))
    return loader


# The same from far away: a bulk tier of 100 ms and 50 MB/s a connection, through an empty node cache.

FAR_CONNECTIONS = {"rsc_far_4": 4, "rsc_far_16": 16}
_LATENCY_S, _RATE_BYTES_PER_S = 0.1, 50e6


def _far_store(root: Path) -> Any:
    """A folder whose reads take as long as over such a connection (by sleeping), and are counted."""
    from rsc.store.bulk.local import LocalReader, LocalStore

    class FarReader(LocalReader):
        def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
            super().read_into(offset, buffer)
            with store.lock:
                store.crossed += len(buffer)
            time.sleep(_LATENCY_S + len(buffer) / _RATE_BYTES_PER_S)

    class FarStore(LocalStore):
        crossed = 0
        lock = Lock()

        def open(self, path: str, *, size_bytes: int | None = None) -> LocalReader:
            return FarReader(self.root / path)

    store = FarStore(root)
    return store


def measure_far(corpus: Corpus, *, connections: int) -> dict[str, float]:
    """An epoch of tokens from far away, and what share that is of the most the connections carry."""
    from rsc.loader.loader import Loader
    from rsc.store.cache.node_cache import CHUNK_BYTES, NodeCache

    with tempfile.TemporaryDirectory(dir=corpus.folder) as cache, example_key() as key:
        split = open_split(corpus, key)
        store = _far_store(corpus.folder)
        split.place = replace(split.place, store=store, cache=NodeCache(Path(cache), limit_bytes=8 << 30))
        start, before_s = time.perf_counter(), time.process_time()
        options: dict[str, Any] = {
            "batch_size": BATCH,
            "seed": 1,
            "epochs": 1,
            "connections": connections,
        }
        with Loader(split, **options) as loader:
            size = size_of(next(loader))
            first_batch_s = time.perf_counter() - start
            size += sum(size_of(batch) for batch in loader)
        elapsed_s = time.perf_counter() - start
    a_chunk_s = _LATENCY_S + CHUNK_BYTES / _RATE_BYTES_PER_S
    line_mb_per_s = connections * CHUNK_BYTES / 1e6 / a_chunk_s
    return {
        "mb_per_s": size / 1e6 / elapsed_s,
        "line_mb_per_s": line_mb_per_s,
        "line_filled": size / 1e6 / elapsed_s / line_mb_per_s,
        "cpu_s_per_gb": (time.process_time() - before_s) / (size / 1e9),
        "first_batch_s": first_batch_s,
        "crossed_per_byte": store.crossed / split.size_bytes,
    }


# What no encrypted loader can be faster than on this machine: its two unavoidable parts, each alone.


def run_decrypt_only(corpus: Corpus) -> Batches:
    """Every frame once, in a shuffled order, from the mapped file into one buffer: nothing is delivered."""
    from rsc.loader.frames import OpenShards

    with example_key() as key:
        split = open_split(corpus, key)
        opened = OpenShards(split)
        shards = [opened.get(shard) for shard in range(split.num_shards)]
        frames = [
            (shard, frame, size)
            for shard in shards
            for frame, size in enumerate(shard.table["plain_bytes"].tolist())
        ]
        buffer = memoryview(bytearray(max(size for *_, size in frames)))
        rng = np.random.default_rng(1)
        for index in np.concatenate([rng.permutation(len(frames)) for _ in range(EPOCHS)]).tolist():
            shard, frame, size = frames[index]
            shard.read_into(frame, buffer, scratch=bytearray())
            yield size
        opened.keep_newest(0)


def run_gather_only(corpus: Corpus) -> Batches:
    """The rows of a window that is in memory already, batch by batch in a shuffled order."""
    from rsc.loader.order import DEFAULT_WINDOW_BYTES

    if corpus.case == "text":
        count, gather = _window_of_text(corpus, window_bytes=DEFAULT_WINDOW_BYTES)
    else:
        rows = corpus.tokens() if corpus.case == "tokens" else corpus.images()[0]
        count = DEFAULT_WINDOW_BYTES // rows[0].nbytes
        window = np.array(rows[:count])

        def gather(chosen: np.ndarray) -> int:
            return size_of(torch.from_numpy(window[chosen]))

    order = np.random.default_rng(1).permutation(count)
    for start in range(0, EPOCHS * corpus.size, BATCH):
        first = start % (count - BATCH)
        yield gather(order[first : first + BATCH])


def _window_of_text(corpus: Corpus, *, window_bytes: int) -> tuple[int, Callable[[np.ndarray], int]]:
    """How many documents lie in a window, and a function that joins the chosen ones."""
    from rsc.loader.ragged import RaggedTensor

    values, offsets = corpus.blobs()
    count = int(np.searchsorted(offsets, window_bytes)) - 1
    window = torch.from_numpy(np.array(values[: offsets[count]]))

    def gather(chosen: np.ndarray) -> int:
        joined = RaggedTensor.gathered(window, starts=offsets[chosen], stops=offsets[chosen + 1])
        return size_of((joined.values, joined.offsets))

    return count, gather


def open_split(corpus: Corpus, key: Any) -> Any:
    from rsc.store.bulk.local import LocalStore
    from rsc.store.format.manifest import ManifestTotals
    from rsc.store.format.schema import Schema
    from rsc.store.splits import SplitPlace, SplitReader

    facts = json.loads((corpus.folder / f"{corpus.stored}.json").read_text())
    schema = Schema.from_dict(facts.pop("schema"))
    totals = ManifestTotals(merkle_root=bytes.fromhex(facts.pop("merkle_root")), **facts)
    store = LocalStore(corpus.folder)
    place = SplitPlace(store, folder=corpus.stored, name="benchmark", version_id="0", split="train")
    return SplitReader(place, schema=schema, totals=totals, key=key)


def example_key() -> Any:
    from rsc.keys.secret import SecretKey

    return SecretKey.from_buffer(bytearray(b"a key for a benchmark of no use."))


# litdata: plaintext chunks.


def prepare_litdata(corpus: Corpus) -> None:
    from litdata.streaming.cache import Cache

    target = _fresh(corpus, "litdata")
    cache = Cache(str(target), chunk_bytes="64MB")
    for index, sample in enumerate(corpus.samples()):
        cache[index] = sample
    cache.done()
    cache.merge()


def run_litdata(corpus: Corpus, *, workers: int = 0) -> Batches:
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(corpus.folder / f"litdata-{corpus.case}"), shuffle=True, drop_last=False)
    collate = {"collate_fn": list} if corpus.case in ("text", "jpeg") else {}
    for batch in StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, **collate):
        yield _size_or_decoded(corpus, batch)


# MosaicML Streaming: MDS shards.


def prepare_mds(corpus: Corpus) -> None:
    from streaming import MDSWriter

    columns = {
        "tokens": {"tokens": f"ndarray:uint16:{TOKENS}"},
        "images": {"image": "ndarray:uint8:32,32,3", "label": "int"},
        "text": {"text": "bytes"},
        "jpeg": {"jpeg": "bytes"},
    }[corpus.case]
    with MDSWriter(out=str(_fresh(corpus, "mds")), columns=columns) as writer:
        for sample in corpus.samples(share=SHARES["mds"]):
            writer.write(sample)


def run_mds(corpus: Corpus) -> Batches:
    from streaming import StreamingDataset
    from torch.utils.data import DataLoader

    dataset = StreamingDataset(
        local=str(corpus.folder / f"mds-{corpus.case}"), shuffle=True, batch_size=BATCH
    )
    collate = {"collate_fn": list} if corpus.case in ("text", "jpeg") else {}
    for batch in DataLoader(dataset, batch_size=BATCH, num_workers=0, **collate):
        yield _size_or_decoded(corpus, batch)


# WebDataset: tar files.


def prepare_webdataset(corpus: Corpus) -> None:
    import webdataset

    target = _fresh(corpus, "webdataset")
    with webdataset.ShardWriter(str(target / "%06d.tar"), maxsize=64 << 20, verbose=0) as writer:
        for index, sample in enumerate(corpus.samples(share=SHARES["webdataset"])):
            writer.write(
                {"__key__": f"{index:09d}"} | {f"{name}.bin": _raw(value) for name, value in sample.items()}
            )


def run_webdataset(corpus: Corpus) -> Batches:
    import webdataset

    shards = sorted(str(path) for path in (corpus.folder / f"webdataset-{corpus.case}").glob("*.tar"))
    pipeline = webdataset.WebDataset(shards, shardshuffle=len(shards), empty_check=False).shuffle(1000)
    for samples in pipeline.batched(BATCH, collation_fn=list):
        yield _size_or_decoded(corpus, [_parsed(corpus, sample) for sample in samples], stack=True)


# Grain over ArrayRecord files.


def prepare_grain(corpus: Corpus) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(_fresh(corpus, "grain") / "data.arrayrecord"), "group_size:1")
    for sample in corpus.samples(share=SHARES["grain"]):
        writer.write(b"".join(_raw(value) for value in sample.values()))
    writer.close()


def run_grain(corpus: Corpus) -> Batches:
    import grain
    from grain.sources import ArrayRecordDataSource

    source = ArrayRecordDataSource([str(corpus.folder / f"grain-{corpus.case}" / "data.arrayrecord")])
    dataset = grain.MapDataset.source(source).seed(1).shuffle().map(_grain_parser(corpus.case))
    batches = dataset.batch(BATCH, batch_fn=list) if corpus.case in ("text", "jpeg") else dataset.batch(BATCH)
    for i in range(len(batches)):
        yield _size_or_decoded(corpus, batches[i])


def _grain_parser(case: str) -> Callable[[bytes], Any]:
    if case == "tokens":
        return lambda record: np.frombuffer(record, np.uint16)
    if case == "images":
        return lambda record: (
            np.frombuffer(record[:-8], np.uint8).reshape(IMAGE), np.frombuffer(record[-8:], np.int64)[0]
        )  # fmt: skip
    return lambda record: record


# Hugging Face datasets: an Arrow file, numpy format.


def prepare_hf(corpus: Corpus) -> None:
    import datasets
    import pyarrow as pa

    share = SHARES["hf"]
    count = int(corpus.size * share)
    if corpus.case == "tokens":
        flat = pa.array(np.array(corpus.tokens()[:count]).reshape(-1))
        table = pa.table({"tokens": pa.FixedSizeListArray.from_arrays(flat, TOKENS)})
    elif corpus.case == "images":
        images, labels = corpus.images()
        flat = pa.array(np.array(images[:count]).reshape(-1))
        pixels = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(IMAGE)))
        table = pa.table({"image": pixels, "label": pa.array(np.array(labels[:count]))})
    else:
        table = pa.table(
            {corpus.case: pa.array([s[corpus.case] for s in corpus.samples(share=share)], pa.binary())}
        )
    datasets.Dataset(table).save_to_disk(str(_fresh(corpus, "hf")))


def run_hf(corpus: Corpus) -> Batches:
    import datasets

    dataset = datasets.load_from_disk(str(corpus.folder / f"hf-{corpus.case}")).shuffle(seed=1)
    plain = None if corpus.case in ("text", "jpeg") else "numpy"
    for batch in dataset.with_format(plain).iter(batch_size=BATCH):
        yield _size_or_decoded(
            corpus, [{corpus.case: x} for x in batch[corpus.case]] if plain is None else batch
        )


# What they share.


def _fresh(corpus: Corpus, subject: str) -> Path:
    target = corpus.folder / f"{subject}-{corpus.case}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    return target


def _raw(value: Any) -> bytes:
    return value if isinstance(value, bytes) else np.asarray(value).tobytes()


def _parsed(corpus: Corpus, sample: dict[str, Any]) -> dict[str, Any]:
    if corpus.case == "tokens":
        return {"tokens": np.frombuffer(sample["tokens.bin"], np.uint16)}
    if corpus.case == "images":
        image = np.frombuffer(sample["image.bin"], np.uint8).reshape(IMAGE)
        return {"image": image, "label": np.frombuffer(sample["label.bin"], np.int64)[0]}
    return {corpus.case: sample[f"{corpus.case}.bin"]}


def _size_or_decoded(corpus: Corpus, batch: Any, *, stack: bool = False) -> int:
    """Bytes of a batch; files are decoded first in the case `jpeg`; samples are stacked where asked."""
    if corpus.case == "jpeg":
        files = [bytes(s["jpeg"]) if isinstance(s, dict) else bytes(s) for s in batch]
        return size_of(decode_all(files))
    if stack and corpus.case in ("tokens", "images"):
        batch = {name: torch.from_numpy(np.stack([sample[name] for sample in batch])) for name in batch[0]}
    return size_of(batch)


SHARES = {"litdata": 1.0, "mds": 0.125, "webdataset": 0.125, "grain": 0.125, "hf": 0.25}
PREPARE: dict[str, Callable[[Corpus], None]] = {
    "rsc": prepare_rsc, **dict.fromkeys(CIPHERS, prepare_rsc),
    "litdata": prepare_litdata, "mds": prepare_mds, "webdataset": prepare_webdataset,
    "grain": prepare_grain, "hf": prepare_hf,
}  # fmt: skip
RUN: dict[str, Callable[[Corpus], Batches]] = {
    "rsc": run_rsc, **dict.fromkeys(CIPHERS, run_rsc),
    "rsc_1_thread": lambda corpus: run_rsc(corpus, threads=1),
    "rsc_2_threads": lambda corpus: run_rsc(corpus, threads=2),
    "rsc_8mib": lambda corpus: run_rsc(corpus, window_bytes=SMALL_WINDOW_BYTES),
    "decrypt_only": run_decrypt_only, "gather_only": run_gather_only,
    "memmap": run_memmap, "litdata": run_litdata, "mds": run_mds, "webdataset": run_webdataset,
    "grain": run_grain, "hf": run_hf,
}  # fmt: skip


def measure(batches: Batches, *, epoch_bytes: int) -> dict[str, float]:
    """CPU seconds of this process from opening to the end (imports before), and the first batch.

    `mb_per_cpu_s` is of the later epochs, where there are any. `all_mb_per_cpu_s` counts everything.
    """
    gc.collect()
    start, start_cpu = time.perf_counter(), _cpu_s()
    size = next(batches)
    first_batch_s = time.perf_counter() - start
    first_size, first_cpu_s = 0, 0.0
    for batch in batches:
        size += batch
        if not first_size and size >= epoch_bytes:
            first_size, first_cpu_s = size, _cpu_s() - start_cpu
        if time.perf_counter() - start > TIME_LIMIT_S:
            break
    cpu_s, wall_s = _cpu_s() - start_cpu, time.perf_counter() - start
    if size - first_size < epoch_bytes // 2:  # the first epoch is all there is
        first_size, first_cpu_s = 0, 0.0
    later = (size - first_size) / 1e6 / (cpu_s - first_cpu_s)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "mb_per_cpu_s": later,
        "first_epoch_mb_per_cpu_s": first_size / 1e6 / first_cpu_s if first_size else later,
        "all_mb_per_cpu_s": size / 1e6 / cpu_s,
        "mb_per_s": size / 1e6 / wall_s,
        "first_batch_s": first_batch_s,
        "rss_mb": peak / (1e6 / 1024 if sys.platform != "darwin" else 1e6),
    }


def _cpu_s() -> float:
    """Of the process and the children it waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _import_libraries(subject: str) -> None:
    """Importing is not loading: it happens before the clock starts."""
    modules = {"litdata": "litdata", "mds": "streaming", "webdataset": "webdataset", "grain": "grain.sources",
               "hf": "datasets", "memmap": "PIL.Image"}  # fmt: skip
    __import__(modules.get(subject, "rsc.loader.decode"))


_RAW_FILES = {"tokens": "tokens.bin", "images": "images.bin"}
_TOUCHED_BYTES = 256 << 20


def warm_up(corpus: Corpus, subject: str) -> None:
    """Read the subject's files once, and touch free memory: a host takes back pages of a guest that lay idle,
    and whoever comes first after that would pay (3 CPU s a GB were seen)."""
    if subject in ("memmap", "gather_only"):
        files = [corpus.folder / _RAW_FILES.get(corpus.case, f"{corpus.case}.bin")]
    else:
        is_ours = subject.startswith("rsc") or subject == "decrypt_only"
        name = corpus.stored if is_ours else f"{subject}-{corpus.case}"
        files = [path for path in (corpus.folder / name).rglob("*") if path.is_file()]
    touched = bytearray(_TOUCHED_BYTES)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(touched):
                pass


def main() -> None:
    action, subject, case, folder = sys.argv[1:5]
    torch.set_num_threads(1)
    corpus = Corpus(Path(folder), case, cipher=CIPHERS.get(subject, "auto"))
    if action == "prepare":
        PREPARE[subject](corpus)
        print(json.dumps({}))
        return
    _import_libraries(subject)
    if subject in FAR_CONNECTIONS:
        print(json.dumps(measure_far(corpus, connections=FAR_CONNECTIONS[subject])))
        return
    warm_up(corpus, subject)
    print(json.dumps(measure(RUN[subject](corpus), epoch_bytes=corpus.epoch_bytes)))


if __name__ == "__main__":
    main()
