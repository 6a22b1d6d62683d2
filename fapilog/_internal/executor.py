"""
Daemon threads for calls that may block: one of a sink's own, or as many as its calls need.

Invariants:

1. A call that never returns keeps neither the process nor another sink: the threads are daemons, and none of those of
   `concurrent.futures`, which the interpreter joins at exit.
2. The calls of a `SinkExecutor` run one after another, in the order of `submit()`. One of a `DaemonPool` waits for another only
   when `MAX_THREADS` are busy.
3. No thread exists before the first call, and it is a real one under gevent too.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from fapilog._internal.native import NativeFuture, SimpleQueue, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_THREADS = 32

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
            _do(*job)
            del job

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let the thread end after what was submitted; never waits, whatever *wait* says (invariant 1)."""
        del wait, cancel_futures
        if self._started:
            self._jobs.put(None)


class DaemonPool(ThreadPoolExecutor):
    """
    What a custom sink's loop runs blocking calls on: `asyncio.to_thread()`, name lookups, `run_in_executor(None, ...)`.

    It is a `ThreadPoolExecutor` because event loops insist on one; nothing of that class but its type is used.

    Args:
        name: Of the threads.
    """

    def __init__(self, name: str) -> None:
        super().__init__(1)
        self._label = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._count = 0
        self._free = 0
        self._over = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """
        Run ``fn(*args, **kwargs)`` on one of the threads; any thread.

        If there is none yet, and the interpreter is ending and starts no new ones (Python 3.12), it runs here and now: the caller
        is the loop of the sink that asks for it, and nobody else waits for that.

        Raises:
            RuntimeError: After `shutdown()`.
        """
        if self._over:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = NativeFuture()
        job = (future, lambda: fn(*args, **kwargs))
        # No call from the subtraction to the last question, hence atomic under the GIL: `_free` is how many threads have said
        # that they are free, less the jobs they were promised. So no job waits behind another that may never return.
        self._free = free = self._free - 1
        if free < 0 and self._count < MAX_THREADS:
            self._count += 1
            try:
                start_thread(self._run, self._label, deaf=False)
            except RuntimeError:
                self._count -= 1
                if not self._count:
                    _do(*job, self._be_free)
                    return future
        self._jobs.put(job)
        return future

    def _run(self) -> None:
        self._free += 1
        while (job := self._jobs.get()) is not None:
            _do(*job, self._be_free)
            del job
        self._jobs.put(None)  # for the next one

    def _be_free(self) -> None:
        self._free += 1

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """Let the threads end after what was submitted; never waits, whatever *wait* says (invariant 1)."""
        del wait, cancel_futures
        self._over = True
        self._jobs.put(None)


def _do(future: Future[Any], call: Callable[[], Any], then: Callable[[], object] = lambda: None) -> None:
    """Make a call and put what comes of it into its future; call *then* just before, or if there is nothing to do."""
    if not future.set_running_or_notify_cancel():
        then()
        return
    try:
        result = call()
    except BaseException as error:
        then()
        future.set_exception(error)
    else:
        then()
        future.set_result(result)
