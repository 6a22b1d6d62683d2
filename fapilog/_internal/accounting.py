"""
Counting: the reasons for which an event does not arrive, and how many had which.

Invariants:

1. Every counter only grows.
2. `DropWindow.count` is exact. It is the total; what has been announced is counted beside it, so that the sum of all notices is
   the counter, whatever was added while a notice was being made.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from dataclasses import dataclass, field

from fapilog.results import BUCKETS


class Reason(enum.StrEnum):
    """Why an event was refused at the door or dropped behind it. Used in metrics, notices and tests."""

    QUEUE_FULL = "queue_full"
    SAMPLED = "sampled"
    AFTER_CLOSE = "after_close"
    STACK_EXHAUSTED = "stack_exhausted"
    DROP_OLDEST = "drop_oldest"
    BACKLOG_FULL = "backlog_full"
    RETRIES_EXHAUSTED = "retries_exhausted"
    REJECTED = "rejected"
    EXPIRED = "expired"
    INTERRUPTED = "interrupted"  # the call had not come to its end when its process died


REFUSALS = (Reason.QUEUE_FULL, Reason.SAMPLED, Reason.AFTER_CLOSE, Reason.STACK_EXHAUSTED)
DROPS = (
    Reason.DROP_OLDEST,
    Reason.BACKLOG_FULL,
    Reason.RETRIES_EXHAUSTED,
    Reason.REJECTED,
    Reason.EXPIRED,
    Reason.AFTER_CLOSE,
)


class DropWindow:
    """
    The events lost for one reason: how many in all, and the span of those not announced yet.

    The methods are straight lines of bytecode without a call or a backward jump, so that under the GIL each is atomic
    against other threads and signal handlers (see `_internal/queue.py`, "Why there is no lock").
    """

    __slots__ = ("announced", "count", "first_ns", "first_seq", "last_ns", "last_seq")

    def __init__(self) -> None:
        self.count = 0
        self.announced = 0
        self.first_seq = 0
        self.last_seq = 0
        self.first_ns = 0
        self.last_ns = 0

    def add(self, count: int, first_seq: int, last_seq: int, now_ns: int) -> None:
        """Count *count* more events, of which the first and the last have these seqs."""
        if self.count == self.announced:
            self.first_seq = first_seq
            self.first_ns = now_ns
            self.last_seq = last_seq
        self.count += count
        if first_seq < self.first_seq:  # noqa: PLR1730 - min() would be a call
            self.first_seq = first_seq
        if last_seq > self.last_seq:  # noqa: PLR1730
            self.last_seq = last_seq
        self.last_ns = now_ns

    def take(self) -> tuple[int, int, int, int, int]:
        """Return (count, first seq, last seq, first ns, last ns) of what was not announced yet, and count it as announced."""
        count = self.count - self.announced
        self.announced += count
        return count, self.first_seq, self.last_seq, self.first_ns, self.last_ns

    def give_back(self, count: int, first_seq: int, _last_seq: int, first_ns: int, _last_ns: int) -> None:
        """Take back a `take()` whose notice came to nothing: the next one says it too."""
        self.announced -= count
        if first_seq < self.first_seq:
            self.first_seq = first_seq
            self.first_ns = first_ns


@dataclass(slots=True)
class OfDead:
    """
    What became of the events of dead processes, as far as this process has to do with it.

    Args:
        recovered: How many it has delivered after all.
        lost: How many nobody will.
    """

    recovered: int = 0
    lost: int = 0


@dataclass(slots=True)
class SinkBooks:
    """
    The books of one sink: ``offered = delivered + dropped + in flight``, always.

    Written on the worker's thread while it lives, under the sink's own lock after the drain. Readable from any thread.
    """

    name: str
    offered: int = 0
    delivered: int = 0
    retries: int = 0
    unprotected: int = 0
    backlog_bytes: int = 0
    backlog_capacity: int = 0
    up: bool = True
    took: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    took_seconds: float = 0.0
    dropped: dict[Reason, DropWindow] = field(default_factory=lambda: {reason: DropWindow() for reason in DROPS})

    def dropped_total(self) -> int:
        """Return how many events were dropped, for all reasons."""
        return sum(window.count for window in self.dropped.values())

    @property
    def in_flight(self) -> int:
        """How many events were offered and have no fate yet."""
        return self.offered - self.delivered - self.dropped_total()

    def took_batch(self, seconds: float) -> None:
        """Count a batch that was delivered *seconds* after the worker handed it over."""
        self.took[bisect_left(BUCKETS, seconds)] += 1
        self.took_seconds += seconds

    def drop(self, reason: Reason, count: int, first_seq: int, last_seq: int, now_ns: int) -> None:
        """Count *count* events as dropped for *reason*."""
        self.dropped[reason].add(count, first_seq, last_seq, now_ns)
