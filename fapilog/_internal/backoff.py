"""
How long a sink that fails is left alone.

Invariants:

1. A failing sink has one wait, however many batches go by meanwhile: it grows from try to try until one succeeds.
2. No try is made before the wait after the last failed one is over, except that at the end of the hub no wait is longer than
   `HURRIED_WAIT`.

Used on the worker's loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fapilog._internal.terms import Terms

HURRIED_WAIT = 0.1


class Backoff:
    """
    Counts the failed tries in a row, and waits after each.

    Args:
        terms: Say how long.

    Attributes:
        failures: How many tries have failed since the last that did not.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._until = 0.0
        self._hurry = asyncio.Event()
        self.failures = 0

    @property
    def hurried(self) -> bool:
        """Whether all waits are short."""
        return self._hurry.is_set()

    def reset(self) -> None:
        """Begin anew: the sink has not been tried yet."""
        self.succeeded()
        self._hurry.clear()

    def succeeded(self) -> None:
        """Enter a try that the sink has answered for good, be it with a refusal."""
        self.failures = 0
        self._until = 0.0

    def failed(self, asked: float) -> None:
        """Enter a failed try, after which the sink *asked* to be left alone for that many seconds."""
        self.failures += 1
        wait = self._terms.wait(self.failures, asked)
        self._until = asyncio.get_running_loop().time() + (min(wait, HURRIED_WAIT) if self.hurried else wait)

    def hurry(self) -> None:
        """End the wait, and make all further ones short."""
        self._until = 0.0
        self._hurry.set()

    async def wait(self, most: float | None = None) -> None:
        """Wait until the next try may be made, for at most *most* seconds."""
        left = self._until - asyncio.get_running_loop().time()
        left = left if most is None else min(left, most)
        if left <= 0:
            return
        if self.hurried:
            await asyncio.sleep(left)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._hurry.wait()
