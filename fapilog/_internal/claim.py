"""
Who starts the hub of a process, or takes it away to start another: one thread at a time.

Invariants:

1. A claim is made by a test and a store without a call in between, hence atomic under the GIL: two threads, or a thread and its
   own signal handler, never start two hubs. Who sees that a claim was made sees by whom.
2. A signal that would end the process in the middle of a start comes again at its end; the second time it waits for nothing.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

from fapilog._internal import native

if TYPE_CHECKING:
    from collections.abc import Callable

POLL = 0.001


class Claim:
    """
    The claim on the start of one process's hub.

    Attributes:
        made: Whether the hub was started, or somebody is about to.
        by: The thread that is about to; 0 for none.
    """

    __slots__ = ("_postponed", "by", "made")

    def __init__(self) -> None:
        self.made = False
        self.by = 0
        self._postponed: list[int] = []

    def make(self, *, anew: bool = False) -> bool:
        """Claim the start; with *anew* that of another hub than the one that was started. Return whether it is the caller's."""
        me = threading.get_ident()
        if (self.by and self.by != me) if anew else self.made:
            return False
        self.made, self.by = True, me
        return True

    def end(self, *, started: bool = True) -> None:
        """End the claim: the hub was *started*, or else anybody may try."""
        self.made, self.by = started, 0
        while self._postponed:
            signal.raise_signal(self._postponed.pop())

    def wait(self, seconds: float, pause: Callable[[float], None] = native.nap) -> None:
        """Let a start on another thread come to its end, for at most *seconds*."""
        me = threading.get_ident()
        end = time.monotonic() + seconds
        while self.by not in {0, me} and time.monotonic() < end:
            pause(POLL)

    def postpone(self, number: int) -> bool:
        """Whether the signal *number*, whose handler calls this, has to wait for the start that it interrupts."""
        if self.by != threading.get_ident() or number in self._postponed:
            return False
        self._postponed.append(number)
        return True
