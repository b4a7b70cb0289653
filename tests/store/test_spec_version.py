"""docs/format.md holds every step from a key folder to a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rsc.keys.envelope import data_kek_id, data_key_context, new_envelope
from rsc.keys.providers.local import LocalKeyProvider
from rsc.store.dataset import Dataset, DatasetWriter
from rsc.store.format.columns import Columns
from tests.conftest import FakeClock
from tests.store.conftest import SCHEMA, make_columns
from tests.store.spec_reader import Outcome
from tests.store.spec_version import read_version


def write(folder: Path, columns: Columns, clock: FakeClock, **provider: Any) -> Path:
    """A version of small shards and frames; the key folder lies beside it."""
    keys = LocalKeyProvider(folder / "keys", **provider)
    keys.create(data_kek_id("posts", period="2026-11"), period="2026-11")
    envelope, key = new_envelope(
        keys, kek_id=data_kek_id("posts", period="2026-11"), context=data_key_context("posts")
    )
    with key, DatasetWriter.create(
        folder / "data", name="posts", schemas={"train": SCHEMA, "test": SCHEMA}, key=key,
        envelope=envelope, clock=clock, frame_bytes=1, shard_bytes=1,
    ) as writer:  # fmt: skip
        writer.append("train", columns)
        writer.commit(policy=b"p", report=b"r", facts={})
    return folder / "data" / "posts" / "v0001"


def row(columns: Columns, number: int) -> dict[str, bytes]:
    return {name: column[number].tobytes() for name, column in columns.items()}


@pytest.mark.parametrize("passphrase", [b"", b"a passphrase"])
def test_the_page_reads_a_version_to_the_last_sample(
    tmp_path: Path, clock: FakeClock, passphrase: bytes
) -> None:
    count = 40 if passphrase else 300
    columns = make_columns(count)
    provider = {"passphrase": passphrase, "scrypt_log_n": 10} if passphrase else {}
    version = write(tmp_path, columns, clock, **provider)
    num_shards = Dataset.open(tmp_path / "data", name="posts").splits["train"].num_shards
    assert passphrase or num_shards > 256, "one page of the manifest would not be enough to learn from"
    found = read_version(version, keys=tmp_path / "keys", passphrase=passphrase)
    assert found == {"train": [row(columns, number) for number in range(count)], "test": []}


def test_the_page_refuses_a_shard_in_another_place(tmp_path: Path, clock: FakeClock) -> None:
    version = write(tmp_path, make_columns(3), clock)
    first, second = version / "train" / "000000000.rsc", version / "train" / "000000001.rsc"
    second.write_bytes(first.read_bytes())
    with pytest.raises(Outcome):
        read_version(version, keys=tmp_path / "keys")
