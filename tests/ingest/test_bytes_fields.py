"""What lies in fields of bytes is told by its content, whoever brings it in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rsc.config import Workspace
from rsc.errors import GateRefused
from rsc.ingest.config import ImportOptions
from rsc.ingest.importer import import_columns
from rsc.ingest.job import ImportResult

from .bringing import POLICY, SAFE, stored

LETTER = "write to eve@example.org, M\u00fcnchen"
BINARY = bytes(range(256)) * 3


def jpeg() -> bytes:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "taken by Eve at home"
    Image.new("RGB", (6, 4), (255, 0, 0)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def bring(workspace: Workspace, values: list[bytes], *, policy: bytes = SAFE, **options: Any) -> ImportResult:
    columns = {"blob": values, "id": list(map(str, range(len(values))))}
    return import_columns(
        columns, name="posts", workspace=workspace, policy=policy, author="ada",
        options=ImportOptions(holdout=0.0, **options),
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_text_in_bytes_is_scanned_and_keeps_its_encoding(workspace: Workspace, encoding: str) -> None:
    values = [BINARY, LETTER.encode(encoding), b"", f"<html>{LETTER}</html>".encode(encoding), b"\x00\x01"]
    result = bring(workspace, values)
    assert result.report.by_type() == {"email": 2}
    found = [row["blob"] for row in stored(workspace, "train")]
    assert [found[0], found[2], found[4]] == [values[0], values[2], values[4]]
    assert found[1].decode(encoding) == "write to [EMAIL], M\u00fcnchen"
    assert found[3].decode(encoding) == "<html>write to [EMAIL], M\u00fcnchen</html>"


def test_text_in_bytes_without_findings_is_exact(workspace: Workspace) -> None:
    values = [b"plain", "\ufeffwith a mark".encode(), b"caf\xe9 and much more of that page", b"line\r\n"]
    bring(workspace, values)
    assert [row["blob"] for row in stored(workspace, "train")] == values


def test_pictures_in_bytes_lose_their_metadata(workspace: Workspace) -> None:
    result = bring(workspace, [jpeg(), BINARY, jpeg()[:200], b"RIFF\x10\0\0\0AVI LIST"])
    assert result.report.media["exif"] == 1
    rows = stored(workspace, "train")
    assert [row["text"] for row in rows] == ["0", "1"]
    assert b"Eve" not in rows[0]["blob"]
    assert sum(result.bad.values()) == 2


def test_bytes_need_a_safeguard(workspace: Workspace) -> None:
    with pytest.raises(GateRefused, match="no safeguard for the bytes in field 'blob'"):
        bring(workspace, [BINARY], policy=POLICY)


def test_a_dropped_record_takes_its_bytes_along(workspace: Workspace, tmp_path: Path) -> None:
    policy = SAFE.replace(b'email = "redact"', b'email = "drop"')
    assert policy != SAFE
    bring(workspace, [BINARY, LETTER.encode(), b"x"], policy=policy)
    assert [row["blob"] for row in stored(workspace, "train")] == [BINARY, b"x"]
