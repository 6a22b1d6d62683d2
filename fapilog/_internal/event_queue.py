"""
The queue between the callers of one process and its worker.

Invariants:

1. ``logged = accepted + refused``: every call to `accept()` that returns counted exactly one of the two and took one seq.
2. The seqs are 1, 2, 3, ... without a hole, and events leave in the order of their seqs.
3. There are never more events than `maxsize` (plus the reserve for WARNING and above), nor more bytes than `max_bytes`.
4. `accept()` waits for nothing, except under the policy `block`, for at most `block_timeout` and never on a thread that runs an
   event loop.

Why there is no lock: CPython looks for thread switches and pending signals only when it enters a function, jumps backwards or
has come back from a call ("eval breaker"); a run of bytecode without these is atomic against other threads and against signal
handlers as long as there is a GIL. `accept()` does everything that must belong together in one such run: it takes the
seq, reserves the room and ends with the `append`, whose own check comes after it has happened. Two things are done before the
run begins: objects that the garbage collector tracks are made, because on 3.11 making one may run finalisers, and a finaliser
may log; and the line is completed, because turning an integer into digits looks for signals too. The seq in that line is a
guess, and the run begins by asking whether it was taken meanwhile; then the line is made anew. So a log call in a signal
handler, a finaliser or another thread finds the queue either before or after an event, and an exception thrown by a signal
handler cannot leave half of one. A test disassembles these runs and looks for calls.
(Free-threaded builds have no GIL: there the hub writes synchronously, see `coordinator`.)

Why a swap: `take()` replaces the deque instead of emptying it, so that the worker spends nothing per event here. A caller loads
the deque and appends to it inside its atomic run, so no caller can append to a deque that was already taken.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from fapilog import pipeline
from fapilog._internal.accounting import REFUSALS, DropWindow, Reason
from fapilog._internal.native import pause
from fapilog.identity import Identity
from fapilog.typing import Event

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

WARNING = 30
ERROR = 40
MAX_SEQ_BYTES = 20  # what a seq may add to the tail
BLOCK_STEP = 0.0005
TICK = 0.02


class EventQueue(asyncio.Queue[Event]):
    """
    An `asyncio.Queue` of events that any thread, signal handler or finaliser may put into.

    Args:
        maxsize: Capacity in events.
        max_bytes: Capacity in bytes of lines.
        overflow: What happens when it is full: ``drop`` (the new event), ``drop_oldest``, ``sample`` or ``block``.
        sample_rate: Under ``sample``, the share of events that are kept while it is full (in the reserve).
        block_timeout: Under ``block``, how long a call may wait, in seconds.
        reserve: Room on top of *maxsize*, as a share of it, for WARNING and above.
        identity: Whose lines these are.
    """

    __slots__ = (
        "_buffer",
        "_byte_limit",
        "_done",
        "_limit",
        "_mark",
        "_overflow",
        "_reserve_limit",
        "_sample_every",
        "_tail",
        "_tail_bytes",
        "block_timeout",
        "identity",
        "last_seq",
        "oldest_dropped",
        "open",
        "peak",
        "put_bytes",
        "put_events",
        "refused",
        "skipped",
        "taken_bytes",
        "taken_events",
        "urgent",
        "waker",
        "when_closed",
    )

    def __init__(
        self,
        maxsize: int = 1000,
        *,
        max_bytes: int = 16 << 20,
        overflow: str = "drop",
        sample_rate: float = 0.1,
        block_timeout: float = 0.05,
        reserve: float = 0.1,
        identity: Identity | None = None,
    ) -> None:
        super().__init__(maxsize)
        self._buffer: deque[Event] = deque()
        self.last_seq = self.put_events = self.put_bytes = self.taken_events = self.taken_bytes = self.peak = self._done = 0
        self.skipped = 0
        self.open, self.urgent = True, False
        self.waker: Callable[[], None] | None = None
        self.when_closed: Callable[[int, bytes], bool] | None = None
        self.refused = {reason: DropWindow() for reason in REFUSALS}
        self.oldest_dropped = DropWindow()
        self.set_limits(maxsize, max_bytes, overflow, sample_rate, block_timeout, reserve)
        self.set_identity(identity or Identity.of_this_process())

    def set_limits(
        self, maxsize: int, max_bytes: int, overflow: str, sample_rate: float, block_timeout: float, reserve: float
    ) -> None:
        """Change the capacity and the policy; what waits stays."""
        self._maxsize = self._limit = maxsize
        self._reserve_limit = maxsize + int(maxsize * reserve)
        self._byte_limit = max_bytes
        self._mark = max(1, maxsize // 8)  # early: on a busy machine the worker may come 40 ms after it was woken
        self._overflow = overflow
        self._sample_every = max(1, round(1 / sample_rate))
        self.block_timeout = block_timeout

    def set_identity(self, identity: Identity) -> None:
        """Say whose lines the next events are."""
        self.identity = identity
        self._tail = identity.tail()
        self._tail_bytes = len(self._tail) + MAX_SEQ_BYTES

    def accept(self, levelno: int, head: bytes, until: float = 0.0) -> bool:
        """
        Take one event, or refuse and count it. Never raises, never waits (but see the policy ``block``).

        Args:
            levelno: Its level number.
            head: Its line without the identity, the closing brace and the newline.
            until: When a waiting call gives up, on the monotonic clock; set by the queue itself.

        Returns:
            Whether it was accepted.
        """
        event = Event()
        event.levelno = levelno
        event.size = size = len(head) + self._tail_bytes
        while True:
            event.seq = seq = self.last_seq + 1
            event.line = head + self._tail % seq
            # Atomic from here (invariants 1-3) ...
            if self.last_seq < seq:
                break
        depth = self.put_events - self.taken_events
        if (
            self.open
            and depth < (self._limit if levelno < WARNING else self._reserve_limit)
            and self.put_bytes - self.taken_bytes + size <= self._byte_limit
        ):
            self.last_seq = seq
            self.put_events += 1
            self.put_bytes += size
            if depth >= self.peak:
                self.peak = depth + 1
            self._buffer.append(event)
            # ... to here.
            if (levelno >= ERROR or depth == self._mark) and not self.urgent:
                self.wake()
            return True
        return self._when_full(levelno, head, size, until)

    def admit(self, levelno: int, head: bytes, *, waits: bool = True) -> Event:
        """
        Take an event past every limit: one of the hub's own, of which there are few, or one that is written at once.

        The arguments are those of `accept()`; *waits* says whether the worker is to take it, or the caller has it in hand.
        """
        event = Event()
        event.levelno = levelno
        event.size = size = len(head) + self._tail_bytes
        while True:
            event.seq = seq = self.last_seq + 1
            event.line = head + self._tail % seq
            if self.last_seq < seq:  # atomic from here, as in `accept()`
                break
        self.last_seq = seq
        self.put_events += 1
        if waits:
            self.put_bytes += size
            self._buffer.append(event)
        else:
            self.taken_events += 1
        return event

    def refuse(self, reason: Reason) -> bool:
        """Take a seq for an event that is not accepted, and count it by *reason*; return False."""
        window = self.refused[reason]
        now_ns = time.time_ns()
        # Atomic from here: the seq is taken if and only if it is counted.
        self.last_seq = seq = self.last_seq + 1
        if window.count == window.announced:
            window.first_seq = seq
            window.first_ns = now_ns
        window.count += 1
        window.last_seq = seq
        window.last_ns = now_ns
        return False

    def wake(self) -> None:
        """Ask the worker to come now instead of at its next tick; any thread or signal handler."""
        self.urgent = True
        if self.waker is not None:
            self.waker()

    def take(self) -> tuple[list[Event], int]:
        """Take everything that waits; return the events, oldest first, and their size in bytes. The worker's thread only."""
        fresh: deque[Event] = deque()
        # Atomic from here: the counters and the deque change hands together.
        taken = self._buffer
        self._buffer = fresh
        size = self.put_bytes - self.taken_bytes
        self.taken_events = self.put_events
        self.taken_bytes = self.put_bytes
        self.urgent = False
        return list(taken), size

    def _when_full(self, levelno: int, head: bytes, size: int, until: float) -> bool:
        if not self.open:
            return self.when_closed(levelno, head) if self.when_closed is not None else self.refuse(Reason.AFTER_CLOSE)
        if not self.urgent:
            self.wake()
        if size > self._byte_limit:
            return self.refuse(Reason.QUEUE_FULL)
        if self._overflow == "block":
            until = until or time.monotonic() + self.block_timeout
            if self._wait_for_room(levelno, size, until):
                return self.accept(levelno, head, until)
        if self._overflow == "sample":
            return self._sampled(levelno, head, size)
        if self._overflow == "drop_oldest":
            self._make_room(size)
            return self.accept(levelno, head)
        return self.refuse(Reason.QUEUE_FULL)

    def _sampled(self, levelno: int, head: bytes, size: int) -> bool:
        self.skipped += 1
        if self.skipped % self._sample_every:
            return self.refuse(Reason.SAMPLED)
        depth = self.qsize()
        if depth >= self._reserve_limit or self._bytes_full(size):
            return self.refuse(Reason.QUEUE_FULL)
        self.admit(levelno, head)
        self.peak = max(self.peak, depth + 1)
        return True

    def _make_room(self, size: int) -> None:
        """Drop the oldest events until *size* more bytes fit; they count as accepted and then dropped."""
        window = self.oldest_dropped
        while self.put_events - self.taken_events >= self._limit or self._bytes_full(size):
            now_ns = time.time_ns()
            # Atomic from here: what is counted as dropped is what leaves.
            buffer = self._buffer
            if not buffer:
                return
            oldest = buffer[0]
            if window.count == window.announced:
                window.first_seq = oldest.seq
                window.first_ns = now_ns
            window.count += 1
            window.last_seq = oldest.seq
            window.last_ns = now_ns
            self.taken_events += 1
            self.taken_bytes += oldest.size
            buffer.popleft()

    def _bytes_full(self, size: int) -> bool:
        return self.put_bytes - self.taken_bytes + size > self._byte_limit

    def _wait_for_room(self, levelno: int, size: int, until: float) -> bool:
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the public way raises instead of answering
            return False
        limit = self._limit if levelno < WARNING else self._reserve_limit
        while time.monotonic() < until:
            if self.qsize() < limit and not self._bytes_full(size):
                return True
            pause(BLOCK_STEP)
            if not self.urgent:
                self.wake()
        return False

    # The face of asyncio.Queue.

    def qsize(self) -> int:
        """Return how many events wait."""
        return self.put_events - self.taken_events

    def empty(self) -> bool:
        """Return whether no event waits."""
        return self.put_events == self.taken_events

    def full(self) -> bool:
        """Return whether the next event below WARNING would find no room."""
        return self.qsize() >= self._limit

    @property
    def waiting_bytes(self) -> int:
        """The size of what waits."""
        return self.put_bytes - self.taken_bytes

    def put_nowait(self, item: MutableMapping[str, Any]) -> None:
        """Put an event dict; any thread. One that is refused (and counted) raises `asyncio.QueueFull`."""
        levelno, head = pipeline.head_of(item)
        if not self.accept(levelno, head):
            raise asyncio.QueueFull

    async def put(self, item: MutableMapping[str, Any]) -> None:
        """Put an event dict, waiting for room as long as it takes."""
        levelno, head = pipeline.head_of(item)
        while self.open and (self.full() or self._bytes_full(len(head) + self._tail_bytes)):
            self.wake()
            await asyncio.sleep(TICK)
        self.accept(levelno, head)

    def get_nowait(self) -> Event:
        """Take the oldest event, expanded; without one, raise `asyncio.QueueEmpty`."""
        try:
            event = self._buffer.popleft()
        except IndexError:
            raise asyncio.QueueEmpty from None
        self.taken_events += 1
        self.taken_bytes += event.size
        return event.expanded()

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
