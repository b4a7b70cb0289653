"""Names of files and of members in a zip, in every way that programs write them."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from rsc.config import Workspace
from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import open_source

from .bringing import bring_in, stored
from .conftest import read_all

UTF_8_MARK = 0x800


def zipped(path: Path, names: list[bytes], *, mark: bool = False, extra: bytes = b"") -> Path:
    """A zip with members of these raw names; the library would choose an encoding itself."""
    stand_ins = [f"{number:0{len(name)}d}" for number, name in enumerate(names)]
    with zipfile.ZipFile(path, "w") as archive:
        for number, stand_in in enumerate(stand_ins):
            info = zipfile.ZipInfo(stand_in)
            info.extra = extra
            archive.writestr(info, f"text {number}")
    data = path.read_bytes()
    for stand_in, name in zip(stand_ins, names, strict=True):
        data = data.replace(stand_in.encode(), name)
    if mark:
        for signature, shift in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
            pieces = data.split(signature)
            for index, piece in enumerate(pieces[1:], start=1):
                at = shift - 4
                flags = struct.unpack_from("<H", piece, at)[0] | UTF_8_MARK
                pieces[index] = piece[:at] + struct.pack("<H", flags) + piece[at + 2 :]
            data = signature.join(pieces)
    path.write_bytes(data)
    return path


def names_read(path: Path) -> list[str]:
    rows, bad = read_all(open_source(path, options=ImportOptions(format="text")))
    assert not bad
    return [row["path"] for row in rows]


@pytest.mark.parametrize("mark", [True, False])
@pytest.mark.parametrize("name", ["Größe.txt", "漢字.txt", "emoji😀x.txt", "plain.txt"])
def test_utf_8_is_read_with_and_without_its_mark(tmp_path: Path, name: str, mark: bool) -> None:
    assert names_read(zipped(tmp_path / "x.zip", [name.encode()], mark=mark)) == [name]


@pytest.mark.parametrize(
    ("name", "encoding"), [("漢字.txt", "shift-jis"), ("Größe.txt", "cp437"), ("café.txt", "latin-1")]
)
def test_other_encodings_stay_bytes_and_stay_apart(tmp_path: Path, name: str, encoding: str) -> None:
    raw = name.encode(encoding)
    found = names_read(zipped(tmp_path / "x.zip", [raw, raw.replace(b".txt", b"2.txt")]))
    assert found[0] == raw.decode(errors="backslashreplace")
    assert found[1] != found[0]


@pytest.mark.parametrize("is_of_this_name", [True, False])
def test_the_name_in_utf_8_beside_the_other_counts_if_it_is_of_that_one(
    tmp_path: Path, is_of_this_name: bool
) -> None:
    raw, meant = "漢字.txt".encode("shift-jis"), "漢字.txt"
    checked = zlib.crc32(raw) if is_of_this_name else zlib.crc32(raw) ^ 1
    value = b"\1" + struct.pack("<I", checked) + meant.encode()
    extra = struct.pack("<HH", 0x7075, len(value)) + value
    found = names_read(zipped(tmp_path / "x.zip", [raw], extra=extra))
    assert found == [meant if is_of_this_name else raw.decode(errors="backslashreplace")]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.parquet", "a.csv", "a.jsonl.gz", "a.arrow", "a.bin"])
def test_a_git_lfs_pointer_is_named_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(DataError, match="is a Git LFS pointer"):
        open_source(path, options=ImportOptions())


def test_names_of_a_folder_that_are_not_utf_8_are_stored_as_their_bytes(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "essays").mkdir()
    for name in (b"caf\xe9.txt", b"caf\xe8.txt"):
        (tmp_path / "essays" / os.fsdecode(name)).write_bytes(b"words " + repr(name).encode())
    result = bring_in(workspace, tmp_path / "essays", holdout=0.0)
    assert {row["path"] for row in stored(workspace, "train")} == {"caf\\xe9.txt", "caf\\xe8.txt"}
    assert result.notes["names that are not UTF-8: such bytes are written \\x.."] == 2


@pytest.mark.parametrize("name", [b"caf\xe9.jsonl", b"caf\xe9.csv", b"caf\xe9.txt"])
def test_a_source_whose_own_name_is_not_utf_8_is_imported(
    workspace: Workspace, tmp_path: Path, name: bytes
) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b'{"text": "a"}\n' if name.endswith(b"l") else b"text\na\n")
    bring_in(workspace, path, holdout=0.0)
    assert stored(workspace, "train")[0]["text"].strip() in ("a", "text\na")
