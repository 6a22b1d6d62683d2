"""
The doors through which a process may leave, each drained once.

Invariants:

1. Every door calls the same drain, which is idempotent and belongs to the process that calls it: after a fork the child's doors
   drain the child.
2. A door is chained, never replaced: a signal that somebody handles is left to them, and one at its default is drained, set
   back to the default and sent again, so exit codes do not change. A server that will restore and re-raise is joined.
3. Doors are armed once; a fork inherits them.

`threading._register_atexit` is the one callback that also runs in children of `multiprocessing`; its callbacks run when the main
thread has ended and before non-daemon threads are joined, newest first, so it is registered after `concurrent.futures.thread`
has registered its own.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - registers its exit hook before ours
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from types import FrameType

ABORT_LIMIT = 0.15  # beside the hub's margin of 0.35 s: half a second in all
_armed = False


def arm_exit(flush: Callable[[], object], drain: Callable[[], object]) -> None:
    """
    Arm the interpreter's two exit doors, once per program.

    Args:
        flush: Called when the main thread has ended while other non-daemon threads go on logging.
        drain: Called when nothing else will log.
    """
    global _armed
    if _armed:
        return
    _armed = True

    def main_thread_ended() -> None:
        me = threading.current_thread()
        alone = all(thread.daemon or thread is me or thread is threading.main_thread() for thread in threading.enumerate())
        (drain if alone else flush)()

    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        try:
            register(main_thread_ended)
        except RuntimeError:  # the interpreter is past that point; atexit is still to come
            pass
    atexit.register(drain)


def guard_signals(numbers: Iterable[int], drain: Callable[[float | None], object], reopen: Callable[[], object]) -> None:
    """
    Drain before a signal at its default disposition ends the process; others are left alone. Main thread only, else no effect.

    Args:
        numbers: The signals.
        drain: Called with the time limit in seconds, *None* for the configured one, in the signal handler.
        reopen: Called if the process lives on: the kernel ignores a default SIGTERM to process 1 of a container.
    """
    if threading.current_thread() is not threading.main_thread():
        return

    def drain_and_die(number: int, _frame: FrameType | None) -> None:
        drain(ABORT_LIMIT if number == signal.SIGABRT else None)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, drain_and_die)
        reopen()

    for number in numbers:
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, drain_and_die)


def drain_before_abort(drain: Callable[[float | None], object]) -> None:
    """
    Drain before the handler that SIGABRT has, if it has one. Main thread only, else no effect.

    For a handler that only tells an event loop: where the loop is blocked, which is why somebody aborts, it would come too late.
    """
    previous = signal.getsignal(signal.SIGABRT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        return

    def drain_first(number: int, frame: FrameType | None) -> None:
        drain(ABORT_LIMIT)
        previous(number, frame)

    signal.signal(signal.SIGABRT, drain_first)


def join_uvicorn(drain: Callable[[], Awaitable[object]]) -> None:
    """
    Drain after the shutdown of the uvicorn server that runs in this process, if one does; any thread.

    uvicorn handles SIGTERM and SIGINT, and once it has shut down it sends the signal again with the disposition that it found,
    which in a child of `uvicorn --workers` is the default: then no exit hook runs. Its server object is found behind its handler.
    """
    server: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not any(base.__module__ == "uvicorn.server" for base in type(server).__mro__) or hasattr(server, "drains_fapilog"):
        return
    shutdown = server.shutdown

    async def shutdown_and_drain(*args: Any, **kwargs: Any) -> None:
        try:
            await shutdown(*args, **kwargs)
        finally:
            await drain()

    server.drains_fapilog = True
    server.shutdown = shutdown_and_drain
