"""
Celery: its pool's parent and children, its own logs, and the context of a task.

One line in the module of the Celery app: ``fapilog.servers.celery.install()``.

Invariants:

1. `install()` only connects to Celery's signals: a web process that imports the app to send tasks is not changed by it.
2. The parent of a prefork pool never has a thread of ours while it forks: it writes synchronously, as worker 0. With every other
   pool the process that is started runs the tasks, and is a worker like any other.
3. A child of the pool drains in `worker_process_shutdown`, the only door there is: billiard ends it by `os._exit()`. A signal
   that tells it a second time to end waits for that; the first has made the default its disposition.
4. Celery neither takes handlers from the root logger nor puts its own there. Its loggers, and those of `get_task_logger()`, are
   let through by `--loglevel`; of ours only a rule that names the logger decides too.
5. What is bound in the course of a task is unbound when it ends, also what its code has left.
6. A soft time limit that comes in the middle of a log call, which does not raise, comes again until it finds the task's own code
   or the task has ended; no other task meets it.

A receiver that raises is logged by Celery and does no more harm; none of these is to raise.
"""

from __future__ import annotations

import _thread
import copy
import logging
import logging.handlers
import os
import signal
import sys
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from billiard.common import TERM_SIGNAL
from billiard.util import Finalize
from celery import signals
from celery.concurrency import ALIASES
from celery.utils.log import ColorFormatter
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars, unbind_contextvars

from fapilog._internal import ledger
from fapilog._internal.frames import module_of
from fapilog._internal.route import route
from fapilog._internal.starting import recover_all
from fapilog.coordinator import coordinator
from fapilog.servers.setup import configure_or_exit, echo
from fapilog.stdlib import HubHandler

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

_MULTIPROCESSING = "multiprocessing"  # billiard's logger, which does not propagate
_PREFORK = ALIASES["prefork"]
_NOTES_DEATHS = "fapilog_notes_deaths"
_AGAIN = 0.001  # seconds until a soft time limit that came in a log call comes again


class _Process:
    """
    What is known of this process; a forked child inherits it.

    Attributes:
        parent: The process that was started as a worker, if this is it or a fork of it.
        child: Whether this is a child of the pool: between its tasks nothing is bound.
        task: What stands for the task that runs in a child of the pool; None between tasks.
        late: The task whose soft time limit comes once more.
        starting: Whether that is still on its way up.
        pool: billiard's, of which that is the parent.
        logfile: What writes its `--logfile`.
    """

    parent = 0
    child = False
    task: object = None
    late: object = None
    starting = True
    pool: Any = None
    logfile: logging.Handler | None = None


#: The context around the task that is running, and what this held in a task that runs that one eagerly.
_around: ContextVar[tuple[Mapping[str, Any], Any] | None] = ContextVar("fapilog_around_task", default=None)


def install() -> None:
    """
    Let fapilog follow what Celery's programs do; once, at import of the module of the Celery app. Idempotent.

    A worker then reads the settings when it starts, before it forks; `configure_logging()` with arguments, in that module or
    before it, goes first.
    """
    for each, receiver in (
        (signals.setup_logging, set_up_logging),
        (signals.worker_init, enter_parent),
        (signals.worker_ready, watch_pool),
        (signals.worker_process_init, enter_child),
        (signals.worker_process_shutdown, leave_child),
        (signals.worker_shutdown, leave_parent),
        (signals.beat_embedded_init, enter_beat),
        (signals.task_prerun, enter_task),
        (signals.task_postrun, leave_task),
    ):
        each.connect(receiver, weak=False, dispatch_uid=receiver.__qualname__)
    trace = logging.getLogger("celery.app.trace")
    if not any(isinstance(each, _EagerHandler) for each in trace.handlers):
        trace.addHandler(_EagerHandler())


