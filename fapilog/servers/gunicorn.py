"""
Gunicorn: which process is what, and the doors of its workers.

Invariants:

1. `post_fork` alone is enough: it arms every door that a worker can leave through, whatever the worker class.
2. The master never has a thread of ours while it forks: it writes synchronously, as worker 0.
3. No hook raises into gunicorn, and none replaces a signal handler that gunicorn or uvicorn has set.

gunicorn resets a worker's signals in `init_signals()`, after `post_fork`, and its UvicornWorker leaves TERM, INT, QUIT and ABRT
at their defaults there; uvicorn later saves, restores and re-raises what it finds. So the guard is set right after
`init_signals()`, by wrapping it on the worker object.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from fapilog import bootstrap
from fapilog.coordinator import coordinator
from fapilog.errors import ConfigurationError
from fapilog.pipeline import route


def configure_master() -> None:
    """
    Set up in the process that reads gunicorn's configuration: its settings are validated before any worker is forked.

    Raises:
        SystemExit: With the one line that says which setting is wrong.
    """
    if is_loading():
        coordinator.become_master()
    if route.configured:
        return
    try:
        bootstrap.configure_logging()
    except ConfigurationError as error:
        raise SystemExit(f"fapilog: {error}") from None


def is_loading() -> bool:
    """Return whether gunicorn is reading its configuration up the stack: then this process is a master."""
    frame = sys._getframe(1)  # noqa: SLF001 - as above: who is calling decides
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("gunicorn.workers.") or frame.f_code.co_name == "spawn_worker":
            return False  # a worker, forked from inside the master's stack
        if module.startswith("gunicorn.app."):
            return True
        frame = frame.f_back  # type: ignore[assignment]
    return False


def enter_master() -> None:
    """Say that this process is a master."""
    coordinator.become_master()


def enter_worker(worker: Any) -> None:
    """Arm the doors of a worker that was just forked."""
    coordinator.become_worker()
    coordinator.arm_exits()
    init_signals = worker.init_signals

    @functools.wraps(init_signals)
    def guarded() -> None:
        init_signals()
        coordinator.guard_server_signals()

    worker.init_signals = guarded


def leave() -> None:
    """Drain the hub of this process."""
    coordinator.drain()
