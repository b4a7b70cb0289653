"""Tars that end too soon, go on too long, or hold what their names do not say."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from PIL import Image

from rsc.config import Workspace
from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import detect, open_source

from .bringing import POLICY, SAFE, bring_in, stored
from .conftest import read_all

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "tar.gz": lambda data: gzip.compress(data, mtime=0),
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def tarred(members: list[tuple[str, bytes]], *, encoding: str = "utf-8") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding=encoding) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def texts(count: int) -> list[tuple[str, bytes]]:
    """Samples whose bytes do not pack well, so that cuts of a packed tar fall into its data."""
    rng = np.random.default_rng(7)
    words = [bytes(rng.integers(97, 123, 700, dtype=np.uint8)) for _ in range(count)]
    return [
        item
        for n, word in enumerate(words)
        for item in ((f"{n:03d}.txt", word), (f"{n:03d}.cls", b"%d\n" % n))
    ]


def records(path: Path) -> list[dict[str, object]]:
    rows, bad = read_all(open_source(path, options=ImportOptions()))
    assert not bad
    return rows


@pytest.mark.parametrize("ending", PACKERS)
def test_a_tar_cut_anywhere_is_refused(ending: str, tmp_path: Path) -> None:
    whole = tarred(texts(8))
    data = PACKERS[ending](whole)
    path = tmp_path / f"a.{ending}"
    path.write_bytes(data)
    assert detect(path) == "webdataset"
    everything = records(path)
    assert [row["label"] for row in everything] == [str(n) for n in range(8)]
    needed = len(data) if ending != "tar" else len(whole.rstrip(b"\0")) // 512 * 512 + 3 * 512
    members = range(0, needed, 512) if ending == "tar" else ()
    for cut in sorted({*np.linspace(0, needed - 1, 200, dtype=int).tolist(), *members}):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError):
            records(path)


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
@pytest.mark.parametrize("fault", ["joined", "zeroed member", "zeroed header", "bad header", "more behind"])
def test_damage_that_looks_like_an_end_is_refused(fault: str, ending: str, tmp_path: Path) -> None:
    data = bytearray(tarred(texts(6)))
    header = data.index(b"003.txt")  # a text takes three blocks, a label two
    if fault == "joined":
        data += tarred(texts(3))
    elif fault == "zeroed member":
        data[header : header + 3 * 512] = bytes(3 * 512)
    elif fault == "zeroed header":
        data[header : header + 512] = bytes(512)
    elif fault == "bad header":
        data[header + 20] ^= 0xFF
    else:
        data += b"\0" * 4096 + b"x"
    path = tmp_path / f"a.{ending}"
    path.write_bytes(PACKERS[ending](bytes(data)))
    with pytest.raises(DataError, match="not a whole tar archive"):
        records(path)


def test_a_packed_tar_of_several_streams_is_read_to_its_end(tmp_path: Path) -> None:
    data = tarred(texts(6))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(data[:3000]) + gzip.compress(data[3000:]))
    assert len(records(path)) == 6


def test_content_says_how_a_tar_is_packed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(PACKERS["tar.xz"](tarred(texts(3))))
    assert len(records(path)) == 3


@pytest.mark.parametrize("stray", [("README.md", b"about"), ("meta.json", b"{}"), ("a/LICENSE", b"free")])
def test_a_stray_member_is_set_aside(stray: tuple[str, bytes], workspace: Workspace, tmp_path: Path) -> None:
    for members in ([stray, *texts(4)], [*texts(4), stray]):
        (tmp_path / "a.tar").write_bytes(tarred(members))
        result = bring_in(workspace, tmp_path / "a.tar", holdout=0)
        assert result.splits == {"train": 4}
        assert result.bad_places == (f"sample {stray[0].split('.')[0]}",)
        assert stored(workspace, "quarantine")[0]["raw"] == stray[1]


def test_tars_without_samples_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tarred([]))
    (tmp_path / "b.tar").write_bytes(tarred(texts(2)))
    assert len(records(tmp_path)) == 2


def test_keys_that_are_not_utf_8_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(
        tarred([("caf\xe9.txt", b"one"), ("caf\xe8.txt", b"two")], encoding="latin-1")
    )
    assert [row["key"] for row in records(tmp_path / "a.tar")] == [r"caf\xe9", r"caf\xe8"]


def test_marks_and_line_ends_are_no_labels(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    (tmp_path / "a.tar").write_bytes(tarred([("a.cls", mark + b" 3\r\n"), ("a.txt", mark + b"text\n")]))
    assert records(tmp_path / "a.tar")[0] == {"#": 0, "label": "3", "text": "text\n", "key": "a"}


def jpeg() -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "taken by Eve at home"
    Image.new("RGB", (6, 4), (255, 0, 0)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_content_says_what_a_member_is(workspace: Workspace, tmp_path: Path) -> None:
    letter = b"write to eve@example.org"
    members = [
        item
        for n in range(3)
        for item in (
            (f"{n}.left.jpg", jpeg()), (f"{n}.en.txt", letter), (f"{n}.page", b"<html>" + letter),
            (f"{n}.thumb", jpeg()), (f"{n}.bin", bytes(range(256))),
        )
    ]  # fmt: skip
    (tmp_path / "a.tar").write_bytes(tarred(members))
    result = bring_in(workspace, tmp_path / "a.tar", policy=SAFE, holdout=0)
    assert result.report.by_type() == {"email": 6}
    assert result.report.media["exif"] == 6
    (row, *_) = stored(workspace, "train")
    assert b"Eve" not in row["left.jpg"]
    assert b"Eve" not in row["thumb"]
    assert row["page"] == "<html>write to [EMAIL]"
    assert row["bin"] == bytes(range(256))


def test_the_files_of_a_sample_that_are_no_neighbours(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(
        tarred([("a.txt", b"1"), ("b.txt", b"2"), ("a.cls", b"1"), ("b.cls", b"2")])
    )
    rows, bad = read_all(open_source(tmp_path / "a.tar", options=ImportOptions()))
    assert not rows
    assert bad[-1].reason == "its key stood before: the files of a sample have to be neighbours in the tar"


def test_a_label_needs_no_safeguard_but_the_gate(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tarred(texts(2)))
    assert bring_in(workspace, tmp_path / "a.tar", policy=POLICY, holdout=0).splits == {"train": 2}
