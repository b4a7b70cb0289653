"""Prediction from tables, folders and standard input gives what the same samples give line by line."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rsc.errors import ConfigError, DataError
from rsc.evaluate.sample_files import read_samples
from rsc.models.config import HeadConfig, ImageConfig, ModelConfig, TextConfig, TrunkConfig

HEAD = HeadConfig(kind="classes", labels=("a", "b"))
TRUNK = TrunkConfig(width=8, num_layers=1, num_heads=1, mlp_width=16)
READER = ModelConfig(trunk=TRUNK, text=TextConfig(), head=HEAD)
SEER = ModelConfig(trunk=TRUNK, image=ImageConfig(height=8, width=8), head=HEAD)
BOTH = ModelConfig(trunk=TRUNK, image=ImageConfig(height=8, width=8), text=TextConfig(), head=HEAD)

TEXTS = [
    "plain",
    'with "quotes", commas; and | bars',
    "two\nlines",
    "",
    "tab\there",
    "x" * 200_000,
    "\u00e4 \u20ac",
]


def texts_of(source: Path | str, config: ModelConfig = READER, **how: Any) -> list[str]:
    samples = read_samples(str(source), config=config, **how)
    return [sample.columns["text"].to_bytes()[0].decode() for sample in samples]  # type: ignore[union-attr]


def quoted(*cells: str, mark: str) -> str:
    return mark.join('"' + cell.replace('"', '""') + '"' for cell in cells) + "\r\n"


@pytest.mark.parametrize("mark", [",", ";", "|", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".CSV"])
def test_every_cell_of_a_table_comes_back(tmp_path: Path, mark: str, start: str, suffix: str) -> None:
    file = tmp_path / f"posts{suffix}"
    rows = [quoted(str(n), text, mark=mark) for n, text in enumerate(TEXTS)]
    file.write_text(start + quoted("id", "text", mark=mark) + "".join(rows), encoding="utf-8", newline="")
    assert texts_of(file) == TEXTS
    places = [sample.place for sample in read_samples(str(file), config=READER)]
    assert places[:2] == [f"posts{suffix} row 1", f"posts{suffix} row 2"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_text_may_have_another_name(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"posts{suffix}"
    file.write_text("comment,n\nhello,1\n" if suffix == ".csv" else '{"comment": "hello"}\n')
    assert texts_of(file, text_field="comment") == ["hello"]
    with pytest.raises(DataError, match="'text'"):
        texts_of(file)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"text,n\nhello\n", "row 1 has 1 cells, the header 2"),
        (b'text,n\n"never closed,1\n', "cannot be read as a table"),
        (b"body,n\nhello,1\n", "has no column 'text'; it has: body, n"),
        (b"text,text\na,b\n", "has no column 'text'"),
        (b"", "has no column 'text'"),
        (b"text\n\xff\xfe\n", "is not UTF-8"),
        (b"PAR1\x00\x00text\n", "has no column 'text'"),
    ],
)
def test_a_table_that_is_none_is_refused_by_name(tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "posts.csv"
    file.write_bytes(content)
    with pytest.raises(DataError, match=told):
        texts_of(file)


def test_a_folder_is_its_files_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").write_text("not me")
    (tmp_path / "b.csv").write_text("text\nthird\n")
    (tmp_path / "a.txt").write_text("first\nsecond\n")
    (tmp_path / "sub" / "c.jsonl").write_text('{"text": "fourth"}\n')
    assert texts_of(tmp_path) == ["first", "second", "third", "fourth"]


def test_a_folder_of_pictures_has_a_sample_a_file(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    samples = list(read_samples(str(tmp_path), config=SEER))
    assert [sample.place for sample in samples] == ["a.png", "b.png", "notes.txt"]
    assert samples[0].columns["image"].to_bytes() == [(tmp_path / "a.png").read_bytes()]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ("one\n\ntwo\n", ["one", "two"]),
        ('{"text": "one"}\n{"text": "two"}\n', ["one", "two"]),
        ('{ looks like an object\n{"text": "two"}\n', ["{ looks like an object", '{"text": "two"}']),
        ("[1]\n", ["[1]"]),
        ("[" * 100_000, ["[" * 100_000]),
    ],
)
def test_standard_input_is_lines_or_json_lines(
    given: str, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    assert texts_of("-") == texts


def test_standard_input_may_be_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\x89PNG...")))
    (sample,) = read_samples("-", config=SEER)
    assert sample.columns["image"].to_bytes() == [b"\x89PNG..."]  # type: ignore[union-attr]


def test_columns_of_a_table_may_be_paths_beside_it(tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(b"picture")
    (tmp_path / "posts.csv").write_text("image,text\np.png,look\n,no picture\n")
    samples = list(read_samples(str(tmp_path / "posts.csv"), config=BOTH))
    assert [sample.columns["image"].to_bytes() for sample in samples] == [[b"picture"], [b""]]  # type: ignore[union-attr]
    (tmp_path / "posts.csv").write_text("image,text\ngone.png,look\n")
    with pytest.raises(ConfigError, match=r"gone\.png does not exist"):
        list(read_samples(str(tmp_path / "posts.csv"), config=BOTH))


def test_one_object_a_line_is_asked_for_where_a_model_reads_several_inputs(tmp_path: Path) -> None:
    (tmp_path / "posts.txt").write_text("only text\n")
    with pytest.raises(ConfigError, match=r"takes \.jsonl or \.csv") as caught:
        list(read_samples(str(tmp_path / "posts.txt"), config=BOTH))
    line = json.loads((caught.value.hint or "").partition(": ")[2])
    assert set(line) == {"text", "image"}
