"""
How fast what has waited behind a failing sink goes out once that takes events again.

Whoever pushes to a server that was away has waited for it. If each sent what it has as fast as it can, all together would send
many times what the server is used to, and be refused. So the events of an outage go out in the order and the rhythm in which
they came in, as a film that runs at `Terms.replay_speed`.

Invariants:

1. From the first answer after a failed try on, an event that came in *d* seconds after the oldest goes out no earlier than
   *d* / `replay_speed` seconds after that answer.
2. Nothing gets older by this than the oldest event was when the sink came back; and after as many seconds as those, divided by
   `replay_speed` - 1, it has no effect any more.
3. Where no try has failed, or `replay_speed` is *None*, it has no effect at all.
4. Meanwhile a batch holds the events of `SLICE` times the usual, so that the replay takes fewer requests a second than usual.

Used on the worker's loop only; for a flush, the end or a backlog that is nearly full nobody asks here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fapilog._internal.terms import Terms

SLICE = 10


class Replay:
    """
    Says when events may go out, and how many together.

    Args:
        terms: Of the delivery.
    """

    def __init__(self, terms: Terms) -> None:
        speed = terms.replay_speed
        self._speed = speed if speed is not None and speed > 1 else None  # slower, it would never catch up
        self._slice = SLICE * max(1.0, terms.batch_timeout)
        self._failing = False
        self._origin = self._began = self._ends = 0.0

    def failed(self) -> None:
        """Enter a failed try."""
        self._failing = self._speed is not None

    def answered(self, since: float, now: float) -> None:
        """Enter that the sink has taken, or refused, a batch whose oldest event came in at *since*."""
        if self._failing and self._speed is not None:
            self._failing = False
            self._origin, self._began = since, now
            self._ends = now + (now - since) / (self._speed - 1)

    def due_at(self, since: float) -> float:
        """Return when an event that came in at *since* may go out: at once, unless it waited for the sink to come back."""
        if self._speed is None or since >= self._ends:
            return 0.0
        return self._began + (since - self._origin) / self._speed

    def span(self, now: float) -> float:
        """Return how much later than its oldest event the others of a batch may have come in, in seconds."""
        return self._slice if self._failing or now < self._ends else float("inf")
