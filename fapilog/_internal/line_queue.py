"""
The queue between the callers of one process and its worker.

Invariants:

1. ``logged = accepted + refused``: every call to `accept()` that returns counted exactly one of the two and took one seq.
2. The seqs are 1, 2, 3, ... without a hole, and events leave in the order of their seqs.
3. There are never more events than `maxsize` (plus the reserve for WARNING and above), nor more bytes than `max_bytes`.
4. What the hub itself says (`admit()`) is thrown out for nothing: of it there is little, and nobody says it again.
5. `accept()` waits for nothing, except under the policy `block`, for at most `block_timeout` and never on a thread that runs an
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

import time
from collections import deque
from typing import TYPE_CHECKING

from fapilog._internal.accounting import REFUSALS, DropWindow, OfDead, Reason
from fapilog._internal.journal import Words
from fapilog._internal.lines import INFO, NO_LEVEL, level_in
from fapilog._internal.overflow import TRYING, WARNING, Overflow
from fapilog.errors import ConfigurationError
from fapilog.identity import Identity
from fapilog.typing import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog._internal.journal import Journal

ERROR = 40
NONE: frozenset[int] = frozenset()


class LineQueue(Overflow):
    """
    A queue of encoded lines that any thread, signal handler or finaliser may put into.

    Args:
        maxsize: Capacity in events.
        max_bytes: Capacity in bytes of lines.
        overflow: What happens when it is full: ``drop`` (the new event), ``drop_oldest``, ``sample`` or ``block``.
        sample_rate: Under ``sample``, the share of events that are kept while it is full (in the reserve).
        block_timeout: Under ``block``, how long a call may wait, in seconds.
        reserve: Room on top of *maxsize*, as a share of it, for WARNING and above.
        identity: Whose lines these are.

    Raises:
        ConfigurationError: There would be no room for any event; unlike `asyncio.Queue` this one has no size without bounds.
    """

    __slots__ = (
        "_buffer",
        "_byte_limit",
        "_limit",
        "_mark",
        "_overflow",
        "_own",
        "_reserve_limit",
        "_sample_every",
        "_tail",
        "block_timeout",
        "identity",
        "journal",
        "last_seq",
        "levels",
        "of_dead",
        "oldest_dropped",
        "open",
        "put_bytes",
        "put_events",
        "refused",
        "taken_seq",
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
        self._buffer: deque[bytes] = deque()
        self._own: frozenset[int] = NONE  # seqs in it
        self.last_seq = self.put_events = self.put_bytes = self.taken_events = self.taken_bytes = self.peak = 0
        self.skipped = self.taken_seq = 0
        self.levels = dict.fromkeys([NO_LEVEL, *LEVELS.values()], 0)  # of what was put, but for INFO: that is the rest
        self.open, self.urgent = True, False
        self.journal: Journal | None = None
        self.waker: Callable[[], None] | None = None
        self.when_closed: Callable[[int, bytes], bool] | None = None
        self.refused = {reason: DropWindow() for reason in REFUSALS}
        self.oldest_dropped = DropWindow()
        self.of_dead = OfDead()
        self.set_limits(maxsize, max_bytes, overflow, sample_rate, block_timeout, reserve)
        self.set_identity(identity or Identity.of_this_process())

    def set_limits(
        self, maxsize: int, max_bytes: int, overflow: str, sample_rate: float, block_timeout: float, reserve: float
    ) -> None:
        """Change the capacity and the policy; what waits stays."""
        for name, value, least in (("maxsize", maxsize, 1), ("max_bytes", max_bytes, 1), ("reserve", reserve, 0)):
            if value < least:
                raise ConfigurationError(f"{name} is {value}; it must be at least {least}")
        if not 0 < sample_rate <= 1:
            raise ConfigurationError(f"sample_rate is {sample_rate}; it must be over 0 and at most 1")
        self._limit = maxsize
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

    def accept(self, levelno: int, head: bytes, until: float = 0.0) -> bool:
        """
        Take one event and return True, or refuse and count it. Never raises, never waits (but see the policy ``block``).

        Args:
            levelno: Its level number.
            head: Its line without the identity, the closing brace and the newline.
            until: When a waiting call gives up (monotonic clock), 0 for the policy's limit, or `TRYING`, which counts nothing.
        """
        while True:
            seq = self.last_seq + 1
            line = head + self._tail % seq
            size = len(line)
            # Atomic from here (invariants 1-3) ...
            if self.last_seq < seq:
                break
        depth = self.put_events - self.taken_events
        if (
            self.open
            and depth < (self._limit if levelno < WARNING else self._reserve_limit)
            and self.put_bytes - self.taken_bytes + size <= self._byte_limit
        ):
            if levelno != INFO:  # the level of most events, which pay nothing then
                self.levels[levelno] += 1
            self.last_seq = seq
            self.put_events += 1
            self.put_bytes += size
            if depth >= self.peak:
                self.peak = depth + 1
            self._buffer.append(line)
            # ... to here.
            if (journal := self.journal) is not None:
                try:
                    journal.write(line)
                except ValueError:
                    journal.append(line)
            if (levelno >= ERROR or depth == self._mark) and not self.urgent:
                self.wake()
            return True
        return self._when_full(levelno, head, size, until)

    def admit(self, head: bytes, *, waits: bool = True, closed: bool = True, own: bool = True) -> bytes:
        """
        Take an event past every limit: one of the hub's *own*, of which there are few, or one that is written at once.

        Return its line; *waits* says whether the worker is to take it, or the caller has it in hand. Without *closed*, a queue
        that is closed takes and returns nothing.
        """
        while True:
            seq = self.last_seq + 1
            line = head + self._tail % seq
            size = len(line)
            level = level_in(line)
            kept = self._own | {seq} if own and waits else self._own  # what was taken meanwhile does no harm in it
            if self.last_seq < seq:  # atomic from here, as in `accept()`
                break
        if not (closed or self.open):
            return b""
        self.last_seq = seq
        self.put_events += 1
        if level != INFO:
            self.levels[level] += 1
        if waits:
            self._own = kept
            self.put_bytes += size
            self._buffer.append(line)
        else:
            self.taken_events += 1
        if waits and self.journal is not None:
            self.journal.append(line)
        return line

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
        self.keep(reason, window)
        return False

    def keep(self, reason: Reason, window: DropWindow) -> None:
        """Let the journal, where there is one, have what *window* says; any thread."""
        if self.journal is not None:
            self.journal.keep(Words.of_queue(reason), window)

    def protect(self, journal: Journal) -> None:
        """Let *journal* have what waits, and from now on everything that comes; the worker's thread."""
        journal.mark(self.last_seq, self.put_events, self.oldest_dropped.count)
        for reason, window in (*self.refused.items(), (Reason.DROP_OLDEST, self.oldest_dropped)):
            journal.keep(Words.of_queue(reason), window)
        self.journal = journal
        for line in list(self._buffer):
            journal.append(line)

    def wake(self) -> None:
        """Ask the worker to come now instead of at its next tick; any thread or signal handler."""
        self.urgent = True
        if self.waker is not None:
            self.waker()

    def take(self) -> tuple[list[bytes], int]:
        """Take everything that waits; return the lines, oldest first, and their size in bytes. The worker's thread only."""
        fresh: deque[bytes] = deque()
        journal = self.journal
        while True:
            if journal is not None:
                journal.begin_range()
            # Atomic from here: the counters and the deque change hands together, and no range goes on behind what was taken.
            if journal is None or not journal.words[journal.range_at]:
                break
        taken = self._buffer
        self._buffer = fresh
        self._own = NONE
        size = self.put_bytes - self.taken_bytes
        self.taken_events = put = self.put_events
        self.taken_bytes = self.put_bytes
        self.taken_seq = seq = self.last_seq
        oldest = self.oldest_dropped.count
        self.urgent = False
        if journal is not None:
            journal.mark(seq, put, oldest)
        return list(taken), size

    def _when_full(self, levelno: int, head: bytes, size: int, until: float) -> bool:
        """Say what becomes of an event that found no room, or the queue closed."""
        if until == TRYING:
            return False
        if self.open:
            if not self.urgent:
                self.wake()
            if size <= self._byte_limit:
                if self._overflow == "sample":
                    return self._sampled(levelno, head, size)
                if self._overflow == "block" and self._accepted_in_time(levelno, head, size, until):
                    return True
                if self._overflow == "drop_oldest" and self._accepted_for_another(levelno, head, size):
                    return True
            if self.open:
                return self.refuse(Reason.QUEUE_FULL)
        return self._too_late(levelno, head)

    def _too_late(self, levelno: int, head: bytes) -> bool:
        return self.when_closed(levelno, head) if self.when_closed is not None else self.refuse(Reason.AFTER_CLOSE)

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
    def capacity(self) -> int:
        """How many events below WARNING it holds."""
        return self._limit

    @property
    def waiting_bytes(self) -> int:
        """The size of what waits."""
        return self.put_bytes - self.taken_bytes

    @property
    def share(self) -> float:
        """How much of the queue is taken, by events or by bytes; 1 where it is full."""
        return max(len(self._buffer) / self._limit, self.waiting_bytes / self._byte_limit)
