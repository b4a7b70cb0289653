from __future__ import annotations

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from rsc.config import Workspace
from rsc.errors import ConfigError, DataError, GateRefused
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import open_source
from rsc.ingest.readers.media.codec import MediaCodec
from rsc.ingest.readers.media.files import MediaTree
from rsc.ingest.readers.media.layout import name_pattern
from rsc.store.dataset import Dataset

from .bringing import POLICY, SAFE, bring_in, stored
from .conftest import read_all


def picture(
    color: tuple[int, ...], *, size: tuple[int, int] = (8, 6), mode: str = "RGB", kind: str = "PNG"
) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, kind)
    return file.getvalue()


def sound(samples: int, *, rate: int = 8000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    values = np.arange(samples * channels, dtype=np.int16).reshape(samples, channels)
    soundfile.write(file, values, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def lay_out(root: Path, files: dict[str, bytes], *, packed: bool = False) -> Path:
    if packed:
        with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return root.with_suffix(".zip")
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_class_folders_and_splits(workspace: Workspace, tmp_path: Path, packed: bool) -> None:
    cat, dog = picture((255, 0, 0)), picture((0, 255, 0))
    files = {
        f"{split}/{kind}/{i}.png": data
        for split in ("train", "val")
        for kind, data in (("cat", cat), ("dog", dog))
        for i in range(3)
    }
    source = lay_out(
        tmp_path / "pets", {**files, "README.md": b"pets", "train/cat/broken.png": cat[:20]}, packed=packed
    )
    result = bring_in(workspace, source, policy=SAFE)
    assert result.splits == {"train": 6, "validation": 6}
    assert result.bad == {"not a picture that we can decode": 1}
    assert result.bad_places == ("train/cat/broken.png",)
    rows = stored(workspace, "train")
    assert {row["label"] for row in rows} == {"cat", "dog"}
    assert {row["image"] for row in rows} == {cat, dog}
    assert "broken" not in str(Dataset.open(workspace.data, name="posts").facts)
    assert result.notes == {"files that are no image, left out (.md)": 1}


def test_pictures_need_a_safeguard(workspace: Workspace, tmp_path: Path) -> None:
    source = lay_out(tmp_path / "pets", {"a.png": picture((1, 2, 3))})
    with pytest.raises(GateRefused, match="no safeguard for image content"):
        bring_in(workspace, source, policy=POLICY)


def test_metadata_is_taken_out_and_told(workspace: Workspace, tmp_path: Path) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "taken by Eve at home"  # ImageDescription
    exif[0x0112] = 6  # Orientation: turn it to the right
    Image.new("RGB", (6, 4), (255, 0, 0)).save(file, "JPEG", exif=exif)
    bitmap = picture((1, 2, 3), kind="BMP")
    source = lay_out(tmp_path / "pets", {"a.jpg": file.getvalue(), "b.bmp": bitmap})
    result = bring_in(workspace, source, policy=SAFE, holdout=0)
    (row,) = stored(workspace, "train")
    assert b"Eve" not in row["image"]
    assert result.report.media["exif"] == 1
    assert Image.open(io.BytesIO(row["image"])).getexif()[0x0112] == 6
    assert stored(workspace, "quarantine")[0]["raw"] == bitmap
    bring_in(workspace, source, policy=SAFE, holdout=0, image_size="6x4")
    assert len(stored(workspace, "train")) == 2


def test_decoded_to_one_shape(workspace: Workspace, tmp_path: Path) -> None:
    files = {
        "a.png": picture((9, 8, 7)),
        "b.png": picture((9, 8, 7), size=(4, 4)),
        "one_pixel.png": picture((9, 8, 7), size=(1, 1)),
        "cmyk.jpg": picture((0, 0, 0, 0), mode="CMYK", kind="JPEG"),
        "gray.png": picture((5,), mode="L"),
    }
    bring_in(workspace, lay_out(tmp_path / "pets", files), policy=SAFE, image_size="4x4", holdout=0)
    rows = {row["path"]: np.array(row["image"]) for row in stored(workspace, "train")}
    assert all(image.shape == (4, 4, 3) for image in rows.values())
    assert (rows["one_pixel.png"] == [9, 8, 7]).all()
    assert (rows["cmyk.jpg"] > 250).all()
    assert (rows["gray.png"] == 5).all()


def test_scaled_to_cover_and_cut_in_the_middle() -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 200
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    codec = MediaCodec("image", ImportOptions(image_size="4x4"))
    assert (np.asarray(codec.value(file.getvalue(), notes=Counter())) == 200).all()


def test_captions_beside_pictures(workspace: Workspace, tmp_path: Path) -> None:
    files = {"a.png": picture((1, 1, 1)), "a.txt": b"write to eve@example.org\n", "b.png": picture((2, 2, 2))}
    result = bring_in(workspace, lay_out(tmp_path / "pets", files), policy=SAFE, holdout=0)
    assert [row["text"] for row in stored(workspace, "train")] == ["write to [EMAIL]"]
    assert result.bad == {"it has no caption, as most of the others have": 1}
    assert result.bad_places == ("b.png",)
    assert result.report.by_type() == {"email": 1}


def test_duplicated_pictures_are_held_out_together(workspace: Workspace, tmp_path: Path) -> None:
    files = {f"{kind}/{i}.png": picture((i % 20, 0, 0)) for kind in ("a", "b") for i in range(60)}
    bring_in(workspace, lay_out(tmp_path / "pets", files), policy=SAFE, holdout=0.5, image_size=4)
    train = {str(row["image"]) for row in stored(workspace, "train")}
    validation = {str(row["image"]) for row in stored(workspace, "validation")}
    assert train
    assert validation
    assert not train & validation


def test_sounds_with_labels_in_their_names(workspace: Workspace, tmp_path: Path) -> None:
    files = {
        f"recordings/{digit}_{who}_{i}.wav": sound(50 + i)
        for digit in "01"
        for who in ("ada", "bob")
        for i in range(3)
    }
    files |= {"recordings/0_ada_9.wav": sound(0), "recordings/1_ada_9.wav": sound(9, rate=16000)}
    source = lay_out(tmp_path / "digits", files)
    options = {"label_pattern": "{label}_{speaker}_{index}", "test_where": "index=0", "sample_rate": 8000}
    result = bring_in(workspace, source, policy=SAFE, **options)
    assert result.splits == {"train": 8, "test": 4}
    assert result.bad == {"a sound of no length": 1, "sample rate 16000, not 8000": 1}
    rows = stored(workspace, "test")
    assert {(row["label"], row["speaker"], row["index"]) for row in rows} == {
        (d, w, "0") for d in "01" for w in ("ada", "bob")
    }
    assert rows[0]["audio"] == list(range(50))


def test_stereo_is_averaged(tmp_path: Path) -> None:
    source = lay_out(tmp_path / "s", {"a.wav": sound(4, channels=2)})
    rows, _ = read_all(MediaTree(source, options=ImportOptions(sample_rate=8000), medium="audio"))
    assert rows[0]["audio"].tolist() == [0, 2, 4, 6]


def test_a_name_that_does_not_fit_the_pattern(tmp_path: Path) -> None:
    source = lay_out(tmp_path / "s", {"a_b.wav": sound(4), "noise.wav": sound(4)})
    with pytest.raises(DataError, match=r"noise\.wav does not fit"):
        open_source(source, options=ImportOptions(label_pattern="{label}_{who}")).fields()


@pytest.mark.parametrize("pattern", ["plain", "{a}_{a}", "{text}"])
def test_unusable_patterns(pattern: str) -> None:
    with pytest.raises(ConfigError, match="not usable"):
        name_pattern(pattern)


def test_unknown_test_field(tmp_path: Path) -> None:
    source = lay_out(tmp_path / "s", {"a_b.wav": sound(4)})
    options = ImportOptions(label_pattern="{label}_{who}", test_where="speaker=b")
    with pytest.raises(ConfigError, match="there is no field 'speaker'"):
        open_source(source, options=options).fields()


@pytest.mark.parametrize(("where", "fits"), [("who=nobody", "no file"), ("who=b,c", "every file")])
def test_a_test_split_of_nothing_or_of_everything_is_refused(tmp_path: Path, where: str, fits: str) -> None:
    source = lay_out(tmp_path / "s", {"a_b.wav": sound(4), "a_c.wav": sound(4)})
    options = ImportOptions(label_pattern="{label}_{who}", test_where=where)
    with pytest.raises(ConfigError, match=f"fits {fits}") as caught:
        open_source(source, options=options).fields()
    assert caught.value.hint == "who is one of: b, c"


def test_spoken_digits(real_data: Path) -> None:
    options = ImportOptions(label_pattern="{label}_{speaker}_{index}", test_where="index=0,1,2,3,4")
    source = open_source(real_data / "free_spoken_digits.zip", options=options)
    assert [item.name for item in source.fields()] == ["audio", "label", "speaker", "index", "path"]
    assert source.splits() == ("train", "test")
    chunk = next(source.read(next(source.parts(part_bytes=1 << 16))))
    assert chunk.columns["label"][0] == "0"
    assert chunk.columns["audio"][0][:4] == b"RIFF"
