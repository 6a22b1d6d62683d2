"""
What waits for one sink, in memory.

Invariants:

1. Batches come out in the order in which lines came in; no line is in two batches, none is left out.
2. A batch holds at most `Terms.batch_bytes`, or one line that is larger. Where events expire, it holds none that is younger than
   its oldest by more than a tenth of that time, so that few expire before they have to.
3. Nothing is copied for a line but the place it has in a list.

Used on the worker's loop only.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog._internal.terms import Terms

SPAN = 0.1  # of `Terms.max_elapsed`


@dataclass(slots=True)
class Batch:
    """
    Lines that go out together.

    Args:
        lines: Encoded events, oldest first.
        size: Of the lines together, in bytes.
        since: When the oldest came in, in seconds of the loop's clock.
        delivered: How many of them the sink says it has delivered, though it wants to be called again.
        rejected: How many of them it says it will never take.
    """

    lines: list[bytes]
    size: int
    since: float
    delivered: int = 0
    rejected: int = 0


class Backlog:
    """
    Keeps lines until they are taken as batches.

    Args:
        terms: What bounds batches and how old a line may become.

    Attributes:
        size: Of what waits, in bytes.
        count: Of what waits, in lines.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._span = float("inf") if terms.max_elapsed is None else terms.max_elapsed * SPAN
        self._chunks: deque[Batch] = deque()
        self.size = 0
        self.count = 0

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def add(self, lines: list[bytes], size: int, now: float) -> None:
        """Let *lines* of *size* bytes wait."""
        self._chunks.append(Batch(lines, size, now))
        self.size += size
        self.count += len(lines)

    def due_at(self) -> float:
        """Return when the next batch should go out, in seconds of the loop's clock: at once if it is full."""
        if self.size >= self._terms.batch_bytes:
            return 0.0
        return self._chunks[0].since + self._terms.batch_timeout

    @property
    def since(self) -> float:
        """When the oldest came in, in seconds of the loop's clock; there must be one."""
        return self._chunks[0].since

    def take(self, span: float = float("inf")) -> Batch:
        """Remove the next batch, of what came in within *span* seconds; there must be one."""
        span = min(span, self._span)
        batch = self._chunks.popleft()
        if batch.size > self._terms.batch_bytes:
            head = self._batch_of(batch.lines, batch.size)
            rest = batch.lines[head:]
            lines = batch.lines[:head]
            size = sum(map(len, lines))
            if rest:
                self._chunks.appendleft(Batch(rest, batch.size - size, batch.since))
            batch = Batch(lines, size, batch.since)
        else:
            while self._chunks and self._belongs(self._chunks[0], batch, span):
                more = self._chunks.popleft()
                batch = Batch(batch.lines + more.lines, batch.size + more.size, batch.since)
        self.size -= batch.size
        self.count -= len(batch.lines)
        return batch

    def expired(self, now: float) -> list[bytes]:
        """Remove and return what has become too old."""
        old: list[bytes] = []
        while self._chunks and self.is_old(self._chunks[0], now):
            chunk = self._chunks.popleft()
            self.size -= chunk.size
            old += chunk.lines
        self.count -= len(old)
        return old

    def is_old(self, batch: Batch, now: float) -> bool:
        """Whether a batch is to be given up."""
        return self._terms.max_elapsed is not None and now >= batch.since + self._terms.max_elapsed

    def time_left(self, batch: Batch, now: float) -> float:
        """Return the seconds after which a batch is old; a bit more, since timers may be early by the clock's resolution."""
        return float("inf") if self._terms.max_elapsed is None else batch.since + self._terms.max_elapsed - now + 0.001

    def clear(self) -> list[bytes]:
        """Remove and return everything."""
        left = [line for chunk in self._chunks for line in chunk.lines]
        self._chunks.clear()
        self.size = self.count = 0
        return left

    def _belongs(self, chunk: Batch, batch: Batch, span: float) -> bool:
        return batch.size + chunk.size <= self._terms.batch_bytes and chunk.since - batch.since <= span

    def _batch_of(self, lines: list[bytes], size: int) -> int:
        """Return how many of the first *lines*, of *size* bytes, make a batch."""
        # Lines are alike, mostly. To look at each of them here would cost the callers, who wait for the GIL.
        limit = self._terms.batch_bytes
        guess = max(1, len(lines) * limit // size)
        alike = guess == 1 or sum(map(len, lines[:guess])) <= limit
        return guess if alike else max(1, fitting(lines, limit))


def fitting(lines: Sequence[bytes], room: int, start: int = 0) -> int:
    """Return the number of the line, from *start* on, before which *room* bytes are used up; that of all if they are not."""
    for index in range(start, len(lines)):
        room -= len(lines[index])
        if room < 0:
            return index
    return len(lines)
