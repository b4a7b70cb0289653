from __future__ import annotations

import io
import zipfile
from contextlib import suppress
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from rsc.errors import ConfigError
from rsc.loader.decode import BadSample, DecodedLoader
from rsc.loader.loader import SAMPLE_NUMBER, Loader
from rsc.store.format.columns import columns_from_records
from rsc.store.format.schema import Field, Schema
from rsc.store.splits import SplitReader
from tests.loader.conftest import MakeSplit

SHAPE = (4, 6, 3)
SCHEMA = Schema((Field("file", "bytes"), Field("label", "tensor", "int64")))
SMALL: dict[str, Any] = {"window_bytes": 4096, "lanes": 2, "numbered": True}


def png(number: int, *, size: tuple[int, int] = (6, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (number % 256, 1, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def decode_rgb(file: bytes) -> NDArray[np.uint8]:
    """Any picture that Pillow reads -> uint8 [height, width, 3], in its own size."""
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def broken(number: int) -> bytes:
    """Every third file is broken in one of four ways."""
    return [b"", b"not an image", png(number)[:40], png(number, size=(9, 9))][number // 3 % 4]


@pytest.fixture
def pictures(make_split: MakeSplit) -> SplitReader:
    records = [{"file": png(n) if n % 3 else broken(n), "label": n} for n in range(120)]
    return make_split(SCHEMA, columns_from_records(SCHEMA, records), frame_bytes=1000, shard_bytes=5000)


def open_pictures(split: SplitReader, *, threads: int = 2, **options: Any) -> DecodedLoader:
    loader = Loader(split, batch_size=16, **SMALL, **options)
    return DecodedLoader(loader, field="file", decode=decode_rgb, shape=SHAPE, threads=threads)


@pytest.mark.parametrize("threads", [1, 3])
def test_good_files_are_decoded_and_bad_ones_counted_and_named(pictures: SplitReader, threads: int) -> None:
    seen = 0
    with open_pictures(pictures, threads=threads, epochs=1) as images:
        for batch in images:
            values, labels, is_good = batch["file"], batch["label"], batch["file_is_good"]
            assert isinstance(values, torch.Tensor)
            assert isinstance(labels, torch.Tensor)
            assert isinstance(is_good, torch.Tensor)
            assert values.shape == (len(labels), *SHAPE)
            assert torch.equal(is_good, labels % 3 != 0)
            expected = torch.where(is_good, labels, 0)
            assert torch.equal(values[:, 0, 0, 0].long(), expected)
            seen += len(labels)
    assert seen == 120
    assert images.num_bad == 40
    assert {bad.sample for bad in images.bad} == set(range(0, 120, 3))
    assert BadSample(9, "ShapeError") in images.bad
    assert BadSample(3, "UnidentifiedImageError") in images.bad


@pytest.mark.parametrize(("size", "is_shared"), [((6, 4), False), ((60, 40), True)])
def test_threads_share_files_that_are_worth_it(
    make_split: MakeSplit, size: tuple[int, int], is_shared: bool
) -> None:
    """Files of 60 x 40 random pixels have 7 kB, those of 6 x 4 have 0.1."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (64, size[1], size[0], 3), dtype=np.uint8)
    records = []
    for number, picture in enumerate(pixels):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        records.append({"file": file.getvalue(), "label": number})
    split = make_split(
        SCHEMA, columns_from_records(SCHEMA, records), frame_bytes=200_000, shard_bytes=1_000_000
    )
    both = Barrier(2)

    def decode(file: bytes) -> NDArray[np.uint8]:
        both.wait(timeout=60 if is_shared else 0.5)  # for a second thread
        return decode_rgb(file)

    loader = Loader(split, batch_size=16, **SMALL | {"window_bytes": 1 << 20}, epochs=1)
    with DecodedLoader(loader, field="file", decode=decode, shape=(size[1], size[0], 3), threads=2) as images:
        for batch in images:
            labels = batch["label"]
            assert isinstance(labels, torch.Tensor)
            if is_shared:
                assert torch.equal(batch["file"], torch.from_numpy(pixels)[labels])  # type: ignore[arg-type]
        assert {bad.reason for bad in images.bad} == (set() if is_shared else {"BrokenBarrierError"})


def test_resume_goes_on_after_the_last_batch_delivered(pictures: SplitReader) -> None:
    """Batches decoded ahead are not in the state."""
    with open_pictures(pictures) as images:
        states, batches = [], []
        for _ in range(9):
            states.append(images.state_dict())
            batches.append(next(images))
    for state, expected in zip(states, batches, strict=True):
        with open_pictures(pictures) as resumed:
            resumed.load_state_dict(state)
            found = next(resumed)
        for name in ("file", "label", SAMPLE_NUMBER):
            assert torch.equal(found[name], expected[name])  # type: ignore[arg-type]


def test_sample_numbers_are_those_of_the_written_order(pictures: SplitReader, mixed: SplitReader) -> None:
    for split, name in ((pictures, "label"), (mixed, "number")):
        for rank in range(3):
            with Loader(split, batch_size=11, rank=rank, world_size=3, epochs=1, **SMALL) as loader:
                for batch in loader:
                    assert torch.equal(batch[SAMPLE_NUMBER], batch[name])  # type: ignore[arg-type]


def test_real_jpegs(real_data: Path, make_split: MakeSplit) -> None:
    archive = real_data / "cifar10_jpeg.zip"
    if not archive.is_file():
        pytest.skip("cifar10_jpeg.zip not found in the real data")
    with zipfile.ZipFile(archive) as files:
        names = [name for name in files.namelist() if name.endswith(".jpg")][:200]
        records = [{"file": files.read(name), "label": n} for n, name in enumerate(names)]
    split = make_split(SCHEMA, columns_from_records(SCHEMA, records), frame_bytes=20_000, shard_bytes=100_000)
    loader = Loader(split, batch_size=64, epochs=1, **SMALL)
    with DecodedLoader(loader, field="file", decode=decode_rgb, shape=(32, 32, 3), threads=2) as images:
        for batch in images:
            for value, label in zip(batch["file"], batch["label"], strict=True):
                assert np.array_equal(value, decode_rgb(records[int(label)]["file"]))
    assert images.num_bad == 0


def test_a_loader_without_numbers_or_field_is_refused(pictures: SplitReader) -> None:
    for options in ({"numbered": False}, {"fields": ("label",)}):
        with (
            Loader(pictures, batch_size=2, **(SMALL | options)) as loader,
            pytest.raises(ConfigError, match="numbered=True"),
        ):
            DecodedLoader(loader, field="file", decode=decode_rgb, shape=SHAPE)


def test_a_field_that_holds_no_files_is_refused(pictures: SplitReader) -> None:
    with (
        Loader(pictures, batch_size=2, **SMALL) as loader,
        pytest.raises(ConfigError, match=r"'label': it is int64 \[\]"),
    ):
        DecodedLoader(loader, field="label", decode=decode_rgb, shape=SHAPE)


def test_ctrl_c_while_files_are_decoded_loses_no_batch(
    pictures: SplitReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a second one, while the loader goes back to where it was."""
    with open_pictures(pictures) as images:
        expected = [next(images)["label"] for _ in range(9)]
    interrupts, returns, go_back = [40, 75], [1, 1, 0], Loader.load_state_dict

    def go_back_or_not(loader: Loader, state: dict[str, Any]) -> None:
        if returns and returns.pop():
            raise KeyboardInterrupt
        go_back(loader, state)

    monkeypatch.setattr(Loader, "load_state_dict", go_back_or_not)

    def decode(file: bytes) -> NDArray[np.uint8]:
        interrupts[:1] = [interrupts[0] - 1] if interrupts else []
        if interrupts and interrupts[0] == 0:
            interrupts.pop(0)
            raise KeyboardInterrupt
        return decode_rgb(file)

    found: list[Any] = []
    loader = Loader(pictures, batch_size=16, **SMALL)
    with DecodedLoader(loader, field="file", decode=decode, shape=SHAPE) as images:
        while len(found) < len(expected):
            with suppress(KeyboardInterrupt):
                found.append(next(images)["label"])
    assert not interrupts
    assert not returns
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
