"""
A custom sink on a thread and an event loop of its own.

Invariants:

1. Whatever the sink does (a `time.sleep`, a hang, a closed loop), the worker's loop keeps running.
2. Whatever it raises arrives at its delivery as an ordinary exception; its loop survives.
3. The thread is a daemon and is started by the process that opens the sink.
4. The threads of its loop's default executor (`asyncio.to_thread`, `run_in_executor(None, ...)`) are marked as ours, too.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fapilog._internal.native import elsewhere, is_green, mark_thread, new_loop, start_thread
from fapilog.errors import SinkUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from fapilog.identity import Identity
    from fapilog.typing import Event, Sink


CANCEL_TIMEOUT = 1.0


class ThreadedSink:
    """
    Implements the sink protocol for the worker by calling *sink* elsewhere, with expanded events.

    Args:
        sink: The custom sink.
    """

    reads_lines = True

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.name = sink.name
        self._loop: asyncio.AbstractEventLoop | None = None
        write_now = getattr(sink, "write_now", None)
        if write_now is not None:
            self.write_now = write_now
        if hasattr(sink, "reopen"):
            self.reopen = lambda: self._elsewhere(sink.reopen)

    def fresh(self) -> ThreadedSink:
        """Return another wrapper around the same sink: one for each process."""
        return ThreadedSink(self.sink)

    def bind(self, identity: Identity) -> None:
        """The custom sink learns its identity in `open()`."""

    def prepare(self) -> None:
        """Start the thread, while that is still allowed; see `FileSink.prepare()`."""
        if self._loop is None:
            loop = new_loop()
            try:
                start_thread(lambda: _run(loop), f"fapilog-{self.name}", deaf=False)
            except BaseException:
                loop.close()
                raise
            self._loop = loop

    async def open(self, identity: Identity) -> None:
        """Start the thread and open the sink on it."""
        self.prepare()
        await self._elsewhere(lambda: self.sink.open(identity))

    async def write(self, events: Sequence[Event]) -> None:
        """Hand *events*, expanded, to the sink."""
        await self._elsewhere(lambda: self._expanded(events))

    async def close(self) -> None:
        """Close the sink and end its thread."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            await elsewhere(loop, lambda: _contained(self.sink.close))
        finally:
            loop.call_soon_threadsafe(loop.stop)

    def retire(self) -> None:
        """End the thread of a sink that was never opened."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    async def _expanded(self, events: Sequence[Event]) -> None:
        await self.sink.write([event.expanded() for event in events])

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


def _run(loop: asyncio.AbstractEventLoop) -> None:
    if not is_green():  # its threads would be green ones of our real thread
        loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="fapilog-sink", initializer=mark_thread))
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=CANCEL_TIMEOUT))
    finally:
        loop.close()
