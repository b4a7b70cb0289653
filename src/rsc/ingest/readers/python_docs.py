"""Text that every machine with Python has: documentation topics and docstrings of the standard library.

Nothing is imported: files are parsed, so that reading documentation runs no code of others. Some
systems keep `pydoc_data` in another package; then the docstrings stand alone, and a note says so.
"""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rsc.errors import DataError
from rsc.ingest.readers.chunks import note_chunk
from rsc.ingest.readers.source import Chunk, Part, Source
from rsc.store.format.schema import Field

_TOPICS = Path("pydoc_data", "topics.py")
_NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"}
_OWNERS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class PythonDocs(Source):
    """Reader of one standard library: `text`, and `origin` such as `json.decoder.JSONDecoder`."""

    root: Path = field(default_factory=lambda: Path(sysconfig.get_paths()["stdlib"]))
    kind: str = field(default="python-docs", init=False)

    def fields(self) -> tuple[Field, ...]:
        return (Field("text", "string"), Field("origin", "string"))

    def files(self) -> list[Path]:
        """Raises DataError on a Python whose library is not there as source files."""
        found = sorted(self.root.rglob("*.py"), key=lambda path: path.relative_to(self.root).as_posix())
        wanted = [path for path in found if _NOT_LIBRARY.isdisjoint(path.relative_to(self.root).parts)]
        if not wanted:
            raise DataError(
                f"{self.root} holds no Python source",
                hint="this Python ships without it; import a file of your own",
            )
        return wanted

    def parts(self, *, part_bytes: int) -> Iterator[Part]:
        """One part: the whole library is a few megabytes."""
        size = sum(path.stat().st_size for path in self.files())
        yield Part(number=0, first_record=0, size_bytes=size, span=None)

    def read(self, part: Part) -> Iterator[Chunk]:
        number = 0
        for path in self.files():
            records = list(self._records(path))
            yield Chunk(
                columns={"text": [text for _, text in records], "origin": [origin for origin, _ in records]},
                numbers=np.arange(number, number + len(records), dtype=np.uint64),
                size_bytes=path.stat().st_size,
            )
            number += len(records)
        if not (self.root / _TOPICS).exists():
            yield note_chunk({"pydoc_data is not installed here: docstrings alone": 1})

    def _records(self, path: Path) -> Iterator[tuple[str, str]]:
        """(origin, text) of one file; a file that this Python cannot parse has none."""
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            return
        relative = path.relative_to(self.root)
        if relative == _TOPICS:
            yield from _topics(tree)
        else:
            module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            yield from _docstrings(tree, name=module)


def _topics(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The entries of the module's one dict of topic -> text."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            for topic, text in ast.literal_eval(statement.value).items():
                yield f"topic {topic}", text


def _docstrings(node: ast.AST, *, name: str) -> Iterator[tuple[str, str]]:
    """Docstrings of a module, its classes and functions, in the order they are written."""
    if isinstance(node, _OWNERS) and (text := ast.get_docstring(node)):
        yield name, text
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child, name=f"{name}.{child.name}")
        elif isinstance(child, ast.stmt):
            yield from _docstrings(child, name=name)
