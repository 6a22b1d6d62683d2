"""
How long the worker sleeps between two looks at its queue. Pure.

Each look that takes something wakes two threads, which costs a busy application some 0.3 ms of its core, whatever was taken. So
it looks no more often than it has to.

Invariants:

1. While events come, it sleeps until about a sixteenth of the queue is expected to be taken, `TICK` at least and `BUSY_TICK` at
   most; what comes faster than that wakes it (`LineQueue`, at an eighth).
2. Nobody who asked for a shorter `batch_timeout` waits longer for a look than that, or `TICK`.
3. While nothing comes, each sleep is twice as long as the one before, up to `IDLE_TICK`.
"""

from __future__ import annotations

TICK, BUSY_TICK, IDLE_TICK = 0.02, 0.1, 0.5
CALM = 1 / 16


class Pace:
    """
    Says after each look how long to sleep.

    Args:
        patience: How long an event may wait to be taken, in seconds.
    """

    __slots__ = ("_longest", "_looked_at", "_pause")

    def __init__(self, patience: float) -> None:
        self._longest = min(BUSY_TICK, max(TICK, patience))
        self._pause = TICK
        self._looked_at: float | None = None

    def after(self, now: float, share: float) -> float:
        """Return how long to sleep after a look at *now* (monotonic clock) that found *share* of the queue taken."""
        elapsed, self._looked_at = now - (self._looked_at or now), now
        if share:
            self._pause = min(max(TICK, elapsed * CALM / share), self._longest)
        else:
            self._pause = min(self._pause * 2, IDLE_TICK)
        return self._pause
