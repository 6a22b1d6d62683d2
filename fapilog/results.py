"""What `flush()`, `shutdown_logging()` and `statistics()` return: frozen values, safe to keep and to share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from fapilog.identity import Identity


@dataclass(frozen=True, slots=True)
class SinkResult:
    """
    What has become of the events accepted so far in this process, for one sink.

    Args:
        delivered: The sink took them.
        dropped: Given up and counted, for any reason.
        in_flight: No fate yet.
    """

    delivered: int
    dropped: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class FlushResult:
    """
    The truth about a flush.

    Args:
        complete: Whether every sink delivered everything accepted before the call; false from the first drop on.
        per_sink: By sink name.
        waited: Seconds.
    """

    complete: bool
    per_sink: dict[str, SinkResult]
    waited: float


@dataclass(frozen=True, slots=True)
class SinkStatistics:
    """
    The books of one sink: ``accepted = delivered + sum(dropped) + in_flight``.

    Args:
        accepted: Events meant for this sink.
        delivered: Events it took.
        dropped: Events given up, by reason; only reasons that happened.
        in_flight: Events waiting in the queue or the backlog.
        retries: Failed tries that were followed by another.
        backlog_bytes: What waits for this sink.
        up: Whether the last try succeeded.
    """

    accepted: int
    delivered: int
    dropped: dict[str, int]
    in_flight: int
    retries: int
    backlog_bytes: int
    up: bool


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """
    The books of one process: ``logged = accepted + sum(refused)``.

    Args:
        logged: Log calls that passed their level and the user's processors, and the hub's own events.
        accepted: Those that were taken.
        refused: Those that were not, by reason; only reasons that happened.
        filtered: Events that the user's own processors dropped; not part of `logged`.
        queue_depth: Events waiting for the worker now.
        queue_peak: The most that ever waited at once.
        sinks: By sink name.
        identity: Whose books these are.
    """

    logged: int
    accepted: int
    refused: dict[str, int]
    filtered: int
    queue_depth: int
    queue_peak: int
    sinks: dict[str, SinkStatistics]
    identity: Identity


#: The upper bounds of `SinkTotals.took`, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class SinkTotals:
    """
    One sink of a worker slot, over all processes that held the slot: ``accepted = delivered + sum(dropped) + lost + in_flight``.

    Args:
        accepted: Events meant for this sink.
        delivered: Events it took.
        dropped: Events given up, by reason; only reasons that happened.
        lost: Events that were under way when a process died.
        in_flight: Events waiting in the queue or the backlog of the process that lives; 0 where none does.
        retries: Failed tries that were followed by another.
        took: How many batches took how long to deliver, retries included, by bucket: the upper bounds are `BUCKETS`, in seconds,
            and the last bucket has none.
        took_seconds: All of them together.
        backlog_bytes: What waits for this sink; *None* unless a process lives and has this sink.
        up: Whether the last try succeeded; *None* unless a process lives and has this sink.
        unprotected: Events that the journal had no room for any more before they were delivered: a kill would have lost them.
        backlog_capacity: The most bytes that may wait for this sink; *None* unless a process lives and has this sink.
    """

    accepted: int
    delivered: int
    dropped: dict[str, int]
    lost: int
    in_flight: int
    retries: int
    took: tuple[int, ...]
    took_seconds: float
    backlog_bytes: int | None
    up: bool | None
    unprotected: int
    backlog_capacity: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """
    The books of one worker slot, over all processes that held it: ``logged = accepted + sum(refused)``.

    Counters never fall. Those of a process that lives are at most half a second old, those of one that died are from before its
    death.

    Args:
        worker: The slot.
        alive: Whether a process holds it now.
        closed: Whether the last process has ended with a drain.
        identity: Of the process that holds the slot, or held it last.
        role: ``master`` or ``worker`` of a server, ``child`` for what a master forked otherwise; empty where nobody has said.
        started: When that process began, in seconds since the epoch.
        updated: When it last wrote here, in seconds since the epoch.
        restarts: How many processes held the slot before.
        deaths: How many of them died, by signal (``SIGKILL``), ``exit`` for an exit code, and ``unknown``.
        logged: Log calls that passed their level and the user's processors, and the hub's own events.
        accepted: Those that were taken.
        refused: Those that were not, by reason; only reasons that happened.
        filtered: Events that the user's own processors dropped; not part of `logged`.
        levels: Accepted events by level; what still waits in a queue is not in it.
        lost: Events that were under way when a process died, to at least one sink.
        recovered: Events of dead processes that were delivered after all.
        queue_depth: Events waiting now; *None* where no process lives.
        queue_capacity: Events below WARNING that the queue holds; *None* where no process lives.
        queue_peak: The most that ever waited at once in this process; *None* where no process lives.
        sinks: By sink name.
        journal_bytes: The size of the process's journal; 0 if it has none, *None* where no process lives.
        heartbeat: When its worker thread has last shown that it runs, in seconds since the epoch: every 5 s or more often. *None*
            where no process lives, and for one that has no such thread.
    """

    worker: int
    alive: bool
    closed: bool
    identity: Identity
    role: str
    started: float
    updated: float
    restarts: int
    deaths: dict[str, int]
    logged: int
    accepted: int
    refused: dict[str, int]
    filtered: int
    levels: dict[str, int]
    lost: int
    recovered: int
    queue_depth: int | None
    queue_capacity: int | None
    queue_peak: int | None
    sinks: dict[str, SinkTotals]
    journal_bytes: int | None = None
    heartbeat: float | None = None


@dataclass(frozen=True, slots=True)
class ServiceStatistics:
    """
    The books of all processes that meet in one run directory.

    Args:
        run_dir: Which; *None* where this process has none and speaks for itself alone.
        workers: By slot, the master's 0 first.
        damaged: Rows that could not be read; they are not in `workers`.
    """

    run_dir: Path | None
    workers: tuple[WorkerStatistics, ...]
    damaged: int
