"""Sources without a path: standard input and objects in a store."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from rsc.config import Workspace
from rsc.errors import ConfigError, DataError, ResourceError
from rsc.ingest.readers.elsewhere import pipe
from rsc.ingest.readers.elsewhere.opening import is_elsewhere
from rsc.ingest.readers.elsewhere.pipe import PipedInput

from .bringing import bring_in, stored

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}
ROWS = [{"id": 2**53 + number, "text": f"post {number}"} for number in range(50)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


class Pipe(io.RawIOBase):
    """Gives a few bytes at a time, as pipes do."""

    def __init__(self, data: bytes, step: int = 7_001) -> None:
        self._data, self._step = io.BytesIO(data), step

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._data.read(min(len(buffer), self._step))
        buffer[: len(data)] = data
        return len(data)


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def give(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return give


@pytest.mark.parametrize("packing", PACKERS)
def test_lines_come_through_a_pipe_packed_or_not(
    workspace: Workspace, piped: Callable[[bytes], None], packing: str
) -> None:
    piped(PACKERS[packing](LINES))
    result = bring_in(workspace, "-", holdout=0.0)
    assert stored(workspace, "train") == ROWS
    assert result.num_read == len(ROWS)


def test_a_pipe_is_read_again_for_types_and_by_several_processes(
    workspace: Workspace, piped: Callable[[bytes], None]
) -> None:
    """The first records give a type that a late one does not fit; repeated records are looked for, too."""
    rows = [{"id": number, "text": f"post {number}"} for number in range(3000)]
    rows += [{"id": 2**63 + 7, "text": "late"}, rows[5]]
    piped(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    result = bring_in(workspace, "-", holdout=0.0, dedup=("*",), part_bytes=20_000, num_processes=2)
    assert stored(workspace, "train") == rows[:-1]
    assert result.is_surveyed


def test_tables_and_text_say_what_they_are(workspace: Workspace, piped: Callable[[bytes], None]) -> None:
    table = io.StringIO()
    csv.writer(table).writerows([["n", "text"], ["1.10", "a"], ["1.1", "b, c"]])
    piped(table.getvalue().encode())
    bring_in(workspace, "-", format="csv", holdout=0.0)
    assert stored(workspace, "train") == [{"n": "1.10", "text": "a"}, {"n": "1.1", "text": "b, c"}]
    piped(b"one\n\ntwo\n")
    bring_in(workspace, "-", format="text", records="lines", holdout=0.0, name="lines")
    assert [row["text"] for row in stored(workspace, "train", name="lines")] == ["one", "two"]


@pytest.mark.parametrize(
    ("data", "options", "error", "words"),
    [
        (b"", {}, DataError, "standard input is empty"),
        (b"a,b\n1,2\n", {}, ConfigError, "is not known from its name"),
        (b"PAR1", {"format": "parquet"}, ConfigError, "parquet is not read from standard input"),
        (gzip.compress(LINES)[:-9], {}, DataError, "is not a whole gzip file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", {"format": "text"}, DataError, "LFS"),
    ],
)
def test_what_is_no_source_is_refused(
    workspace: Workspace,
    piped: Callable[[bytes], None],
    data: bytes,
    options: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    piped(data)
    with pytest.raises(error, match=words):
        bring_in(workspace, "-", **options)


@pytest.mark.parametrize("size", [1, 99, 100, 101, 250, 400])
def test_what_was_kept_is_read_from_any_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(pipe, "_FRAME_BYTES", 100)
    data = os.urandom(size)
    kept = PipedInput(io.BufferedReader(Pipe(data, step=33)), folder=tmp_path)
    for start in range(0, size, 37):
        with kept.open() as file:
            file.seek(start)
            assert file.read() == data[start:]
    assert kept.size_bytes == size


def test_what_was_kept_is_encrypted_and_has_no_name(tmp_path: Path) -> None:
    kept = PipedInput(io.BytesIO(b"a secret of somebody " * 100_000), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    on_disk = os.pread(kept._file.fileno(), 3 << 20, 0)
    assert len(on_disk) > 2_000_000
    assert b"secret" not in on_disk


def test_the_command_reads_a_pipe(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rsc", "data", "import", "-"]
    environment = {**os.environ, "RSC_HOME": str(tmp_path / "home")}
    unnamed = subprocess.run(command, input=LINES, env=environment, capture_output=True, check=False)
    assert unnamed.returncode == 2
    assert b"--name" in unnamed.stderr
    done = subprocess.run(
        [*command, "--name", "posts", "--json"], input=LINES, env=environment, capture_output=True, check=True
    )
    assert json.loads(done.stdout)["records"] == len(ROWS)


@pytest.mark.parametrize("source", ["http://example.org/x.jsonl", "hdfs://a/b", "file:///x.jsonl"])
def test_other_addresses_are_refused_with_a_way(source: str) -> None:
    with pytest.raises(ConfigError, match="cannot read") as caught:
        is_elsewhere(source)
    assert "rsc data import -" in str(caught.value.hint)


@pytest.fixture(scope="module")
def moto_server() -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts objects into the bucket `raw`, and the environment that leads RSC there."""
    boto3 = pytest.importorskip("boto3")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": moto_server,
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=moto_server, region_name="us-east-1")
    client.create_bucket(Bucket="raw")
    for item in client.list_objects_v2(Bucket="raw").get("Contents", []):
        client.delete_object(Bucket="raw", Key=item["Key"])
    return lambda key, data: client.put_object(Bucket="raw", Key=key, Body=data)


