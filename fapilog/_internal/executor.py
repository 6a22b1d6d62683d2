"""
A sink's own daemon thread for calls that may block.

Invariants:

1. A call that never returns keeps neither the process nor another sink: the thread is a daemon, and it is not one of
   `concurrent.futures`' own, which the interpreter joins at exit.
2. Calls run one after another, in the order of `submit()`.
3. No thread exists before the first call, and it is a real one under gevent too.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from fapilog._internal.native import NativeFuture, SimpleQueue, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

_Job = tuple["Future[Any]", "Callable[[], Any]"]


class SinkExecutor(Executor):
    """
    An executor of one daemon thread.

    Args:
        name: Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._started = False

    def start(self) -> None:
        """Start the thread if it is not there yet; raises what `submit()` raises."""
        if not self._started:
            start_thread(self._run, self._name)
            self._started = True

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """
        Run ``fn(*args, **kwargs)`` on the thread. One thread at a time may submit.

        Raises:
            RuntimeError: The interpreter is ending and starts no new threads (Python 3.12).
        """
        future = NativeFuture()
        self.start()
        self._jobs.put((future, lambda: fn(*args, **kwargs)))
        return future

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            del job, future, call

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let the thread end after what was submitted; never waits, whatever *wait* says (invariant 1)."""
        del wait, cancel_futures
        if self._started:
            self._jobs.put(None)
