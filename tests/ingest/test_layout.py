"""One file that deviates is set aside by name; what the other files say about themselves stays."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rsc.config import Workspace
from rsc.errors import DataError, RscError
from rsc.ingest.config import ImportOptions
from rsc.ingest.job import ImportResult
from rsc.ingest.readers.detect import detect, open_source

from .bringing import SAFE, bring_in, stored
from .conftest import read_all
from .test_media import lay_out, picture, sound

PLAIN = ImportOptions()


def files(*names: str) -> dict[str, bytes]:
    return {name: picture((n, 2, 3)) for n, name in enumerate(names)}


def labels(workspace: Workspace, result: ImportResult) -> dict[str, list[tuple[str, str | None]]]:
    """Path and label of everything stored, by split."""
    return {
        split: sorted((row["path"], row.get("label")) for row in stored(workspace, split))
        for split in result.splits
    }


SPLIT = files("train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png")
SPLIT_LABELS = {
    "train": [("train/cat/1.png", "cat"), ("train/dog/2.png", "dog")],
    "test": [("test/cat/3.png", "cat"), ("test/dog/4.png", "dog")],
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("stray", [None, "logo.png", "train/montage.png", "test/a.png"])
def test_a_stray_picture_changes_no_split_and_no_label(
    packed: bool, stray: str | None, workspace: Workspace, tmp_path: Path
) -> None:
    there = SPLIT | ({} if stray is None else {stray: picture((9, 9, 9))})
    result = bring_in(workspace, lay_out(tmp_path / "pets", there, packed=packed), policy=SAFE)
    assert labels(workspace, result) == SPLIT_LABELS
    assert result.bad_places == (() if stray is None else (stray,))
    assert ("2 class folders", "field label") in result.taken
    assert [became for _, became in result.taken] == ["split test", "split train", "field label"]


def test_a_folder_around_everything_is_passed_over(workspace: Workspace, tmp_path: Path) -> None:
    there = {f"pets-1.0/data/{name}": data for name, data in SPLIT.items()}
    result = bring_in(workspace, lay_out(tmp_path / "pets", there), policy=SAFE)
    assert result.splits == {"train": 2, "test": 2}
    assert {row["label"] for row in stored(workspace, "test")} == {"cat", "dog"}


def test_a_class_that_is_called_like_a_split_is_asked_about(tmp_path: Path) -> None:
    source = lay_out(tmp_path / "pets", files("cat/1.png", "test/2.png", "dog/3.png"))
    with pytest.raises(DataError, match="'test' is named like a split, and 'cat' beside it is not"):
        open_source(source, options=PLAIN).fields()


def test_a_test_set_without_labels_is_set_aside(workspace: Workspace, tmp_path: Path) -> None:
    there = files("train/cat/1.png", "train/dog/2.png", "test/3.png", "test/4.png", "test/5.png")
    result = bring_in(workspace, lay_out(tmp_path / "pets", there), policy=SAFE)
    assert labels(workspace, result) == {"train": SPLIT_LABELS["train"]}
    assert result.bad == {"it lies outside the class folders: it has no label": 3}


def test_loose_pictures_beside_a_few_folders_have_no_labels(workspace: Workspace, tmp_path: Path) -> None:
    there = files(*(f"{n}.png" for n in range(5)), "old/a.png", "new/b.png")
    result = bring_in(workspace, lay_out(tmp_path / "pets", there), policy=SAFE, holdout=0)
    assert result.splits == {"train": 7}
    assert result.taken == (("2 folders, most files lie outside them", "nothing: no labels"),)


def test_captions(workspace: Workspace, tmp_path: Path) -> None:
    there = files("a.png", "b.png", "c.png", "d.png")
    texts = {"a.txt": b"\xef\xbb\xbfone\n", "b.txt": b"two", "c.txt": b" \n", "orphan.txt": b"x"}
    result = bring_in(workspace, lay_out(tmp_path / "pets", there | texts), policy=SAFE, holdout=0)
    assert [row["text"] for row in stored(workspace, "train")] == ["one", "two"]
    assert result.bad == {"its caption is blank": 1, "it has no caption, as most of the others have": 1}
    assert result.notes == {"files that are no image, left out (.txt)": 1}
    few = lay_out(tmp_path / "few", there | {"a.txt": b"one"})
    result = bring_in(workspace, few, policy=SAFE, holdout=0)
    assert result.splits == {"train": 4}
    assert result.taken == (("1 texts beside 4 files: fewer than half", "nothing"),)


ROWS = [
    {"file_name": "a.png", "label": "cat", "age": 3},
    {"file_name": "sub/b.png", "label": "dog", "age": 4},
]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_metadata_files_are_obeyed(form: str, workspace: Workspace, tmp_path: Path) -> None:
    if form == "jsonl":
        data = "".join(json.dumps(row) + "\n" for row in ROWS)
    else:
        data = "file_name,label,age\n" + "".join(f"{r['file_name']},{r['label']},{r['age']}\n" for r in ROWS)
    there = {f"set/{name}": image for name, image in files("a.png", "sub/b.png", "c.png").items()}
    there[f"set/metadata.{form}"] = data.encode()
    result = bring_in(workspace, lay_out(tmp_path / "pets", there), policy=SAFE, holdout=0)
    rows = [(row["label"], row["age"], row["path"]) for row in stored(workspace, "train")]
    assert rows == [("cat", "3", "set/a.png"), ("dog", "4", "set/sub/b.png")]
    assert result.bad == {f"metadata.{form} does not name it": 1}


@pytest.mark.parametrize(
    "data",
    [b"not json\n", b'{"label": "cat"}\n', b'{"file_name": "a.png"}\n{"file_name": "a.png"}\n',
     b'{"file_name": "a.png", "path": "x"}\n'],
)  # fmt: skip
def test_metadata_files_that_cannot_be_obeyed_are_refused(data: bytes, tmp_path: Path) -> None:
    source = lay_out(tmp_path / "pets", files("a.png") | {"metadata.jsonl": data})
    with pytest.raises(DataError, match="would be lost"):
        open_source(source, options=PLAIN).fields()


def test_content_decides_where_the_name_does_not(workspace: Workspace, tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"
    there = files("a.png", "b", "c.data") | {"d.png": pointer, "e.bin": bytes(99), "f.png": sound(9)}
    result = bring_in(workspace, lay_out(tmp_path / "pets", there), policy=SAFE, holdout=0)
    assert [row["path"] for row in stored(workspace, "train")] == ["a.png", "b", "c.data"]
    assert sum("Git LFS" in reason for reason in result.bad) == 1
    assert result.bad_places == ("d.png", "f.png")
    assert result.notes == {"files that are no image, left out (.bin)": 1}


def test_the_medium_of_most_files_is_imported(tmp_path: Path) -> None:
    there = {f"{n}.wav": sound(9) for n in range(3)} | files("cover.png")
    assert detect(lay_out(tmp_path / "songs", there)) == "audio"


def zipped(names: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in names.items():
            info = zipfile.ZipInfo("placeholder")
            info.filename = name  # as it is: the constructor would turn the system's separator
            archive.writestr(info, data)
    return file.getvalue()


def test_backslashes_of_a_zip_are_folders(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "pets.zip"
    path.write_bytes(zipped({name.replace("/", "\\"): data for name, data in SPLIT.items()}))
    assert labels(workspace, bring_in(workspace, path, policy=SAFE)) == SPLIT_LABELS


def test_a_zip_cut_or_joined_is_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "pets.zip", zipped(SPLIT)
    path.write_bytes(data)
    assert len(read_all(open_source(path, options=PLAIN))[0]) == 4
    small = zipped(files("x.png"))
    cuts = [data[:cut] for cut in np.linspace(0, len(data) - 1, 200, dtype=int)]
    count = bytearray(data)
    count[-12] -= 1
    for wrong in (*cuts, data + small, small + data, data + b"x", data + small[:-30], bytes(count)):
        path.write_bytes(wrong)
        with pytest.raises(DataError):
            read_all(open_source(path, options=PLAIN))


def test_a_zip_behind_a_program_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pets.zip"
    path.write_bytes(b"#!/bin/sh\nexit 1\n" + zipped(SPLIT))
    assert len(read_all(open_source(path, options=PLAIN))[0]) == 4


def test_a_damaged_zip_is_refused_or_its_members_are_quarantined(tmp_path: Path) -> None:
    path, data = tmp_path / "pets.zip", zipped(SPLIT)
    rng = np.random.default_rng(6)
    for at in rng.choice(len(data), 200, replace=False):
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            rows, bad = read_all(open_source(path, options=PLAIN))
        except RscError:
            continue
        assert len(rows) + len(bad) <= 4