def set_up_logging(loglevel: int, logfile: Any = None, format: str = "", **_: Any) -> None:  # noqa: A002 - Celery's names
    """
    Take the records of Celery's loggers at the level that it was told; the signal `setup_logging`, also in spawned children.

    Raises:
        SystemExit: A `FAPILOG_*` setting is wrong.
    """
    configure_or_exit()
    billiards = loglevel if os.environ.get("MP_LOG") else logging.ERROR  # as Celery has it
    for name, level in (("celery", loglevel), (_MULTIPROCESSING, billiards)):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not any(isinstance(each, _Handler) for each in logger.handlers):
            logger.addHandler(_Handler())
    if logfile:
        _write_too(logfile, format, loglevel)


def _write_too(logfile: Any, form: str, level: int) -> None:
    """Write Celery's text where the user wants it, as it does without us: one handler on the root, and its level."""
    if _Process.logfile is not None:  # the parent's, if each child has a file of its own
        logging.root.removeHandler(_Process.logfile)
    named = isinstance(logfile, str)
    handler = logging.handlers.WatchedFileHandler(logfile, encoding="utf-8") if named else logging.StreamHandler(logfile)
    handler.setFormatter(ColorFormatter(form, use_color=False))
    _Process.logfile = handler
    logging.root.addHandler(handler)
    logging.root.setLevel(level)


class _TaskHandler(HubHandler):
    """Takes Celery's records; what they say of a task is in fields of the names that other events have."""

    def log(self, record: logging.LogRecord) -> None:
        super().log(_with_fields(record))


class _Handler(_TaskHandler):
    """Takes those of a worker; errors of its start are also on stderr."""

    def __init__(self) -> None:
        super().__init__(obeys=False)

    def emit(self, record: logging.LogRecord) -> None:
        if _Process.starting:
            echo(record)
        super().emit(record)


class _EagerHandler(_TaskHandler):
    """Takes what is said of tasks that run in a process that is no worker, eagerly, if it has its records captured."""

    def emit(self, record: logging.LogRecord) -> None:
        spec = coordinator.spec
        if spec is not None and spec.settings.capture_stdlib and not _is_worker():
            super().emit(record)


def _is_worker() -> bool:
    return any(isinstance(each, _Handler) for each in logging.getLogger("celery").handlers)


def _with_fields(record: logging.LogRecord) -> logging.LogRecord:
    """
    Return a record about a task with the task's id, name and run time, and not with its arguments; any other as it is.

    The arguments may be anything, by position too, where no name tells of a secret; Celery's text does not show them either.
    """
    told = record.__dict__.get("data")
    if not isinstance(told, dict) or "id" not in told:
        return record
    record = copy.copy(record)
    del record.__dict__["data"]
    record.task_id, record.task = told["id"], told.get("name")
    runtime = told.get("runtime")
    if isinstance(runtime, int | float):
        record.duration_ms = round(runtime * 1000, 3)
    return record


def enter_parent(sender: Any = None, **_: Any) -> None:
    """Say that this process was started as a worker; *sender* knows its pool."""
    _Process.parent = os.getpid()
    if _forks(getattr(sender, "pool_cls", None)):
        coordinator.become_master()
    else:
        coordinator.become_worker()


def _forks(pool: Any) -> bool:
    """Whether a pool, a class or the name of one, is Celery's prefork pool; imports none: gevent's may not be patched yet."""
    if isinstance(pool, str):
        return bool(ALIASES.get(pool, pool) == _PREFORK)
    return any(f"{base.__module__}:{base.__name__}" == _PREFORK for base in getattr(pool, "__mro__", ()))


def watch_pool(sender: Any = None, **_: Any) -> None:
    """Leave a note about each child of the pool that dies, for the next one in its slot; the worker is up."""
    _Process.starting = False
    pool: Any = getattr(getattr(sender, "pool", None), "_pool", None)
    before = getattr(pool, "on_process_down", None)
    _Process.pool = pool
    if coordinator.state.role != "master" or not hasattr(pool, "on_process_down") or hasattr(before, _NOTES_DEATHS):
        return

    def on_process_down(process: Any) -> None:
        note_death(process)
        if before is not None:
            before(process)

    setattr(on_process_down, _NOTES_DEATHS, True)
    pool.on_process_down = on_process_down


