"""What an import stores and shows in the open holds no personal data, wherever in the source it stood."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from rsc.config import Workspace
from rsc.errors import DataError, RscError
from rsc.ingest.importer import import_columns
from rsc.review.public_text import is_public, public_field_names, public_text, public_value
from tests.ingest.bringing import POLICY, SAFE, bring_in

MAIL, CARD, PHONE = "kim.novak@example.com", "4532015112830366", "212-555-0177"
PLANTED = (MAIL, CARD, PHONE, "kim.novak")


def late_keys(folder: Path) -> Path:
    """Keys that come after the rows that fix the types."""
    path = folder / "late.jsonl"
    rows = [{"text": f"note {row}"} for row in range(1001)]
    late = [{"text": "a", MAIL: 1}, {"text": "b", f"tel {PHONE}": 1}]
    path.write_text("\n".join(map(json.dumps, [*rows, *late])))
    return path


def key_names(folder: Path) -> Path:
    path = folder / "keys.jsonl"
    row = json.dumps({"text": "note", MAIL: "x", f"card {CARD}": "y"})
    path.write_text(f"{row}\n" * 9)
    return path


def pictures(folder: Path) -> Path:
    place = folder / "pics" / MAIL
    place.mkdir(parents=True)
    (folder / "pics" / "other").mkdir()
    for path in (place / f"{PHONE}.png", folder / "pics" / "other" / "b.png"):
        Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(path)
    (place / f"broken {MAIL}.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    return folder / "pics"


def named_file(folder: Path) -> Path:
    path = folder / f"mails of {MAIL}.jsonl"
    path.write_text('{"text": "a"}\n{"text": ' + MAIL + "}\n")
    return path


def columns_of_parquet(folder: Path) -> Path:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = folder / "table.parquet"
    parquet.write_table(arrow.table({"text": ["a", "b"], MAIL: ["x", "y"]}), path)
    return path


@pytest.mark.parametrize("make", [late_keys, key_names, pictures, named_file, columns_of_parquet])
def test_nothing_planted_is_in_the_open(
    workspace: Workspace, tmp_path: Path, make: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    result = bring_in(workspace, make(tmp_path), policy=SAFE)
    folder = workspace.data / "posts"
    texts = [path.read_text() for path in folder.rglob("*") if path.suffix in (".json", ".toml", "")
             and path.is_file()]  # fmt: skip
    told = [json.dumps(list(result.notes)), json.dumps(result.bad), *result.bad_places, str(result.fields)]
    shown = [json.dumps(result.report.to_json().decode()), *capsys.readouterr()]
    for planted in PLANTED:
        assert not [text for text in (*texts, *told, *shown) if planted in text]


HEADERLESS = [
    f"Kim Novak,{MAIL},Leeds\nAda King,ada@example.org,York\n",
    f"Kim Novak,{PHONE}\nAda King,212-555-0133\n",
    "Kim Novak,1984-03-07\nAda King,1815-12-10\n",
    "17,Kim,53.80\n18,Ada,53.96\n",
    f"{MAIL},{MAIL}\na,b\n",
    "a " * 60 + ",b\nx,y\n",
]


@pytest.mark.parametrize("content", HEADERLESS)
def test_a_first_line_that_is_a_record_is_refused_in_words_without_it(
    workspace: Workspace, tmp_path: Path, content: str
) -> None:
    source = tmp_path / "people.csv"
    source.write_text(content)
    with pytest.raises(DataError, match="looks like a record") as refused:
        bring_in(workspace, source)
    assert "header=none" in str(refused.value.hint)
    assert not any(cell in str(refused.value) for cell in (MAIL, PHONE, "Kim", "1984", "53.8", "a a"))
    result = bring_in(workspace, source, header="none")
    assert (result.num_read, result.fields[0].name[:7]) == (2, "column_")


def test_a_header_may_be_given(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "people.csv"
    source.write_text(HEADERLESS[0])
    with pytest.raises(RscError, match="names 2 columns"):
        bring_in(workspace, source, header=("name", "city"))
    result = bring_in(workspace, source, header=("name", "mail", "city"))
    assert [item.name for item in result.fields] == ["name", "mail", "city"]
    assert (result.num_read, result.report.by_type()) == (2, {"email": 2})


def test_years_are_names_and_first_means_first(workspace: Workspace, tmp_path: Path) -> None:
    source = tmp_path / "table.csv"
    source.write_text("city,2019,2020\nLeeds,1,2\n")
    assert bring_in(workspace, source).num_read == 1
    source.write_text(f"city,{MAIL}\nLeeds,1\n")
    result = bring_in(workspace, source, header="first")
    assert [item.name for item in result.fields] == ["text", "withheld_1"]
    assert any("withheld" in note for note in result.notes)


def test_columns_in_memory_with_such_a_name_are_withheld(workspace: Workspace) -> None:
    token = "sk_test_4eC39HqLyjWDarjtT1zdp7dc"
    columns = {"text": ["a"], token: ["b"]}
    try:
        import_columns(columns, name="posts", workspace=workspace, policy=POLICY, author="ada")
    except DataError as refused:
        shown = str(refused)
    else:
        shown = (workspace.data / "posts/v0001/root.json").read_text()
    assert token not in shown


@pytest.mark.parametrize("content", [f"id,{MAIL},{MAIL}\n1,a,b\n", f"{MAIL}\n"])
def test_errors_quote_no_personal_data(workspace: Workspace, tmp_path: Path, content: str) -> None:
    source = tmp_path / f"of {MAIL}.csv"
    source.write_text(content)
    for header in ("auto", "first"):
        with pytest.raises(RscError) as refused:
            bring_in(workspace, source, header=header)
        assert not any(planted in str(refused.value) for planted in PLANTED)


BORDERS = ["/", " ", "'", "\n"]


@given(st.text(max_size=60), st.sampled_from([MAIL, CARD, PHONE]), st.sampled_from(BORDERS))
def test_public_text_keeps_nothing_found_and_is_stable(around: str, planted: str, border: str) -> None:
    shown = public_text(f"{around}{border}{planted}{border}x")
    assert planted not in shown
    assert is_public(shown)
    assert shown.replace("\n", "").isprintable()


def test_long_texts_are_cut_and_values_keep_their_form() -> None:
    assert len(public_text("a" * 5000)) < 2100
    assert public_value({"a": [MAIL, 1], MAIL: None}) == {"a": ["[EMAIL]", 1], "[EMAIL]": None}
    assert public_field_names(["a", MAIL, CARD]) == {"a": "a", MAIL: "withheld_1", CARD: "withheld_2"}
