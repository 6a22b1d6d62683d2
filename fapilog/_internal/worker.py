"""
The worker of one process: takes what callers left in the queue and offers it to every sink's delivery.

Invariants:

1. Every accepted event is offered once to every delivery, in the order of seqs.
2. It takes when `batch_size` events wait, when the oldest has waited `batch_timeout`, when it was woken, or when somebody flushes
   or stops; never while no backlog has room for what waits, so that a full queue reaches the overflow policy.
3. It sleeps between looks, because waking a loop from another thread costs the caller 4-8 us: `TICK` while there is traffic,
   growing to `IDLE_TICK`. Nothing here relies on a tick coming on time.
4. After `stop()` nothing is in flight: what could not be delivered is counted. The last event of a life is `fapilog.closed`.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import TYPE_CHECKING, Any

from fapilog._internal.accounting import Reason, SinkBooks
from fapilog._internal.delivery import BACKLOG_BYTES, Delivery, RetryPolicy, Waker
from fapilog._internal.event_queue import TICK, EventQueue
from fapilog._internal.notes import note
from fapilog._internal.notices import NOTICE_EVERY, dropped_head
from fapilog._internal.route import refuse_unplaced
from fapilog.identity import Identity
from fapilog.pipeline import own_head
from fapilog.results import FlushResult, SinkResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fapilog.typing import Sink

IDLE_TICK = 0.5
STOP_TIMEOUT = 3.0
DRAIN_SLICE = 0.05
GRACE = 0.15  # past the limit of a drain: for the sinks that work, to take the last events while another is stuck


class QueueWorker:
    """
    One queue, one task, one delivery per sink.

    Used by hand inside a loop of your own: construct, `start()`, put into `queue`, `await stop()`. The hub runs one per process
    on a thread of its own.

    Args:
        sinks: Where the events go.
        queue_size: Capacity of the queue in events.
        batch_size: Events that make the worker take them at once.
        batch_timeout: The longest that an event waits to be taken, in seconds.
        retry_delay: Before the first retry of a failed write, in seconds; doubled each time, with jitter.
        max_retries: Tries after the first, for sinks that do not say otherwise (`Sink.retries_until_full`).
        queue: A queue to use instead of a new one.
        books: Books to go on with, by sink name.
        identity: Whose lines these are.
        backlog_bytes: The bound of each sink's backlog.
        announce: Whether to write `fapilog.dropped` and `fapilog.closed` events.
        rng: Uniform in [0, 1), for the jitter.
        queue_options: More arguments of `EventQueue`: `max_bytes`, `overflow`, `sample_rate`, `block_timeout`, `reserve`.
    """

    def __init__(
        self,
        sinks: Iterable[Sink],
        queue_size: int = 1000,
        batch_size: int = 10,
        batch_timeout: float = 1.0,
        retry_delay: float = 1.0,
        max_retries: int = 3,
        *,
        queue: EventQueue | None = None,
        books: dict[str, SinkBooks] | None = None,
        identity: Identity | None = None,
        backlog_bytes: int = BACKLOG_BYTES,
        announce: bool = True,
        rng: Callable[[], float] | None = None,
        **queue_options: Any,
    ) -> None:
        self.identity = identity or (queue.identity if queue is not None else Identity.of_this_process())
        self.queue = queue if queue is not None else EventQueue(queue_size, identity=self.identity, **queue_options)
        self.batch_size = batch_size
        self.batch_timeout = batch_timeout
        self.announce = announce
        # A fresh generator: a forked clone would wait in step with its siblings.
        jitter = rng or random.Random(int.from_bytes(os.urandom(8))).random
        self.deliveries = [
            Delivery(
                sink,
                (books if books is not None else {}).setdefault(sink.name, SinkBooks(sink.name)),
                policy=RetryPolicy(None if getattr(sink, "retries_until_full", False) else max_retries, retry_delay, rng=jitter),
                backlog_bytes=backlog_bytes,
            )
            for sink in sinks
        ]
        self._waker = Waker()
        self._waiting_since: float | None = None
        self._stop_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._oldest_counted = self.queue.oldest_dropped.count
        self._noticed_at = 0.0
        self.finished = False

    def start(self) -> asyncio.Task[None]:
        """Start `run()` as a task on the running loop, also after a stop; while it runs, return the same task."""
        if self._task is None or self._task.done():
            if self.finished:
                self.finished = False
                self._stop_at = None
                self.queue.open = True
            self._task = asyncio.create_task(self.run(), name="fapilog worker")
        return self._task

    async def run(self) -> None:
        """Take and offer until `stop()`; then deliver the rest within its time limit."""
        self._task = self._task or asyncio.current_task()
        loop = asyncio.get_running_loop()
        self.queue.waker = lambda: _call_soon(loop, self._waker.wake)
        for delivery in self.deliveries:
            delivery.start(self.identity)
        pause = TICK
        while self._stop_at is None:
            try:
                pause = self._look(loop.time(), pause)
            except Exception as error:
                note("worker", f"the worker met an error and goes on: {error!r}")
            await self._waker.wait(pause)
        await self._finish(self._stop_at)

    def _look(self, now: float, pause: float) -> float:
        """Take what is due; return how long to sleep."""
        if self.queue.empty():
            self._waiting_since = None
            pause = min(pause * 2, IDLE_TICK)
        else:
            pause = TICK
            self._waiting_since = self._waiting_since or now
            if self._due(now - self._waiting_since):
                self._waiting_since = None
                self._take()
        self._announce_drops(now)
        return pause

    async def flush(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - public contract
        """
        Deliver everything accepted before the call.

        On the worker's loop. Does not raise; a sink that does not take everything within *timeout* seconds shows in the result.
        """
        began = time.monotonic()
        if self.finished:
            return self.result(0.0)
        self.start()
        end = None if timeout is None else began + timeout
        target = self.queue.put_events
        while self.queue.taken_events < target and (end is None or time.monotonic() < end):
            self._take()
            if self.queue.taken_events < target:
                await asyncio.sleep(TICK)
        positions = [delivery.position for delivery in self.deliveries]
        await self._settle(end)
        settled = all(d.settled(position) for d, position in zip(self.deliveries, positions, strict=True))
        return self.result(time.monotonic() - began, settled=settled and self.queue.taken_events >= target)

    async def _settle(self, end: float | None) -> None:
        left = None if end is None else max(0.0, end - time.monotonic())
        await asyncio.gather(*(delivery.settle(delivery.position, left) for delivery in self.deliveries))

    async def stop(self, timeout: float = STOP_TIMEOUT) -> FlushResult:  # noqa: ASYNC109 - public contract
        """
        Deliver what waits for at most *timeout* seconds, count the rest, close the sinks, end the task.

        On the worker's loop. May be called again, or by two tasks at once; all return when the first has stopped it.
        """
        began = time.monotonic()
        if not self.finished:
            self.request_stop(timeout)
            await asyncio.wait([self.start()])
        return self.result(time.monotonic() - began)

    def request_stop(self, timeout: float) -> None:
        """Tell the worker to end within *timeout* seconds; on its loop. A later request can only shorten that."""
        stop_at = time.monotonic() + timeout
        self._stop_at = stop_at if self._stop_at is None else min(self._stop_at, stop_at)
        self._waker.wake()

    def reopen(self) -> None:
        """Let the sinks open their files anew before they write again; on the worker's loop."""
        for delivery in self.deliveries:
            delivery.reopen()

    def result(self, waited: float, *, settled: bool = False) -> FlushResult:
        """
        Return what has become of everything accepted so far.

        Args:
            waited: In seconds.
            settled: Whether what a flush waited for has met its fate, however much came after it.
        """
        waiting = self.queue.qsize()
        per_sink = {}
        for delivery in self.deliveries:
            books = delivery.books
            oldest = self.queue.oldest_dropped.count - self._oldest_counted
            per_sink[books.name] = SinkResult(books.delivered, books.dropped_total() + oldest, books.in_flight + waiting)
        lost = any(result.dropped for result in per_sink.values())
        idle = not waiting and not any(result.in_flight for result in per_sink.values())
        return FlushResult(not lost and (settled or idle), per_sink, waited)

    def _due(self, waited: float) -> bool:
        queue = self.queue
        return queue.urgent or queue.qsize() >= self.batch_size or waited >= self.batch_timeout

    def _take(self) -> None:
        self._count_oldest()
        size = self.queue.waiting_bytes
        if self.deliveries and not any(delivery.has_room(size) for delivery in self.deliveries):
            return
        events, size = self.queue.take()
        if events:
            for delivery in self.deliveries:
                delivery.offer(events, size)

    def _count_oldest(self) -> None:
        """Events that `drop_oldest` threw out were accepted: enter them, offered and dropped, in every sink's books."""
        window = self.queue.oldest_dropped
        count = window.count - self._oldest_counted
        if count:
            self._oldest_counted += count
            for delivery in self.deliveries:
                delivery.books.offered += count
                delivery.books.drop(Reason.DROP_OLDEST, count, window.first_seq, window.last_seq, window.last_ns)

    def _announce_drops(self, now: float, *, final: bool = False) -> None:
        """Write one `fapilog.dropped` for each scope and reason that lost events since the last one."""
        refuse_unplaced(self.queue.refuse)
        if not self.announce or (now - self._noticed_at < NOTICE_EVERY and not final):
            return
        self._noticed_at = now
        self._count_oldest()
        windows = [("queue", reason, window) for reason, window in self.queue.refused.items()]
        windows.append(("queue", Reason.DROP_OLDEST, self.queue.oldest_dropped))
        for delivery in self.deliveries:
            books = delivery.books
            if final or books.up:
                windows += [(books.name, r, w) for r, w in books.dropped.items() if r is not Reason.DROP_OLDEST]
        for scope, reason, window in windows:
            if window.count > window.announced:
                self.queue.admit(30, dropped_head(scope, reason, *window.take()))

    async def _finish(self, stop_at: float) -> None:
        for delivery in self.deliveries:
            delivery.hurry()
        while time.monotonic() < stop_at:  # in slices: what comes meanwhile must not wait for a sink that is stuck
            self._take()
            await self._settle(min(stop_at, time.monotonic() + DRAIN_SLICE))
            if self.queue.empty() and all(delivery.idle for delivery in self.deliveries):
                break
        self._announce_drops(0.0, final=True)
        for delivery in self.deliveries:
            delivery.draining = True
        # From here `accept()` sends late events to `when_closed`; what came before is in the queue, and is taken below.
        self.queue.open = False
        if self.announce and self.queue.last_seq:
            self.queue.admit(20, self.closed_head())
            self._announce_drops(0.0, final=True)  # what rules stopped meanwhile, which does not end with `open`
        self._take()
        await self._settle(max(stop_at, time.monotonic() + GRACE))
        left = max(GRACE, stop_at - time.monotonic())
        await asyncio.gather(*(delivery.close(left) for delivery in self.deliveries))
        self.queue.waker = None
        self._report_undelivered()
        self.finished = True

    def closed_head(self) -> bytes:
        """Return the head of the `fapilog.closed` event that comes next."""
        queue = self.queue
        refused = {str(reason): window.count for reason, window in queue.refused.items() if window.count}
        return own_head(
            "fapilog.closed",
            last_seq=queue.last_seq + 1,
            logged=queue.last_seq + 1,
            accepted=queue.put_events + 1,
            refused=refused,
        )

    def _report_undelivered(self) -> None:
        for delivery in self.deliveries:
            count = delivery.books.dropped[Reason.AFTER_CLOSE].count
            if count:
                note(
                    f"left {delivery.books.name}",
                    f"{count} events were not delivered to sink {delivery.books.name!r} (after_close)",
                )


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:  # the loop has ended; the event waits for whoever drains next
        return
