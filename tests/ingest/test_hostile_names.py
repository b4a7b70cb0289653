"""Names of data sets and splits, from users and foreign sources, never meet a name that RSC uses itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.config import Workspace
from rsc.errors import ConfigError, DataError
from rsc.ingest.readers.split_names import splits_of_names
from rsc.keys.envelope import data_kek_id
from rsc.keys.providers.local import LocalKeyProvider
from rsc.keys.providers.register import Register
from rsc.store.format.reserved_names import _ENDINGS, SIDECARS, check_new_name
from rsc.store.format.root import manifest_path, review_path, shard_path
from tests.conftest import FakeClock
from tests.ingest.bringing import bring_in

RESERVED = (*SIDECARS, "review", "claim", *(f"posts{ending}" for ending in _ENDINGS))
HOSTILE = (
    *(
        "",
        ".",
        "..",
        "../posts",
        "a/b",
        "/etc",
        "a\\b",
        "-rf",
        "--help",
        "a\0b",
        "a\n",
        " a",
        "a ",
        "A",
        "a:x",
    ),
    *("po\u0455ts", "\uff50osts", "posts\u200b", "post\u0301s", "\u202eposts", "~", "*", "%2e%2e"),
    *("x" * 65, "x" * 255),
)
names = st.one_of(
    st.sampled_from((*RESERVED, *HOSTILE, "train", "posts", "posts.v2", "a.kek.b", "train.manifest2")),
    st.text(max_size=80),
    st.from_regex(r"[a-z0-9][a-z0-9._-]{0,70}", fullmatch=True),
    st.builds("{}{}".format, st.sampled_from(("a", "findings", "v0001")), st.sampled_from(tuple(_ENDINGS))),
)


@given(names)
def test_a_name_that_is_taken_is_a_folder_of_its_own(name: str) -> None:
    """What `check_new_name` lets through is one plain component that no file of the format is called."""
    refusal = ""
    try:
        split = check_new_name(name, what="split")
    except ConfigError as error:
        refusal = str(error)
    assert refusal.replace("\n", "").isprintable()
    assert refusal.isascii()
    assert len(refusal) < 700
    if refusal:
        return
    files = {"root.json", "key.json", "progress.json", "claim", "review", "train.manifest"}
    assert split == name == Path(name).name
    assert split not in files
    assert shard_path("v", split=split, shard=0).count("/") == 2
    assert not manifest_path("v", split=split).startswith(review_path("v", "report.json")[:-11])


@given(st.lists(names, max_size=6))
def test_no_two_splits_of_a_source_become_one(listed: list[str]) -> None:
    try:
        named = splits_of_names(listed)
    except ConfigError:
        return
    assert len(set(named.values())) == len(listed)
    assert not set(named.values()) & {*SIDECARS, "review", "claim"}


@pytest.mark.parametrize("listed", [None, "train", {"train": 1}, [1], [["train"]], [None]])
def test_a_list_of_splits_that_is_none(listed: object) -> None:
    with pytest.raises(DataError):
        splits_of_names(listed)


@pytest.mark.parametrize("name", ["foo.kek", "a.destroyed", "a.ending", "x.json", "y.manifest", *HOSTILE])
def test_an_import_refuses_the_name(workspace: Workspace, tmp_path: Path, name: str) -> None:
    source = tmp_path / "posts.jsonl"
    source.write_text('{"text": "a"}\n')
    with pytest.raises(ConfigError) as refused:
        bring_in(workspace, source, name=name)
    assert refused.value.hint
    assert not workspace.data.exists()
    assert not workspace.keys.exists()


def hugging_face(folder: Path, splits: list[str], **columns: list[str]) -> Path:
    arrow = pytest.importorskip("pyarrow")
    for split in splits:
        place = folder / split
        place.mkdir(parents=True)
        table = arrow.table({"text": [f"hello {row} from {split}" for row in range(20)], **columns})
        with (
            arrow.OSFile(str(place / "data.arrow"), "wb") as file,
            arrow.ipc.new_stream(file, table.schema) as out,
        ):
            out.write_table(table)
        (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": splits}))
    return folder


@pytest.mark.parametrize("name", RESERVED)
def test_a_foreign_split_with_a_reserved_name_is_refused_with_the_list(
    workspace: Workspace, tmp_path: Path, name: str
) -> None:
    source = hugging_face(tmp_path / "hf", ["train", name], key=["a" * 32] * 20)
    with pytest.raises(ConfigError) as refused:
        bring_in(workspace, source)
    assert refused.value.hint
    assert all(taken in refused.value.hint for taken in (*SIDECARS, ".kek", ".manifest"))


def test_splits_that_differ_by_case_or_synonym_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two splits"):
        bring_in(workspace, hugging_face(tmp_path / "hf", ["dev", "validation"]))


def test_keys_are_listed_although_a_data_set_is_called_like_one(tmp_path: Path, clock: FakeClock) -> None:
    """Workspaces that were filled before names were refused."""
    provider = LocalKeyProvider(tmp_path / "local", clock=clock)
    register = Register(tmp_path / "vault", clock=clock)
    ids = [data_kek_id(name, period="2026-11") for name in ("a.destroyed", "foo.kek", "x.json", "y.ending")]
    for kek_id in ids:
        provider.create(kek_id, period="2026-11")
        register.add(kek_id, period="2026-11", expires=None, service_name=kek_id)
    provider.destroy(ids[1])
    register.bury(ids[1])
    for listed in (provider.list(), register.list()):
        assert {info.kek_id: info.state for info in listed} == {
            kek_id: "destroyed" if kek_id == ids[1] else "active" for kek_id in ids
        }
