"""
The bound logger: structlog's interface, a short path through the pipeline.

Invariants:

1. Both `fapilog.get_logger()` and, after `configure_logging()`, `structlog.get_logger()` give this class and its behaviour.
2. A disabled call compares two numbers and returns.
3. A logger belongs to no process: bound, cached or inherited over a fork, it writes where its process writes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from structlog import BoundLoggerBase

from fapilog.encoding import safe_text
from fapilog.pipeline import LEVEL_NAMES, LEVELS_BY_NAME, Gate, emit, gates

#: The user's own processors. One list per process, mutated in place, so that cached and bound loggers see changes.
processors: list[Any] = []

_MISSING: Any = object()
_OURS = ("fapilog", "structlog")


class LoggerCore:
    """What a bound logger wraps: a name and its gate. structlog calls it the wrapped logger."""

    __slots__ = ("gate", "name")

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.gate = gates.of(name)

    def __repr__(self) -> str:
        return f"LoggerCore({self.name!r})"

    def __reduce__(self) -> tuple[type[LoggerCore], tuple[str | None]]:
        return LoggerCore, (self.name,)


def core_factory(*args: Any) -> LoggerCore:
    """Make the core for `structlog.get_logger(*args)`; without a name, the calling module's is used."""
    return LoggerCore(args[0] if args and isinstance(args[0], str) else calling_module())


def calling_module() -> str | None:
    """Return the name of the first module up the stack that is neither fapilog nor structlog."""
    frame = sys._getframe(1)  # noqa: SLF001 - as the standard library's logging does
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in _OURS:
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _interpolated(event: Any, args: tuple[Any, ...]) -> Any:
    """Format as structlog does; what does not fit is shown beside the raw text, since a log call must not raise."""
    try:
        if len(args) == 1 and isinstance(args[0], Mapping) and args[0]:
            return event % args[0]
        return event % args
    except Exception:
        return f"{event if isinstance(event, str) else safe_text(event)} {safe_text(args)}"


def _named_level(level: object) -> int:
    """Return the number of the named level at or below *level*; INFO for what is no level, since a log call must not raise."""
    if isinstance(level, str):
        return LEVELS_BY_NAME.get(level.lower(), 20)
    return max(10, min(50, level // 10 * 10)) if isinstance(level, int) else 20


def _level_method(levelno: int) -> Callable[..., None]:
    level = LEVEL_NAMES[levelno]

    def log(self: FapilogLogger, event: Any = _MISSING, /, *args: Any, **fields: Any) -> None:
        if self._gate.level > levelno:
            return
        if args:
            event = _interpolated(event, args)
        elif event is _MISSING:
            event = fields.pop("event", None)
        emit(levelno, level, self._logger.name, event, self._context, fields, self._processors)  # type: ignore[arg-type]

    log.__name__ = log.__qualname__ = level
    log.__doc__ = f"Log *event* with *fields* at {level.upper()}; any thread or moment, never raises, never waits."
    return log


def _async_level_method(levelno: int) -> Callable[..., Any]:
    level = LEVEL_NAMES[levelno]

    async def alog(self: FapilogLogger, event: Any = _MISSING, /, *args: Any, **fields: Any) -> None:
        getattr(self, level)(*(() if event is _MISSING else (event,)), *args, **fields)

    alog.__name__ = alog.__qualname__ = f"a{level}"
    alog.__doc__ = f"The same as `{level}()`, for code written against structlog's async methods; there is nothing to wait for."
    return alog


class FapilogLogger(BoundLoggerBase):
    """
    A structlog bound logger (`structlog.typing.FilteringBoundLogger`) that writes into fapilog.

    Made by `fapilog.get_logger()` and, once configured, by `structlog.get_logger()`.
    """

    def __init__(self, logger: Any, processors: Any, context: Any) -> None:
        super().__init__(
            logger if isinstance(logger, LoggerCore) else LoggerCore(getattr(logger, "name", None)), processors, context
        )
        self._gate: Gate = self._logger.gate

    debug = _level_method(10)
    info = msg = _level_method(20)
    warning = warn = _level_method(30)
    error = err = _level_method(40)
    critical = fatal = _level_method(50)
    adebug = _async_level_method(10)
    ainfo = amsg = _async_level_method(20)
    awarning = awarn = _async_level_method(30)
    aerror = _async_level_method(40)
    acritical = afatal = _async_level_method(50)

    def exception(self, event: Any = _MISSING, /, *args: Any, **fields: Any) -> None:
        """Log *event* at ERROR with the exception that is being handled."""
        fields.setdefault("exc_info", True)
        self.error(*(() if event is _MISSING else (event,)), *args, **fields)

    async def aexception(self, event: Any = _MISSING, /, *args: Any, **fields: Any) -> None:
        """Do the same from a coroutine."""
        self.exception(*(() if event is _MISSING else (event,)), *args, **fields)

    def log(self, level: int | str, event: Any = _MISSING, /, *args: Any, **fields: Any) -> None:
        """Log at *level*: a number of the standard library, rounded down to a named one, or a name."""
        getattr(self, LEVEL_NAMES[_named_level(level)])(*(() if event is _MISSING else (event,)), *args, **fields)

    async def alog(self, level: int | str, event: Any = _MISSING, /, *args: Any, **fields: Any) -> None:
        """Do the same from a coroutine."""
        self.log(level, *(() if event is _MISSING else (event,)), *args, **fields)

    def is_enabled_for(self, level: int) -> bool:
        """Return whether an event at *level* would be logged."""
        return self._gate.level <= level

    def get_effective_level(self) -> int:
        """Return the level from which this logger logs."""
        return self._gate.level

    def __reduce__(self) -> tuple[Callable[..., FapilogLogger], tuple[str | None, dict[str, Any]]]:
        return _restored, (self._logger.name, dict(self._context))


def _restored(name: str | None, context: dict[str, Any]) -> FapilogLogger:
    return FapilogLogger(LoggerCore(name), processors, context)


def get_logger(name: str | None = None, **bound: Any) -> FapilogLogger:
    """
    Return a logger. At import time or later, before or after `configure_logging()`, before or after a fork.

    Args:
        name: Shown as `logger` and matched by per-logger levels; the calling module's name by default.
        bound: Fields that every event of this logger has.
    """
    return FapilogLogger(LoggerCore(name or calling_module()), processors, bound)
