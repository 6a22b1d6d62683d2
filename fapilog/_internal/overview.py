"""From the rows of the board to what users see. Values in, values out, but for `overview()`, which reads the board."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fapilog._internal.board import Seen, read_board
from fapilog._internal.records import successor
from fapilog.identity import Identity
from fapilog.results import ServiceStatistics, SinkTotals, WorkerStatistics

if TYPE_CHECKING:
    from pathlib import Path

    from fapilog._internal.records import Counts, Gauges, SinkCounts


def overview(run_dir: Path) -> ServiceStatistics:
    """
    Return what the board in *run_dir* says.

    Raises:
        OSError: The directory may not be read, or is somebody else's.
    """
    rows, damaged = read_board(run_dir)
    return ServiceStatistics(run_dir, tuple(map(worker_statistics, rows)), damaged)


def alone(identity: Identity, role: str, life: Counts, gauges: Gauges) -> ServiceStatistics:
    """Return the statistics of a service that is one process without a board."""
    record = replace(successor(None, identity, role, time.time()), life=life, gauges=gauges)
    return ServiceStatistics(None, (worker_statistics(Seen(record, alive=True)),), 0)


def worker_statistics(seen: Seen) -> WorkerStatistics:
    """Return a row as users see it: without the gauges of a process that is gone."""
    record, alive = seen.record, seen.alive
    totals, gauges = record.totals, record.gauges
    return WorkerStatistics(
        worker=record.worker,
        alive=alive,
        closed=record.closed and not record.died,
        identity=Identity(record.service, record.env, record.host, record.worker, record.pid, record.boot),
        role=record.role,
        started=record.started,
        updated=record.updated,
        restarts=record.lives - 1,
        deaths=totals.deaths,
        logged=totals.logged,
        accepted=totals.accepted,
        refused=_happened(totals.refused),
        filtered=totals.filtered,
        levels=totals.levels,
        lost=totals.lost,
        recovered=totals.recovered,
        queue_depth=gauges.depth if alive else None,
        queue_capacity=gauges.capacity if alive else None,
        queue_peak=gauges.peak if alive else None,
        sinks={name: _sink(name, books, seen) for name, books in totals.sinks.items()},
        journal_bytes=gauges.journal_bytes if alive else None,
        heartbeat=record.updated if alive and gauges.beats else None,
    )


def _sink(name: str, books: SinkCounts, seen: Seen) -> SinkTotals:
    gauges = seen.record.gauges
    life = seen.record.life.sinks.get(name)
    return SinkTotals(
        accepted=books.accepted,
        delivered=books.delivered,
        dropped=_happened(books.dropped),
        lost=books.lost,
        in_flight=life.under_way if life is not None and (seen.alive or seen.record.closed) else 0,
        retries=books.retries,
        took=tuple(books.took),
        took_seconds=books.took_seconds,
        backlog_bytes=gauges.backlog_bytes.get(name) if seen.alive else None,
        up=gauges.up.get(name) if seen.alive else None,
        unprotected=books.unprotected,
        backlog_capacity=gauges.backlog_capacity.get(name) if seen.alive else None,
    )


def _happened(counts: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in counts.items() if count}
