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
import stat
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

from fapilog._internal.native import close_fd, is_green, thread_id

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable
    from types import FrameType

ABORT_LIMIT = 0.15  # beside the hub's margin of 0.35 s: half a second in all
REPEAT_EVERY = 0.02
_armed = False
_begun: list[int] = []  # the signals whose guard has begun
_guards: dict[int, object] = {}
_pipe: tuple[int, int] | None = None
_main_thread = 0


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


class Doors(Protocol):
    """What leads out of a process, and what has to be told of it: the coordinator."""

    def become_master(self, uid: int | None = None, gid: int | None = None) -> None: ...
    def become_worker(self) -> None: ...
    def hold(self) -> None: ...
    def let_go(self) -> None: ...
    def arm_exits(self) -> None: ...
    def drain(self, timeout: float | None = None) -> object: ...
    def open(self) -> None: ...
    def postpone(self, number: int) -> bool: ...
    def hasten(self) -> None: ...
    def reopen(self) -> None: ...


def guard_signals(numbers: Iterable[int], doors: Doors) -> None:
    """
    Drain before a signal at its default disposition ends the process; others are left alone. Main thread only, else no effect.

    Args:
        numbers: The signals.
        doors: What drains, in the signal handler; opened again if the process lives on: the kernel ignores a default SIGTERM to
            process 1 of a container.
    """

    def drain_and_die(number: int, _frame: FrameType | None) -> None:
        _begun.append(number)
        if doors.postpone(number):
            return
        doors.drain(ABORT_LIMIT if number == signal.SIGABRT else None)
        if signal.getsignal(number) is not drain_and_die:  # called by a handler of the program's own, which goes on
            doors.open()
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, drain_and_die)
        doors.open()

    for number in numbers:
        if signal.getsignal(number) == signal.SIG_DFL:
            try:
                signal.signal(number, drain_and_die)
                _guards[number] = drain_and_die
            except ValueError:  # not on the main thread; asked like this because a green thread is not `threading.main_thread()`
                return


def tell_of_signals() -> int | None:
    """
    Return a descriptor that is told the signals that come; in the main thread of a child of `multiprocessing` or of a process
    with gevent, else *None*.

    A handler in Python does not run while the main thread waits in C. If SIGTERM comes just before such a wait begins, nothing
    interrupts the wait: whoever terminates the child and joins it (a pool) waits for ever, and gevent's loop, in which an idle
    process spends its life, goes on as if nobody had asked it to end. So the worker's thread repeats the signal until the
    handler has begun.
    """
    global _pipe, _main_thread
    process = sys.modules.get("multiprocessing.process")
    child = process is not None and process.parent_process() is not None
    if not (child or is_green()) or not _guards_sigterm():
        return None
    try:
        if _pipe is None:
            _pipe = os.pipe()
            os.set_blocking(_pipe[0], False)
            os.set_blocking(_pipe[1], False)
        before = signal.set_wakeup_fd(_pipe[1], warn_on_full_buffer=False)
    except (OSError, ValueError):  # no descriptors left; not on the main thread
        return None
    _main_thread = thread_id()  # `threading` may give a green thread's number
    if before in {-1, _pipe[1]}:
        return _pipe[0]
    signal.set_wakeup_fd(before)  # somebody's, an event loop's for example, who then handles signals
    return None


def stop_telling() -> None:
    """Undo `tell_of_signals()`, after a drain. The pipe stays, for the next hub; a loop may be about to listen to it."""
    if _pipe is not None:
        try:
            before = signal.set_wakeup_fd(-1)
            if before not in {_pipe[1], -1}:
                signal.set_wakeup_fd(before)
        except ValueError:  # not on the main thread: what is told goes nowhere, until the process ends
            return


def forget_signals() -> None:
    """Let a forked child have signals of its own, which its parent must not hear of."""
    _begun.clear()
    stop_telling()
    _close_pipe()


def _close_pipe() -> None:
    global _pipe
    ends, _pipe = _pipe or (), None
    for fd in ends:
        if _is_pipe(fd):
            close_fd(fd)


def _is_pipe(fd: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:  # the program has closed what it did not open
        return False


def _guards_sigterm() -> bool:
    """Whether the handler of SIGTERM is our guard, and it has not begun."""
    return signal.SIGTERM not in _begun and signal.getsignal(signal.SIGTERM) is _guards.get(signal.SIGTERM, _guards)


def was_missed(fd: int) -> bool:
    """Read what was told; return whether it was SIGTERM and its guard has not begun."""
    try:
        return signal.SIGTERM in os.read(fd, 64) and _guards_sigterm()
    except OSError:
        return False


def repeat(later: Callable[..., object]) -> None:
    """Send SIGTERM to the main thread, and again by *later* (`loop.call_later`), until its guard has begun."""
    if _guards_sigterm():
        signal.pthread_kill(_main_thread, signal.SIGTERM)
        later(REPEAT_EVERY, repeat, later)


def drain_before_abort(drain: Callable[[float | None], object]) -> None:
    """
    Drain before the handler that SIGABRT has, if it has one. Main thread only, else no effect.

    For a handler that only tells an event loop: where the loop is blocked, which is why somebody aborts, it would come too late.
    """
    previous = signal.getsignal(signal.SIGABRT)
    if not callable(previous):
        return

    def drain_first(number: int, frame: FrameType | None) -> None:
        drain(ABORT_LIMIT)
        previous(number, frame)

    signal.signal(signal.SIGABRT, drain_first)


def listen(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    """Let *loop* repeat each signal that comes in at *fd*, until its handler has begun."""
    loop.add_reader(fd, _repeat_on, loop, fd)


def _repeat_on(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    if was_missed(fd):
        loop.call_later(REPEAT_EVERY, repeat, loop.call_later)


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
