from __future__ import annotations

import io

from rsc.ingest.progress import ImportProgressLine, progress_text


class Tick:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_share_rate_and_time_left() -> None:
    mib = 1 << 20
    text = progress_text(25 * mib, 100 * mib, num_records=12345, rate_bytes_per_s=5 * mib)
    assert text == "importing  25 %  12,345 records  5 MiB/s  15 s left"
    assert "%" not in progress_text(100 * mib, 100 * mib, num_records=1, rate_bytes_per_s=mib)


def test_a_terminal_gets_one_line_and_a_log_few() -> None:
    for stream, updates in ((Terminal(), 10), (io.StringIO(), 1)):
        clock = Tick()
        line = ImportProgressLine(clock=clock, stream=stream)  # type: ignore[arg-type]
        for step in range(60):
            clock.now_s = step
            line.update(done_bytes=step, total_bytes=100, num_records=step)
        line.finish()
        shown = stream.getvalue()
        assert shown.count("importing") >= updates
        assert ("\n" in shown) != stream.isatty()
        assert shown.count("importing") < 3 or stream.isatty()


def test_bytes_of_an_earlier_attempt_do_not_count_for_the_rate() -> None:
    clock, stream = Tick(), Terminal()
    line = ImportProgressLine(clock=clock, stream=stream)  # type: ignore[arg-type]
    line.update(done_bytes=1 << 30, total_bytes=1 << 31, num_records=1)
    clock.now_s = 10
    line.update(done_bytes=(1 << 30) + (10 << 20), total_bytes=1 << 31, num_records=2)
    assert "1 MiB/s" in stream.getvalue()
