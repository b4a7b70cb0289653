"""What every room's tests share: a clock that is moved by hand, a workspace, the real data folder."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings

from rsc.config import Workspace

ROOT = Path(__file__).resolve().parent.parent

pytest_plugins = ["rsc.cluster.dev.fixture"]

settings.register_profile("untimed", deadline=None)  # a busy machine takes longer, which is no failure
settings.load_profile("untimed")


LONGEST = (
    "e2e/test_quickstart.py",
    "train/test_kills.py",
    "parallel/test_equality.py",
    "train/test_faults.py",
    "train/test_end_to_end.py",
    "e2e/test_bad_input.py",
    "e2e/test_bad_samples.py",
    "train/test_data_on_s3.py",
    "plan/test_dry_run.py",
    "store/test_atomic.py",
    "e2e/test_own_file.py",
)
"""Files that take longest, by measured CPU time. A file is the unit of work of a worker: were one of these
the last, a worker would end alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they were found."""
    order = {f"tests/{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


class FakeClock:
    """Stands still until `sleep` or `advance` moves it."""

    def __init__(self, start: datetime = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        return self._elapsed_s

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
        self._elapsed_s += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace that subprocesses see too."""
    monkeypatch.setenv("RSC_HOME", str(tmp_path / "home"))
    return Workspace.from_environment(os.environ)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data, or a skip that says how to bring it."""
    folder = Path(os.environ.get("RSC_TEST_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(
            "real data not found: set RSC_TEST_DATA to a folder with tinyshakespeare.txt and the others"
        )
    return folder
