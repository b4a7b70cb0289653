"""Sources as they come: cut short, too large, in another encoding, with names that lead out."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import zstandard
from PIL import Image

from rsc.config import Workspace
from rsc.errors import DataError
from rsc.ingest import workers
from rsc.ingest.importer import import_columns
from rsc.ingest.job import ImportResult
from rsc.ingest.readers import file_tree
from rsc.ingest.readers.lines import require_whole_frames
from rsc.ingest.readers.source import own_name
from tests.ingest.bringing import SAFE, bring_in, stored

LINES = "".join(
    json.dumps({"id": number, "text": f"post {number}"}) + "\n" for number in range(3000)
).encode()


def image(*, size: tuple[int, int] = (8, 8), mode: str = "RGB", kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 1).save(file, kind)
    return file.getvalue()


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: Sequence[tuple[str, bytes]], *, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def bring(workspace: Workspace, path: Path, **options: object) -> ImportResult:
    return bring_in(workspace, path, policy=SAFE, **options)


def zstd_streams() -> list[bytes]:
    plain = zstandard.compress(LINES)
    summed = zstandard.ZstdCompressor(write_checksum=True).compress(LINES)
    stream = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    skippable = b"\x51\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    run = zstandard.compress(b"x" * 1_000_000)
    return [plain, summed, stream.compress(LINES) + stream.flush(), plain + skippable + summed, run]


@pytest.mark.parametrize("number", range(5))
def test_a_zstandard_stream_cut_anywhere_is_not_whole(tmp_path: Path, number: int) -> None:
    whole, path = zstd_streams()[number], tmp_path / "a.zst"
    path.write_bytes(whole)
    require_whole_frames(path)
    for cut in {*range(1, min(len(whole), 30)), len(whole) // 2, len(whole) - 1, len(whole) - 3}:
        path.write_bytes(whole[: len(whole) - cut])
        if number == 3 and path.stat().st_size in (len(zstd_streams()[0]), len(zstd_streams()[0]) + 13):
            continue  # cut between two frames
        with pytest.raises((EOFError, zstandard.ZstdError)):
            require_whole_frames(path)


@pytest.mark.parametrize("name", ["a.jsonl.zst", "a.jsonl.gz", "a.csv.gz", "a.csv.zst", "a.txt.zst"])
def test_no_record_of_a_stream_that_was_cut_short(name: str, workspace: Workspace, tmp_path: Path) -> None:
    """Its readable beginning would look like a smaller data set. 3 MiB: more than what is looked at first."""
    rng = np.random.default_rng(1)
    text = "id,text\n" + "".join(f"{number},{rng.bytes(20).hex()}\n" for number in range(70_000))
    data = text.encode() if ".csv" in name or ".txt" in name else LINES * 50
    pack = gzip.compress if name.endswith(".gz") else zstandard.compress
    (tmp_path / name).write_bytes(pack(data)[:-50])
    with pytest.raises(DataError, match="is not a whole"):
        bring(workspace, tmp_path / name)
    assert not (workspace.data / "posts" / "v0001").exists()


def test_utf_16_is_told(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES.decode().encode("utf-16"))
    with pytest.raises(DataError, match=r"a\.jsonl line 1 .* UTF-16") as caught:
        bring(workspace, tmp_path / "a.jsonl")
    assert "iconv" in str(caught.value.hint)


def test_members_that_do_not_unpack_are_bad_records(workspace: Workspace, tmp_path: Path) -> None:
    """A wrong checksum, and damaged bytes; the others are taken, whatever their names say."""
    names = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "../../b/2.jpg", "/etc/3.jpg"]
    path = zipped(tmp_path / "a.zip", {name: image(size=(64, 64)) for name in names})
    with zipfile.ZipFile(path) as archive:
        first, second, *_ = (info.header_offset for info in archive.infolist())
    data = bytearray(path.read_bytes())
    data[first + 60] ^= 1
    data[second + 37 : second + 47] = b"\xff" * 10
    path.write_bytes(data)
    result = bring(workspace, path, holdout=0.0)
    assert sum(result.bad.values()) == 2
    assert all(reason.startswith("cannot be unpacked") for reason in result.bad)
    assert {row["path"] for row in stored(workspace, "train")} == set(names[2:])


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_are_each_read_once(workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for text in ("the first", "the second", "the third"):
            archive.writestr("one/letter.txt", text)
    result = bring(workspace, path, holdout=0.0)
    assert result.num_read == 3
    assert [row["text"] for row in stored(workspace, "train")] == ["the first", "the second", "the third"]


def test_what_a_folder_holds_beside_the_source_is_told(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "posts"
    (folder / "more").mkdir(parents=True)
    for path in (folder / "a.jsonl", folder / "more" / "b.jsonl", folder / "c.csv"):
        path.write_text('{"text": "one"}\n')
    (folder / "linked").symlink_to(folder / "more")
    (folder / "lost.jsonl").symlink_to(tmp_path / "nothing")
    result = bring(workspace, folder, holdout=0.0)
    assert result.num_read == 1
    assert result.notes == {
        "files of the folder that are not part of the source: left out": 2,
        "links to folders or to nothing: not followed": 2,
    }


def _fifo(path: Path) -> None:
    os.mkfifo(path)


LEADS_OUT = {
    "file": lambda path: path.symlink_to(path.parent.parent / "secret.jsonl"),
    "relative": lambda path: path.symlink_to("../secret.jsonl"),
    "process": lambda path: path.symlink_to("/proc/self/environ"),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.symlink_to("/etc"),
    "chain": lambda path: path.symlink_to(_link(path.parent / "b.lnk", "/proc/self/environ")),
    "pipe": _fifo,
}


def _link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".txt", ".png", ".wav", ".parquet", ".tar"])
@pytest.mark.parametrize("kind", LEADS_OUT)
def test_what_leads_out_of_a_source_folder_is_refused_by_name(
    kind: str, suffix: str, workspace: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "source"
    (folder / "deep").mkdir(parents=True)
    (tmp_path / "secret.jsonl").write_text('{"text": "not to be read"}\n')
    (folder / f"a{suffix}").write_text('{"text": "one"}\n')
    planted = folder / ("deep" if kind == "process" else ".") / f"b{suffix}"
    LEADS_OUT[kind](planted)
    with pytest.raises(DataError, match=rf"^(?s:.)*b({re.escape(suffix)}|\.lnk) in .*(leads out|neither)"):
        bring(workspace, folder, holdout=0.0)
    assert not list(workspace.root.rglob("root.json"))


def test_an_index_cannot_name_a_hidden_file(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / ".hidden").symlink_to("/proc/self/environ")
    with pytest.raises(DataError, match="hidden"):
        own_name(".hidden")


def test_a_link_inside_the_folder_is_a_file_like_another(workspace: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"text": "one"}\n')
    (folder / "b.jsonl").symlink_to("a.jsonl")
    assert bring(workspace, folder, holdout=0.0).num_read == 2


def test_a_folder_inside_that_cannot_be_listed_stops_the_import(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts" / "closed").mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_text("readable")
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may list everything, so a mode would not do
    with pytest.raises(DataError, match="cannot read the folder"):
        bring(workspace, tmp_path / "texts")


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_link_in_a_tar_is_a_bad_record(mode: str, workspace: Workspace, tmp_path: Path) -> None:
    path = tmp_path / ("a.tar" if mode == "w" else "a.tar.gz")
    with tarfile.open(path, mode) as archive:
        for name in ("0.txt", "1.txt"):
            info = tarfile.TarInfo(name)
            info.size = 5
            archive.addfile(info, io.BytesIO(b"hello"))
        for name, kind in (("2.txt", tarfile.LNKTYPE), ("3.txt", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "0.txt"
            archive.addfile(info)
    result = bring(workspace, path, holdout=0.0)
    assert (result.num_read, result.splits) == (4, {"train": 2})
    assert result.bad == {"file .txt is a link, which is not followed": 2}
    assert result.bad_places == ("sample 2", "sample 3")


def test_a_zip_bomb_is_one_bad_record(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_tree, "MAX_FILE_BYTES", 1 << 20)
    monkeypatch.setattr(workers, "DECODED", frozenset())  # a worker would not see the line above
    files = {"a/1.jpg": image(), "b/1.jpg": image(), "b/bomb.jpg": bytes(5 << 20)}
    result = bring(workspace, zipped(tmp_path / "a.zip", files), holdout=0.0)
    assert result.bad == {"5242880 bytes in one file: too long for a record": 1}
    assert result.splits == {"train": 2}


def test_an_archive_of_archives_is_refused_by_name(workspace: Workspace, tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"a.jpg": image()}).read_bytes()
    with pytest.raises(DataError, match="holds only archives"):
        bring(workspace, zipped(tmp_path / "outer.zip", {"inner.zip": inner}))


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_odd_samples_of_a_tar_are_counted(mode: str, workspace: Workspace, tmp_path: Path) -> None:
    samples = [(f"{number:03d}.{ending}", data) for number in range(120)
               for ending, data in (("jpg", image()), ("cls", b"1"))]  # fmt: skip
    odd = [("900.jpg", image()), ("900.png", image(kind="PNG")), ("900.cls", b"1")]
    late = [("901.jpg", image()), ("901.cls", b"1"), ("901.json", b"{}")]
    path = tarred(tmp_path / ("a.tar" if mode == "w" else "a.tar.gz"), [*samples, *odd, *late], mode=mode)
    result = bring(workspace, path, holdout=0.0)
    assert result.bad == {"two files for field 'image'": 1}
    assert result.notes == {"files .json beside a sample, which few of the first samples have: left out": 1}
    assert result.splits == {"train": 121}


def test_unusual_pictures_are_counted(workspace: Workspace, tmp_path: Path) -> None:
    for name, data in {"a": image(), "b": image(mode="CMYK"), "c": image(size=(1, 1)), "d": b"no"}.items():
        (tmp_path / "pictures").mkdir(exist_ok=True)
        (tmp_path / "pictures" / f"{name}.jpg").write_bytes(data)
    given = bring(workspace, tmp_path / "pictures")
    assert given.notes == {"pictures in CMYK": 1, "pictures of a single pixel": 1}
    assert given.bad == {"not a picture that we can decode": 1}
    decoded = bring(workspace, tmp_path / "pictures", image_size=8)
    assert decoded.notes == {
        "pictures in CMYK, stored as RGB": 1,
        "pictures of a single pixel": 1,
        "pictures smaller than image_size, enlarged": 1,
    }


def test_sounds_of_several_channels_are_counted(workspace: Workspace, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    (tmp_path / "sounds").mkdir()
    for name, channels in (("one", 1), ("two", 2)):
        soundfile.write(tmp_path / "sounds" / f"{name}.wav", np.full((800, channels), 0.1), 8000)
    assert bring(workspace, tmp_path / "sounds").notes == {"sounds of several channels": 1}
    decoded = bring(workspace, tmp_path / "sounds", sample_rate=8000)
    assert decoded.notes == {"sounds of several channels, averaged to one": 1}


def test_what_is_not_finite_is_counted(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"v": 1.5}\n{"v": NaN}\n{"v": -Infinity}\n')
    assert bring(workspace, tmp_path / "a.jsonl").notes == {"field 'v' holds NaN or infinity": 2}
    columns = {"pixels": np.array([[1, 2], [np.inf, 0], [3e38, 3e38]], np.float32)}
    result = import_columns(columns, name="posts", workspace=workspace, policy=SAFE, author="ada")
    assert result.notes == {"field 'pixels' holds NaN or infinity": 1}


def test_a_damaged_parquet_page_is_a_data_error(workspace: Workspace, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"text": [f"post {number} {number * 7}" for number in range(2000)]})
    parquet.write_table(table, tmp_path / "a.parquet")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[2000:2600] = bytes(600)
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet is not a whole Parquet file"):
        bring(workspace, tmp_path / "a.parquet")


def test_an_index_that_names_files_elsewhere_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "state.json").write_text('{"_data_files": [{"filename": "../../etc/passwd"}]}')
    with pytest.raises(DataError, match="not in its folder"):
        bring(workspace, tmp_path / "set")
