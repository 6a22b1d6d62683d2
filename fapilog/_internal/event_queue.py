"""
The face of `asyncio.Queue` on the queue of a process, for workers that are used by hand.

Invariants:

1. `put()` waits for room as long as it takes, and ends at once for an event that can never fit.
2. Events come out expanded, in the order of their seqs.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fapilog import pipeline
from fapilog._internal.line_queue import LineQueue
from fapilog._internal.overflow import TRYING
from fapilog._internal.pace import TICK
from fapilog.typing import Event

if TYPE_CHECKING:
    from collections.abc import MutableMapping

MAX_SEQ_BYTES = 20  # what a seq may add to the tail


class EventQueue(LineQueue, asyncio.Queue[Event]):
    """
    An `asyncio.Queue` of events that any thread, signal handler or finaliser may put into.

    See `LineQueue` for its arguments and limits.
    """

    __slots__ = ("_done",)

    def __init__(self, maxsize: int = 1000, **options: Any) -> None:
        self._done = 0
        asyncio.Queue.__init__(self, maxsize)
        LineQueue.__init__(self, maxsize, **options)

    @property
    def maxsize(self) -> int:
        """The same as `capacity`."""
        return self.capacity

    def put_nowait(self, item: MutableMapping[str, Any]) -> None:
        """Put an event dict; any thread. One that is refused (and counted) raises `asyncio.QueueFull`."""
        levelno, head = pipeline.head_of(item)
        if not self.accept(levelno, head):
            raise asyncio.QueueFull

    async def put(self, item: MutableMapping[str, Any]) -> None:
        """Put an event dict, waiting for room as long as it takes; one that can never fit is refused (and counted) at once."""
        levelno, head = pipeline.head_of(item)
        size = len(head) + len(self._tail) + MAX_SEQ_BYTES
        while self.open and size <= self._byte_limit:
            if self.accept(levelno, head, TRYING):
                return
            self.wake()
            await asyncio.sleep(TICK)
        self.accept(levelno, head)

    def get_nowait(self) -> Event:
        """Take the oldest event, expanded; without one, raise `asyncio.QueueEmpty`."""
        try:
            line = self._buffer.popleft()
        except IndexError:
            raise asyncio.QueueEmpty from None
        self.taken_events += 1
        self.taken_bytes += len(line)
        return Event.of(line)

    async def get(self) -> Event:
        """Take the oldest event, looking for one every `TICK` seconds: callers on other threads do not wake a getter."""
        while self.empty():
            await asyncio.sleep(TICK)
        return self.get_nowait()

    def task_done(self) -> None:
        """Count one taken event as processed."""
        if self._done >= self.taken_events:
            message = "task_done() called too many times"
            raise ValueError(message)
        self._done += 1

    async def join(self) -> None:
        """Wait until every event has been taken and called done."""
        while self._done < self.put_events:
            await asyncio.sleep(TICK)