def note_death(process: Any) -> None:
    """Leave a note about how *process*, a child that was reaped, has ended."""
    code = process.exitcode
    if coordinator.spec is not None and process.pid and code is not None:
        ledger.leave_note(coordinator.spec.run_dir(), process.pid, -code if code < 0 else code << 8)


def enter_child(**_: Any) -> None:
    """Start the hub of a child of the pool, with an empty context; the pool `solo` sends the same signal, and has no children."""
    if os.getpid() == _Process.parent:
        return
    _Process.starting = False
    clear_contextvars()
    _Process.child = True
    coordinator.become_worker()
    coordinator.start()


def leave_child(**_: Any) -> None:
    """Drain the hub of a child of the pool, whatever it is told meanwhile."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {TERM_SIGNAL, signal.SIGTERM})
    try:
        coordinator.drain()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def enter_beat(**_: Any) -> None:
    """Arm the door of the process that `--beat` forks, which ends by `os._exit()` after billiard's own finalizers."""
    Finalize(None, coordinator.drain, exitpriority=0)


def leave_parent(**_: Any) -> None:
    """Enter the children that died and have no successor, and drain the hub of the process that was started."""
    if coordinator.spec is not None and coordinator.state.role == "master":
        for process in getattr(_Process.pool, "_pool", ()):  # those that were reaped while the pool was closed
            note_death(process)
        recover_all(coordinator.spec, route.accept)
        ledger.bury(coordinator.spec.run_dir(), route.accept)
    coordinator.drain()


def enter_task(task_id: Any = None, task: Any = None, **_: Any) -> None:
    """Bind what every event in the course of a task has."""
    _heed_soft_limit()
    outer = _around.get()
    if outer is None:
        _Process.task = object()
    # What receivers before this one have bound belongs to the task, where nothing can have been bound before that.
    _around.set(({} if outer is None and _Process.child else get_contextvars(), outer))
    bind_contextvars(task_id=task_id, task=task.name)
    if task.request.retries:
        bind_contextvars(retries=task.request.retries)
    elif outer is not None:
        unbind_contextvars("retries")


def leave_task(**_: Any) -> None:
    """Let the context be what it was before the task."""
    around = _around.get()
    if around is None:
        return
    before, outer = around
    _around.set(outer)
    if outer is None:
        _Process.task = None
    clear_contextvars()
    bind_contextvars(**before)


def _heed_soft_limit() -> None:
    """Put ours in the place of the handler by which billiard raises `SoftTimeLimitExceeded`, which it sets after all hooks."""
    pool = sys.modules.get("billiard.pool")
    if pool is not None and signal.getsignal(pool.SIG_SOFT_TIMEOUT) is pool.soft_timeout_sighandler:
        signal.signal(pool.SIG_SOFT_TIMEOUT, _soft_limit)


def _soft_limit(number: int, frame: FrameType | None) -> None:
    late, _Process.late = _Process.late, None
    if late is not None and late is not _Process.task:  # it has ended meanwhile, and the next one has time
        return
    inner = frame
    while inner is not None:
        if module_of(inner).startswith("fapilog."):
            # The plain module: `threading.Thread` takes locks that what is interrupted here may hold.
            if _Process.task is not None:
                _thread.start_new_thread(_come_again, (number, _Process.task))
            return
        inner = inner.f_back
    sys.modules["billiard.pool"].soft_timeout_sighandler(number, frame)


def _come_again(number: int, task: object) -> None:
    time.sleep(_AGAIN)
    _Process.late = task
    signal.pthread_kill(threading.main_thread().ident or 0, number)
