from __future__ import annotations

from pathlib import Path

import pytest

from rsc.errors import DataError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import open_source

from .conftest import read_all

MODULE = '''"""Module words."""
class Thing:
    """Thing words."""
    def act(self):
        """Act words."""
        def inner():
            "Inner words."
raise RuntimeError("parsed, never run")
'''


def library(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_docstrings_and_topics_without_running_anything(tmp_path: Path) -> None:
    topics = "topics = {'lists': 'Lists hold things.', 'loops': 'Loops go round.'}\n"
    files = {
        "pack/__init__.py": MODULE,
        "pydoc_data/topics.py": topics,
        "test/x.py": MODULE,
        "bad.py": "def (",
    }
    source = open_source(library(tmp_path, files), options=ImportOptions(format="python-docs"))
    rows, bad = read_all(source)
    assert not bad
    assert [(row["origin"], row["text"]) for row in rows] == [
        ("pack", "Module words."),
        ("pack.Thing", "Thing words."),
        ("pack.Thing.act", "Act words."),
        ("pack.Thing.act.inner", "Inner words."),
        ("topic lists", "Lists hold things."),
        ("topic loops", "Loops go round."),
    ]


def test_without_pydoc_data_the_docstrings_stand_alone_and_it_is_said(tmp_path: Path) -> None:
    source = open_source(library(tmp_path, {"a.py": MODULE}), options=ImportOptions(format="python-docs"))
    chunks = list(source.read(next(source.parts(part_bytes=1))))
    assert chunks[-1].notes == {"pydoc_data is not installed here: docstrings alone": 1}


def test_a_library_without_source(tmp_path: Path) -> None:
    (tmp_path / "a.pyc").write_bytes(b"")
    with pytest.raises(DataError, match="holds no Python source"):
        open_source(tmp_path, options=ImportOptions(format="python-docs")).files()
