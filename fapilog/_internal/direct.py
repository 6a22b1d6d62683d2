"""
Synchronous output: the caller's thread writes, with no queue and no thread of ours.

Used when the queue is switched off, in a gunicorn master, where no thread can be started, and after the drain.

Invariants:

1. A log call waits for no lock: each sink has a try-lock. After the drain a busy sink means the event is counted `after_close`.
   In synchronous mode, where waiting is the point, a call waits for at most `PATIENCE` seconds, and not at all on the thread
   that holds the lock (a signal handler or finaliser in the middle of a write).
2. Every event gets a seq and one fate per sink.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from fapilog._internal.accounting import Reason, SinkBooks
from fapilog._internal.notes import note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog._internal.event_queue import EventQueue
    from fapilog.typing import Event, Sink

PATIENCE = 1.0


class DirectOutput:
    """
    Writes each event at once to every sink that has a `write_now`.

    Args:
        queue: Gives seqs and identity and keeps the counts; nothing waits in it.
        sinks: Bound to this process.
        books: By sink name.
        patience: How long a call may wait for another call's write, in seconds.
    """

    def __init__(self, queue: EventQueue, sinks: Sequence[Sink], books: dict[str, SinkBooks], patience: float = 0.0) -> None:
        self._queue = queue
        self._patience = patience
        self._outlets = [(sink, books.setdefault(sink.name, SinkBooks(sink.name)), _OwnedLock()) for sink in sinks]

    def accept(self, levelno: int, head: bytes) -> bool:
        """Write one event; never raises an `Exception`."""
        self.pass_on(self._queue.number(levelno, head))
        return True

    def pass_on(self, event: Event) -> None:
        """Write one event that has its seq already."""
        for sink, books, lock in self._outlets:
            self._write(sink, books, lock, event)

    def _write(self, sink: Sink, books: SinkBooks, lock: _OwnedLock, event: Event) -> None:
        books.offered += 1
        write_now = getattr(sink, "write_now", None)
        if write_now is None or not lock.take(self._patience):
            books.drop(Reason.AFTER_CLOSE, 1, event.seq, event.seq, time.time_ns())
            return
        try:
            write_now([event.line])
        except Exception as error:
            books.drop(Reason.AFTER_CLOSE, 1, event.seq, event.seq, time.time_ns())
            note(f"direct {sink.name}", f"sink {sink.name!r} took no event: {error}")
        else:
            books.delivered += 1
        finally:
            lock.release()


class _OwnedLock:
    """A lock that knows its thread, so that a thread never waits for itself."""

    __slots__ = ("_lock", "_owner")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0

    def take(self, patience: float) -> bool:
        me = threading.get_ident()
        if self._owner == me:
            return False
        taken = self._lock.acquire(timeout=patience) if patience > 0 else self._lock.acquire(blocking=False)
        if taken:
            self._owner = me
        return taken

    def release(self) -> None:
        self._owner = 0
        self._lock.release()
