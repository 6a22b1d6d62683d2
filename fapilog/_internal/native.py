"""
The operating system's own threads, locks and waits, also where gevent has put green ones in their place.

Invariants:

1. The worker and the sinks always run on real threads. An event loop on a green thread would set the running loop of the whole
   application and stand still while any other green thread computes.
2. What a real thread and a green one share is a plain attribute, a deque or `SimpleQueue` of C: gevent's locks belong to green
   threads, and one that is held across the two may "block for ever".
3. `nap()` never enters gevent's hub, so it may be called from a signal handler or an exit hook; `pause()` lets other green
   threads run, where there are any and where that is possible.
4. `delivers()` is true wherever code runs because an event is being delivered: on our threads, on those of a custom sink's
   default executor, and inside a custom sink's `write_now()`, for that call alone and not for other green threads.
5. All of the package closes descriptors by `close_fd()`: at once, and without gevent's hub.

gevent may patch before or after this module is imported, so originals are looked up when they are used.
"""

from __future__ import annotations

import _queue
import _socket
import _thread
import asyncio
import contextlib
import logging
import math
import os
import select
import selectors
import signal
import sys
import threading
import time
from concurrent.futures import Future
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_MODULES = {"_thread": _thread, "os": os, "select": select, "selectors": selectors, "time": time}
SimpleQueue = _queue.SimpleQueue
_POLL = 0.001
_GREEN_POLL = 0.002
_asyncios_log = logging.getLogger("asyncio")  # looked up here: `getLogger()` takes a lock, which a fork may hold
#: Set while a custom sink's `write_now()` runs in a caller's thread; a context, because green threads share a real one.
writing_now: ContextVar[bool] = ContextVar("fapilog_writing_now", default=False)
_NOT_OURS = signal.valid_signals() - {
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGPROF, signal.SIGVTALRM)
}


def _original(module: str, name: str) -> Any:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(_MODULES[module], name)
    return monkey.get_original(module, name)


_running: list[str] = []  # the names of our threads that have begun and not ended
_this_thread = _original("_thread", "_local")()  # a real thread's own, and gone with it: ids of threads are used again


def is_green() -> bool:
    """Whether `threading.Thread` makes green threads in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def start_thread(run: Callable[[], object], name: str, *, deaf: bool = True) -> None:
    """
    Start a real daemon thread.

    Args:
        run: What it does.
        name: Its name, where threads have names.
        deaf: Whether it takes no signals: those that a program blocks in its own threads, to wait for them, must not end up here.
            Not where code of the user's runs, whose subprocesses would inherit that.

    Raises:
        RuntimeError: The interpreter is ending and starts no new threads (Python 3.12).
    """

    def marked() -> None:
        mark_thread()
        _running.append(name)
        try:
            run()
        finally:
            _running.remove(name)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_OURS) if deaf else None
    try:
        if is_green():
            _original("_thread", "start_new_thread")(marked, ())
        else:
            threading.Thread(target=marked, name=name, daemon=True).start()
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def thread_id() -> int:
    """Return the id of the real thread that is running."""
    ident: int = _original("_thread", "get_ident")()
    return ident


def close_fd(fd: int) -> None:
    """
    Close *fd* now.

    gevent's (from 25.8 on) closes what is no regular file when its hub runs next. Until then a forked child inherits it, and
    whoever closes a new descriptor with its number meanwhile lets other green threads run, and gets an error.
    """
    _original("os", "close")(fd)


def new_lock() -> _thread.LockType:
    """Return a lock for real threads alone, which hold it for a moment."""
    lock: _thread.LockType = _original("_thread", "allocate_lock")()
    return lock


def mark_thread() -> None:
    """Say that the calling thread is one of fapilog's own."""
    _this_thread.own = True


def on_own_thread() -> bool:
    """Whether the calling thread is one of fapilog's own: the worker's, a sink's, one of a custom sink's default executor."""
    return getattr(_this_thread, "own", False)


def delivers() -> bool:
    """Whether the calling code runs because an event is being delivered; what it logs would come back to it."""
    return on_own_thread() or writing_now.get()


def wait_for_own_threads(seconds: float) -> None:
    """Let threads that were told to end come to their end, for at most *seconds*; where a fork may follow at once."""
    end = time.monotonic() + seconds
    while _running and time.monotonic() < end:
        nap(0.001)


def forget_threads() -> None:
    """Say that the calling thread is the program's; in a forked child, whichever thread forked."""
    _this_thread.own = False
    _running.clear()


