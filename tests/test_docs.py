"""What the documentation names is there: links, functions, settings, commands."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import rsc
from rsc.ingest.config import ImportOptions

PROJECT = Path(__file__).parents[1]
PACKAGE = Path(rsc.__file__).parent
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
FLAGS = {"--format": "format", "--text-field": "text_field", "--fields": "fields", "--holdout": "holdout",
         "--encoding": "encoding", "--schema": "types", "where.lang=en,de": "where"}  # fmt: skip


def relative(page: Path) -> str:
    return str(page.relative_to(PROJECT))


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def named_functions() -> list[tuple[str, str, str]]:
    """(page, file, function) wherever a page writes `file.py` `function`."""
    return [
        (relative(page), file, name)
        for page in PAGES
        for file, name in re.findall(r"`([a-z_/]+\.py)` `([A-Za-z_.]+)`", page.read_text())
    ]


@pytest.mark.parametrize(("page", "file", "name"), named_functions())
def test_functions_that_pages_name_are_there(page: str, file: str, name: str) -> None:
    tree: ast.AST = ast.parse((PACKAGE / file).read_text())
    for part in name.split("."):
        inner = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef))
        tree = next((node for node in inner if node.name == part), ast.Pass())
        assert not isinstance(tree, ast.Pass), f"{page} sends readers to {file} {name}"


def test_every_setting_of_an_import_is_in_its_table() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (PROJECT / "docs/import/README.md").read_text(), re.MULTILINE)
    told = {FLAGS.get(row.split()[0], row.partition("=")[0]) for row in rows}
    assert set(ImportOptions.model_fields) - {"format"} <= told
