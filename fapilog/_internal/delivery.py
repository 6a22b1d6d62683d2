"""
One sink's way out: its own backlog, its own retries, its own books.

Invariants:

1. ``offered = delivered + dropped + in flight`` after every step; in flight is 0 after `close()`.
2. A sink gets batches one at a time, oldest first, and the same batch again until it took it, refused it or gave out.
3. Nothing a sink raises leaves this module, except the cancellation that `close()` asked for.
4. The backlog holds at most `backlog_bytes`, or the one take that found it empty; what does not fit is dropped, newest first, as
   `backlog_full`.

All of it runs on the worker's loop; only the books are read from elsewhere.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fapilog._internal.accounting import Reason, SinkBooks
from fapilog._internal.notes import note
from fapilog.errors import SinkRejected, SinkUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.identity import Identity
    from fapilog.typing import Event, Sink

BACKLOG_BYTES = 32 << 20
BATCH_BYTES = 1 << 20
HURRIED_WAIT = 0.1


class Waker:
    """A wait that ends early when somebody calls. `wake()` on the loop's own thread."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """End the wait, or the next one if nobody waits now."""
        self._event.set()

    async def wait(self, seconds: float | None) -> None:
        """Wait until `wake()`, for at most *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        finally:
            self._event.clear()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    How often and how fast a batch is tried again.

    Args:
        max_retries: Tries after the first; *None* tries until the backlog's bound decides.
        delay: The longest wait before the first retry, in seconds; doubled each time.
        cap: The longest wait of all, in seconds.
        rng: Uniform in [0, 1); full jitter spreads the processes that wait for one server.
    """

    max_retries: int | None = 3
    delay: float = 1.0
    cap: float = 30.0
    rng: Callable[[], float] = random.random

    def wait(self, attempt: int) -> float:
        """Return the wait after failed try number *attempt*, from 1, in seconds."""
        return self.rng() * min(self.cap, self.delay * 2.0 ** min(attempt - 1, 32))


