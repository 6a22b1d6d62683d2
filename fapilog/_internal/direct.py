"""
Synchronous output: the caller's thread writes, with no queue and no thread of ours.

Used when the queue is switched off, in a gunicorn master, where no thread can be started, and after the drain.

Invariants:

1. Every event gets a seq and one fate per sink; nothing a sink raises leaves this module.
2. The built-in sinks need no lock here: `write_now()` keeps writers apart itself, and refuses rather than wait for what it has
   interrupted. A signal handler or finaliser in the middle of a write writes its own line beside it, unless half a line stands
   there, and an exception it throws leaves nothing held.
3. A custom sink's `write_now()` runs under a lock of its own, which is re-entrant, so no thread waits for itself. What the sink
   logs meanwhile through the standard library does not come back to it.
4. In synchronous mode, where waiting is the point, a call waits for another one's write for at most `PATIENCE` seconds. From the
   drain on all calls of a process wait for a sink no longer than `LATE_PATIENCE` together: long enough for the drain's last
   batch, which the sink's own thread is still writing when a thread that logs on is sent here, and no longer for a sink that is
   stuck or slow. Busy means `after_close` then.
5. What is refused (by a sampling rule, say) is announced here too: once a second while events come and at the end; after the end
   behind each line, so that no line stands after a hole that nothing explains.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from fapilog._internal.accounting import Reason, SinkBooks
from fapilog._internal.native import writing_now
from fapilog._internal.notes import note
from fapilog._internal.notices import dropped_head
from fapilog.errors import SinkUnavailable
from fapilog.identity import seq_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fapilog._internal.event_queue import EventQueue
    from fapilog.typing import Sink

PATIENCE = 1.0
LATE_PATIENCE = 0.1
_AT_ONCE = 0.001  # what takes no longer was no wait, but a write


class DirectOutput:
    """
    Writes each event at once to every sink that has a `write_now`.

    Args:
        queue: Gives seqs and identity and keeps the counts; nothing waits in it.
        sinks: Bound to this process.
        books: By sink name.
        patience: How long a call may wait for another call's write, in seconds.
        in_all: How long all calls may wait for one sink, in seconds.
        notice_every: How far apart notices are, in seconds. After the end of a life there is nobody who would write the last one,
            so there they are not held back.
        after: Called after each event.
    """

    def __init__(
        self,
        queue: EventQueue,
        sinks: Sequence[Sink],
        books: dict[str, SinkBooks],
        patience: float = LATE_PATIENCE,
        in_all: float = LATE_PATIENCE,
        notice_every: float = 0.0,
        after: Callable[[], None] | None = None,
    ) -> None:
        self._queue = queue
        self._after = after
        self.notice_every = notice_every
        self._noticed_at = 0.0
        self._outlets = [
            (sink, books.setdefault(sink.name, SinkBooks(sink.name)), _Patient(_writer(sink), patience, in_all).write)
            for sink in sinks
        ]

    def accept(self, levelno: int, head: bytes, until: float = 0.0) -> bool:
        """Write one event and, if it is time, notices of what was refused before it; never raises an `Exception`."""
        self.pass_on(self._queue.admit(head, waits=False))
        if time.monotonic() >= self._noticed_at + self.notice_every:
            self.announce()
        if self._after is not None:
            self._after()
        return True

    def announce(self) -> None:
        """Write one `fapilog.dropped` for each reason for which events were refused since the last one."""
        self._noticed_at = time.monotonic()
        for reason, window in self._queue.refused.items():
            if window.count > window.announced:
                taken = window.take()
                if not taken[0]:  # another thread was first
                    continue
                notice = self._queue.admit(dropped_head("queue", reason, *taken), waits=False)
                if not self.pass_on(notice) and self._outlets:
                    window.give_back(*taken)

    def pass_on(self, line: bytes) -> bool:
        """Write one line that has its seq already; return whether a sink has taken it."""
        delivered = False
        for sink, books, write in self._outlets:
            try:
                write([line])
            except BaseException as error:
                books.drop(Reason.AFTER_CLOSE, 1, seq_of(line), seq_of(line), time.time_ns())
                books.offered += 1
                if not isinstance(error, Exception):
                    raise  # the program's own, thrown by a signal handler
                note(f"direct {sink.name}", f"sink {sink.name!r} took no event: {error}")
            else:
                books.offered += 1
                books.delivered += 1
                delivered = True
        return delivered


class _Patient:
    """Lets the calls of one outlet wait as long as each may, and as long as is left of what all may."""

    def __init__(self, write: Callable[[Sequence[bytes], float], None], patience: float, in_all: float) -> None:
        self._write = write
        self._patience = patience
        self._left = in_all

    def write(self, lines: Sequence[bytes]) -> None:
        began = time.monotonic()
        try:
            self._write(lines, min(self._patience, self._left))
        finally:
            took = time.monotonic() - began
            if took > _AT_ONCE:
                self._left = max(0.0, self._left - took)


def _writer(sink: Any) -> Callable[[Sequence[bytes], float], None]:
    """Return what writes lines to *sink* now, waiting no longer than it is told, or raises."""
    write_now = getattr(sink, "write_now", None)
    if write_now is None:
        return _unwritable
    if getattr(sink, "lock_free", False):
        return write_now  # type: ignore[no-any-return]
    return _Locked(write_now).write


def _unwritable(_lines: Sequence[bytes], _patience: float) -> None:
    raise SinkUnavailable("it cannot write at once (no write_now()), as a master and the time after a shutdown ask for")


class _Locked:
    """One writer at a time."""

    def __init__(self, write_now: Callable[[Sequence[bytes]], None]) -> None:
        self._write_now = write_now
        self._lock = threading.RLock()

    def write(self, lines: Sequence[bytes], patience: float) -> None:
        taken = False
        outside = writing_now.set(True)
        try:
            taken = self._lock.acquire(timeout=patience)
            if not taken:
                raise SinkUnavailable("another thread is inside its write_now()")
            self._write_now(lines)
        finally:
            writing_now.reset(outside)
            if taken:
                self._lock.release()
