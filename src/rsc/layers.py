"""How settings are read: recipes in layers, overrides, typed models.

A recipe is layers of plain TOML, the later one wins:

    base of the base -> base -> the recipe's own file -> section.key=value on the command line

`resolve` merges them and remembers where each value came from; `parse_as` checks the result against
the frozen pydantic model of the room that owns it and turns every complaint into one ConfigError
that names the key, where it was written and the nearest known name.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomlkit
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic_core import ErrorDetails

from rsc.errors import ConfigError
from rsc.toml import MOST_BYTES, parse_toml, parse_value

_MOST_NAMED = 3  # keys of one name that a hint lists
_DEEPEST_KEY = 32  # parts of a dotted key; recipes nest four deep


class FrozenModel(BaseModel):
    """Base of every config: cannot change after it is built, refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Resolved:
    """Merged settings and, for each dotted key, the layer that set it."""

    name: str
    values: dict[str, Any]
    provenance: dict[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the values: what lineage calls the recipe hash."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()


def recipe_names() -> list[str]:
    """The recipes inside the package."""
    folder = resources.files("rsc.recipes") / "shipped"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def recipe_text(name: str) -> str:
    """TOML text of a shipped recipe. Raises ConfigError with the nearest name."""
    if name not in recipe_names():
        raise ConfigError(
            f"there is no recipe {name!r}", hint=nearest(name, recipe_names(), what="rsc recipes ls")
        )
    return (resources.files("rsc.recipes") / "shipped" / f"{name}.toml").read_text()


def resolve(recipe: str, *, overrides: Iterable[str] = ()) -> Resolved:
    """Merge a recipe (a shipped name, or the path of a `.toml` file), its bases and the overrides.

    Raises ConfigError for a missing file, text that is not TOML, a base that leads back to itself,
    or an override that is not `section.key=value`.
    """
    values: dict[str, Any] = {}
    provenance: dict[str, str] = {}
    for origin, layer in reversed(list(_layers(recipe, seen=()))):
        merge(values, layer, origin=origin, provenance=provenance, prefix="")
    for override in overrides:
        merge(values, _parse_override(override), origin="command line", provenance=provenance, prefix="")
    return Resolved(name=_recipe_name(recipe), values=values, provenance=provenance)


Model = TypeVar("Model", bound=BaseModel)


def override(values: Model, *, section: str, overrides: Iterable[str]) -> Model:
    """`values` with `section.key=value` from the command line. Raises ConfigError for another section, an
    unknown key, or a value that does not fit."""
    merged: dict[str, Any] = {section: values.model_dump(mode="json")}
    provenance: dict[str, str] = {}
    for text in overrides:
        merge(merged, _parse_override(text), origin="command line", provenance=provenance, prefix="")
    whole = create_model("Section", __base__=FrozenModel, **{section: (type(values), ...)})  # type: ignore[call-overload]
    checked: Model = getattr(parse_as(whole, Resolved(section, merged, provenance)), section)
    return checked


def parse_as(model: type[Model], resolved: Resolved) -> Model:
    """Check merged settings against a model. Raises ConfigError listing every complaint."""
    try:
        return model.model_validate(resolved.values)
    except ValidationError as error:
        # an unknown key first: it is often the misspelt name of one that is then missing
        every = sorted(error.errors(), key=lambda details: details["type"] != "extra_forbidden")
        lines = [_complaint(model, resolved, details) for details in every]
    message, hint = lines[0]
    more = "".join(f"\n  also: {text}" for text, _ in lines[1:])
    raise ConfigError(message + more, hint=hint)


def with_defaults(model: BaseModel, resolved: Resolved) -> Resolved:
    """The same settings with every default written out; its provenance says `default`."""
    values = model.model_dump(mode="json", exclude_none=True)
    provenance = {key: resolved.provenance.get(key, "default") for key, _ in _leaves(values, prefix="")}
    return Resolved(name=resolved.name, values=values, provenance=provenance)


def to_toml(resolved: Resolved) -> str:
    """TOML text with the origin of each value as a comment; `resolve` reads it back to the same values."""
    document = tomlkit.document()
    document.add(tomlkit.comment(f"resolved from recipe {resolved.name}; recipe hash {resolved.digest}"))
    _fill(document, resolved.values, provenance=resolved.provenance, prefix="")
    return tomlkit.dumps(document)


def nearest(word: str, known: Iterable[str], *, what: str) -> str:
    """`did you mean "steps"?`, or the list when nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"known names: {', '.join(names)}" if names and len(names) <= 24 else f"see `{what}`"


def _same_recipe(recipe: str) -> str:
    """Equal for two spellings of one recipe."""
    return os.path.realpath(recipe) if recipe.endswith(".toml") else recipe


def _layers(recipe: str, *, seen: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    if _same_recipe(recipe) in map(_same_recipe, seen):
        raise ConfigError(
            f"recipe {recipe} is its own base: {' -> '.join((*seen, recipe))}", hint="remove one `base`"
        )
    layer = _read_layer(recipe)
    base = layer.pop("base", None)
    yield recipe, layer
    if base is not None:
        if not isinstance(base, str):
            raise ConfigError(f"{recipe}: base is {base!r}, not the name or path of a recipe")
        beside = Path(recipe).parent / base
        yield from _layers(str(beside) if base.endswith(".toml") else base, seen=(*seen, recipe))


def _read_layer(recipe: str) -> dict[str, Any]:
    path = Path(recipe)
    if path.suffix == ".toml":
        try:
            with path.open("rb") as file:  # what is too long is refused by its length, not read first
                text = file.read(MOST_BYTES + 1).decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ConfigError(
                f"cannot read recipe {path}: {reason}", hint="list the shipped ones with `rsc recipes ls`"
            ) from None
    else:
        text = recipe_text(recipe)
    return parse_toml(text, name=f"recipe {recipe}")


def _recipe_name(recipe: str) -> str:
    return Path(recipe).stem if recipe.endswith(".toml") else recipe


def _parse_override(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) > _DEEPEST_KEY:
        raise ConfigError(f"override {text!r} is not section.key=value", hint="for example train.steps=200")
    nested: Any = parse_value(value.strip())
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def merge(
    into: dict[str, Any], layer: Mapping[str, Any], *, origin: str, provenance: dict[str, str], prefix: str
) -> None:
    """Put `layer` over `into`, in place; each value's origin goes to `provenance`. Raises ConfigError where
    one layer has a value and another a section."""
    for key, value in layer.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            inner = into.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{dotted} is a value in {provenance[dotted]} and a section in {origin}")
            merge(inner, value, origin=origin, provenance=provenance, prefix=f"{dotted}.")
        else:
            into[key] = value
            provenance[dotted] = origin


def _leaves(values: Mapping[str, Any], *, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, prefix=f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _fill(table: Any, values: Mapping[str, Any], *, provenance: Mapping[str, str], prefix: str) -> None:
    for key, value in sorted(values.items(), key=lambda pair: isinstance(pair[1], Mapping)):
        if isinstance(value, Mapping):
            inner = tomlkit.table()
            _fill(inner, value, provenance=provenance, prefix=f"{prefix}{key}.")
            table.add(key, inner)
        else:
            item = tomlkit.item(value)
            item.comment(provenance[f"{prefix}{key}"])
            table.add(key, item)


def _complaint(model: type[BaseModel], resolved: Resolved, details: ErrorDetails) -> tuple[str, str | None]:
    path = [str(part) for part in details["loc"]]
    dotted = ".".join(path)
    origin = _origin(path, resolved)
    if details["type"] == "extra_forbidden":
        known = _field_names(model, path[:-1])
        elsewhere = keys_named(model, path[-1])
        if elsewhere and len(elsewhere) <= _MOST_NAMED:
            return f"unknown key {dotted} (from {origin})", f"did you mean {' or '.join(elsewhere)}?"
        return f"unknown key {dotted} (from {origin})", nearest(path[-1], known, what="rsc recipes cat")
    if details["type"] == "missing":
        return f"{dotted} is not set", f"add {dotted}=... to the command, or set it in the recipe"
    given = "" if isinstance(details["input"], Mapping) else f" = {details['input']!r}"
    is_no_list = details["type"] in ("tuple_type", "list_type")
    said = "not a list" if is_no_list else details["msg"].removeprefix("Value error, ")
    return f"{dotted}{given} (from {origin}): {said}", _shape_hint(model, path, kind=details["type"])


def _shape_hint(model: type[BaseModel], path: list[str], *, kind: str) -> str | None:
    """How a table or a list is written, where something else was given."""
    inner = ", ".join(_field_names(model, path))
    if kind == "model_type" and inner:
        if any(part.isdigit() for part in path):  # an entry of a list: its keys cannot be written alone
            return f"a table with some of: {inner}"
        first, *_ = _field_names(model, path)
        return f"it is a section: write {'.'.join(path)}.{first}=... and so on; its keys are {inner}"
    if kind in ("tuple_type", "list_type"):
        dotted = ".".join(path)
        return f"""a list, in quotes for the shell: '{dotted}=["first", "second"]' (numbers: [1, 2])"""
    return None


def _origin(path: list[str], resolved: Resolved) -> str:
    """Where a value was set: itself, a part of it, or the list or table that it lies in."""
    dotted = ".".join(path)
    parts = [key for key in resolved.provenance if key.startswith(f"{dotted}.")]
    outer = [".".join(path[:length]) for length in range(len(path) - 1, 0, -1)]
    found = (resolved.provenance[key] for key in (dotted, *parts, *outer) if key in resolved.provenance)
    return next(found, resolved.name)


def keys_named(model: type[BaseModel], name: str, *, prefix: str = "") -> list[str]:
    """Dotted keys whose last part is `name`, here or in the models of sections; short ones first."""
    found = [f"{prefix}{name}"] if name in model.model_fields else []
    for field in model.model_fields:
        inner = _inner(model, field)
        if inner is not None:
            found += keys_named(inner, name, prefix=f"{prefix}{field}.")
    return sorted(found, key=lambda key: key.count("."))


def _inner(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of a section."""
    field = model.model_fields.get(name)
    kinds = [field.annotation, *get_args(field.annotation)] if field else []
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _field_names(model: type[BaseModel], path: Iterable[str]) -> list[str]:
    for part in (part for part in path if not part.isdigit()):  # a number is a place in a list
        inner = _inner(model, part)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)
