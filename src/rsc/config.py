"""Where things lie (`Workspace`) and how settings are read (recipes, overrides, typed models).

What holds for a whole workspace stands in its `config.toml`, which may be absent:

    [data]
    location = "s3://bucket/sets"
    cache = "200 GiB"

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
import logging
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails

from rsc.errors import ConfigError
from rsc.toml import MOST_BYTES, parse_toml, parse_value
from rsc.units import parse_bytes

_MOST_NAMED = 3  # keys of one name that a hint lists
_DEEPEST_KEY = 32  # parts of a dotted key; recipes nest four deep


class FrozenModel(BaseModel):
    """Base of every config: cannot change after it is built, refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSettings(FrozenModel):
    """Where the data sets of a workspace lie."""

    location: str = Field(default="", pattern=r"^(|/.*|[a-z0-9]+://.+)$")
    """`s3://bucket/prefix`, `gs://...`, `az://...`, or the absolute path of a folder; empty for the folder
    `data` of the workspace. Keys, log and identities stay in the workspace."""
    cache: str = "64 GiB"
    """What this node keeps of data in an object store, at most, in the folder `cache` of the workspace."""


CipherChoice = Literal["auto", "aes-256-gcm", "aegis-256"]


class StoreSettings(FrozenModel):
    """How a workspace writes what it encrypts."""

    cipher: CipherChoice = "auto"
    """Of new data and checkpoints. `auto` measures both ciphers for 20 ms and takes AES-256-GCM unless
    AEGIS-256 is at least 1.25 times as fast on the machine that writes. A policy may pin one. All data is
    read whatever this says."""


class AuditSettings(FrozenModel):
    """What keeps the log of a workspace honest."""

    witness: str = Field(default="", pattern=r"^(|/.*)$")
    """Absolute path of a witness's file (`rsc audit checkpoint --witness FILE`), kept where the workspace's
    owner cannot change it. No key is released while the log contradicts its newest checkpoint."""


class Settings(FrozenModel):
    """What `config.toml` of a workspace says."""

    data: DataSettings = DataSettings()
    store: StoreSettings = StoreSettings()
    audit: AuditSettings = AuditSettings()


_FOLDERS = ("data", "keys", "audit", "identities", "runs", "cache", "quickstart")
"""What RSC makes in a workspace. A root that holds nothing else is RSC's own to make private."""


@dataclass(frozen=True)
class Workspace:
    """The folder that holds data sets, keys, the audit log, identities and runs of one installation."""

    root: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Workspace:
        """`$RSC_HOME`, else `~/.rsc`. The folder is made on first use, readable by its owner only.

        One with wider permissions is made private, with a warning. Raises ConfigError where that may not be
        done: the folder belongs to somebody else, or holds other files too.
        """
        root = Path(environment.get("RSC_HOME") or Path.home() / ".rsc").absolute()
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            _make_private(root)
        except OSError as error:
            raise ConfigError(
                f"cannot make the workspace {root}: {error.strerror}",
                hint="set RSC_HOME to a folder you can write",
            ) from None
        return cls(root)

    @cached_property
    def settings(self) -> Settings:
        """Of `config.toml`. Raises ConfigError for what it must not say."""
        return _read_settings(self.root / "config.toml")

    @property
    def data(self) -> Path:
        """The folder of data sets; where they lie elsewhere it holds only the locks of imports."""
        return self.root / "data"

    @cached_property
    def bulk(self) -> Path | str:
        """Where data sets lie, as a location of the store. Raises ConfigError where some lie in `data` and
        `config.toml` names another place: nobody would find them, nor end them in time."""
        location = self.settings.data.location
        if not location:
            return self.data
        left = sorted({path.parent.parent.name for path in self.data.glob("*/v*/root.json")})
        if left:
            raise ConfigError(
                f"config.toml has data sets in {location}, and {', '.join(left)} lie in {self.data}",
                hint=f"copy them there (they are encrypted) and remove them from {self.data}; or remove "
                "data.location",
            )
        return location if "://" in location else Path(location)

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def audit(self) -> Path:
        return self.root / "audit"

    @property
    def witness(self) -> Path | None:
        """The file of the log's witness, where one is configured."""
        return Path(self.settings.audit.witness) if self.settings.audit.witness else None

    @property
    def identities(self) -> Path:
        return self.root / "identities"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def cache_bytes(self) -> int:
        """The limit of the cache. Raises ConfigError for what is no size."""
        return parse_bytes(self.settings.data.cache)

    @property
    def runs(self) -> Path:
        return self.root / "runs"


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
        _merge(values, layer, origin=origin, provenance=provenance, prefix="")
    for override in overrides:
        _merge(values, _parse_override(override), origin="command line", provenance=provenance, prefix="")
    return Resolved(name=_recipe_name(recipe), values=values, provenance=provenance)


Model = TypeVar("Model", bound=BaseModel)


def override(values: Model, *, section: str, overrides: Iterable[str]) -> Model:
    """`values` with `section.key=value` from the command line. Raises ConfigError for another section, an
    unknown key, or a value that does not fit."""
    merged: dict[str, Any] = {section: values.model_dump(mode="json")}
    provenance: dict[str, str] = {}
    for text in overrides:
        _merge(merged, _parse_override(text), origin="command line", provenance=provenance, prefix="")
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


def _make_private(root: Path) -> None:
    """Take the permissions of group and others from a workspace and its folders, as if they were made now.

    Told where others could come in: below a private root nobody could.
    """
    uid, was_open = os.getuid(), bool(root.stat().st_mode & 0o077)
    for folder in (root, *(root / name for name in _FOLDERS)):
        try:
            found = folder.stat()
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(found.st_mode)
        if not mode & 0o077 or not stat.S_ISDIR(found.st_mode):
            continue
        if found.st_uid != uid:
            raise ConfigError(
                f"the workspace folder {folder} is open to others (mode {mode:04o}) and belongs to another "
                f"user (number {found.st_uid})",
                hint="its owner runs: chmod go= " + str(folder),
            )
        if folder == root and not _is_workspace(root):
            raise ConfigError(
                f"{root} is open to others (mode {mode:04o}) and holds files that are not of a workspace",
                hint=f"set RSC_HOME to a folder for RSC alone, or run: chmod go= {root}",
            )
        folder.chmod(0o700)
        if was_open:
            log = logging.getLogger("rsc")
            log.warning("%s was open to others (mode %04o): made private (0700)", folder, mode)


def _is_workspace(root: Path) -> bool:
    """Whether a folder is empty, or one that RSC has worked in."""
    names = {path.name for path in root.iterdir()}
    return (root / "audit" / "log.vkey").exists() or names <= {*_FOLDERS, "config.toml", "cluster.toml"}


def _read_settings(path: Path) -> Settings:
    try:
        values = parse_toml(path.read_text(), name=str(path))
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    provenance: dict[str, str] = {}
    _merge({}, values, origin=str(path), provenance=provenance, prefix="")
    return parse_as(Settings, Resolved(name=str(path), values=values, provenance=provenance))


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


def _merge(
    into: dict[str, Any], layer: Mapping[str, Any], *, origin: str, provenance: dict[str, str], prefix: str
) -> None:
    for key, value in layer.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            inner = into.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{dotted} is a value in {provenance[dotted]} and a section in {origin}")
            _merge(inner, value, origin=origin, provenance=provenance, prefix=f"{dotted}.")
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
