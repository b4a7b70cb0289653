"""Recipes: layers, overrides, provenance, and errors that name the key and the nearest one."""

from __future__ import annotations

import contextlib
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import model_validator

from rsc.config import Workspace
from rsc.errors import ConfigError
from rsc.layers import (
    FrozenModel,
    Resolved,
    override,
    parse_as,
    recipe_names,
    resolve,
    to_toml,
    with_defaults,
)


class Train(FrozenModel):
    steps: int = 100
    lr: float = 1e-3


class Toy(FrozenModel):
    train: Train = Train()
    more: tuple[Train, ...] = ()
    name: str = "toy"


def write(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


def test_later_layers_win_and_each_value_knows_its_layer(tmp_path: Path) -> None:
    base = write(tmp_path, "base", "name = 'base'\n[train]\nsteps = 1\nlr = 0.5\n")
    child = write(tmp_path, "child", "base = 'base.toml'\n[train]\nsteps = 2\n")
    resolved = resolve(child, overrides=["train.lr=0.25"])
    assert resolved.values == {"name": "base", "train": {"steps": 2, "lr": 0.25}}
    assert resolved.provenance == {"name": base, "train.steps": child, "train.lr": "command line"}


def test_resolved_text_reads_back_to_the_same_values(tmp_path: Path) -> None:
    recipe = write(tmp_path, "toy", "[train]\nsteps = 7\n")
    resolved = resolve(recipe)
    full = with_defaults(parse_as(Toy, resolved), resolved)
    again = resolve(write(tmp_path, "resolved", to_toml(full)))
    assert again.values == full.values
    assert again.digest == full.digest
    assert full.provenance["train.lr"] == "default"
    assert f"steps = 7 # {recipe}" in to_toml(full)


def test_unknown_key_names_the_nearest_and_its_origin(tmp_path: Path) -> None:
    recipe = write(tmp_path, "typo", "[train]\nstepz = 7\n")
    with pytest.raises(ConfigError) as caught:
        parse_as(Toy, resolve(recipe))
    assert f"unknown key train.stepz (from {recipe})" in caught.value.message
    assert caught.value.hint == 'did you mean "steps"?'


@pytest.mark.parametrize(
    ("more", "message", "hint"),
    [
        ('["x"]', "more.0 = 'x' (from command line)", "a table with some of: steps, lr"),
        ("[{stepz = 1}]", "unknown key more.0.stepz (from command line)", 'did you mean "steps"?'),
    ],
)
def test_what_lies_in_a_list_is_told_where_it_was_set(
    tmp_path: Path, more: str, message: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_as(Toy, resolve(write(tmp_path, "plain", "name = 'a'\n"), overrides=[f"more={more}"]))
    assert message in caught.value.message
    assert caught.value.hint == hint


def test_every_complaint_is_told_at_once(tmp_path: Path) -> None:
    recipe = write(tmp_path, "bad", "[train]\nsteps = 'many'\nlr = 'low'\n")
    with pytest.raises(ConfigError) as caught:
        parse_as(Toy, resolve(recipe))
    assert "train.steps = 'many'" in caught.value.message
    assert "train.lr = 'low'" in caught.value.message


class Needy(FrozenModel):
    name: str

    @model_validator(mode="after")
    def _short(self) -> Needy:
        if len(self.name) > 3:
            raise ValueError("name has more than 3 letters")
        return self


class Labels(FrozenModel):
    labels: tuple[str, ...] = ()


def test_settings_of_one_section_are_overridden_and_checked() -> None:
    assert override(Train(steps=5), section="train", overrides=["train.lr=0.5"]) == Train(steps=5, lr=0.5)
    with pytest.raises(ConfigError, match=r"unknown key train\.stepz") as caught:
        override(Train(), section="train", overrides=["train.stepz=1"])
    assert caught.value.hint == 'did you mean "steps"?'
    with pytest.raises(ConfigError, match="unknown key other"):
        override(Train(), section="train", overrides=["other.steps=1"])


class Outer(FrozenModel):
    inner: Needy = Needy(name="a")


def test_a_misspelt_key_is_told_before_the_one_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_as(Needy, resolve(write(tmp_path, "plain", ""), overrides=["nam=a"]))
    assert caught.value.message.startswith("unknown key nam (from command line)")
    assert caught.value.hint == 'did you mean "name"?'


def test_a_rule_across_fields_is_told_without_the_whole_table(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_as(Outer, resolve(write(tmp_path, "plain", ""), overrides=["inner.name=long"]))
    assert caught.value.message == "inner (from command line): name has more than 3 letters"


def test_the_hint_for_a_list_shows_one_that_is_read_as_such(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_as(Labels, resolve(write(tmp_path, "plain", ""), overrides=["labels=[a,b]"]))
    hint = caught.value.hint or ""
    override = hint[hint.index("'") + 1 : hint.rindex("'")]
    assert parse_as(Labels, resolve(str(tmp_path / "plain.toml"), overrides=[override])).labels == (
        "first",
        "second",
    )


@pytest.mark.parametrize("override", ["steps", "=3", "train..steps=3", ".=1"])
def test_an_override_that_is_not_key_equals_value_is_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        resolve(write(tmp_path, "toy", ""), overrides=[override])


def test_a_bare_word_is_a_string_and_toml_values_keep_their_type(tmp_path: Path) -> None:
    overrides = ["data.name=posts", "train.lr=1e-3", "train.on=true", "train.sizes=[1, 2]"]
    values = resolve(write(tmp_path, "toy", ""), overrides=overrides).values
    assert values == {"data": {"name": "posts"}, "train": {"lr": 1e-3, "on": True, "sizes": [1, 2]}}


def test_a_base_that_leads_back_is_told(tmp_path: Path) -> None:
    first = write(tmp_path, "first", "base = 'second.toml'\n")
    write(tmp_path, "second", "base = 'first.toml'\n")
    with pytest.raises(ConfigError, match="its own base"):
        resolve(first)


@pytest.mark.parametrize("text", ["= 3", "[train", "a = \x00"])
def test_text_that_is_not_toml_is_told(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not TOML"):
        resolve(write(tmp_path, "bad", text))


def test_a_missing_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve("langage")
    assert caught.value.hint == 'did you mean "language"?'
    assert "language" in recipe_names()


def test_a_section_over_a_value_is_refused(tmp_path: Path) -> None:
    recipe = write(tmp_path, "toy", "train = 3\n")
    with pytest.raises(ConfigError, match="is a value in"):
        resolve(recipe, overrides=["train.steps=3"])


@given(st.text())
def test_no_override_text_crashes(text: str) -> None:
    with contextlib.suppress(ConfigError):
        resolve("language", overrides=[text])


@given(st.dictionaries(st.text("abc_", min_size=1), st.integers() | st.text() | st.booleans(), max_size=4))
def test_any_flat_settings_survive_a_round_trip(values: dict[str, object]) -> None:
    resolved = Resolved(name="any", values=dict(values), provenance=dict.fromkeys(values, "here"))
    assert tomllib.loads(to_toml(resolved)) == values


def test_the_workspace_is_the_owners_only(workspace: Workspace) -> None:
    assert workspace.root.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o770, 0o711, 0o777, 0o707])
def test_a_workspace_that_is_open_to_others_is_made_private(
    mode: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "home"
    for folder in (root / "keys", root / "audit", root / "identities", root / "data", root):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
    Workspace.from_environment({"RSC_HOME": str(root)})
    modes = {folder.stat().st_mode & 0o777 for folder in (root, *root.iterdir())}
    assert modes == {0o700}
    assert f"mode {mode:04o}" in caplog.text


def test_a_folder_with_other_files_is_not_taken_over_as_a_workspace(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not of a workspace"):
        Workspace.from_environment({"RSC_HOME": str(tmp_path)})
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    tmp_path.chmod(0o700)
    Workspace.from_environment({"RSC_HOME": str(tmp_path)})


def test_a_base_that_leads_back_by_another_spelling_is_refused(tmp_path: Path) -> None:
    """`./b.toml`, a link, a detour: the same file is the same base."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.toml").write_text('base = "sub/../b.toml"')
    (tmp_path / "b.toml").write_text('base = "./sub/../a.toml"')
    with pytest.raises(ConfigError, match="is its own base"):
        resolve(str(tmp_path / "a.toml"))
    (tmp_path / "link.toml").symlink_to(tmp_path / "c.toml")
    (tmp_path / "c.toml").write_text('base = "link.toml"')
    with pytest.raises(ConfigError, match="is its own base"):
        resolve(str(tmp_path / "c.toml"))
