"""What is read out of the output of pip, recorded from old and new ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsc.setup.pip import Listing, Offer, PipAnswer

RECORDED = Path(__file__).parent / "recorded"
"""`pip index versions -vvvv torch` with an index that has a password, one that hangs, one without torch, and
a folder of wheels in a path with a space. Hosts and paths were renamed."""


@pytest.mark.parametrize("file", sorted(RECORDED.iterdir()), ids=lambda file: file.stem)
def test_offers_and_silent_indexes_are_read_out_of_any_pip(file: Path) -> None:
    folder = "file:///srv/wheel%20house"
    assert Listing.read(PipAnswer(0, file.read_text())) == Listing(
        offers=(
            Offer("2.14.1", "http://index.example/files/torch-2.14.1-py3-none-any.whl#sha256=00ff"),
            Offer("2.13.0+cpu", f"{folder}/torch-2.13.0%2Bcpu-py3-none-any.whl"),
            Offer("2.12.0rc1", f"{folder}/torch-2.12.0rc1-py3-none-any.whl"),
        ),
        silent=("http://silent.example/simple/torch/",),
        is_index_read=True,
        is_offline=False,
        is_cut_short=False,
    )


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("WARNING: slow\nERROR: No matching distribution\nERROR: and more", "No matching distribution"),
        ("Traceback", "pip ended with exit code 1"),
    ],
)
def test_a_failure_of_pip_is_one_line(output: str, reason: str) -> None:
    assert PipAnswer(1, output).reason == reason
