"""`rsc recipes ls|cat|cp`: what can be trained, as text one can read and copy."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated

import typer

from rsc.api.settings_reference import settings_of
from rsc.cli.output import JsonFlag, emit, next_commands, say, table
from rsc.errors import ConfigError
from rsc.layers import Resolved, recipe_names, recipe_text, resolve, to_toml
from rsc.recipes.recipe import Recipe, load_recipe

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

RecipeName = Annotated[str, typer.Argument(help="A name from `rsc recipes ls`, or the path of a .toml file.")]


@app.command("ls")
def ls(as_json: JsonFlag = False) -> None:
    """List the recipes that come with RSC."""
    rows = [{"name": name, "about": _first_sentence(recipe_text(name))} for name in recipe_names()]
    text = table([(row["name"], row["about"]) for row in rows], header=("recipe", "about"))
    emit({"recipes": rows}, as_json=as_json, text=text)


@app.command("cat")
def cat(
    recipe: RecipeName,
    every: Annotated[bool, typer.Option("--all", help="Also every default, each with its meaning.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Print a recipe with its bases merged, each value with where it came from."""
    resolved = _with_all(recipe) if every else resolve(recipe)
    result = {"name": recipe, "values": resolved.values, "provenance": resolved.provenance}
    emit(result, as_json=as_json, text=to_toml(resolved))


@app.command("cp")
def cp(
    recipe: RecipeName,
    target: Annotated[Path, typer.Argument(help="The .toml file to write.")],
    as_json: JsonFlag = False,
) -> None:
    """Write a recipe of your own that starts from a shipped one."""
    if target.suffix != ".toml":
        raise ConfigError(f"{target} does not end in .toml", hint=f"rsc recipes cp {recipe} {target}.toml")
    if target.exists():
        raise ConfigError(f"{target} exists", hint="choose another name; nothing was overwritten")
    target.write_text(recipe_text(recipe))
    emit({"path": str(target), "base": recipe}, as_json=as_json, text="")
    say(f"wrote {target}")
    next_commands(("rsc", "recipes", "cat", target), ("rsc", "train", target, "data.name=NAME"))


def _with_all(recipe: str) -> Resolved:
    """With every default, and the meaning of each key beside its origin; a data set must be named."""
    given = resolve(recipe)
    has_data = "name" in given.values.get("data", {})
    loaded = load_recipe(recipe, overrides=[] if has_data else ["data.name=NAME"]).resolved
    meanings = {setting.key: setting.meaning for setting in settings_of(Recipe)}
    origins = {key: f"{origin}: {meanings.get(key, '')}" for key, origin in loaded.provenance.items()}
    return Resolved(loaded.name, loaded.values, origins)


def _first_sentence(text: str) -> str:
    """Of the comment that a recipe begins with."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    words = " ".join(line.removeprefix("#").strip() for line in lines)
    return words.partition(". ")[0].rstrip(".") + "." if words else ""
