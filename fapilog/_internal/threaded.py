"""
A custom sink on a thread and an event loop of its own.

Invariants:

1. Whatever the sink does (a `time.sleep`, a hang, a closed loop), the worker's loop keeps running.
2. Whatever it raises arrives at its delivery as an ordinary exception; its loop survives.
3. The thread is a daemon and is started by the process that opens the sink.
4. The threads of its loop's default executor (`asyncio.to_thread`, `run_in_executor(None, ...)`, name lookups) are daemons marked
   as ours, too: a lookup that never ends does not keep the process.
5. Its coroutines never run on two threads at once: where the hub has gone on without a call that does not return, the next
   `open()` of the same sink in this process waits until the thread inside it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fapilog._internal.executor import DaemonPool
from fapilog._internal.native import elsewhere, new_loop, start_thread
from fapilog._internal.notes import note
from fapilog.errors import SinkUnavailable
from fapilog.typing import Event, takes_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from fapilog.identity import Identity
    from fapilog.typing import Sink


CANCEL_TIMEOUT = 1.0
NOTED_AFTER = 1.0  # seconds of waiting for an earlier opening
_POLL = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class _Opening:
    """A thread that runs a sink; of another process's nothing is left in this one."""

    sink: object
    pid: int


_openings: list[_Opening] = []  # that have not ended; appended and removed, hence atomic under the GIL


class ThreadedSink:
    """
    Implements the sink protocol for the worker by calling *sink* elsewhere, with expanded events.

    Args:
        sink: The custom sink.
        built_in: Whether the settings made it, so that another one of the same settings is the same.
    """

    def __init__(self, sink: Sink, *, built_in: bool = False) -> None:
        self.sink = sink
        self.built_in = built_in
        self.name = sink.name
        self.terms = getattr(sink, "terms", None)
        self._takes_lines = takes_lines(sink)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._earlier: list[_Opening] = []
        write_now = getattr(sink, "write_now", None)
        if write_now is not None:
            self.write_now = write_now
        if hasattr(sink, "reopen"):
            self.reopen = lambda: self._elsewhere(sink.reopen)

    def fresh(self) -> ThreadedSink:
        """Return another wrapper around the same sink: one for each process."""
        return ThreadedSink(self.sink, built_in=self.built_in)

    def bind(self, identity: Identity) -> None:
        """The custom sink learns its identity in `open()`."""

    def prepare(self) -> None:
        """Start the thread, while that is still allowed; see `FileSink.prepare()`."""
        if self._loop is None:
            loop = new_loop()
            loop.set_default_executor(DaemonPool("fapilog-sink"))
            mine = _Opening(self.sink, os.getpid())
            self._earlier = [each for each in _openings if each.sink is self.sink and each.pid == mine.pid]
            _openings.append(mine)
            try:
                start_thread(lambda: _run(loop, mine), f"fapilog-{self.name}", deaf=False)
            except BaseException:
                _openings.remove(mine)
                loop.close()
                raise
            self._loop = loop

    async def open(self, identity: Identity) -> None:
        """Start the thread and open the sink on it."""
        self.prepare()
        await self._alone()
        await self._elsewhere(lambda: self.sink.open(identity))

    async def _alone(self) -> None:
        waited = 0.0
        while any(each in _openings for each in self._earlier):
            if waited >= NOTED_AFTER:
                note(
                    f"earlier {self.name}",
                    f"sink {self.name!r} is still in a call from before it was closed; it has to end first",
                )
            await asyncio.sleep(_POLL)
            waited += _POLL
        self._earlier = []

    async def write_lines(self, lines: Sequence[bytes]) -> None:
        """Hand *lines* to the sink, as events if it wants them so."""
        await self._elsewhere(lambda: self._handed(lines))

    async def close(self) -> None:
        """Close the sink and end its thread."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            await elsewhere(loop, lambda: _contained(self.sink.close))
        finally:
            _end(loop)

    def retire(self) -> None:
        """End the thread of a sink that was never opened."""
        loop, self._loop = self._loop, None
        if loop is not None:
            _end(loop)

    async def _handed(self, lines: Sequence[bytes]) -> None:
        sink: Any = self.sink
        await (sink.write_lines(lines) if self._takes_lines else sink.write([Event.of(line) for line in lines]))

    async def _elsewhere(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._loop is not None
        await elsewhere(self._loop, lambda: _contained(call))


async def _contained(call: Callable[[], Coroutine[Any, Any, None]]) -> None:
    try:
        await call()
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:  # SystemExit and the like would end the loop they are raised in, others the delivery
        message = f"the sink raised {error!r}"
        raise SinkUnavailable(message) from error


def _end(loop: asyncio.AbstractEventLoop) -> None:
    with contextlib.suppress(RuntimeError):  # the sink has closed it
        loop.call_soon_threadsafe(loop.stop)


def _run(loop: asyncio.AbstractEventLoop, opening: _Opening) -> None:
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=CANCEL_TIMEOUT))
    finally:
        _openings.remove(opening)
        loop.close()
