"""
Gunicorn: which process is what, the doors of its workers, and hooks that go together with the user's own.

Invariants:

1. `post_fork` alone is enough: it arms every door that a worker can leave through, whatever the worker class.
2. The master never has a thread of ours while it forks: it writes synchronously, as worker 0.
3. No hook raises into gunicorn, and none replaces a signal handler that gunicorn or uvicorn has set.
4. A user's hook runs exactly once, with gunicorn's arguments, and what it raises arrives at gunicorn. Ours runs before it where
   something starts, after it where something ends.

gunicorn takes one function per hook and looks at its signature, so a composed hook has the hook's own parameters, by position.
Hooks are composed in two places: by `wrap()` in what is there when it is called, and by `compose()` in the finished
configuration, which our logger class calls; so it does not matter whether the user's hooks are defined before or after.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fapilog._internal import arbiter, ledger
from fapilog._internal.route import route
from fapilog._internal.starting import recover_all
from fapilog.coordinator import coordinator
from fapilog.errors import ConfigurationError
from fapilog.servers.setup import configure_or_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Container, MutableMapping

    Hook = Callable[..., object]

_OURS = "fapilog_hook"
LAST_PATIENCE = 0.5  # seconds that killed workers may take to be gone


def enter_master(server: Any) -> None:
    """Say that this process is a master whose arbiter is *server*."""
    coordinator.become_master(server.cfg.uid, server.cfg.gid)
    arbiter.follow_reopening(server.log, coordinator)


def enter_worker(worker: Any) -> None:
    """Arm the doors of a worker that was just forked."""
    arbiter.arm(worker, coordinator)


def leave_worker(worker: Any) -> None:
    """Drain the hub of a worker; gunicorn also calls its hook in the master, for a worker that was gone already."""
    if worker.pid == os.getpid():
        coordinator.drain()


def note_death(worker: Any) -> None:
    """Leave a note about how *worker* has ended, for the next process in its slot; in the master, which must not be held up."""
    if coordinator.spec is not None and coordinator.state.role == "master":
        ledger.leave_note(coordinator.spec.run_dir(), worker.pid, arbiter.status_of_reaped())


def leave_master(server: Any) -> None:
    """Enter the workers of *server* that died and have no successor, and drain the hub of the master."""
    if coordinator.spec is not None and coordinator.state.role == "master":
        run_dir = coordinator.spec.run_dir()
        # Those that gunicorn has just killed for want of an answer: it does not wait for them, nor call `child_exit`.
        for pid, status in arbiter.ended(getattr(server, "WORKERS", ()), LAST_PATIENCE):
            ledger.leave_note(run_dir, pid, status)
        recover_all(coordinator.spec, route.accept)
        ledger.bury(run_dir, route.accept)
    coordinator.drain()


def wrap_on_starting(hook: Hook) -> Hook:
    """Return an `on_starting` hook that runs ours and then *hook*; also as a decorator."""

    def on_starting(server: Any) -> None:
        enter_master(server)
        hook(server)

    return _marked(on_starting)


def wrap_post_fork(hook: Hook) -> Hook:
    """Return a `post_fork` hook that runs ours and then *hook*; also as a decorator."""

    def post_fork(server: Any, worker: Any) -> None:
        enter_worker(worker)
        hook(server, worker)

    return _marked(post_fork)


def wrap_worker_exit(hook: Hook) -> Hook:
    """Return a `worker_exit` hook that runs *hook* and then, whatever it raises, ours; also as a decorator."""

    def worker_exit(server: Any, worker: Any) -> None:
        try:
            hook(server, worker)
        finally:
            leave_worker(worker)

    return _marked(worker_exit)


def wrap_child_exit(hook: Hook) -> Hook:
    """Return a `child_exit` hook that runs ours and then *hook*; also as a decorator."""

    def child_exit(server: Any, worker: Any) -> None:
        note_death(worker)
        hook(server, worker)

    return _marked(child_exit)


def wrap_dirty_worker_exit(hook: Hook) -> Hook:
    """Return a `dirty_worker_exit` hook, which runs in the dirty arbiter, that runs ours and then *hook*; also as a decorator."""

    def dirty_worker_exit(arbiter: Any, worker: Any) -> None:
        note_death(worker)
        hook(arbiter, worker)

    return _marked(dirty_worker_exit)


def wrap_on_exit(hook: Hook) -> Hook:
    """Return an `on_exit` hook that runs *hook* and then, whatever it raises, ours; also as a decorator."""

    def on_exit(server: Any) -> None:
        try:
            hook(server)
        finally:
            leave_master(server)

    return _marked(on_exit)


_WRAPPERS: dict[str, tuple[Callable[[Hook], Hook], int]] = {
    "on_starting": (wrap_on_starting, 1),
    "post_fork": (wrap_post_fork, 2),
    "worker_exit": (wrap_worker_exit, 2),
    "child_exit": (wrap_child_exit, 2),
    "dirty_worker_exit": (wrap_dirty_worker_exit, 2),
    "on_exit": (wrap_on_exit, 1),
}


def _marked(hook: Hook) -> Hook:
    setattr(hook, _OURS, True)
    return hook


def _nothing(*_args: Any) -> None:
    """Stand in for a hook that the user does not have."""


def wrap(options: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """
    Put our hooks and our logger class into gunicorn settings, together with the hooks that are there.

    In a conf file: ``fapilog.servers.gunicorn.wrap(globals())``, anywhere in it. For an embedded gunicorn without one: on the
    dict of options. A hook may be a function or an import string. A `logger_class` of the user's own stays; the server's own
    lines are then not logged through the hub, and hooks defined *after* the call replace ours.

    Returns:
        *options*, changed in place.

    Raises:
        ConfigurationError: A hook cannot be composed; the message names it.
        SystemExit: A `FAPILOG_*` setting is wrong.
    """
    if not hasattr(options, "setdefault"):
        message = f"wrap(): {options!r} is not a namespace; in a conf file write wrap(globals())"
        raise ConfigurationError(message)
    from gunicorn.config import make_settings

    configure_or_exit()
    for name in _known(make_settings()):
        options[name] = _composed(name, options.get(name))
    if options.get("logger_class") is None:
        options["logger_class"] = "fapilog.servers.gunicorn_logger.Logger"
    return options


def compose(cfg: Any) -> None:
    """Compose our hooks with those of a finished gunicorn configuration; idempotent."""
    for name in _known(cfg.settings):
        cfg.set(name, _composed(name, cfg.settings[name].get()))


def _known(settings: Container[str]) -> list[str]:
    """Return the hooks that this gunicorn has: before 25 there are no dirty workers."""
    return [name for name in _WRAPPERS if name in settings]


def _composed(name: str, hook: Any) -> Hook:
    from gunicorn.config import validate_callable

    wrapper, arity = _WRAPPERS[name]
    if getattr(hook, _OURS, False):
        return hook  # type: ignore[no-any-return]
    if hook is None:
        return wrapper(_nothing)
    try:
        return wrapper(validate_callable(arity)(hook))
    except (TypeError, AttributeError, ImportError, ValueError) as error:
        message = f"{name}: {hook!r} cannot be composed with fapilog's hook: {error}"
        raise ConfigurationError(message) from error


on_starting = wrap_on_starting(_nothing)
post_fork = wrap_post_fork(_nothing)
worker_exit = wrap_worker_exit(_nothing)
child_exit = wrap_child_exit(_nothing)
dirty_worker_exit = wrap_dirty_worker_exit(_nothing)
on_exit = wrap_on_exit(_nothing)
