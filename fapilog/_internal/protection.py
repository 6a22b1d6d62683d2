"""
What a hub tells its journal: how far each sink has come, and what was overwritten before it had.

Invariants:

1. A cursor passes an event once that has met its fate in the sink, never before.
2. An event that the ring has come round to while a sink was not done with it is counted `unprotected` for that sink, once. The
   count is taken by whole takes of the worker's, so it may be too high, never too low.
3. At the end, an event is left to whoever finds the journal only if it stands there whole.

Everything here is done on the worker's thread.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fapilog._internal.journal import crowded
from fapilog._internal.remains import standing
from fapilog.identity import seq_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog._internal.accounting import SinkBooks
    from fapilog._internal.journal import Journal
    from fapilog._internal.line_queue import LineQueue


class Passage:
    """
    One sink's way through the events of a process.

    Args:
        journal: To be told.
        index: Of the sink in it.
        books: Of the sink.
        put: How many events were accepted before the journal was there.

    Attributes:
        left: How many events are left to whoever finds the journal.
    """

    def __init__(self, journal: Journal, index: int, books: SinkBooks, put: int = 0) -> None:
        self._journal = journal
        self._index = index
        self._books = books
        self._takes: deque[tuple[int, int, int]] = deque()
        self._put = put
        self._exposed = 0
        self.left = 0

    def took(self, position: int, settled: int, seq: int, put: int) -> None:
        """
        Say that up to *position* the sink's backlog has had the events up to *seq*, *put* of which were accepted in all.

        And that everything up to *settled* has met its fate: that may be all of them, if there was no room for the last ones.
        """
        if self._takes and self._takes[-1][0] == position:  # nothing was kept: it meets its fate with the one before
            self._takes.pop()
        self._takes.append((position, seq, put))
        self.reached(settled)

    def reached(self, position: int) -> None:
        """Say that everything up to *position* has met its fate."""
        seq = 0
        while self._takes and self._takes[0][0] <= position:
            _, seq, self._put = self._takes.popleft()
        if seq:
            self._journal.settle(self._index, self._books, seq, self._put)

    def overwritten(self, put: int) -> None:
        """Say that the ring has come round to the first *put* events that were accepted."""
        done = max(self._put, self._exposed)
        if put > done:
            self._exposed = put
            self._books.unprotected += put - done

    def leave(self, lines: Sequence[bytes]) -> list[bytes]:
        """
        Leave *lines* to whoever finds the journal; return those that it has not any more, or all of its own if too many are left.

        What was adopted stands in the journal that it came from.
        """
        crowd = not self._books.up and crowded(self._journal.path.parent)
        gone = self._gone(lines, everything=crowd) if lines and (crowd or self._journal.laps) else []
        self.left += len(lines) - len(gone)
        return gone

    def _gone(self, lines: Sequence[bytes], *, everything: bool) -> list[bytes]:
        tail = self._journal.owner.identity.tail()
        own = {seq: line for line in lines if line.endswith(tail % (seq := seq_of(line)))}
        there = () if everything else standing(self._journal, min(own, default=1) - 1)
        return [line for seq, line in own.items() if seq not in there]


class Protection:
    """
    The journal of a hub, seen from its worker.

    Args:
        journal: Made for this hub.
        queue: Whose events it holds.
        sinks: Their books, in the order of the journal's cursors.
    """

    def __init__(self, journal: Journal, queue: LineQueue, sinks: Sequence[SinkBooks]) -> None:
        self._journal = journal
        self._queue = queue
        for index, books in enumerate(sinks):
            journal.settle(index, books, queue.taken_seq, queue.taken_events)
        self.passages = [Passage(journal, index, books, queue.taken_events) for index, books in enumerate(sinks)]
        self._takes: deque[tuple[int, int, int]] = deque([(0, queue.last_seq, queue.put_events)])

    def took(self) -> tuple[int, int]:
        """Say that the worker has taken what waited; return the last seq and how many events were accepted up to it."""
        queue = self._queue
        seq, put = queue.taken_seq, queue.taken_events
        self._takes.append((self._journal.head, seq, put))
        return seq, put

    def look(self) -> None:
        """Count what was overwritten too early."""
        start = self._journal.head - self._journal.owner.ring_bytes
        gone = None
        if self._journal.laps:  # at the start itself stands the line that is next to be overwritten, which nobody trusts
            start += 1
        while len(self._takes) > 1 and self._takes[0][0] < start:
            self._takes.popleft()
            gone = self._takes[0]  # from where the one before ended a part of it is gone, so it counts as a whole
        if gone is not None:
            for passage in self.passages:
                passage.overwritten(gone[2])
