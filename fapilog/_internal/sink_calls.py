"""
Calls of a sink's coroutines, and what they say: nothing a sink raises, says or does ends its delivery.

Invariants:

1. `outcome_of()` hands back whatever a call raises, as a value. Only the interpreter's own ways out pass, and the cancellation
   of the task that makes the call: a `CancelledError` that nobody asked for is a failed call like any other.
2. `bounded()` returns in its time even if the call swallows its cancellation.
3. What stands in an exception of a sink's is read without trust: a number that is none, or cannot be, is as good as not said.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fapilog.errors import SinkUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

UNWINDING = 0.05  # seconds that a cancelled call has to end in


async def outcome_of(call: Callable[[], Awaitable[object]]) -> BaseException | None:
    """Make *call* and return what it raised, or *None*."""
    try:
        await call()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and asked_to_stop():
            raise
        return error.with_traceback(None)  # whose frames hold the batch
    return None


async def bounded(
    call: Callable[[], Awaitable[object]], seconds: float
) -> tuple[BaseException | None, asyncio.Task[BaseException | None] | None]:
    """Make *call* for at most *seconds*; return what it raised, and the task that is still in it although it was cancelled."""
    task = asyncio.create_task(outcome_of(call))
    await asyncio.wait([task], timeout=seconds)
    if task.done():
        return task.result(), None
    task.cancel()
    await asyncio.wait([task], timeout=UNWINDING)
    return TimeoutError(), None if task.done() else task


def asked_to_stop() -> bool:
    """Whether somebody has cancelled the running task, be it that a sink has swallowed that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def wait_asked(error: BaseException) -> float:
    """Return for how many seconds the sink that raised *error* asks not to be called; 0 if it does not."""
    asked: Any = getattr(error, "retry_after", None) if isinstance(error, SinkUnavailable) else None
    return max(0.0, asked) if isinstance(asked, int | float) and asked == asked else 0.0  # noqa: PLR0124 - NaN


def share(number: object, most: int) -> int:
    """Return how many events of *most* a sink speaks of, or the nearest that is possible; 0 for what is no number."""
    return max(0, min(number, most)) if isinstance(number, int) else 0


def described(error: BaseException, form: Callable[[BaseException], str] = repr) -> str:
    """Return *error* as text; one that cannot be shown, by its class."""
    try:
        return form(error)
    except Exception:
        return f"{type(error).__name__}(...)"
