"""Files that are made to cost much: memory, time, what they unpack to; and decoders that have no network."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import pickle
import resource
import signal
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import zstandard
from PIL import Image

from rsc.config import Workspace
from rsc.errors import ConfigError, DataError, ResourceError, RscError
from rsc.ingest import parse_limits, workers
from rsc.ingest.answers import load_answer
from rsc.ingest.config import ImportOptions
from rsc.ingest.map_part import ImportPlan
from rsc.ingest.parse_limits import allow_cpu, bounded_memory, require_ratio
from rsc.ingest.readers.source import Chunk, Part, Source
from rsc.ingest.workers import run_parts
from rsc.keys.secret import SecretKey
from rsc.models.config import ImageConfig
from rsc.models.decode import decode_image
from rsc.review.policy import default_policy
from rsc.store.format.schema import Field, Schema
from rsc.tokenizer_json import JsonTokenizer
from tests.ingest.bringing import SAFE, bring_in

linux = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA and namespaces are of Linux")


@linux
def test_memory_is_bounded_and_given_back() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(DataError, match="of memory"), bounded_memory():
        np.empty(2 * parse_limits.PARSE_BYTES, dtype=np.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with bounded_memory():
        np.ones(1 << 20)


@dataclass
class Doing(Source):
    """A source whose one part does something to the process that reads it."""

    what: str
    kind: str = "images"

    def fields(self) -> tuple[Field, ...]:
        return (Field("number", "tensor", "int64"),)

    def files(self) -> list[Path]:
        return []

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        yield Part(0, first_record=0, size_bytes=1, span=None)

    def read(self, part: Part) -> Iterator[Chunk]:
        number = {"memory": self.take_memory, "cpu": self.take_cpu, "pid": os.getpid,
                  "crash": self.crash, "kill": self.kill, "ratio": self.unpack}  # fmt: skip
        yield Chunk({"number": np.array([number[self.what]()])}, np.arange(1, dtype=np.uint64), size_bytes=8)

    def take_memory(self) -> int:
        return len(np.empty(2 * parse_limits.PARSE_BYTES, dtype=np.uint8))

    def take_cpu(self) -> int:
        allow_cpu(1)
        while True:
            pass

    def crash(self) -> int:
        os.kill(os.getpid(), signal.SIGSEGV)
        return 0

    def kill(self) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    def unpack(self) -> int:
        require_ratio(1 << 30, source_bytes=1)
        return 0


def result_of(what: str) -> int:
    source = Doing(what)
    plan = ImportPlan(
        "posts", source, Schema(source.fields()), ImportOptions(holdout=0.0), default_policy(), source_bytes=1
    )
    with SecretKey.generate() as key:
        (result,) = run_parts(plan, num_processes=1, subject_key=key)
    return int(np.asarray(result.columns["train"]["number"])[0])


@dataclass
class Several(Doing):
    """Three parts; the second does it."""

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        yield from (Part(number, first_record=number, size_bytes=1, span=None) for number in range(3))

    def name_of(self, part: Part) -> str:
        return f"file-{part.number}.png"

    def read(self, part: Part) -> Iterator[Chunk]:
        if part.number == 1:
            yield from super().read(part)
        yield Chunk({"number": np.array([part.number])}, np.arange(1, dtype=np.uint64), size_bytes=8)


@linux
@pytest.mark.parametrize(
    ("what", "words"),
    [("memory", "more memory"), ("cpu", "to read"), ("crash", "crashed"), ("ratio", "bomb")],
)
def test_a_part_that_passes_a_limit_is_set_aside_by_name_and_the_others_go_on(what: str, words: str) -> None:
    source = Several(what)
    schema = Schema(source.fields())
    plan = ImportPlan("posts", source, schema, ImportOptions(holdout=0.0), default_policy(), source_bytes=1)
    with SecretKey.generate() as key:
        results = list(run_parts(plan, num_processes=2, subject_key=key))
    assert [int(np.asarray(r.columns["train"]["number"])[0]) for r in results if r.columns] == [0, 2]
    ((bad,),) = [result.bad for result in results if result.bad]
    assert (bad.record, bad.place) == (1, "file-1.png")
    assert words in bad.reason


def test_an_answer_of_a_worker_that_was_taken_over_runs_nothing(tmp_path: Path) -> None:
    class Taken:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "taken"),)

    for answer in (Taken(), [Taken()], {"a": np.array([Taken()], dtype=object)}, 7, [], b"", os.mkdir):
        with pytest.raises(RscError, match="answer that is none"):
            load_answer(pickle.dumps(answer))
    with pytest.raises(RscError, match="answer that is none"):
        load_answer(b"\x80\x05nonsense")
    assert not (tmp_path / "taken").exists()


@linux
def test_a_worker_that_dies_of_something_else_ends_the_import() -> None:
    with pytest.raises(ResourceError, match="died"):
        result_of("kill")


@linux
def test_formats_that_libraries_decode_are_read_in_another_process() -> None:
    assert result_of("pid") != os.getpid()


def test_every_format_with_a_decoder_is_known() -> None:
    formats = set(ImportOptions.model_fields["format"].annotation.__args__)  # type: ignore[union-attr]
    assert formats - workers.DECODED == {"auto", "jsonl", "csv", "text", "python-docs"}


def test_a_source_may_not_unpack_to_much_more_than_it_is(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse_limits, "_FREE_BYTES", 1 << 20)
    bomb = tmp_path / "bomb.jsonl.gz"
    with gzip.open(bomb, "wb") as file:
        file.write(b'{"text": "ok"}\n' + (b'{"text": "' + b"a" * 2000 + b'"}\n') * 4000)
    with pytest.raises(DataError, match="decompression bomb"):
        bring_in(workspace, bomb)
    assert not list((workspace.data / "posts").glob("v*"))
    require_ratio(1 << 40, source_bytes=0)  # columns in memory


def _packed(data: bytes, suffix: str) -> bytes:
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}
    return pack[suffix](data)


BOMBS = {
    "lines": b'{"text": "x"}\n' + (b'{"text": "' + b"a" * 2000 + b'"}\n') * 4000,
    "one line": b'{"text": "' + b"a" * (8 << 20) + b'"}\n',
    "no JSON": b"\0" * (8 << 20),
}


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("content", BOMBS)
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_one_packed_file_of_several_is_set_aside_by_name_and_the_others_go_on(
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
    content: str,
    place: str,
) -> None:
    monkeypatch.setattr(parse_limits, "_FREE_BYTES", 1 << 20)
    folder = tmp_path / "several"
    folder.mkdir()
    bomb = {"first": "a", "last": "z"}[place] + f".jsonl{suffix}"
    (folder / bomb).write_bytes(_packed(BOMBS[content], suffix))
    for name in ("m.jsonl", "n.jsonl"):
        (folder / name).write_text('{"text": "good"}\n' * 50)
    result = bring_in(workspace, folder, part_bytes=1 << 18, holdout=0.0)
    assert [place for place in result.bad_places if bomb in place]
    assert any("decompression bomb" in reason for reason in result.bad)
    assert result.splits["train"] >= 100  # and what the bomb began with


def test_a_packed_table_of_several_is_too(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse_limits, "_FREE_BYTES", 1 << 20)
    folder = tmp_path / "several"
    folder.mkdir()
    (folder / "a.csv.gz").write_bytes(_packed(b"text\n" + b"a" * (8 << 20), ".gz"))
    (folder / "b.csv").write_text("text\n" + "good\n" * 50)
    result = bring_in(workspace, folder, holdout=0.0)
    assert (result.splits["train"], len(result.bad_places)) == (50, 1)
    assert "a.csv.gz" in result.bad_places[0]


def test_a_packed_tar_of_several_is_too(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parse_limits, "_FREE_BYTES", 1 << 20)
    folder = tmp_path / "several"
    folder.mkdir()
    for name, size in (("a.tar.gz", 8 << 20), ("b.tar", 10)):
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as tar:
            member = tarfile.TarInfo("1.txt")
            member.size = size
            tar.addfile(member, io.BytesIO(b"a" * size))
    result = bring_in(workspace, folder, holdout=0.0)
    assert (result.splits["train"], result.bad_places) == (1, ("a.tar.gz",))


def test_a_table_may_not_either(workspace: Workspace, tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    bomb = tmp_path / "bomb.parquet"
    value = "a" * (1 << 20)
    parquet.write_table(arrow.table({"text": [value] * 300}), bomb, compression="zstd")
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"decompression bomb|memory"):
        bring_in(workspace, bomb)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n"


def test_ghostscript_is_never_started(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    tool = tmp_path / "bin" / "gs"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ntouch {started}\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "3.png").write_bytes(EPS)
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(pictures / "4.png")
    result = bring_in(workspace, pictures, policy=SAFE, image_size="32")
    assert (sum(result.bad.values()), result.bad_places) == (1, ("3.png",))
    with pytest.raises(DataError):
        decode_image(EPS, config=ImageConfig(height=32, width=32))
    assert not started.exists()


def hostile_tokenizer(pattern: str) -> str:
    return json.dumps(
        {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
            "pre_tokenizer": {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                              "invert": False},
            "post_processor": None, "decoder": None,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "vocab": {"a": 0, "b": 1}, "merges": []},
        }
    )  # fmt: skip


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(((((a*)*)*)*)*)*$"])
def test_a_tokenizer_whose_pattern_explodes_is_an_error_of_ours(pattern: str) -> None:
    with contextlib.suppress(ConfigError):  # whatever else is raised fails the test
        JsonTokenizer(hostile_tokenizer(pattern)).encode_many(["a" * 60 + "b"])
