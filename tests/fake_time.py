"""An event loop whose time passes at once: hours of waiting in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


class _Selector(selectors.DefaultSelector):
    """Instead of waiting for the next timer, moves the clock on to it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            return super().select(None)
        ready: list[Any] = super().select(0)
        if not ready:
            self.now += max(timeout, 0.0)
        return ready


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """Its `time()` is that of its own clock, from 0."""

    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run(main: Coroutine[Any, Any, Any]) -> Any:
    """Run *main* on such a loop; return what it returns."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(main)
