"""One JSON list is read as the same records in lines, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsc.errors import ConfigError, DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers import json_list
from rsc.ingest.readers.detect import open_source
from tests.ingest.conftest import read_all

PLAIN = ImportOptions()

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
awkward = st.sampled_from(['"', "\\", '\\"', "],[", "}{", "a,b", "[", "\n", "\\\\", "\u2028"])
records = st.lists(
    st.fixed_dictionaries(
        {"text": st.one_of(texts, awkward), "n": st.integers(-(2**63), 2**63 - 1)},
        optional={"more": st.lists(st.one_of(texts, awkward), max_size=3)},
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("block_bytes", [7, 1 << 20])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=records, indent=st.sampled_from([None, 0, 2, "\t"]), is_ascii=st.booleans(), mark=st.booleans())
def test_a_list_is_its_lines(
    tmp_path_factory: pytest.TempPathFactory,
    block_bytes: int,
    rows: list[dict[str, Any]],
    indent: Any,
    is_ascii: bool,
    mark: bool,
) -> None:
    folder = tmp_path_factory.mktemp("list")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "_BLOCK_BYTES", block_bytes)
        text = json.dumps(rows, indent=indent, ensure_ascii=is_ascii)
        (folder / "a.json").write_bytes(("\ufeff" * mark + text).encode())
        (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found, bad = read_all(open_source(folder / "a.json", options=PLAIN), part_bytes=64)
        wanted, bad_lines = read_all(open_source(folder / "a.jsonl", options=PLAIN), part_bytes=64)
        assert repr(found) == repr(wanted)
        assert [record.reason for record in bad] == [record.reason for record in bad_lines]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('[{"text": "a"}', "ends inside the list"),
        ('[{"text": "a"},', "ends inside the list"),
        ('[{"text": "a', "ends inside a text"),
        ('[{"text": "a"},]', "does not end as a list does"),
        ('[{"text": "a"},, {"text": "b"}]', "missing between two commas"),
        ('[,{"text": "a"}]', "missing between two commas"),
        ('[{"text": "a"}] [{"text": "b"}]', "follows behind its end"),
        ('[{"text": "a"}], 1', "follows behind its end"),
        ('[{"text": "a"}]]', "follows behind its end"),
        ('[{"text": "a"}] x', "follows behind its end"),
    ],
)
def test_what_is_not_one_whole_list_is_refused(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=why):
        read_all(open_source(tmp_path / "a.json", options=PLAIN))


def test_elements_that_are_no_records_are_named(tmp_path: Path) -> None:
    elements = ['{"text": "a"}', "7", '{"text": "b"} {"text": "c"}', '{"text": "a\nb"}', '{"text": "d"}']
    (tmp_path / "a.json").write_text(f"[{', '.join(elements)}]")
    rows, bad = read_all(open_source(tmp_path / "a.json", options=PLAIN))
    assert [row["text"] for row in rows] == ["a", "d"]
    assert [record.place for record in bad] == ["element 2", "element 3", "element 4", "element 5"]
    assert b"\n".join(record.raw for record in bad[2:]).strip() == elements[3].encode()
    (tmp_path / "a.jsonl").write_text('[{"text": "a"}]\n')
    with pytest.raises(DataError, match="a JSON list, not an object"):
        read_all(open_source(tmp_path / "a.jsonl", options=PLAIN))
    with pytest.raises(ConfigError, match="lists are read in UTF-8"):
        read_all(open_source(tmp_path / "a.json", options=ImportOptions(encoding="shift_jis")))


@pytest.mark.parametrize(
    "line", ['{"text": "a", "text": "b"}', '{"text" : 1, "text":1}', '{"text": "a", "x": [{"k": 1, "k": 2}]}']
)
def test_an_object_that_has_a_key_twice_is_bad_at_any_depth(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "ok", "x": []}}\n{line}\n')
    rows, bad = read_all(open_source(tmp_path / "a.jsonl", options=PLAIN))
    assert len(rows) == 1
    assert [(record.reason, record.raw.decode()) for record in bad] == [("an object has a key twice", line)]
