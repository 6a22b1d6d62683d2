"""
Gunicorn's dirty arbiter and dirty workers: found at the fork that makes them, and armed.

Invariants:

1. Nothing here imports gunicorn; `arm_newborn()` runs in the at-fork hook of a child: it looks at frames and sets attributes.
2. A dirty arbiter is a master: it forks its workers out of a running event loop, so it has no thread of ours, and writes
   synchronously.
3. A dirty worker ends by `os._exit()`, which runs no exit hook. It drains when its `init_process()` is over, however that went:
   that is the last thing to be called before, after the applications' `close()`.
4. It handles every signal that is to end it, so no guard is set; on SIGABRT, which SIGKILL follows, its drain is a short one.
5. One that was not found at its fork, because fapilog was imported later, is found behind its signal handler when its hub starts.

What a drain cannot do, and what a SIGKILL leaves, is in the journal (`recovery`).
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from fapilog._internal.arbiter import also, follow_reopening
from fapilog._internal.frames import frames, module_of

if TYPE_CHECKING:
    from types import FrameType

    from fapilog._internal.lifecycle import Doors

_ARMED = "_fapilog_armed"


def arm_newborn(doors: Doors) -> None:
    """Arm the dirty arbiter or dirty worker whose process a fork has just made, if it has; for the at-fork hook in the child."""
    if "gunicorn.dirty.arbiter" not in sys.modules:
        return
    for frame in frames():
        place = (module_of(frame), frame.f_code.co_name)
        if place == ("gunicorn.dirty.arbiter", "spawn_worker"):
            _arm_worker(frame.f_locals.get("worker"), doors)
            return
        if place == ("gunicorn.arbiter", "spawn_dirty_arbiter"):
            _arm_arbiter(getattr(frame.f_locals.get("self"), "dirty_arbiter", None), doors)
            return


def join_worker(doors: Doors) -> None:
    """Drain at the end of the dirty worker that runs in this process, if one does and nobody has armed it; any thread."""
    worker: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if any(base.__module__ == "gunicorn.dirty.worker" for base in type(worker).__mro__) and _first_time(worker):
        also(worker, "_cleanup", after=doors.drain)  # `init_process()` is under way
        follow_reopening(worker.log, doors)


def _arm_arbiter(arbiter: Any, doors: Doors) -> None:
    if _first_time(arbiter):
        doors.become_master(arbiter.cfg.uid, arbiter.cfg.gid)
        follow_reopening(arbiter.log, doors)


def _arm_worker(worker: Any, doors: Doors) -> None:
    if not _first_time(worker):
        return
    doors.become_worker()
    doors.hold()
    init_process, handle = worker.init_process, worker._signal_handler  # noqa: SLF001 - there is no other door

    def init_process_and_drain() -> None:
        try:
            init_process()
        finally:
            doors.drain()

    def handle_in_time(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGABRT:
            doors.hasten()
        handle(number, frame)

    worker.init_process, worker._signal_handler = init_process_and_drain, handle_in_time  # noqa: SLF001
    also(worker, "init_signals", after=doors.let_go)  # by then it runs as its final user
    follow_reopening(worker.log, doors)


def _first_time(armed: Any) -> bool:
    """Whether *armed* is there and was not armed: a child that it forks has the same frames above it."""
    if armed is None or getattr(armed, _ARMED, False):
        return False
    setattr(armed, _ARMED, True)
    return True
