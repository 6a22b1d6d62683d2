"""
Gunicorn without its hooks: who is its master, which worker is being forked, and how a worker is armed.

Invariants:

1. Nothing here imports gunicorn: where `gunicorn.arbiter` is not loaded, the answers are None.
2. `newborn()` and `arm()` run in the at-fork hook of a child: they look at frames and set attributes, no more.
3. `arm()` is idempotent per worker, so the at-fork hook, our `post_fork` and a user's call of it may all come.
4. What a worker does on a signal is wrapped on the worker object; the handler stays gunicorn's.

gunicorn resets a worker's signals in `init_signals()`, after `post_fork` and after it has changed user, and its UvicornWorker
leaves TERM, INT, QUIT and ABRT at their defaults there; uvicorn later saves, restores and re-raises what it finds. So the guard
is set, and the hub may start, right after `init_signals()`.
"""

from __future__ import annotations

import functools
import signal
import sys
from typing import TYPE_CHECKING, Any, Protocol

from fapilog._internal import lifecycle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SERVER_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGABRT)  # what a server may leave at its default
ABORT_HANDLERS = ("handle_abort", "handle_abort_signal")
_ARMED = "_fapilog_armed"


class Doors(Protocol):
    """What `arm()` needs of the coordinator."""

    def become_worker(self) -> None: ...
    def hold(self) -> None: ...
    def let_go(self) -> None: ...
    def arm_exits(self) -> None: ...
    def drain(self, timeout: float | None = None) -> object: ...
    def open(self) -> None: ...
    def hasten(self) -> None: ...
    def reopen(self) -> None: ...


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - as the standard library's logging does
    while frame is not None:
        yield frame
        frame = frame.f_back


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def master() -> Any:
    """Return the gunicorn `Application` or `Arbiter` that is running up the stack if this process is its master, else None."""
    if "gunicorn.arbiter" not in sys.modules:
        return None
    application = None
    for frame in _frames():
        module = _module(frame)
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
    return "gunicorn.arbiter" in sys.modules and any(_module(frame) == "gunicorn.arbiter" for frame in _frames())


def newborn() -> Any:
    """Return the gunicorn worker whose process this fork has just made, else None; for the at-fork hook in the child."""
    if "gunicorn.arbiter" not in sys.modules:
        return None
    for frame in _frames():
        if frame.f_code.co_name == "spawn_worker" and _module(frame) == "gunicorn.arbiter":
            return frame.f_locals.get("worker")
    return None


def arm(worker: Any, doors: Doors) -> None:
    """Arm every door that *worker* can leave through, and hold its first events until it has its final user."""
    if getattr(worker, _ARMED, False):
        return
    setattr(worker, _ARMED, True)
    doors.become_worker()
    doors.hold()
    doors.arm_exits()

    def started() -> None:
        doors.let_go()
        lifecycle.guard_signals(SERVER_SIGNALS, doors.drain, doors.open)
        if hasattr(worker, "handle_abort_signal"):
            lifecycle.drain_before_abort(doors.drain)

    _also(worker, "init_signals", after=started)
    for name in ABORT_HANDLERS:
        if hasattr(worker, name):
            _also(worker, name, before=doors.hasten)
    adopt = getattr(worker.log, "adopt_worker", None)
    if adopt is not None:
        adopt(worker)
    follow_reopening(worker.log, doors)


def follow_reopening(log: Any, doors: Doors) -> None:
    """Reopen our files whenever the gunicorn logger *log* reopens its own, which is what gunicorn does on SIGUSR1."""
    if not getattr(log, "reopens_fapilog", False):
        log.reopens_fapilog = True
        _also(log, "reopen_files", after=doors.reopen)


def _also(target: Any, name: str, *, before: Callable[[], None] | None = None, after: Callable[[], None] | None = None) -> None:
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
