"""
Gunicorn without its hooks: who is its master, which worker is being forked, and how a worker is armed.

Invariants:

1. Nothing here imports gunicorn: where `gunicorn.arbiter` is not loaded, the answers are None.
2. `newborn()` and `arm()` run in the at-fork hook of a child: they look at frames and set attributes, no more.
3. `arm()` is idempotent per worker, so the at-fork hook, our `post_fork` and a user's call of it may all come.
4. What a worker does on a signal is wrapped on the worker object; the handler stays gunicorn's.
5. A signal that is to end a worker ends it, also one that comes between the fork and `init_signals()`: until then the worker has
   the arbiter's handlers, which put it into a queue that nobody reads there, and the worker would live until it is killed. One
   that was in the queue before the fork comes twice, which does no harm: the arbiter is about to end its workers.

gunicorn resets a worker's signals in `init_signals()`, after `post_fork` and after it has changed user, and its UvicornWorker
leaves TERM, INT, QUIT and ABRT at their defaults there; uvicorn later saves, restores and re-raises what it finds. So the guard
is set, and the hub may start, right after `init_signals()`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from queue import Empty
from typing import TYPE_CHECKING, Any

from fapilog._internal import lifecycle
from fapilog._internal.frames import frames, module_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fapilog._internal.lifecycle import Doors

SERVER_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT)  # what a server may leave at its default
ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)  # with which an arbiter ends its workers
WAIT_STEP = 0.01
ABORT_HANDLERS = ("handle_abort", "handle_abort_signal")
_ARMED = "_fapilog_armed"


def master() -> Any:
    """Return the gunicorn `Application` or `Arbiter` that is running up the stack if this process is its master, else None."""
    if "gunicorn.arbiter" not in sys.modules:
        return None
    application = None
    for frame in frames():
        module = module_of(frame)
        if module.startswith("gunicorn.workers.") or frame.f_code.co_name == "spawn_worker":
            return None  # a worker, forked from inside the master's stack
        if module.startswith(("gunicorn.app.", "gunicorn.arbiter")):
            found = frame.f_locals.get("self")
            if getattr(found, "log", None) is not None:
                return found
            application = found if getattr(found, "cfg", None) is not None else application
    return application


def arbiter_above() -> bool:
    """Whether a gunicorn arbiter is up the stack: then a child that is forked now is not its master."""
    return "gunicorn.arbiter" in sys.modules and any(module_of(frame) == "gunicorn.arbiter" for frame in frames())


def newborn() -> Any:
    """Return the gunicorn worker whose process this fork has just made, else None; for the at-fork hook in the child."""
    if "gunicorn.arbiter" not in sys.modules:
        return None
    for frame in frames():
        if frame.f_code.co_name == "spawn_worker" and module_of(frame) == "gunicorn.arbiter":
            return frame.f_locals.get("worker")
    return None


def arm_newborn(doors: Doors) -> None:
    """Arm the gunicorn worker whose process this fork has just made, if it has; for the at-fork hook in the child."""
    worker = newborn()
    if worker is not None:
        arm(worker, doors)


def status_of_reaped() -> int | None:
    """Return the status, as of `os.waitpid()`, of the worker that gunicorn is reaping up the stack; its hooks are not told."""
    for frame in frames():
        if frame.f_code.co_name == "reap_workers" and module_of(frame) in {"gunicorn.arbiter", "gunicorn.dirty.arbiter"}:
            status = frame.f_locals.get("status")
            return status if isinstance(status, int) else None
    return None


def ended(pids: Iterable[int], seconds: float) -> Iterator[tuple[int, int]]:
    """Wait for children for at most *seconds* in all; tell which have ended, with the status of `os.waitpid()`, and reap none."""
    end = time.monotonic() + seconds
    for pid in list(pids) if hasattr(os, "waitid") else ():
        found = None
        try:
            while (found := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None and time.monotonic() < end:
                time.sleep(WAIT_STEP)
        except ChildProcessError:
            continue
        if found is not None:
            yield pid, found.si_status << 8 if found.si_code == os.CLD_EXITED else found.si_status


def arm(worker: Any, doors: Doors) -> None:
    """Arm every door that *worker* can leave through, and hold its first events until it has its final user."""
    if getattr(worker, _ARMED, False):
        return
    setattr(worker, _ARMED, True)
    doors.become_worker()
    doors.hold()
    doors.arm_exits()
    handler = signal.getsignal(signal.SIGTERM)

    def started() -> None:
        lifecycle.guard_signals(SERVER_SIGNALS, doors)  # first: a signal that ends the worker may come while the hub starts
        doors.let_go()
        for number in _put_by(handler):
            os.kill(os.getpid(), number)
        if hasattr(worker, "handle_abort_signal"):
            lifecycle.drain_before_abort(doors.drain)

    also(worker, "init_signals", after=started)
    for name in ABORT_HANDLERS:
        if hasattr(worker, name):
            also(worker, name, before=doors.hasten)
    adopt = getattr(worker.log, "adopt_worker", None)
    if adopt is not None:
        adopt(worker)
    follow_reopening(worker.log, doors)


def _put_by(handler: object) -> list[int]:
    """Return the signals that *handler*, an arbiter's, has put into its queue and that are to end this process."""
    queue: Any = getattr(getattr(handler, "__self__", None), "SIG_QUEUE", ())
    found = list(queue) if isinstance(queue, list | tuple) else []  # so it is up to Gunicorn 23
    with contextlib.suppress(Empty, AttributeError):
        while True:
            found.append(queue.get_nowait())
    return [number for number in ENDINGS if number in found]


def follow_reopening(log: Any, doors: Doors) -> None:
    """Reopen our files whenever the gunicorn logger *log* reopens its own, which is what gunicorn does on SIGUSR1."""
    if not getattr(log, "reopens_fapilog", False):
        log.reopens_fapilog = True
        also(log, "reopen_files", after=doors.reopen)


def also(
    target: Any, name: str, *, before: Callable[[], object] | None = None, after: Callable[[], object] | None = None
) -> None:
    """Let the method *name* of this one object do more."""
    method = getattr(target, name)

    @functools.wraps(method)
    def both(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before()
        result = method(*args, **kwargs)
        if after is not None:
            after()
        return result

    setattr(target, name, both)
