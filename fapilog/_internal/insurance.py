"""
What a hub has against being killed: a journal of its own, and the duty to deliver what others have left in theirs.

Invariants:

1. The journal is removed only when nothing in it is needed any more; with anything under way it stays, for whoever finds it.
2. Nothing is delivered before what is there of dead processes has been looked after, or `FIRST_PATIENCE` is over: their lines
   come first in the files, and the files are free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fapilog._internal.delivery import Delivery
    from fapilog._internal.journal import Journal
    from fapilog._internal.recovery import Recovery


class Insurance:
    """
    The journal and the recovery of one hub; on the worker's loop.

    Args:
        journal: Of this hub, if it has one.
        recovery: Of what others left.
        patience: How long the start of the hub waits for that, in seconds.
    """

    def __init__(self, journal: Journal | None, recovery: Recovery, patience: float = 0.0) -> None:
        self.journal = journal
        self._recovery = recovery
        self._patience = patience
        self.prepare = recovery.prepare
        self.look = recovery.look
        self.settle = recovery.settle
        self.last = recovery.last

    def relieve(self) -> None:
        """Look after what others left while the hub starts, where it waits for that; what is told of is protected already."""
        if self._patience:
            self._recovery.now(self._patience)

    async def first(self, deliveries: Sequence[Delivery], over: Callable[[], bool]) -> None:
        """
        Look after what others left before anything is delivered, and return early when it is *over*.

        What sinks without files lack goes through *deliveries*.
        """
        self._recovery.deliveries = deliveries
        await self._recovery.first(over)

    def end(self, *, done: bool) -> None:
        """Give it all up: *done* says that nothing in the journal is needed any more."""
        if self.journal is not None:
            self.journal.close(done=done)
        self._recovery.close()
