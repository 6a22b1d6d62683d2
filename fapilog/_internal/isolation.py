"""
The logging of this process, kept and brought back: for tests, a user's and our own.

Invariants:

1. After `restore()` the set-up is the one that was found: settings, sinks, levels, processors, structlog's configuration, the
   values of its contextvars, the target of `queue_sink`, the handler of SIGTERM.
2. What was accepted under another set-up is delivered, within `PATIENCE`, before that one is given up.
3. A set-up that did not change is left alone: its hub, its files and its counts go on.

Main thread, or a test's own one while no other sets logging up.
"""

from __future__ import annotations

import signal
from typing import Any

import structlog

from fapilog import logger as logger_module
from fapilog._internal import capture
from fapilog._internal.gates import gates
from fapilog._internal.route import Route, cool, route
from fapilog._internal.state import ProcessState
from fapilog.coordinator import coordinator
from fapilog.redaction import redaction

PATIENCE = 5.0

#: The attributes of the route themselves, also while `fapilog.testing` covers some of them.
SLOTS: dict[str, Any] = {name: getattr(Route, name) for name in Route.__slots__}


class FoundSetUp:
    """The set-up of this process at the moment when this object is made."""

    def __init__(self) -> None:
        hub = coordinator.state.hub
        self._spec = coordinator.spec
        self._hub = hub
        self._open = hub is not None and not hub.closed
        self._route = {name: slot.__get__(route) for name, slot in SLOTS.items()}
        self._redactor = redaction.current
        self._rules = gates.rules()
        self._processors = list(logger_module.processors)
        self._structlog = structlog.get_config() if structlog.is_configured() else None
        self._context = structlog.contextvars.get_contextvars()
        self._sigterm = signal.getsignal(signal.SIGTERM)
        self._capture = vars(capture._capture).copy()  # noqa: SLF001

    def restore(self) -> None:
        """Bring it back."""
        if self._spec is None:
            _unconfigure()
            cool()
        elif coordinator.spec is not self._spec:
            coordinator.configure(self._spec)
            coordinator.spec = self._spec
        if self._open:
            coordinator.open()
        if self._spec is not None:
            redaction.current = self._redactor
        self._restore_route()
        rules = dict(self._rules)
        gates.set(rules.pop("", 20), rules)
        logger_module.processors[:] = self._processors
        self._restore_structlog()
        self._restore_capture()
        self._restore_signal()

    def _restore_route(self) -> None:
        for name, value in self._route.items():
            if name != "accept" or coordinator.state.hub is self._hub:  # otherwise it belongs to a hub that is gone
                SLOTS[name].__set__(route, value)

    def _restore_structlog(self) -> None:
        if self._structlog is None:
            structlog.reset_defaults()
        else:
            structlog.configure(**self._structlog)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**self._context)

    def _restore_capture(self) -> None:
        if self._capture["active"]:
            capture.start(access=self._capture["access"])
        else:
            capture.stop()
        capture._capture.middleware = self._capture["middleware"]  # noqa: SLF001

    def _restore_signal(self) -> None:
        if self._sigterm is not None and signal.getsignal(signal.SIGTERM) is not self._sigterm:
            try:
                signal.signal(signal.SIGTERM, self._sigterm)
            except ValueError:  # not on the main thread, where no set-up can have changed it either
                return


def _unconfigure() -> None:
    """Make this process one that has never set logging up, or logged."""
    coordinator.drain(PATIENCE)
    coordinator.open()  # a drained hub is let go of
    slot = coordinator.state.slot
    if slot is not None:
        slot.release()
    coordinator.spec = None
    coordinator.state = ProcessState()
