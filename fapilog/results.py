"""What `flush()`, `shutdown_logging()` and `statistics()` return: frozen values, safe to keep and to share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
