"""
The books of a process at a moment.

Invariants:

1. The queue's counters are read in one run of bytecode without a call, hence atomic under the GIL: a log call on another thread
   is in all of them or in none.
2. For every sink ``accepted = delivered + dropped + in flight``, with what waits in the queue in flight. `moment()` is exact on
   the thread that writes the sinks' books; `statistics_of()` may be a batch behind in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fapilog._internal.accounting import Reason
from fapilog._internal.lines import NO_LEVEL
from fapilog._internal.records import Counts, Gauges, SinkCounts, shown
from fapilog._internal.route import route
from fapilog.results import HubStatistics, SinkStatistics
from fapilog.typing import LEVELS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from fapilog._internal.accounting import SinkBooks
    from fapilog._internal.line_queue import LineQueue

DEBUG, WARNING, ERROR, CRITICAL = (LEVELS[name] for name in ("debug", "warning", "error", "critical"))


def moment(
    queue: LineQueue, all_books: Mapping[str, SinkBooks], active: Collection[str], oldest_counted: int
) -> tuple[Counts, Gauges]:
    """
    Return the counters and the state of a process.

    Args:
        queue: Of this process life.
        all_books: By sink name; also of sinks that are no longer used.
        active: The names of those that are.
        oldest_counted: How many events that `drop_oldest` threw out are in the sinks' books already.
    """
    full, sampled = queue.refused[Reason.QUEUE_FULL], queue.refused[Reason.SAMPLED]
    oldest, of = queue.oldest_dropped, queue.levels
    late, deep = queue.refused[Reason.AFTER_CLOSE], queue.refused[Reason.STACK_EXHAUSTED]
    # Atomic from here ...
    logged, put, taken, peak, thrown = queue.last_seq, queue.put_events, queue.taken_events, queue.peak, oldest.count
    refused = {
        "queue_full": full.count,
        "sampled": sampled.count,
        "after_close": late.count,
        "stack_exhausted": deep.count,
    }
    debug, warning, error, critical, none = of[DEBUG], of[WARNING], of[ERROR], of[CRITICAL], of[NO_LEVEL]
    # ... to here.
    uncounted = thrown - oldest_counted
    life = Counts(logged=logged, accepted=put, refused=refused, filtered=route.filtered)
    life.recovered, life.lost = queue.of_dead.recovered, queue.of_dead.lost
    life.levels = _levels(put, debug, warning, error, critical, none)
    gauges = Gauges(put - taken, queue.capacity, peak, journal_bytes=_ring_bytes(queue))
    for name, books in list(all_books.items()):
        key = shown(name)
        if name in active:
            life.sinks[key] = _counts(books, put - taken + uncounted, uncounted)
            gauges.backlog_bytes[key] = books.backlog_bytes
            gauges.backlog_capacity[key] = books.backlog_capacity
            gauges.up[key] = books.up
        else:
            life.sinks[key] = _counts(books, 0, 0)
    return life, gauges


def _ring_bytes(queue: LineQueue) -> int:
    journal = queue.journal
    return 0 if journal is None else journal.owner.ring_bytes


def _levels(put: int, debug: int, warning: int, error: int, critical: int, none: int) -> dict[str, int]:
    """Return the counts by name; those of INFO are the rest."""
    info = put - debug - warning - error - critical - none
    levels = {"debug": debug, "info": info, "warning": warning, "error": error, "critical": critical}
    return {**levels, "other": none} if none else levels


def _counts(books: SinkBooks, waiting: int, uncounted: int) -> SinkCounts:
    dropped = {str(reason): window.count for reason, window in books.dropped.items()}
    dropped[Reason.DROP_OLDEST.value] += uncounted
    accepted, took = books.offered + waiting, list(books.took)
    return SinkCounts(accepted, books.delivered, dropped, 0, books.retries, took, books.took_seconds, books.unprotected)


def statistics_of(queue: LineQueue, all_books: Mapping[str, SinkBooks], active: Collection[str]) -> HubStatistics:
    """Return what `fapilog.statistics()` does; any thread."""
    depth = queue.qsize()
    return HubStatistics(
        logged=queue.last_seq,
        accepted=queue.put_events,
        refused={str(reason): window.count for reason, window in queue.refused.items() if window.count},
        filtered=route.filtered,
        queue_depth=depth,
        queue_peak=queue.peak,
        sinks={name: _sink_statistics(books, depth if name in active else 0) for name, books in all_books.items()},
        identity=queue.identity,
    )


def _sink_statistics(books: SinkBooks, waiting: int) -> SinkStatistics:
    return SinkStatistics(
        accepted=books.offered + waiting,
        delivered=books.delivered,
        dropped={str(reason): window.count for reason, window in books.dropped.items() if window.count},
        in_flight=books.in_flight + waiting,
        retries=books.retries,
        backlog_bytes=books.backlog_bytes,
        up=books.up,
    )
