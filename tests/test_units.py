"""Numbers with their units, to text and back."""

from __future__ import annotations

import pytest

from rsc.errors import ConfigError
from rsc.units import format_bytes, format_seconds, parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.25, "0.25 s"),
        (12, "12 s"),
        (185, "3m 05s"),
        (180, "3m"),
        (7800, "2h 10m"),
        (7776000, "90d"),
        (356400, "4d 3h"),
    ],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("64 MiB", 64 << 20), ("64M", 64 << 20), ("1.5kB", None), ("2 GB", 2 * 10**9)],
)
def test_sizes_are_read_with_their_unit(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(ConfigError, match="is not a size"):
            parse_bytes(text)
    else:
        assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "d", "-3d", "3 days", "1e3s"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a duration"):
        parse_seconds(text)


def test_a_duration_is_read_back() -> None:
    assert parse_seconds("90d") == 7_776_000


def test_sizes_are_shown_in_binary_units() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 1 << 30, 1 << 60)] == [
        "0 B",
        "1023 B",
        "1 KiB",
        "1 GiB",
        "1 EiB",
    ]
