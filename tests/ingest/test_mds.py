"""MDS shards that are not what their index says, and indexes of other formats."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from rsc.errors import DataError, RscError
from rsc.ingest.config import ImportOptions
from rsc.ingest.readers.detect import open_source
from rsc.ingest.readers.source import Fingerprint

from .conftest import read_all
from .test_archives import mds, mds_shard, mds_values

PLAIN = ImportOptions()


@pytest.mark.parametrize("packed", [False, True])
def test_mds_cut_anywhere_or_changed(packed: bool, tmp_path: Path) -> None:
    root = mds(tmp_path / "mds", [5], packed=packed)
    shard = next(root.glob("shard.00000.mds*"))
    whole = shard.read_bytes()
    for cut in (*np.linspace(0, len(whole) - 1, 200, dtype=int), len(whole) + 1):
        shard.write_bytes((whole + b"\0")[:cut])
        with pytest.raises(DataError, match=r"cut short|is empty"):
            read_all(open_source(root, options=PLAIN))
    index = json.loads((root / "index.json").read_text())
    record = index["shards"][0]["zip_data" if packed else "raw_data"]
    record["hashes"] = {"sha1": hashlib.sha1(whole).hexdigest()}
    (root / "index.json").write_text(json.dumps(index))
    shard.write_bytes(whole)
    assert len(read_all(open_source(root, options=PLAIN))[0]) == 5
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match="sha1"):
        read_all(open_source(root, options=PLAIN))


@pytest.mark.parametrize("column", ["id", "ragged"])
def test_mds_values_of_another_size_are_bad(column: str, tmp_path: Path) -> None:
    columns = {"text": ("str", None), column: ({"id": "int", "ragged": "ndarray:int32"}[column], None)}
    root = mds(tmp_path / "mds", [2], columns=columns)
    shard = root / "shard.00000.mds"
    longer = [{**mds_values(n), column: mds_values(n)[column] + bytes(8)} for n in range(2)]
    data = mds_shard(longer, columns)  # type: ignore[arg-type]
    index = json.loads((root / "index.json").read_text())
    index["shards"][0]["raw_data"]["bytes"] = len(data)
    (root / "index.json").write_text(json.dumps(index))
    shard.write_bytes(data)
    rows, bad = read_all(open_source(root, options=PLAIN))
    assert not rows
    assert len(bad) == 2


def test_other_formats_with_an_index_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"chunks": [{"filename": "chunk-0-0.bin"}], "config": {}}')
    (tmp_path / "chunk-0-0.bin").write_bytes(bytes(99))
    with pytest.raises(DataError, match="LitData"):
        open_source(tmp_path, options=PLAIN)


@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_index_is_refused_or_changes_nothing(packed: bool, tmp_path: Path) -> None:
    root = mds(tmp_path / "mds", [3], packed=packed)
    whole = (root / "index.json").read_bytes()
    rows, _ = read_all(open_source(root, options=PLAIN))
    rng = np.random.default_rng(4)
    for at in rng.choice(len(whole), 150, replace=False):
        damaged = bytearray(whole)
        damaged[at] = int(rng.integers(32, 127))
        (root / "index.json").write_bytes(damaged)
        try:
            source = open_source(root, options=PLAIN)
            Fingerprint.of(source.files())  # as an import does first: the files are there
            found, bad = read_all(source)
        except RscError:
            continue
        assert len(found) + len(bad) == len(rows)
