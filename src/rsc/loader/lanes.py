"""The documents of one lane as an endless stream of tokens, a separator before each.

A lane is read at its own pace: lanes of long documents are fewer documents into the run than others, and
only the lane's own part of a window is in memory, `window_bytes / lanes`, and as much again for the window
after it where threads fill that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from typing import Any, NamedTuple

from numpy.typing import NDArray

from rsc.loader.frames import Frames
from rsc.loader.order import Int64s
from rsc.loader.stream import RankWindow, WindowStream
from rsc.loader.window import RaggedColumn
from rsc.store.splits import SplitReader


class LanePlace(NamedTuple):
    """The next token: documents of the lane before it since the run's start, and tokens of its own document
    (the separator counts) before it."""

    document: int
    skipped: int


class LaneTokens:
    """Tokens of the documents whose positions are `lane` modulo `lanes`, in their order.

    `stream` opens windows of this lane alone: rank `lane` of a world of `lanes`.
    """

    def __init__(
        self, stream: WindowStream, *, lane: int, lanes: int, field: str, separator: int, is_ahead: bool
    ) -> None:
        """`is_ahead`: the window after the current one is opened at once, for threads to fill."""
        self.place = LanePlace(0, 0)
        self._stream = stream
        self._lane, self._lanes = lane, lanes
        self._field = field
        self._separator = separator
        self._is_ahead = is_ahead
        self._window: RankWindow | None = None
        self._coming: RankWindow | None = None

    @property
    def position(self) -> int:
        """Position in the run of the document that holds the next token."""
        return self._lane + self.place.document * self._lanes

    def jump(self, place: LanePlace) -> None:
        """Go on from there."""
        self._forget_windows()
        self.place = place

    def prepare(self) -> None:
        """Begin to fill the first window, where none is open."""
        if self._window is None and self._coming is None:
            self._coming = self._stream.open(self.position)

    def fill(self, tokens: Int64s, documents: Int64s) -> None:
        """The next tokens, and the number of each one's document in the lane.

        `tokens` has room for one more, which stays the next one.
        """
        for at, count, document in self._walk(len(documents)):
            number, skipped = self.place
            documents[at : at + count] = number
            if not skipped:
                tokens[at] = self._separator
            begins = max(skipped, 1)
            tokens[at + begins - skipped : at + count] = document[begins - 1 : skipped + count - 1]
            del document  # the memory of its window is reused as soon as nobody views it
        skipped = self.place.skipped
        tokens[-1] = self._document()[skipped - 1] if skipped else self._separator

    def skip(self, count: int) -> None:
        """Pass over tokens."""
        for _ in self._walk(count):
            pass

    def coming(self, *, split: SplitReader) -> Iterator[Frames]:
        """The frames of the lane's windows from its place on."""
        return self._stream.coming(self.position, split=split)

    def unread(self) -> float:
        """Which share of the documents of the window at the lane's place is still to come. 0 to 1."""
        span = self._stream.span_at(self.position)
        return (span.stop - self.position) / (span.stop - span.start)

    def close(self) -> None:
        self._forget_windows()
        self._stream.close()

    def _walk(self, wanted: int) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """(tokens before it, tokens of it, document) for the next `wanted` tokens; moves the place on."""
        at = 0
        while at < wanted:
            document = self._document()
            number, skipped = self.place
            count = min(len(document) + 1 - skipped, wanted - at)
            yield at, count, document
            at, skipped = at + count, skipped + count
            is_over = skipped > len(document)
            del document
            self.place = LanePlace(number + 1, 0) if is_over else LanePlace(number, skipped)

    def _document(self) -> NDArray[Any]:
        """The current document: a view of its window."""
        number = self.place.document
        while self._window is None or number >= self._window.stop:
            self._open_next()
        column = self._window.wait().columns[self._field]
        assert isinstance(column, RaggedColumn), "checked when the loader was made"
        row = number - self._window.first
        values: NDArray[Any] = column.values[column.starts[row] : column.stops[row]]
        return values

    def _open_next(self) -> None:
        position = self.position if self._window is None else self._window.span.stop
        self._window = None  # the next one is filled in its memory
        self._window = self._coming or self._stream.open(position)
        self._coming = None
        if self._is_ahead:
            self._window.wait()
            self._coming = self._stream.open(self._window.span.stop)

    def _forget_windows(self) -> None:
        """Drop what was read; threads that fill it must have let go of it."""
        futures.wait([part for rows in (self._window, self._coming) if rows for part in rows.filling])
        self._window = self._coming = None
        self._stream.jump()
