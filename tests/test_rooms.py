"""Who may import whom (docs/decisions/0001-rooms.md). The table below is the rule; this file keeps it."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import rsc

PACKAGE = Path(rsc.__file__).parent

SHARED = {
    *("errors", "units", "clock", "events", "config", "layers", "extras", "interrupts", "hardening"),
    *("pixels", "durable", "untrusted", "tokenizer_json", "accounts", "toml", "syscall_filter"),
}

MAY_IMPORT = {
    "audit": set(),
    "keys": set(),
    "review": set(),
    "runs": set(),
    "models": set(),
    "store": {"keys"},
    "cluster": set(),
    "ingest": {"review", "store", "keys", "audit"},
    "release": {"review", "store", "keys", "audit"},
    "loader": {"store"},
    "parallel": {"models"},
    "checkpoint": {"store", "keys", "parallel"},
    "recipes": {"models", "loader", "parallel", "checkpoint", "store", "runs", "cluster"},
    "plan": {"recipes", "parallel", "models"},
    "export": {"recipes", "models", "review", "runs", "store"},
    "train": {
        *("recipes", "export", "checkpoint", "parallel", "models", "loader", "store", "keys"),
        *("release", "runs", "cluster"),
    },
    "control": {
        *("recipes", "export", "checkpoint", "parallel", "models", "loader", "store", "keys"),
        *("release", "audit", "runs", "cluster"),
    },
    "setup": set(),
    "evaluate": {"train", "recipes", "loader", "checkpoint", "models", "store", "keys", "runs"},
    "api": {
        *("control", "evaluate", "recipes", "export", "checkpoint", "loader", "ingest", "store", "keys"),
        *("release", "review", "runs", "cluster", "plan"),
    },
}
"""`cli` may import any room and no room imports `cli`; `cli` alone imports `api`.
train -> release: a worker asks for its key, the
controller starts the agent; train -> cluster: the controller starts its workers inside the sandbox; train ->
export: a run may start from open weights."""

MOST_FILES = 20

NO_TORCH = {
    *("audit", "keys", "review", "store", "ingest", "release", "runs", "recipes", "control", "cluster"),
    *("setup", *SHARED),
}


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported_modules(path) if name.startswith("rsc.")}


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module or "")
            if node.module == "rsc":
                names |= {f"rsc.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__", "cli"):
        return
    allowed = SHARED if room in SHARED else MAY_IMPORT[room] | SHARED | {room}
    foreign = imported_rooms(path) - allowed - {"__version__"}
    assert not foreign, f"{room}/ may not import {sorted(foreign)}"


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_permission_that_nothing_uses_is_none(room: str) -> None:
    used = {name for path in python_files() if room_of(path) == room for name in imported_rooms(path)}
    assert MAY_IMPORT[room] <= used, f"nothing in {room}/ imports {sorted(MAY_IMPORT[room] - used)}"


def test_a_class_name_stands_for_one_thing() -> None:
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    names = Counter(node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1 and not name.startswith("_")] == []


def test_no_two_test_files_share_a_name() -> None:
    """Test folders are no packages: pytest cannot import a second file of a name."""
    tests = Path(__file__).parent
    files = [file for file in tests.rglob("test_*.py") if not (file.parent / "__init__.py").exists()]
    assert [name for name, count in Counter(file.name for file in files).items() if count > 1] == []


def test_no_folder_has_more_files_than_one_looks_through() -> None:
    counts = Counter(path.parent for path in python_files() if path.name != "__init__.py")
    full = {str(folder.relative_to(PACKAGE)): count for folder, count in counts.items() if count > MOST_FILES}
    assert not full, "a folder with more files wants rooms of its own"


@pytest.mark.parametrize("room", sorted(NO_TORCH))
def test_a_light_room_never_names_torch(room: str) -> None:
    named = {path for path in python_files() if room_of(path) == room and "torch" in imported_modules(path)}
    assert not named, f"{room}/ must work without torch"


WITH_TORCH = {"dry_run", "measure"}
"""Folders of plan/ that build models or run products; the planner beside them plans without torch."""


def test_the_planner_never_names_torch() -> None:
    planner = [
        path for path in python_files() if room_of(path) == "plan" and path.parent.name not in WITH_TORCH
    ]
    named = {path.name for path in planner for name in imported_modules(path) if _brings_torch(name)}
    assert not named


def _brings_torch(module: str) -> bool:
    return module == "torch" or any(module.startswith(f"rsc.plan.{folder}") for folder in WITH_TORCH)


def test_the_table_has_a_line_for_each_room() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == MAY_IMPORT.keys() | {"cli"}
