"""Azure Blob storage as Microsoft's own emulator speaks it."""

from __future__ import annotations

import base64
import hmac
import http.client
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest

from rsc.keys.secret import SecretKey
from rsc.store.bulk.interface import read_all
from rsc.store.bulk.locations import open_store
from rsc.store.dataset import Dataset
from rsc.store.format.columns import concatenate_columns
from tests.conftest import FakeClock
from tests.store.conftest import assert_equal
from tests.store.test_objects import COLUMNS, write

AZURITE = os.environ.get("RSC_AZURITE") or shutil.which("azurite-blob")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        AZURITE is None, reason="no azurite-blob: `npm install -g azurite`, or put its path into RSC_AZURITE"
    ),
]
# learn.microsoft.com/azure/storage/common/storage-use-azurite: "well-known storage account and key"
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A container in an emulator that runs during the test."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(AZURITE), "--blobPort", str(port), "--location", str(tmp_path), "--silent"]
    with subprocess.Popen([*command, "--disableTelemetry", "--skipApiVersionCheck"]) as emulator:
        try:
            _wait_for(port, emulator)
            _make_container("bucket", port)
            monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
            monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", f"http://127.0.0.1:{port}")
            yield "az://bucket/under"
        finally:
            emulator.terminate()


def _wait_for(port: int, emulator: subprocess.Popen[bytes]) -> None:
    while emulator.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"azurite ended with {emulator.returncode}")


def _make_container(name: str, port: int) -> None:
    """The store makes no buckets, so by hand: Shared Key (learn.microsoft.com/rest/api/storageservices)."""
    headers = {"x-ms-date": format_datetime(datetime.now(UTC), usegmt=True), "x-ms-version": "2021-08-06"}
    resource = f"/{_ACCOUNT}/{_ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + "".join(f"{key}:{headers[key]}\n" for key in sorted(headers)) + resource
    signature = base64.b64encode(hmac.digest(base64.b64decode(_KEY), text.encode(), "sha256")).decode()
    headers |= {"Authorization": f"SharedKey {_ACCOUNT}:{signature}", "Content-Length": "0"}
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", f"/{_ACCOUNT}/{name}?restype=container", headers=headers)
    assert connection.getresponse().status == 201
    connection.close()


def test_a_data_set_on_azurite(location: str, key: SecretKey, clock: FakeClock) -> None:
    store = open_store(location)
    for version in (1, 2):
        write(store, key, clock)
        dataset = Dataset.open(location, name="posts")
        assert dataset.version == version
        assert dataset.verify(key=key).is_good
        assert_equal(concatenate_columns(list(dataset.split("train", key=key).iterate())), COLUMNS)


def test_azurite_decides_races_and_takes_uploads_in_parts(location: str) -> None:
    store = open_store(location)
    assert store.put_if_absent("a/c", b"one")
    assert not store.put_if_absent("a/c", b"two")
    data = os.urandom(20 << 20)
    file = store.create("a/big")
    for start in range(0, len(data), 3 << 20):
        file.write(memoryview(data)[start : start + (3 << 20)])
    assert store.children("a") == ["c"]
    file.commit()
    assert read_all(store.open("a/big")) == data
    assert list(store.walk("a")) == ["a/big", "a/c"]
    dropped = store.create("a/dropped")
    dropped.write(memoryview(data))
    dropped.discard()
    store.delete("a/nothing")
    store.delete_folder("a")
    assert store.children("a") == []
    with pytest.raises(FileNotFoundError):
        store.open("a/c")
