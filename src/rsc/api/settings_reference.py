"""Every setting with its meaning, from the models: docs/settings.md and `rsc recipes cat --all`.

The meaning is the docstring under a field, read from the source of its model: what stands in one place cannot
say two things.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rsc.config import Settings
from rsc.ingest.config import ImportOptions
from rsc.keys.providers.configured import ProvidersConfig
from rsc.recipes.recipe import Recipe
from rsc.review.policy import Policy


@dataclass(frozen=True)
class Setting:
    key: str
    """Dotted; `[]` after a list of tables, NAME for keys that a user chooses."""
    values: str
    """Its type and bounds, in words."""
    default: str
    meaning: str


PARTS: dict[str, tuple[type[BaseModel], str]] = {
    "Recipe": (
        Recipe,
        "`rsc train RECIPE section.key=value`, or a TOML file of your own (`rsc recipes cp`).",
    ),
    "Import": (ImportOptions, "`rsc data import SOURCE key=value`; `schema.FIELD=TYPE` for `types`."),
    "Policy": (Policy, "A TOML file for `rsc data import --policy`; `rsc review policy new` writes one."),
    "Workspace": (Settings, "`config.toml` in the workspace (`RSC_HOME`, else `~/.rsc`)."),
    "Key providers": (ProvidersConfig, "`keys/providers.toml` in the workspace; see [Keys](keys.md)."),
}
_HEAD = """# Settings

Every key with its meaning and default, written from the models that check them; a test holds this current.
`rsc recipes cat RECIPE --all` prints the same for one recipe, with its values. The `rsc` script itself is set
up by environment variables: [Set up](setup.md#settings). A key that ends in `_s` is in seconds; spans such as
`90d` have the units s, m, h, d, w; sizes such as `64 GiB` are text with their unit.
"""


def settings_of(model: type[BaseModel], *, prefix: str = "") -> Iterator[Setting]:
    """In the order of the fields, those of an inner model in the place of their section."""
    meanings = _meanings(model)
    for name, field in model.model_fields.items():
        inner, suffix = _inner_model(field.annotation)
        key = f"{prefix}{name}"
        meaning = meanings.get(name, "")
        if inner is None:
            yield Setting(key, _values(field), _default(field), meaning)
            continue
        if meaning:
            yield Setting(
                key + suffix, "section" if not suffix else "list of tables", _absent(field), meaning
            )
        yield from settings_of(inner, prefix=f"{key}{suffix}.")


def reference() -> str:
    """The page, as Markdown."""
    lines = [_HEAD]
    for title, (model, how) in PARTS.items():
        lines += [f"## {title}", "", how, "", "| key | values | default | meaning |", "|---|---|---|---|"]
        lines += [_row(setting) for setting in settings_of(model)]
        lines.append("")
    return "\n".join(lines)


def _row(setting: Setting) -> str:
    cells = (f"`{setting.key}`", setting.values, setting.default, setting.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Docstrings of the fields, by name; those of base classes too."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
            found |= dict(_documented(tree))
    return found


def _documented(tree: ast.Module) -> Iterator[tuple[str, str]]:
    (whole,) = tree.body
    assert isinstance(whole, ast.ClassDef)
    for field, after in zip(whole.body, whole.body[1:], strict=False):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            yield field.target.id, " ".join(str(after.value.value).split())  # type: ignore[attr-defined]


def _inner_model(annotation: Any) -> tuple[type[BaseModel] | None, str]:
    """The model of a section, or of each entry of a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    for part in get_args(annotation):
        inner, suffix = _inner_model(part)
        if inner is not None:
            return inner, "[]" if get_origin(annotation) is tuple else suffix
    return None, ""


def _values(field: FieldInfo) -> str:
    bounds = [text for each in field.metadata if (text := _bound(each))]
    return " ".join([_type(field.annotation), *bounds])


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return " ".join([_type(parts[0]), *filter(None, map(_bound, parts[1:]))])
    if origin is Literal:
        return " ".join(f"`{part}`" for part in parts)
    if origin in (Union, UnionType):
        return " or ".join(_type(part) for part in parts if part is not NoneType)
    if origin is tuple:
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return f"table of {_type(parts[1])}"
    names = {str: "text", Path: "path", bool: "true or false", int: "whole number", float: "number"}
    return names.get(annotation, str(annotation))


def _bound(bound: Any) -> str:
    kinds = ((annotated_types.Ge, ">="), (annotated_types.Gt, ">"), (annotated_types.Le, "<="))
    for kind, sign in (*kinds, (annotated_types.Lt, "<")):
        if isinstance(bound, kind):
            return (
                f"{sign} {next(iter(vars(bound).values())) if hasattr(bound, '__dict__') else _limit(bound)}"
            )
    return " ".join(filter(None, map(_bound, getattr(bound, "metadata", ()))))


def _limit(bound: Any) -> Any:
    return next(
        value for name in ("ge", "gt", "le", "lt") if (value := getattr(bound, name, None)) is not None
    )


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
    if value is PydanticUndefined:
        return "needed"
    if value is None or value in ((), {}, ""):
        return "-"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{value}`"


def _absent(field: FieldInfo) -> str:
    return "needed" if field.is_required() else "-"
