"""A clock that is set back is reported by `rsc verify`, while it is behind and afterwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsc.clock import timestamp
from rsc.release.verify.log_times import TOLERANCE, LogTimes

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def times_of(*minutes: float) -> LogTimes:
    times = LogTimes()
    entries = [
        {"index": index, "time": timestamp(START + timedelta(minutes=each))}
        for index, each in enumerate(minutes)
    ]
    assert list(times.watching(entries)) == entries
    return times


@given(st.lists(st.floats(0, 1e6), max_size=20), st.floats(0, 1e6))
def test_it_is_broken_exactly_while_a_record_is_newer_than_now(minutes: list[float], now: float) -> None:
    moment = START + timedelta(minutes=now)
    newest = timedelta(minutes=max(minutes, default=0.0))
    expected = "broken" if START + newest - moment > TOLERANCE else "kept"
    if abs((START + newest - moment - TOLERANCE).total_seconds()) > 0.001:  # the log has milliseconds
        assert times_of(*minutes).judged(moment).state == expected


@pytest.mark.parametrize("minutes", [(), (0,), (0, 1, 2), (0, 5, 4.5, 6)])
def test_a_clock_that_goes_forward_or_is_corrected_by_seconds_is_no_matter(
    minutes: tuple[float, ...],
) -> None:
    found = times_of(*minutes).judged(START + timedelta(hours=1))
    assert (found.state, found.told) == ("kept", "no record of the log is newer than now")


def test_a_step_back_that_time_has_made_up_for_is_reported() -> None:
    found = times_of(0, 3 * 24 * 60, 10, 20, 4 * 24 * 60).judged(START + timedelta(days=5))
    assert found.state == "kept"
    assert "set back 1 times before, last by 2 days, 23:50:00 before record 2" in found.told


def test_it_names_both_times_and_the_record() -> None:
    found = times_of(0, 600).judged(START + timedelta(minutes=30))
    assert found.state == "broken"
    assert "it is 2026-11-21T09:30:00Z here, and record 1 of the log was written at 2026-11-21T19:00:00Z" in (
        found.told
    )