@pytest.mark.parametrize("packing", PACKERS)
def test_an_object_is_a_source(workspace: Workspace, bucket: Any, packing: str) -> None:
    bucket(f"a/posts.jsonl{packing}", PACKERS[packing](LINES))
    result = bring_in(
        workspace, f"s3://raw/a/posts.jsonl{packing}", holdout=0.0, num_processes=2, part_bytes=1024
    )
    assert stored(workspace, "train") == ROWS
    assert result.source_bytes == len(PACKERS[packing](LINES))


def test_all_objects_below_a_prefix_are_one_source(workspace: Workspace, bucket: Any) -> None:
    """Splits go by name; objects of no format, hidden ones and neighbours of the prefix stay out."""
    for name, row in (("train-0", 0), ("train-1", 1), ("test-0", 2)):
        bucket(f"set/{name}.jsonl", json.dumps(ROWS[row]).encode() + b"\n")
    bucket("set/README.md", b"about")
    bucket("set/_SUCCESS", b"")
    bucket("setting/train-9.jsonl", LINES)
    for source in ("s3://raw/set", "s3://raw/set/"):
        result = bring_in(workspace, source, part_bytes=1024, num_processes=2)
        assert stored(workspace, "train") == ROWS[:2]
        assert stored(workspace, "test") == ROWS[2:3]
        assert result.notes["objects that are not part of the source: left out"] == 1


def test_what_is_not_there_or_not_one_thing_is_refused(workspace: Workspace, bucket: Any) -> None:
    bucket("mixed/a.jsonl", LINES)
    bucket("mixed/b.csv", b"a,b\n1,2\n")
    bucket("tables/a.parquet", b"PAR1")
    for source, error, words in (
        ("s3://raw/nothing.jsonl", DataError, "no object"),
        ("s3://raw/mixed/", DataError, "csv and jsonl"),
        ("s3://raw/tables/a.parquet", ConfigError, "parquet is not read from"),
        ("s3://no-such-bucket/x.jsonl", ResourceError, "no such bucket"),
    ):
        with pytest.raises(error, match=words):
            bring_in(workspace, source)


def test_an_object_that_changes_meanwhile_commits_nothing(
    workspace: Workspace, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket("x.jsonl", LINES)
    from rsc.ingest import job

    write = job.ImportJob._write

    def written_again(self: Any, *arguments: Any, **named: Any) -> None:
        bucket("x.jsonl", LINES.replace(b"post 1", b"post 9"))
        write(self, *arguments, **named)

    monkeypatch.setattr(job.ImportJob, "_write", written_again)
    with pytest.raises(DataError, match="changed while"):
        bring_in(workspace, "s3://raw/x.jsonl")
