"""
The worker of one process: takes what callers left in the queue and offers it to every sink's delivery.

Invariants:

1. Every accepted event is offered once to every delivery, in the order of seqs.
2. It takes when `batch_size` events wait, when the oldest has waited `batch_timeout`, when it was woken, or when somebody flushes
   or stops; never while no backlog has room for what waits, so that a full queue reaches the overflow policy.
3. It sleeps between looks, because waking a loop from another thread costs the caller 4-8 us; `Pace` says for how long. Nothing
   here relies on a look coming on time.
4. After `stop()` nothing is in flight but what the journal has: what else could not be delivered is counted. The last event of
   a life is `fapilog.closed`.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import TYPE_CHECKING, Any

from fapilog._internal.accounting import Reason, SinkBooks
from fapilog._internal.delivery import Delivery
from fapilog._internal.event_queue import EventQueue
from fapilog._internal.notes import note
from fapilog._internal.notices import NOTICE_EVERY, closed_head, dropped_head
from fapilog._internal.pace import TICK, Pace
from fapilog._internal.protection import Protection
from fapilog._internal.route import refuse_unplaced
from fapilog._internal.terms import BACKLOG_BYTES, Terms, terms_of
from fapilog._internal.waker import Waker
from fapilog.identity import Identity
from fapilog.results import FlushResult, SinkResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fapilog._internal.insurance import Insurance
    from fapilog.typing import Sink

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
        max_retries: Tries after the first, for sinks that do not say otherwise (`terms`).
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
        given = Terms(max_retries, retry_delay, backlog_bytes=backlog_bytes, rng=jitter)
        books = books if books is not None else {}
        self.deliveries = [
            Delivery(sink, books.setdefault(sink.name, SinkBooks(sink.name)), terms=terms_of(sink, given)) for sink in sinks
        ]
        self._waker = Waker()
        self._waiting_since: float | None = None
        self._stop_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self.oldest_counted = self.queue.oldest_dropped.count
        self._noticed_at = 0.0
        self.finished = False
        self.protection: Protection | None = None
        #: Called on the loop after each look at the queue and at the end of a flush.
        self.publish: Callable[[], None] | None = None
        self.insurance: Insurance | None = None

    def protect(self) -> None:
        """Let the journal of the `insurance`, if there is one, have what is accepted; before anything is delivered."""
        journal = self.insurance.journal if self.insurance is not None else None
        if journal is None or self.protection is not None:
            return
        self.protection = Protection(journal, self.queue, [delivery.books for delivery in self.deliveries])
        for delivery, passage in zip(self.deliveries, self.protection.passages, strict=True):
            delivery.passage = passage
        self.queue.protect(journal)

    def give_up_journal(self) -> None:
        """Let whoever finds it have the journal, or nobody if nothing in it is needed any more; when nothing delivers here."""
        self.queue.journal = None
        if self.insurance is not None:
            passages = self.protection.passages if self.protection is not None else ()
            self.insurance.end(done=self.finished and self.queue.empty() and not any(passage.left for passage in passages))

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
        opening = asyncio.create_task(self._open(), name="fapilog opening")
        pace, pause = Pace(self.batch_timeout), TICK
        while self._stop_at is None:
            try:
                pause = pace.after(loop.time(), self.queue.share)
                self._look(loop.time())
            except Exception as error:
                note("worker", f"the worker met an error and goes on: {error!r}")
            await self._waker.wait(pause)
        await opening
        if self.insurance is not None:
            await self.insurance.last(self._stop_at)
        await self._finish(self._stop_at)

    async def _open(self) -> None:
        """Begin to deliver, once what dead processes left has been looked after; meanwhile events wait in the backlogs."""
        try:
            if self.insurance is not None:
                await self.insurance.first(self.deliveries, lambda: self._stop_at is not None)
        except Exception as error:
            note("recover", f"what dead processes left cannot be looked after now: {error!r}")
        for delivery in self.deliveries:
            delivery.start(self.identity)

    def _look(self, now: float) -> None:
        """Take what is due."""
        if self.queue.empty():
            self._waiting_since = None
        else:
            self._waiting_since = self._waiting_since or now
            if self._due(now - self._waiting_since):
                self._waiting_since = None
                self._take()
        for delivery in self.deliveries:
            delivery.expire()
        self._announce_drops(now)
        if self.protection is not None:
            self.protection.look()
        if self.insurance is not None:
            self.insurance.look()
        if self.publish is not None:
            self.publish()

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
        if self.publish is not None:
            self.publish()
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
            oldest = self.queue.oldest_dropped.count - self.oldest_counted
            per_sink[books.name] = SinkResult(books.delivered, books.dropped_total() + oldest, books.in_flight + waiting)
        idle = not waiting and not any(result.in_flight for result in per_sink.values())
        return FlushResult(not any(result.dropped for result in per_sink.values()) and (settled or idle), per_sink, waited)

    def _due(self, waited: float) -> bool:
        return self.queue.urgent or self.queue.qsize() >= self.batch_size or waited >= self.batch_timeout

    def _take(self) -> None:
        self._count_oldest()
        size = self.queue.waiting_bytes
        if not self._has_room(size):
            return
        lines, size = self.queue.take()
        if lines:
            for delivery in self.deliveries:
                delivery.offer(lines, size)
        if lines and self.protection is not None:
            taken = self.protection.took()
            for delivery in self.deliveries:
                delivery.took(*taken)

    def _has_room(self, size: int) -> bool:
        return not self.deliveries or any(delivery.has_room(size) for delivery in self.deliveries)

    def _count_oldest(self) -> None:
        """Events that `drop_oldest` threw out were accepted: enter them, offered and dropped, in every sink's books."""
        window = self.queue.oldest_dropped
        count = window.count - self.oldest_counted
        if count:
            self.oldest_counted += count
            for delivery in self.deliveries:
                delivery.books.offered += count
                delivery.books.drop(Reason.DROP_OLDEST, count, window.first_seq, window.last_seq, window.last_ns)

    def _announce_drops(self, now: float, *, final: bool = False) -> None:
        """Write one `fapilog.dropped` for each scope and reason that lost events since the last one."""
        refuse_unplaced(self.queue.refuse)
        if not self.announce or (now - self._noticed_at < NOTICE_EVERY and not final):
            return
        if not final and not self._has_room(self.queue.waiting_bytes):
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
                self.queue.admit(dropped_head(scope, reason, *window.take()))
                if scope == "queue":
                    self.queue.keep(reason, window)

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
        # From here `accept()` sends late events to `when_closed`, and makes room for none; what came before is in the queue or
        # was dropped from it, and is taken and counted below.
        self.queue.open = False
        if self.announce and self.queue.last_seq:
            self.queue.admit(closed_head(self.queue))
            self._announce_drops(0.0, final=True)  # what rules stopped meanwhile, which does not end with `open`
        self._take()
        await self._settle(max(stop_at, time.monotonic() + GRACE))
        if self.insurance is not None:
            self.insurance.settle()
        left = max(GRACE, stop_at - time.monotonic())
        await asyncio.gather(*(delivery.close(left) for delivery in self.deliveries))
        self.queue.waker = None
        self._report_undelivered()
        self.finished = True

    def _report_undelivered(self) -> None:
        for delivery in self.deliveries:
            name, left = delivery.books.name, delivery.passage.left if delivery.passage is not None else 0
            undelivered = {"after_close": delivery.books.dropped[Reason.AFTER_CLOSE].count, "left in the journal": left}
            for fate, count in undelivered.items():
                if count:
                    note(f"{fate} {name}", f"{count} events were not delivered to sink {name!r} ({fate})")


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:  # the loop has ended; the event waits for whoever drains next
        return
