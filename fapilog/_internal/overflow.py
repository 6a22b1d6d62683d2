"""
What a full queue does: the overflow policies that keep a part of the new events, wait, or make room.

Invariants:

1. What `drop_oldest` throws out is counted as accepted and dropped in one atomic run (see `line_queue`), and struck out in the
   journal, where there is one, in the same: nobody delivers it after all.
2. The hub's own events are not thrown out. If nothing else is there, an event is taken past the limits instead, so there are
   never more too many than there are of those.
3. Only `block` waits, for at most `block_timeout`, and never on a thread that runs an event loop.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from fapilog._internal.accounting import DropWindow, Reason
from fapilog._internal.native import pause
from fapilog.identity import seq_of

if TYPE_CHECKING:
    from collections import deque

    from fapilog._internal.journal import Journal

WARNING = 30
BLOCK_STEP = 0.0005
TRYING = -1.0  # for `until`: neither wait nor count


class Overflow:
    """The part of `LineQueue` that is called when it is full; see there."""

    __slots__ = ("peak", "skipped", "taken_bytes", "taken_events")

    if TYPE_CHECKING:
        _buffer: deque[bytes]
        _byte_limit: int
        _limit: int
        _own: frozenset[int]
        _reserve_limit: int
        _sample_every: int
        block_timeout: float
        journal: Journal | None
        oldest_dropped: DropWindow
        open: bool
        peak: int
        put_bytes: int
        put_events: int
        skipped: int
        taken_bytes: int
        taken_events: int
        urgent: bool

        def accept(self, levelno: int, head: bytes, until: float = 0.0) -> bool: ...
        def admit(self, head: bytes, *, waits: bool = True, closed: bool = True, own: bool = True) -> bytes: ...
        def keep(self, reason: Reason, window: DropWindow) -> None: ...
        def qsize(self) -> int: ...
        def refuse(self, reason: Reason) -> bool: ...
        def wake(self) -> None: ...
        def _too_late(self, levelno: int, head: bytes) -> bool: ...

    def _limit_of(self, levelno: int) -> int:
        return self._limit if levelno < WARNING else self._reserve_limit

    def _sampled(self, levelno: int, head: bytes, size: int) -> bool:
        self.skipped += 1
        if self.skipped % self._sample_every:
            return self.refuse(Reason.SAMPLED)
        depth = self.qsize()
        if depth >= self._reserve_limit or self._bytes_full(size):
            return self.refuse(Reason.QUEUE_FULL)
        if not self.admit(head, closed=False, own=False):
            return self._too_late(levelno, head)
        self.peak = max(self.peak, depth + 1)
        return True

    def _accepted_for_another(self, levelno: int, head: bytes, size: int) -> bool:
        """Take the event in place of the oldest ones; other threads may be quicker, again and again, but each of them once."""
        limit = self._limit_of(levelno)
        while self.open:
            if not self._make_room(limit, size):
                return bool(self.admit(head, closed=False, own=False))
            if self.accept(levelno, head, TRYING):
                return True
        return False

    def _make_room(self, limit: int, size: int) -> bool:
        """
        Drop the oldest events until one of *size* bytes fits; they count as accepted and then dropped.

        Return False where nothing is there that may be dropped.
        """
        window, journal = self.oldest_dropped, self.journal
        words: Any = () if journal is None else journal.words
        while self.put_events - self.taken_events >= limit or self._bytes_full(size):
            buffer = self._buffer
            at, before, oldest = self._first_to_go(buffer)
            if oldest is None:
                return self._buffer is not buffer
            oldest_bytes, seq, now_ns = len(oldest), seq_of(oldest), time.time_ns()
            # Atomic from here: what is counted as dropped is what leaves, and nothing does once the queue is closed: the worker
            # has counted for the last time then.
            if not self.open:
                return True
            try:
                if self._buffer is not buffer or buffer[at] is not oldest:
                    continue
            except IndexError:
                continue
            if journal is not None:  # struck before it is counted: nobody delivers it after all
                if words[journal.range_at] and words[journal.range_at + 1] < before:
                    continue
                if not words[journal.range_at]:
                    words[journal.range_at] = seq
                words[journal.range_at + 1] = seq
            if window.count == window.announced:
                window.first_seq = seq
                window.first_ns = now_ns
            window.count += 1
            window.last_seq = seq
            window.last_ns = now_ns
            self.taken_events += 1
            self.taken_bytes += oldest_bytes
            del buffer[at]
            self.keep(Reason.DROP_OLDEST, window)
        return True

    def _first_to_go(self, buffer: deque[bytes]) -> tuple[int, int, bytes | None]:
        """
        Return where the oldest event in *buffer* is that may be dropped, the seq of the hub's own one before it, and the event.

        It belongs to a range behind that seq.
        """
        before = at = 0
        try:
            while (seq := seq_of(buffer[at])) in self._own:
                before = seq
                at += 1
            oldest = buffer[at]
        except IndexError:
            return at, before, None
        if self.journal is not None:
            self.journal.begin_range(before)
        return at, before, oldest

    def _bytes_full(self, size: int) -> bool:
        return self.put_bytes - self.taken_bytes + size > self._byte_limit

    def _accepted_in_time(self, levelno: int, head: bytes, size: int, until: float) -> bool:
        """Take the event as soon as there is room for it."""
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public way raises instead of answering
            return False
        limit = self._limit_of(levelno)
        until = until or time.monotonic() + self.block_timeout
        while self.open and time.monotonic() < until:
            if self.qsize() < limit and not self._bytes_full(size) and self.accept(levelno, head, TRYING):
                return True
            pause(BLOCK_STEP)
            if not self.urgent:
                self.wake()
        return False