class Delivery:
    """
    Delivers what it is offered to one sink.

    Args:
        sink: Where to.
        books: What happened to what; may carry the counts of an earlier opening of the hub.
        policy: Of the retries.
        backlog_bytes: The most that may wait here, the batch in flight included.
        batch_bytes: The most that one `write()` gets, unless a single event is larger.
    """

    def __init__(
        self,
        sink: Sink,
        books: SinkBooks | None = None,
        *,
        policy: RetryPolicy | None = None,
        backlog_bytes: int = BACKLOG_BYTES,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self.sink = sink
        self.books = books or SinkBooks(sink.name)
        self._reads_lines = getattr(sink, "reads_lines", False)
        self._policy = policy or RetryPolicy()
        self._backlog_bytes = backlog_bytes
        self._batch_bytes = batch_bytes
        self._chunks: deque[tuple[list[Event], int]] = deque()
        self._current: list[Event] = []
        self._waker = Waker()
        self._progress = asyncio.Event()
        self._kept = 0
        self._done = 0
        self._opened = False
        self._stale = False
        self._hurry = asyncio.Event()
        self.draining = False
        self._task: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """How many events have entered the backlog so far; what `settle()` waits for."""
        return self._kept

    def has_room(self, size: int) -> bool:
        """Whether *size* bytes may be offered without a drop; an empty backlog takes anything that fitted into the queue."""
        waiting = self.books.backlog_bytes
        return not waiting or self.draining or waiting + size <= self._backlog_bytes

    def start(self, identity: Identity) -> None:
        """Begin delivering, on the running loop."""
        self.draining = False
        self._hurry.clear()
        self._task = asyncio.get_running_loop().create_task(self._run(identity), name=f"fapilog delivery {self.sink.name}")

    def offer(self, events: list[Event], size: int) -> None:
        """Take over *events* of *size* bytes; what does not fit is dropped, unless the rest is being drained."""
        self.books.offered += len(events)
        if not self.has_room(size):
            room = self._backlog_bytes - self.books.backlog_bytes
            kept = self._fitting(events, room)
            self._drop(Reason.BACKLOG_FULL, events[kept:])
            events = events[:kept]
            size = sum(event.size for event in events)
        if events:
            self._kept += len(events)
            self._chunks.append((events, size))
            self.books.backlog_bytes += size
            self._waker.wake()

    def settled(self, position: int) -> bool:
        """Whether all events up to *position* have met their fate."""
        return self._done >= position

    @property
    def idle(self) -> bool:
        """Whether everything offered has met its fate."""
        return self._done == self._kept

    def reopen(self) -> None:
        """Let the sink open its file anew, before it gets the next batch."""
        self._stale = True
        self._waker.wake()

    def hurry(self) -> None:
        """End the wait before a retry, and make all further ones short: the hub is closing."""
        self._hurry.set()

    async def settle(self, position: int, seconds: float | None) -> None:
        """Wait until all events up to *position* have met their fate, for at most *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                while self._done < position:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return

    async def close(self, seconds: float) -> None:
        """Stop; what was not delivered is counted `after_close`. A sink that does not close in *seconds* is left behind."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=seconds)
        self.abandon()
        self._progress.set()
        if self._opened:
            await self._close_sink(seconds)
        else:
            retire = getattr(self.sink, "retire", None)
            if retire is not None:
                retire()
        self._opened = False

    def abandon(self) -> None:
        """Count what waits here as `after_close`; once nothing delivers any more."""
        left = [*self._current, *(event for events, _ in self._chunks for event in events)]
        self._chunks.clear()
        self._current = []
        self._drop(Reason.AFTER_CLOSE, left)
        self.books.backlog_bytes = 0
        self._done = self._kept

    async def _close_sink(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.sink.close()
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            note(f"close {self.sink.name}", f"sink {self.sink.name!r} did not close: {error!r}")

    async def _run(self, identity: Identity) -> None:
        while True:
            if self._stale:
                await self._reopen()
            if not self._chunks:
                await self._waker.wait(None)
                continue
            batch, size = self._next_batch()
            self._current = batch
            await self._deliver(batch, identity)
            self._current = []
            self.books.backlog_bytes -= size
            self._done += len(batch)
            self._progress.set()

    async def _reopen(self) -> None:
        self._stale = False
        reopen = getattr(self.sink, "reopen", None)
        if reopen is None or not self._opened:
            return
        try:
            await reopen()
        except Exception as error:  # it goes on with what it has open
            note(f"reopen {self.sink.name}", f"sink {self.sink.name!r} did not reopen: {error!r}")

    def _next_batch(self) -> tuple[list[Event], int]:
        """Take chunks from the backlog up to the batch size; a chunk that is larger is split."""
        events, size = self._chunks.popleft()
        if size > self._batch_bytes:
            head = max(1, self._fitting(events, self._batch_bytes))
            rest = events[head:]
            events = events[:head]
            first = sum(event.size for event in events)
            if rest:
                self._chunks.appendleft((rest, size - first))
            return events, first
        while self._chunks and size + self._chunks[0][1] <= self._batch_bytes:
            more, more_size = self._chunks.popleft()
            events = events + more
            size += more_size
        return events, size

    @staticmethod
    def _fitting(events: list[Event], room: int) -> int:
        """Return how many of the first *events* fit into *room* bytes."""
        for index, event in enumerate(events):
            room -= event.size
            if room < 0:
                return index
        return len(events)

    async def _deliver(self, batch: list[Event], identity: Identity) -> None:
        attempt = 0
        while True:
            try:
                await self._attempt(batch, identity)
            except SinkRejected as refusal:
                self._rejected(batch, refusal)
                return
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:
                if isinstance(error, asyncio.CancelledError) and self._asked_to_stop():
                    raise
                attempt += 1
                if not await self._again(batch, attempt, error):
                    return
            else:
                self.books.delivered += len(batch)
                self.books.up = True
                return

    async def _attempt(self, batch: list[Event], identity: Identity) -> None:
        if not self._opened:
            await self.sink.open(identity)
            self._opened = True
        await self.sink.write(batch if self._reads_lines else [event.expanded() for event in batch])

    async def _again(self, batch: list[Event], attempt: int, error: BaseException) -> bool:
        """Count a failed try and wait; return False once the batch has had all its tries."""
        self.books.up = False
        note(f"down {self.sink.name}", f"sink {self.sink.name!r} takes no events: {error!r}")
        limit = self._policy.max_retries
        if limit is not None and attempt > limit:
            self._drop(Reason.RETRIES_EXHAUSTED, batch)
            return False
        self.books.retries += 1
        asked = error.retry_after if isinstance(error, SinkUnavailable) else None
        await self._wait(self._policy.wait(attempt) if asked is None else max(0.0, min(asked, self._policy.cap)))
        return True

    async def _wait(self, seconds: float) -> None:
        if self._hurry.is_set():
            await asyncio.sleep(min(seconds, HURRIED_WAIT))
            return
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            return

    def _rejected(self, batch: list[Event], refusal: SinkRejected) -> None:
        count = len(batch) if refusal.count is None else max(0, min(refusal.count, len(batch)))
        self.books.delivered += len(batch) - count
        self.books.up = True
        if count:
            self.books.drop(Reason.REJECTED, count, batch[0].seq, batch[-1].seq, time.time_ns())
            note(f"rejected {self.sink.name}", f"sink {self.sink.name!r} refused {count} events for good: {refusal}")

    @staticmethod
    def _asked_to_stop() -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    def _drop(self, reason: Reason, events: list[Event]) -> None:
        if events:
            self.books.drop(reason, len(events), events[0].seq, events[-1].seq, time.time_ns())
