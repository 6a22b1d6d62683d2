"""
One sink's way out: its own backlog, its own retries, its own books.

Invariants:

1. ``offered = delivered + dropped + in flight`` after every step; in flight is 0 after `close()`.
2. A sink gets batches one at a time, oldest first, and the same batch again until it took it, refused it or gave out.
3. Nothing a sink raises leaves this module, except the cancellation that `close()` asked for (`_internal/sink_calls.py`).
4. The backlog holds at most `Terms.backlog_bytes`, or the one take that found it empty; what does not fit is dropped, newest
   first, as `backlog_full`. What has waited here for `Terms.max_elapsed` is dropped as `expired`, also behind a call that hangs;
   the batch that the sink has in hand is not, since nobody knows what becomes of it.
5. Every wait ends when the hub stops, and the wait for a fuller batch also when somebody flushes.
6. Between two tries, of one batch or of two, are never less than `Terms.wait()` seconds, whatever a server asks for
   (`_internal/backoff.py`).
7. A position is settled when every event up to it has met its fate, whatever has become of later ones.
8. What waits when the hub closes is left to whoever finds the journal, where there is one that has it; the rest is counted.
9. A server that was away is not flooded when it is back (`_internal/replay.py`); a flush does not wait for that, nor does the
   end, nor a backlog that is nearly full: to drop events for it would be worse.
10. What a sink does with a cancellation changes nothing: once `close()` has counted a batch, no result of it counts any more, and
   the task ends after the call it is in. A sink that is opened again is first let out of that call.

All of it runs on the worker's loop; only the books are read from elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from fapilog._internal.accounting import Reason, SinkBooks
from fapilog._internal.backlog import Backlog, Batch, fitting
from fapilog._internal.backoff import Backoff
from fapilog._internal.notes import note
from fapilog._internal.replay import Replay
from fapilog._internal.sink_calls import asked_to_stop, described, outcome_of, share, wait_asked
from fapilog._internal.sink_life import SinkLife
from fapilog._internal.terms import Terms
from fapilog._internal.waker import Waker
from fapilog.errors import SinkRejected, SinkUnavailable
from fapilog.identity import seq_of

if TYPE_CHECKING:
    from fapilog._internal.protection import Passage
    from fapilog.identity import Identity
    from fapilog.typing import Sink

CROWDED = 0.9  # share of the backlog's bound


class Delivery:
    """
    Delivers what it is offered to one sink.

    Args:
        sink: Where to.
        books: What happened to what; may carry the counts of an earlier opening of the hub.
        terms: Of its batches, retries and bounds.
    """

    def __init__(self, sink: Sink, books: SinkBooks | None = None, *, terms: Terms | None = None) -> None:
        self.sink = sink
        self.books = books or SinkBooks(sink.name)
        self._life = SinkLife(sink)
        self._terms = terms or Terms()
        self.books.backlog_capacity = self._terms.backlog_bytes
        self._backlog = Backlog(self._terms)
        self._current: Batch | None = None
        self._current_at = 0  # the position before its first event
        self._waker = Waker()
        self._progress = asyncio.Event()
        self._kept = 0
        self._asked: list[int] = []
        self._stale = False
        self._backoff = Backoff(self._terms)
        self._replay = Replay(self._terms)
        self.draining = False
        self.passage: Passage | None = None
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    @property
    def position(self) -> int:
        """How many events have entered the backlog so far; what `settle()` waits for."""
        return self._kept

    def has_room(self, size: int) -> bool:
        """Whether *size* bytes may be offered without a drop; an empty backlog takes anything that fitted into the queue."""
        if self._fits(size):
            return True
        self.expire()
        return self._fits(size)

    def _fits(self, size: int) -> bool:
        waiting = self.books.backlog_bytes
        return not waiting or self.draining or waiting + size <= self._terms.backlog_bytes

    def start(self, identity: Identity) -> None:
        """Begin delivering, on the running loop."""
        self.draining = self._stopped = False
        self._backoff.reset()
        self._task = asyncio.get_running_loop().create_task(self._run(identity), name=f"fapilog delivery {self.sink.name}")

    def offer(self, lines: list[bytes], size: int) -> None:
        """Take over *lines* of *size* bytes; what does not fit is dropped, unless the rest is being drained."""
        self.books.offered += len(lines)
        if not self.has_room(size):
            kept = fitting(lines, self._terms.backlog_bytes - self.books.backlog_bytes)
            self._drop(Reason.BACKLOG_FULL, lines[kept:])
            lines = lines[:kept]
            size = sum(map(len, lines))
        if lines:
            self._kept += len(lines)
            self._backlog.add(lines, size, asyncio.get_running_loop().time())
            self.books.backlog_bytes += size
            self._waker.wake()

    def took(self, seq: int, put: int) -> None:
        """Say that what was offered ended with the event *seq*, the *put*-th that was accepted; with a `passage` only."""
        assert self.passage is not None
        self.passage.took(self._kept, self._settled_at, seq, put)

    def settled(self, position: int) -> bool:
        """Whether all events up to *position* have met their fate."""
        return self._settled_at >= position

    @property
    def _settled_at(self) -> int:
        """The position up to which all events have met their fate: what is here leaves oldest first, but for what has expired."""
        return self._kept - self._backlog.count if self._current is None else self._current_at

    @property
    def idle(self) -> bool:
        """Whether everything offered has met its fate."""
        return self._current is None and not self._backlog

    def reopen(self) -> None:
        """Let the sink open its file anew, before it gets the next batch."""
        self._stale = True
        self._waker.wake()

    def hurry(self) -> None:
        """End the wait before a retry or for a fuller batch, and make all further ones short: the hub is closing."""
        self._backoff.hurry()
        self._waker.wake()

    async def settle(self, position: int, seconds: float | None) -> None:
        """Wait until all events up to *position* have met their fate, for at most *seconds*."""
        self._asked.append(position)
        self._waker.wake()
        try:
            async with asyncio.timeout(seconds):
                while not self.settled(position):
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            pass
        finally:
            self._asked.remove(position)

    async def close(self, seconds: float) -> None:
        """
        Stop; what was not delivered is counted `after_close`, or left in the journal.

        A sink that does not let go of its batch in *seconds*, or does not close in *seconds*, is left behind. What it says of the
        batch in that time still counts.
        """
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=seconds)
            self._life.leave(self._task)
        self.abandon()
        self._progress.set()
        await self._life.close(seconds)

    def abandon(self) -> None:
        """Count what waits here as `after_close`, unless the journal has it; once nothing delivers any more."""
        batch, self._current = self._current, None
        waiting = self._backlog.clear()
        self.books.backlog_bytes = 0
        if self.passage is not None:
            waiting = self.passage.leave([*(batch.lines if batch is not None else ()), *waiting])
        elif batch is not None:
            self._give_up(Reason.AFTER_CLOSE, batch)
        self._drop(Reason.AFTER_CLOSE, waiting)

    def _is_over(self) -> bool:
        """Whether the running task is to end, be it that a sink has swallowed its cancellation."""
        return self._stopped or self._task is not asyncio.current_task() or asked_to_stop()

    async def _run(self, identity: Identity) -> None:
        self._task = asyncio.current_task()  # where tasks start eagerly, `start()` has not come to that yet
        while not self._is_over():
            await self._backoff.wait()
            if self._stale:
                self._stale = False
                await self._life.reopen()
                continue  # the end may have come meanwhile
            wait = self._until_due()
            if wait is None or wait > 0:
                await self._waker.wait(wait)
                continue
            self._current_at = self._settled_at
            self._current = batch = self._take()
            if not await self._deliver(batch, identity):
                return
            self._current = None
            self._forget(batch.size)

    def _until_due(self) -> float | None:
        """Return how long the next batch may wait to get fuller, in seconds; None if there is nothing to wait for."""
        self.expire()
        if not self._backlog:
            return None
        if self._wanted:
            return 0.0
        due = max(self._backlog.due_at(), self._replay.due_at(self._backlog.since))
        return due - asyncio.get_running_loop().time()

    @property
    def _wanted(self) -> bool:
        """Whether what is here must not wait: for a flush, for the end, or because what comes would soon be dropped for it."""
        crowded = self.books.backlog_bytes > CROWDED * self._terms.backlog_bytes
        return crowded or max(self._asked, default=0) > self._settled_at or self._backoff.hurried

    def _take(self) -> Batch:
        return self._backlog.take(float("inf") if self._wanted else self._replay.span(asyncio.get_running_loop().time()))

    def expire(self) -> None:
        """Give up what has waited too long; to be called now and then, because nothing else does it behind a call that hangs."""
        before = self._backlog.size
        old = self._backlog.expired(asyncio.get_running_loop().time())
        if old:
            self._drop(Reason.EXPIRED, old)
            self._forget(before - self._backlog.size)

    def _forget(self, size: int) -> None:
        """Enter that *size* bytes of lines have met their fate."""
        self.books.backlog_bytes -= size
        if self.passage is not None:
            self.passage.reached(self._settled_at)
        self._progress.set()

    async def _deliver(self, batch: Batch, identity: Identity) -> bool:
        """Return whether *batch* has met its fate here; False leaves that to `abandon()`, which may have been there already."""
        attempt = 0
        while not self._is_over():
            # What the sink raised is in no variable here: this frame is behind those that its traceback knows, and they would
            # keep each other, and the batch, until a garbage collection.
            fate = self._entered(batch, await outcome_of(lambda: self._attempt(batch, identity)))
            if fate is not None:
                return fate
            attempt += 1
            if not self._is_over() and not await self._again(batch, attempt):
                return True
        return False

    def _entered(self, batch: Batch, error: BaseException | None) -> bool | None:
        """Enter what a try came to; return what `_deliver()` is to return, or *None* where the batch is to be tried again."""
        if self._current is not batch:  # the sink has kept it longer than `close()` waits
            return False
        if error is not None and not isinstance(error, SinkRejected):
            self._failed(batch, error)
            return None
        now = asyncio.get_running_loop().time()
        self._backoff.succeeded()
        self._replay.answered(batch.since, now)
        if error is not None:
            self._rejected(batch.lines, error)
            return True
        self.books.delivered += len(batch.lines)
        self.books.took_batch(now - batch.since)
        self.books.up = True
        return True

    async def _attempt(self, batch: Batch, identity: Identity) -> None:
        if not self._life.opened:
            if not await self._life.open(identity, lambda: self._current is batch):
                return
            if self._is_over():
                raise asyncio.CancelledError
        await self._life.write(batch.lines)

    def _failed(self, batch: Batch, error: BaseException) -> None:
        """Enter a failed try; what was delivered once stays so, whatever a later try says."""
        self._backoff.failed(wait_asked(error))
        self._replay.failed()
        self.books.up = False
        note(f"down {self.sink.name}", f"sink {self.sink.name!r} takes no events: {described(error)}")
        if isinstance(error, SinkUnavailable):
            most = len(batch.lines)
            batch.delivered = max(batch.delivered, share(getattr(error, "delivered", 0), most - batch.rejected))
            batch.rejected = max(batch.rejected, share(getattr(error, "rejected", 0), most - batch.delivered))

    async def _again(self, batch: Batch, attempt: int) -> bool:
        """Wait after a failed try; return False once the batch has had all its tries, or all its time."""
        most = self._terms.max_retries
        if most is not None and attempt > most:
            self._give_up(Reason.RETRIES_EXHAUSTED, batch)
            return False
        clock = asyncio.get_running_loop().time
        await self._backoff.wait(self._backlog.time_left(batch, clock()))
        if self._backlog.is_old(batch, clock()):
            self._give_up(Reason.EXPIRED, batch)
            return False
        self.books.retries += 1
        return True

    def _rejected(self, lines: list[bytes], refusal: SinkRejected) -> None:
        count = getattr(refusal, "count", None)
        count = share(count, len(lines)) if isinstance(count, int) else len(lines)
        self.books.delivered += len(lines) - count
        self.books.up = count < len(lines)
        if count:
            self._drop(Reason.REJECTED, lines, count)
            note(
                f"rejected {self.sink.name}",
                f"sink {self.sink.name!r} refused {count} events for good: {described(refusal, str)}",
            )

    def _give_up(self, reason: Reason, batch: Batch) -> None:
        """Drop what is left of *batch*; what the sink has had of it is counted as what it became."""
        self.books.delivered += batch.delivered
        self._drop(Reason.REJECTED, batch.lines, batch.rejected)
        self._drop(reason, batch.lines, len(batch.lines) - batch.delivered - batch.rejected)

    def _drop(self, reason: Reason, lines: list[bytes], count: int | None = None) -> None:
        """Count *count* of *lines* as dropped, or all of them."""
        count = len(lines) if count is None else count
        if count:
            self.books.drop(reason, count, seq_of(lines[0]), seq_of(lines[-1]), time.time_ns())
