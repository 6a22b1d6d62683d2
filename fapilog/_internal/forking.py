"""
What stands at the door of the pipeline while a fork is under way.

A program's own at-fork hook may log in the child before ours has given the child a cold state: hooks run in the order in which
they were registered. So from just before the fork until after it, events pass through here, which looks whose process it is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fapilog._internal import kin
from fapilog._internal.route import route

if TYPE_CHECKING:
    from collections.abc import Callable


class ForkWindow:
    """
    One for the program.

    Args:
        pid: Returns the process whose state the hub's is.
        in_child: Gives a forked child its own state, `route.accept` included.
    """

    def __init__(self, pid: Callable[[], int], in_child: Callable[[], None]) -> None:
        self._pid = pid
        self._in_child = in_child
        self._accept: Callable[[int, bytes], bool] | None = None

    def open(self) -> None:
        """Step in; before a fork. Two threads may fork at once: what was here first is kept."""
        kin.declare()
        if route.accept != self.accept:
            self._accept = route.accept
            route.accept = self.accept

    def accept(self, levelno: int, head: bytes) -> bool:
        """Take an event, in the parent or, in a hook that runs before ours, in the child."""
        if self._pid() != os.getpid():
            self._in_child()
            return route.accept(levelno, head)
        assert self._accept is not None
        return self._accept(levelno, head)

    def close(self) -> None:
        """Step out; after the fork, in the parent."""
        if route.accept == self.accept and self._accept is not None:
            route.accept = self._accept