def new_loop() -> asyncio.SelectorEventLoop:
    """Return an event loop for a real thread; asyncio's debug record about it stays out of the program's logs."""
    selector = _original("selectors", "DefaultSelector")()
    here = threading.get_ident()

    def not_here(record: logging.LogRecord) -> bool:
        return record.thread != here

    _asyncios_log.addFilter(not_here)
    try:
        return _NativeLoop(selector) if is_green() else asyncio.SelectorEventLoop(selector)
    finally:
        _asyncios_log.removeFilter(not_here)


class _NativeLoop(asyncio.SelectorEventLoop):
    """
    A loop that wakes itself through a real pair of sockets, and asks the system's own resolver.

    gevent's would make a gevent hub on our thread, and with it import modules, which on Python 3.13 waits for locks of gevent's.
    """

    async def getaddrinfo(self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:  # noqa: A002 - asyncio's names
        return await self.run_in_executor(None, _socket.getaddrinfo, host, port, family, type, proto, flags)

    def _make_self_pipe(self) -> None:
        self._ssock, self._csock = _socket.socketpair()
        self._ssock.setblocking(False)
        self._csock.setblocking(False)
        self._internal_fds += 1  # type: ignore[attr-defined]
        self._add_reader(self._ssock.fileno(), self._read_from_self)  # type: ignore[attr-defined]


def nap(seconds: float) -> None:
    """Sleep with the whole thread, green threads included."""
    _original("time", "sleep")(seconds)


def came(done: Callable[[], bool], seconds: float) -> bool:
    """
    Wait with the whole thread until *done*, for at most *seconds*; one of fapilog's own threads does not wait.

    Returns:
        Whether that came.
    """
    end = time.monotonic() + (0.0 if on_own_thread() else seconds)
    while not done():
        if time.monotonic() >= end:
            return False
        nap(_POLL)
    return True


def pause(seconds: float) -> None:
    """Sleep, and let other green threads run meanwhile."""
    if is_green() and not _in_gevents_hub():
        time.sleep(seconds)
    else:
        nap(seconds)


def room_in(fd: int, seconds: float) -> int:
    """
    Wait until a pipe, socket or terminal can be written to, for at most *seconds*, letting other green threads run meanwhile.

    Returns:
        The flags of poll(2): 0 when the time is over, ``POLLERR`` or ``POLLHUP`` among them when nobody reads any more.
    """
    poller = _original("select", "poll")()
    poller.register(fd, select.POLLOUT)
    green = is_green() and not on_own_thread()
    end = time.monotonic() + seconds
    while not (found := poller.poll(0 if green else max(0, math.ceil(seconds * 1000)))) and green and time.monotonic() < end:
        pause(_GREEN_POLL)
    return found[0][1] if found else 0


def _in_gevents_hub() -> bool:
    hub = sys.modules["gevent._hub_local"].get_hub_if_exists()
    return hub is None or sys.modules["gevent"].getcurrent() is hub


class NativeFuture(Future[Any]):
    """A `concurrent.futures.Future` whose lock is a real one."""

    def __init__(self) -> None:
        super().__init__()
        self._condition = threading.Condition(_original("_thread", "RLock")())


class Asked:
    """
    What another thread's event loop was asked to do; to be looked at, not waited for.

    Attributes:
        done: Whether it is over.
        result: What it returned; *None* if it failed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Ask; raises RuntimeError if the loop is closed."""
        self.done = False
        self.result: Any = None
        self._make = make
        self._loop = loop
        loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._loop.create_task(self._make()).add_done_callback(self._settle)

    def _settle(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.result = task.result()
        self.done = True


async def elsewhere(loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """
    Run the coroutine that *make* makes on another thread's *loop*; return what it returns, raise what it raises.

    Raises:
        RuntimeError: That loop is closed.
    """
    here = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = here.create_future()
    tasks: list[asyncio.Task[Any]] = []

    def begin() -> None:
        tasks.append(loop.create_task(make()))
        tasks[0].add_done_callback(over)

    def over(task: asyncio.Task[Any]) -> None:
        try:
            here.call_soon_threadsafe(_transfer, task, outcome)
        except RuntimeError:  # whoever asked is gone
            return

    def cancel() -> None:
        for task in tasks:
            task.cancel()

    loop.call_soon_threadsafe(begin)
    try:
        return await outcome
    except asyncio.CancelledError:
        with contextlib.suppress(RuntimeError):  # it is closed, and its tasks have ended; the cancellation stays one
            loop.call_soon_threadsafe(cancel)
        raise


def _transfer(task: asyncio.Task[Any], outcome: asyncio.Future[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if outcome.done():
        return
    if task.cancelled():
        outcome.cancel()
    elif error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(task.result())
