"""What a supervisor does with ranks that do not end."""

from __future__ import annotations

import subprocess

from rsc.train.supervise import _left, _unkillable
from rsc.train.verdict import Failure


def test_the_wait_for_a_rank_that_nothing_ends_has_an_end() -> None:
    with subprocess.Popen(["sleep", "600"]) as stays, subprocess.Popen(["true"]) as ends:
        pids = {0: ends.pid, 3: stays.pid}
        assert _left(pids, patience_s=0.2) == [3]
        stays.kill()
        assert _left(pids, patience_s=600) == []
    assert _left(pids, patience_s=600) == [], "their ends were taken note of"


def test_a_rank_that_nothing_ends_is_fatal_and_named_with_what_came_before() -> None:
    failure = _unkillable(3, after=Failure(1, "sigkill", "ended by SIGKILL"))
    assert failure.is_fatal
    assert "rank 3 failed first" in failure.sentence()
    assert "rank 1 failed first: ended by SIGKILL" in failure.sentence()
