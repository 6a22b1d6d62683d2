"""
A sink from its opening to its end, as its delivery sees it.

Invariants:

1. A sink is written to, opened anew and closed only while it is open; one that never was is retired instead.
2. It is opened only when no call is left in it that an earlier `close()` gave up.
3. `close()` returns in its time. Neither it nor `reopen()` raises what the sink does; that is noted.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fapilog._internal.notes import note
from fapilog._internal.sink_calls import bounded, described, outcome_of
from fapilog.typing import Event, takes_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog.identity import Identity
    from fapilog.typing import Sink


class SinkLife:
    """
    Opens, writes to and closes one sink.

    Args:
        sink: Which.

    Attributes:
        opened: Whether it is open.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink: Any = sink
        self._takes_lines = takes_lines(sink)
        self._left_behind: set[asyncio.Task[Any]] = set()
        self.opened = False

    async def open(self, identity: Identity, wanted: Callable[[], bool]) -> bool:
        """Open it for *identity*; return whether it is still *wanted* then. If not, it is closed again."""
        while self._left_behind:
            await asyncio.wait(self._left_behind)
        await self._sink.open(identity)
        if not wanted():  # nobody else closes it
            await self._sink.close()
            return False
        self.opened = True
        return True

    async def write(self, lines: list[bytes]) -> None:
        """Give it *lines*, or the events that they are."""
        await (self._sink.write_lines(lines) if self._takes_lines else self._sink.write([Event.of(line) for line in lines]))

    async def reopen(self) -> None:
        """Let it open its file anew, if it has such a thing and is open."""
        reopen = getattr(self._sink, "reopen", None)
        if reopen is None or not self.opened:
            return
        error = await outcome_of(reopen)
        if error is not None:  # it goes on with what it has open
            name = self._sink.name
            note(f"reopen {name}", f"sink {name!r} did not reopen: {described(error)}")

    async def close(self, seconds: float) -> None:
        """Close it; a call that does not end in *seconds* is left behind."""
        error, left = await bounded(self._sink.close if self.opened else self._retire, seconds)
        self.leave(left)
        self.opened = False
        if error is not None:
            name = self._sink.name
            note(f"close {name}", f"sink {name!r} did not close: {described(error)}")

    def leave(self, task: asyncio.Task[Any] | None) -> None:
        """Leave *task* behind, which is in the sink, unless it has ended."""
        if task is not None and not task.done():
            self._left_behind.add(task)
            task.add_done_callback(self._left_behind.discard)

    async def _retire(self) -> None:
        retire = getattr(self._sink, "retire", None)
        if retire is not None:
            retire()
