"""A wait on an event loop that somebody else there may end."""

from __future__ import annotations

import asyncio


class Waker:
    """A wait that ends early when somebody calls. `wake()` on the loop's own thread."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def wake(self) -> None:
        """End the wait, or the next one if nobody waits now."""
        self._event.set()

    async def wait(self, seconds: float | None) -> None:
        """Wait until `wake()`, for at most *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return
        finally:
            self._event.clear()
