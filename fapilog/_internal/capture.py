"""
The capture of the standard library's logging and warnings: switched on and off, and its levels.

Invariants:

1. Every record that propagates to the root logger arrives once, whatever becomes of the root's handlers: `dictConfig()`, Celery
   or a test that takes all of them away does not take ours. So the handler that takes the records does not stand among them; it
   stands on a listener *behind* the root, its parent, which `Logger.callHandlers()` comes to last.
   On the root itself there is a sign, which takes nothing: without any handler, `logging.info()` would set up a second output,
   on stderr. `basicConfig()` works as without us, because it does not see the sign.
2. A record that a `HubHandler` nearer to its logger has taken (a server adapter's, the user's) is not taken again.
3. A request that our middleware sees is not logged a second time from the server's access line.
4. No handler or filter of the user's is changed; of levels, see `levels`.
5. Warnings are taken at `warnings.showwarning`, not by `logging.captureWarnings()`: that would put them into the files of the
   user's handlers, too.

Nothing here runs at a log call but `_RootHandler`, which only reads.
"""

from __future__ import annotations

import functools
import logging
import re
import warnings
from typing import TYPE_CHECKING, Any

from fapilog._internal import levels
from fapilog._internal.access_records import is_access_record, log_access_record
from fapilog._internal.gates import gates
from fapilog._internal.native import delivers
from fapilog._internal.route import route
from fapilog.encoding import safe_text
from fapilog.logger import processors
from fapilog.pipeline import emit
from fapilog.stdlib import HubHandler, message_of

if TYPE_CHECKING:
    from collections.abc import Callable

WARNINGS = "py.warnings"
_WARNING_TEXT = re.compile(r"(.*?):(\d+): (\w+): (.*?)(\n  .*)?\n?", re.DOTALL)  # `warnings.formatwarning()`


class _RootHandler(HubHandler):
    """Takes what propagates to the root, unless somebody of ours has it already."""

    def log(self, record: logging.LogRecord) -> None:
        if _taken(record):
            return
        if is_access_record(record):
            if _capture.access and not _capture.middleware:
                log_access_record(record)
        elif (found := _warning_in(record)) is not None:
            _log_warning(*found)
        else:
            super().log(record)


class _Sign(HubHandler):
    """Stands on the root logger to say that logging is set up; takes nothing."""

    def handle(self, record: logging.LogRecord) -> bool:
        return False


class _Capture:
    """
    The state of the capture; a forked child inherits it as it is.

    Attributes:
        active: Whether it is on.
        access: Whether a server's access line becomes an access event.
        middleware: Whether our middleware was put around an application of this process.
        listener: What stands behind the root.
        sign: What stands on it.
        replaced: By each function of ours that stands in the place of another, that one.
    """

    def __init__(self) -> None:
        self.active = False
        self.access = True
        self.middleware = False
        self.listener: logging.Logger | None = None
        self.sign = _Sign()
        self.replaced: dict[Any, Any] = {}

    def stand_behind_the_root(self) -> None:
        """Put the listener last in the line of parents; idempotent."""
        if self.listener is None:
            self.listener = logging.Logger("behind the root")  # noqa: LOG001 - nobody shall find it by name
            self.listener.addHandler(_RootHandler())
        last: logging.Logger = logging.root
        while last is not self.listener and last.parent is not None:
            last = last.parent
        if last is not self.listener:
            last.parent = self.listener
        logging.root.addHandler(self.sign)

    def step_back(self) -> None:
        """Take the listener out of the line of parents."""
        logger: logging.Logger | None = logging.root
        while logger is not None and self.listener is not None:
            if logger.parent is self.listener:
                logger.parent = self.listener.parent
            logger = logger.parent
        self.listener = None
        logging.root.removeHandler(self.sign)


_capture = _Capture()


def start(*, access: bool = True) -> None:
    """
    Take the records of the standard library's logging and its warnings from now on; idempotent.

    Args:
        access: Whether a server's access line becomes an access event where our middleware does not serve.
    """
    _capture.active = True
    _capture.access = access
    _capture.stand_behind_the_root()
    _hide_the_sign()
    _show_warnings()
    follow_levels()


def stop() -> None:
    """Take nothing any more, and put everything back that we have changed; idempotent."""
    _capture.active = False
    _capture.step_back()
    for module, name in ((warnings, "showwarning"), (logging, "basicConfig")):
        current = getattr(module, name)  # somebody may have put another function around ours: then it stays, and passes
        setattr(module, name, _capture.replaced.pop(current, current))
    follow_levels()


def middleware_serves() -> None:
    """Say that our middleware sees this process's requests: the server's own access lines are not taken."""
    _capture.middleware = True


def has_middleware() -> bool:
    """Whether our middleware sees this process's requests."""
    return _capture.middleware


def follow_levels() -> None:
    """Let the standard library's loggers let through what `FAPILOG_LEVEL` and `set_level()` want; any thread."""
    levels.follow(gates.effective() if _capture.active else {})


gates.when_asked = follow_levels


def _taken(record: logging.LogRecord) -> bool:
    """Whether a `HubHandler` on the record's way to the root, or on the root, has taken it."""
    name = record.name
    logger: Any = logging.root if name == logging.root.name else logging.root.manager.loggerDict.get(name)
    while isinstance(logger, logging.Logger) and logger is not _capture.listener:
        for handler in logger.handlers:
            if isinstance(handler, HubHandler) and handler is not _capture.sign and record.levelno >= handler.level:
                return True
        logger = logger.parent if logger.propagate else None
    return False


def _hide_the_sign() -> None:
    """Put a function in the place of `logging.basicConfig` that lets it find the root's handlers as they are without us."""
    before = logging.basicConfig
    if before in _capture.replaced:
        return

    @functools.wraps(before)
    def basic_config(**options: Any) -> None:
        shown = _capture.sign in logging.root.handlers
        if shown:
            logging.root.removeHandler(_capture.sign)
        try:
            before(**options)
        finally:
            if shown:
                logging.root.addHandler(_capture.sign)

    _capture.replaced[basic_config] = before
    logging.basicConfig = basic_config


def _show_warnings() -> None:
    """Put a function in the place of `warnings.showwarning`, unless it is there or the program logs its warnings itself."""
    before: Callable[..., Any] = warnings.showwarning
    if before in _capture.replaced or before is getattr(logging, "_showwarning", None):
        return

    def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None) -> None:
        try:
            ours = file is None and _capture.active and not delivers()
            if ours:
                _log_warning(message, getattr(category, "__name__", category), filename, lineno)
        except RecursionError:
            route.unplaced += 1
            return
        if not ours:
            before(message, category, filename, lineno, file, line)

    _capture.replaced[show] = before
    warnings.showwarning = show


def _log_warning(message: object, category: object, filename: str, lineno: int) -> None:
    if gates.of(WARNINGS).level <= logging.WARNING:
        fields = {"category": category, "filename": filename, "lineno": lineno}
        emit(logging.WARNING, "warning", WARNINGS, _text(message), {}, fields, processors)


def _warning_in(record: logging.LogRecord) -> tuple[str, str, str, int] | None:
    """Return what `logging.captureWarnings(True)` has made one text of."""
    found = _WARNING_TEXT.fullmatch(message_of(record)) if record.name == WARNINGS else None
    return None if found is None else (found[4], found[3], found[1], int(found[2]))


def _text(message: object) -> str:
    try:
        return str(message)
    except Exception:
        return safe_text(message)
