"""The cells of docs/python.ipynb, run in order in one process of a fresh workspace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).parents[2] / "docs" / "python.ipynb"

RUN = """
import ast, json, sys
cells = [cell for cell in json.load(open(sys.argv[1]))["cells"] if cell["cell_type"] == "code"]
names = {}
for cell in cells:
    tree = ast.parse("".join(cell["source"]))
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    shown = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    html = getattr(shown, "_repr_html_", None)
    print(html() if html is not None else repr(shown))
print(len(cells), "cells")
"""


def test_every_cell_of_the_notebook_runs_and_shows_its_result(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(NOTEBOOK)],
        cwd=tmp_path,
        env={**os.environ, "RSC_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(" cells\n")
    assert done.stdout.count("<table>") >= 6


def test_the_notebook_is_stored_without_results() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
