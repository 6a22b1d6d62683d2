"""On what terms a sink is delivered to: batches, waits and bounds."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BACKLOG_BYTES = 32 << 20
BATCH_BYTES = 1 << 20
RETRY_FLOOR = 0.02


@dataclass(frozen=True, slots=True)
class Terms:
    """
    What a sink may say about its delivery, as its attribute `terms`; those of the settings hold for one that does not.

    Args:
        max_retries: Tries after the first; *None* tries until one of the other bounds decides.
        retry_delay: The longest wait before the first retry, in seconds; doubled each time.
        retry_cap: The longest wait, in seconds, and the longest that a server may ask for. None is shorter than `RETRY_FLOOR`.
        max_elapsed: How old an event may become here before it is counted `expired`, in seconds; *None* sets no limit.
        batch_bytes: The most that one write gets, unless a single event is larger.
        batch_timeout: How long an event may wait for others to fill its batch, in seconds.
        backlog_bytes: The most that may wait here, the batch in flight included.
        replay_speed: How many times as fast as they came in events go out after an outage, above 1; *None* sets no limit.
        rng: Uniform in [0, 1); full jitter spreads the processes that wait for one server.
    """

    max_retries: int | None = 3
    retry_delay: float = 1.0
    retry_cap: float = 30.0
    max_elapsed: float | None = None
    batch_bytes: int = BATCH_BYTES
    batch_timeout: float = 0.0
    backlog_bytes: int = BACKLOG_BYTES
    replay_speed: float | None = None
    rng: Callable[[], float] = random.random

    def wait(self, attempt: int, asked: float = 0.0) -> float:
        """
        Return the wait after failed try number *attempt*, from 1, in seconds.

        What the server has *asked* for, up to `retry_cap`, is a lower bound, no substitute: one that is overloaded may well ask
        for no wait at all. Above it they spread over as long again, or over the wait without it where that is longer: it asks all
        of them for the same, and would have them all back at the same moment. The floor is there because jitter may come out
        near 0.
        """
        asked = min(asked, self.retry_cap)
        own = min(self.retry_cap, self.retry_delay * 2.0 ** min(attempt - 1, 32))
        return max(RETRY_FLOOR, asked + self.rng() * max(own, asked))


def terms_of(sink: object, given: Terms) -> Terms:
    """Return the terms of *sink*: its own, or those that are *given*; the jitter is always that of this process."""
    own = getattr(sink, "terms", None)
    if isinstance(own, Terms):
        return replace(own, rng=given.rng)
    if getattr(sink, "retries_until_full", False):
        return replace(given, max_retries=None, batch_bytes=getattr(sink, "batch_bytes", given.batch_bytes))
    return given
