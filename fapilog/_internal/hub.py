"""
The hub of one process: its queue, its worker on a daemon thread with a loop of its own, and the way out after the drain.

Invariants:

1. `accept` is usable from the moment the hub exists until the process is gone: queue first, direct output after the drain.
2. `drain()` may be called from any thread, twice, at once, in a signal handler; it returns within its limit plus a small margin
   and leaves no event in flight. All calls share the earliest deadline that one of them set.
3. Where no thread can be started (interpreter exit on 3.12), the hub is synchronous and says nothing about it.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from fapilog._internal import lifecycle
from fapilog._internal.direct import PATIENCE, DirectOutput
from fapilog._internal.native import Asked, nap, new_loop, on_own_thread, pause, start_thread
from fapilog._internal.notes import note
from fapilog._internal.notices import NOTICE_EVERY, closed_head
from fapilog._internal.publishing import Publisher
from fapilog._internal.route import refuse_unplaced
from fapilog._internal.snapshot import statistics_of
from fapilog._internal.worker import QueueWorker
from fapilog.results import FlushResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fapilog._internal.accounting import SinkBooks
    from fapilog._internal.board import Row
    from fapilog._internal.event_queue import EventQueue
    from fapilog._internal.records import Counts
    from fapilog.results import HubStatistics
    from fapilog.settings import FapilogSettings
    from fapilog.typing import Sink

MARGIN = 0.35  # over twice the worker's GRACE
POLL = 0.002
PUBLISH_EVERY = 0.05


class ProcessHub:
    """
    Everything that delivers in one process.

    Args:
        settings: Validated.
        queue: The queue of this process life; outlives a drain and a re-configuration, with its counts.
        books: By sink name; outlive them too.
        sinks: Fresh ones for this process, wrapped where they are a user's.
        synchronous: Write in the caller's thread.
        row: Of this process on the board.
        counted: What this process has counted in rows that it held before.
        opening: Level numbers and heads of the events that come before all others.
    """

    def __init__(
        self,
        settings: FapilogSettings,
        queue: EventQueue,
        books: dict[str, SinkBooks],
        sinks: Sequence[Sink],
        *,
        synchronous: bool,
        row: Row | None = None,
        counted: Counts | None = None,
        opening: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        self.queue = queue
        self.books = books
        self.sinks = list(sinks)
        self.closed = False
        self._outlet: DirectOutput | None = None
        self.drain_timeout = settings.drain_timeout
        self.synchronous = synchronous
        self._started = self._claimed = self._ready = self._gone = False
        self._stop_asked: float | None = None
        self._stop_end = math.inf
        self._heeded: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._bind_sinks()
        self.worker = QueueWorker(
            self.sinks,
            batch_size=settings.queue_batch_size,
            batch_timeout=settings.queue_batch_timeout,
            retry_delay=settings.queue_retry_delay,
            max_retries=settings.queue_max_retries,
            queue=queue,
            books=books,
        )
        self._publisher = None if row is None else Publisher(row, queue, books, {sink.name for sink in self.sinks}, counted)
        self.worker.publish = self.publish
        self._published_at = 0.0
        self._master = row is not None and row.record is not None and row.record.role == "master"
        self._opening = list(opening)
        self.accept: Callable[..., bool] = queue.accept

    def _bind_sinks(self) -> None:
        for sink in self.sinks:
            bind = getattr(sink, "bind", None)
            if bind is not None:
                bind(self.queue.identity)

    def publish(self, *, closed: bool = False) -> None:
        """Show the books on the board, and follow what is asked for there; on the worker's thread if there is one."""
        if self._publisher is not None:
            obey = not self.synchronous and not closed  # who is not called again and again cannot hear that it is over
            self._publisher.publish(self.worker.oldest_counted, closed=closed, obey=obey)

    def start(self) -> None:
        """
        Start the thread, or become synchronous where that is asked for or cannot be helped.

        May be called again when an exception of a signal handler cut it short. The other threads are started first, here and not
        when the worker needs them: if the main thread ends in between, Python 3.12 starts none any more.
        """
        self.publish()  # levels that are asked for hold for the first event
        if not self.synchronous:
            self.queue.open = True
            self.queue.when_closed = self._direct().accept
            self.worker.protect()
            while self._opening:
                self.queue.admit(self._opening.pop(0)[1])
            if self.worker.insurance is not None:
                self.worker.insurance.relieve()
            if self._start_threads():
                return
            self.synchronous = True
            self.worker.give_up_journal()
        direct = self._outlet = self._direct(patience=PATIENCE, in_all=math.inf, notice_every=NOTICE_EVERY)
        lines, _ = self.queue.take()
        self.queue.open = False
        self.queue.when_closed = self.accept = direct.accept
        for line in lines:
            direct.pass_on(line)
        while self._opening:
            direct.accept(*self._opening.pop(0))

    def _start_threads(self) -> bool:
        """Return False where the interpreter starts no threads any more."""
        if self._claimed:
            return True
        try:
            for each in (*self.sinks, self.worker.insurance):
                prepare = getattr(each, "prepare", None)
                if prepare is not None:
                    prepare()
            start_thread(self._run, "fapilog-worker")
        except RecursionError:  # a RuntimeError, too
            raise
        except RuntimeError:  # "can't create new thread at interpreter shutdown"
            return False
        self._started = True
        return True

    def _direct(self, **terms: float) -> DirectOutput:
        return DirectOutput(self.queue, self.sinks, self.books, after=self._publish_direct, **terms)

    def _publish_direct(self) -> None:
        """
        Publish after an event was written directly: now and then while the hub is open, always after it has closed.

        And always in a server's master: it logs seldom, and nothing would publish its last event before the next one comes.
        """
        now = time.monotonic()
        if self.closed or self._master or now >= self._published_at + PUBLISH_EVERY:
            self._published_at = now
            self.publish(closed=self.closed)

    def _run(self) -> None:
        if self._claimed:  # the first thread has it; there are two where a signal handler's exception cut `start()` short
            return
        self._claimed = True
        try:
            loop = self._loop = new_loop()
            loop.run_until_complete(self._main())
            self.queue.open = False
            self.closed = True
            self.worker.give_up_journal()
            self.publish(closed=True)
            loop.close()
        except Exception as error:
            # The loop is left as it is: if the program has closed its descriptors, their numbers may be somebody else's files.
            note("hub", f"the worker ended with an error: {error!r}")
            self.queue.open = False
            self.closed = True
            self._salvage()
            self.worker.give_up_journal()
        finally:
            self._gone = True

    def _salvage(self) -> None:
        """Write what is left in the queue directly, and count what was on its way, whose fate nobody knows."""
        direct = self._direct()
        lines, _ = self.queue.take()
        for line in lines:
            direct.pass_on(line)
        for delivery in self.worker.deliveries:
            delivery.abandon()

    async def _main(self) -> None:
        task = self.worker.start()
        self._ready = True
        # Both are looked at after `_ready` is set, and set before that is looked at: one side sees the other.
        if self._stop_asked is not None:
            self.worker.request_stop(self._stop_asked)
        self._listen()
        await asyncio.wait([task])
        task.result()

    def flush(
        self, timeout: float | None = None, *, margin: float = MARGIN, wait: Callable[[float], None] = pause
    ) -> FlushResult:
        """
        Deliver everything accepted before the call; any thread but the hub's own ones.

        Args:
            timeout: In seconds.
            margin: How long to wait for the worker's answer beyond that.
            wait: How to wait; `native.nap` where green threads must not run meanwhile.
        """
        limit = self.drain_timeout if timeout is None else timeout
        began = time.monotonic()
        asked = self._begin_flush(limit) if self._wait_ready(limit, wait) else None
        while asked is not None and not self._over(asked, began + limit + margin):
            wait(POLL)
        return self._flushed(asked, began)

    async def aflush(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - public contract
        """Do the same without blocking the caller's event loop, whichever it is."""
        limit = self.drain_timeout if timeout is None else timeout
        began = time.monotonic()
        while self._started and not self._ready and not self._gone and time.monotonic() < began + limit:
            await asyncio.sleep(POLL)
        asked = self._begin_flush(limit)
        while asked is not None and not self._over(asked, began + limit + MARGIN):
            await asyncio.sleep(POLL)
        return self._flushed(asked, began)

    def _begin_flush(self, limit: float) -> Asked | None:
        """Ask the worker to flush; None where there is no worker to ask, or it would be asked to wait for itself."""
        loop = self._loop
        if loop is None or self.closed or not self._ready or on_own_thread():
            return None
        try:
            return Asked(loop, lambda: self.worker.flush(limit))
        except RuntimeError:  # the loop closed between the two lines
            return None

    def _over(self, asked: Asked, end: float) -> bool:
        return asked.done or self._gone or time.monotonic() >= end

    def _flushed(self, asked: Asked | None, began: float) -> FlushResult:
        if asked is not None and isinstance(asked.result, FlushResult):
            return asked.result
        return self.worker.result(time.monotonic() - began)

    def drain(self, timeout: float | None = None) -> FlushResult:
        """Deliver what waits for at most *timeout* seconds, close the sinks, end the thread; idempotent, any thread."""
        began = time.monotonic()
        end = self._ask_to_stop(timeout)
        if not on_own_thread():
            while self._started and not self._gone and time.monotonic() < end:
                nap(POLL)
            if self._started and not self._gone and not self.closed:
                note("drain", "the time for the drain was over before the worker said what became of the last events")
        return self._drained(began)

    async def adrain(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - public contract
        """Do the same without blocking the caller's event loop."""
        began = time.monotonic()
        end = self._ask_to_stop(timeout)
        while self._started and not self._gone and time.monotonic() < end:
            await asyncio.sleep(POLL)
        return self._drained(began)

    def _ask_to_stop(self, timeout: float | None) -> float:
        limit = self.drain_timeout if timeout is None else timeout
        self._stop_asked = limit
        self._stop_end = min(self._stop_end, time.monotonic() + limit + MARGIN)
        if self._started and not self._gone and self._wait_ready(limit, nap):
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self.worker.request_stop, limit)
            except RuntimeError:
                pass
        return self._stop_end

    def _wait_ready(self, limit: float, wait: Callable[[float], None]) -> bool:
        """Wait for the end of the start handshake: a stop that overtakes the start would be lost."""
        if not self._started:
            return False
        end = time.monotonic() + limit
        while not self._ready and not self._gone and time.monotonic() < end:
            wait(POLL)
        return self._ready

    def _drained(self, began: float) -> FlushResult:
        if self._outlet is not None and not self.closed and self.queue.last_seq:
            self._outlet.announce()
            self._outlet.notice_every = 0.0
            self.accept(20, closed_head(self.queue))
        self.queue.open = False
        self.closed = True
        if not self._started or self._gone:
            self.publish(closed=True)
        return self.worker.result(time.monotonic() - began)

    def is_behind(self) -> bool:
        """Whether something waits that a flush could deliver: no sink is failing, and the caller is not the hub itself."""
        books = [self.books[sink.name] for sink in self.sinks]
        waits = not self.queue.empty() or any(book.in_flight for book in books)
        return self._started and not self.closed and waits and all(book.up for book in books) and not on_own_thread()

    def heed(self, fd: int) -> None:
        """Repeat a signal that comes in at *fd* until its handler has begun; see `lifecycle.tell_of_signals()`."""
        self._heeded = fd
        if self._ready and self._loop is not None:
            self._loop.call_soon_threadsafe(self._listen)

    def _listen(self) -> None:
        if self._heeded is not None and self._loop is not None:
            lifecycle.listen(self._loop, self._heeded)

    def reopen(self) -> None:
        """Let the sinks open their files anew, soon; any thread or signal handler."""
        loop = self._loop
        if loop is not None and self._ready and not self.closed:
            try:
                loop.call_soon_threadsafe(self.worker.reopen)
            except RuntimeError:  # it has just ended
                self.release()
        else:
            self.release()

    def release(self) -> None:
        """Let go of what late events opened, before another hub takes over."""
        for sink in self.sinks:
            release = getattr(sink, "release", None)
            if release is not None:
                release()

    def statistics(self) -> HubStatistics:
        """Return the books of this process; any thread."""
        refuse_unplaced(self.queue.refuse)
        return statistics_of(self.queue, self.books, {sink.name for sink in self.sinks})
