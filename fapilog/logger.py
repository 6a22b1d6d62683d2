"""
The bound logger: structlog's interface, a short path through the pipeline.

Invariants:

1. Both `fapilog.get_logger()` and, after `configure_logging()`, `structlog.get_logger()` give this class and its behaviour.
2. A disabled call compares two numbers and returns.
3. A logger belongs to no process: bound, cached, inherited over a fork or pickled, it writes where its process writes.
4. A logger never changes: `bind()`, `unbind()`, `try_unbind()` and `new()` return others and leave it as it was.
5. No name of a field is impossible: whatever Python takes as a keyword can be logged and bound.
6. A wrapper class of the user's own that keeps our `LoggerCore` as the wrapped logger writes into fapilog too.
"""

from __future__ import annotations

import copyreg
import sys
from typing import TYPE_CHECKING, Any, Self

import structlog

from fapilog._internal.chain import ForeignChain, event_in, unrendered
from fapilog._internal.formatting import interpolated
from fapilog._internal.gates import Gate, NamedLogger, gates
from fapilog._internal.plain import Plain
from fapilog._internal.route import route, settle
from fapilog.encoding import cut_text
from fapilog.pipeline import LEVEL_NAMES, LEVELS_BY_NAME, emit

if TYPE_CHECKING:
    from collections.abc import Callable

#: The user's own processors. One list per process, mutated in place, so that cached and bound loggers see changes.
processors: list[Any] = []

_MISSING: Any = object()
MAX_NAME = 1_024  # characters of a logger's
MAX_SHOWN = 200  # bound values in the `repr()` of a logger
_OURS = ("fapilog", "structlog")


def calling_module() -> str | None:
    """Return the name of the first module up the stack that is neither fapilog nor structlog."""
    frame = sys._getframe(1)  # noqa: SLF001 - as the standard library's logging does
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in _OURS:
            return name
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _named_level(level: object) -> int:
    """Return the number of the named level at or below *level*; INFO for what is no level, since a log call must not raise."""
    if isinstance(level, str):
        return LEVELS_BY_NAME.get(level.lower(), 20)
    return max(10, min(50, level // 10 * 10)) if isinstance(level, int) else 20


def _output_method(levelno: int, *, exc_info: bool = False) -> Callable[..., None]:
    level = LEVEL_NAMES[levelno]

    def output(self: LoggerCore, /, *args: Any, **fields: Any) -> None:
        try:
            if self.gate.level > levelno:
                return
            fields = unrendered((args, fields))
            if exc_info:
                fields.setdefault("exc_info", True)
            event, positional = event_in(fields), fields.pop("positional_args", ())
            fields.pop("event", None)
            if positional and isinstance(positional, tuple):  # from `structlog.stdlib.BoundLogger`
                event = interpolated(event, positional)
            emit(levelno, level, self.name, event, {}, fields, [])
        except RecursionError:
            route.unplaced += 1

    output.__name__ = output.__qualname__ = level
    output.__doc__ = f"Log at {level.upper()} what the last processor of a wrapper class of the user's own returned."
    return output


class LoggerCore(NamedLogger):
    """
    What a bound logger wraps: a name and its gate. structlog calls it the wrapped logger.

    `FapilogLogger` passes its methods by; they are for wrapper classes of the user's own, `structlog.stdlib.BoundLogger` among
    them, which run the processors themselves and call the method that is named like the level.
    """

    __slots__ = ("gate",)

    def __init__(self, name: str | None) -> None:
        super().__init__(name if name is None or len(name) <= MAX_NAME else cut_text(name, MAX_NAME))
        self.gate = gates.of(self.name)

    def __repr__(self) -> str:
        return f"LoggerCore({self.name!r})"

    def __reduce__(self) -> tuple[type[LoggerCore], tuple[str | None]]:
        return LoggerCore, (self.name,)

    debug = _output_method(10)
    info = msg = _output_method(20)
    warning = warn = _output_method(30)
    error = err = _output_method(40)
    critical = fatal = _output_method(50)
    exception = _output_method(40, exc_info=True)

    def log(self, level: int | str, /, *args: Any, **fields: Any) -> None:
        """Do the same at *level*, a number of the standard library or a name."""
        getattr(self, LEVEL_NAMES[_named_level(level)])(*args, **fields)

    def setLevel(self, level: int | str) -> None:  # noqa: N802 - logging's name
        """See `FapilogLogger.setLevel()`."""
        if isinstance(level, str) and level.lower() not in LEVELS_BY_NAME:
            raise ValueError(f"there is no level {level!r}")
        settle()
        gates.set_one(LEVELS_BY_NAME[level.lower()] if isinstance(level, str) else int(level), self.name or "")


def core_factory(*args: Any) -> LoggerCore:
    """Make the core for `structlog.get_logger(*args)`; without a name, the calling module's is used."""
    return LoggerCore(args[0] if args and isinstance(args[0], str) else calling_module())


def _level_method(levelno: int) -> Callable[..., None]:
    level = LEVEL_NAMES[levelno]

    def log(self: FapilogLogger, event: Any = _MISSING, /, *args: Any, **fields: Any) -> None:
        try:
            if self._gate.level > levelno:  # in here: CPython 3.11 wants a frame for it until it is specialised
                return
            if args:
                event = interpolated(event, args)
            elif event is _MISSING:
                event = fields.pop("event", None)
            emit(levelno, level, self._logger.name, event, self._context, fields, self._processors)  # type: ignore[arg-type]
        except RecursionError:
            route.unplaced += 1

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


class FapilogLogger(structlog.BoundLoggerBase):
    """
    A structlog bound logger (`structlog.typing.FilteringBoundLogger`) that writes into fapilog.

    Made by `fapilog.get_logger()` and, once configured, by `structlog.get_logger()`.
    """

    def __init__(self, logger: Any, processors: Any, context: Any) -> None:
        if not isinstance(logger, LoggerCore):
            logger, processors = _adopted(logger, processors)
        super().__init__(logger, processors, context)
        self._gate: Gate = self._logger.gate

    def __repr__(self) -> str:
        """Return what structlog shows, without secrets and bounded: loggers end up in other people's reports."""
        context = Plain(MAX_SHOWN, MAX_SHOWN * 10).guarded(dict(self._context))
        return f"<{type(self).__name__}(context={context!r}, processors={self._processors!r})>"

    @property
    def name(self) -> str | None:
        """What is shown as `logger`."""
        name: str | None = self._logger.name
        return name

    def bind(self, /, **new_values: Any) -> Self:
        """Return a logger with *new_values* added to those of this one."""
        return self.__class__(self._logger, self._processors, self._context.__class__(self._context, **new_values))

    def new(self, /, **new_values: Any) -> Self:
        """Return a logger with *new_values* instead of those of this one."""
        context = self._context.__class__()
        context.clear()  # some classes keep one state for all their instances (`structlog.threadlocal`)
        context.update(new_values)
        return self.__class__(self._logger, self._processors, context)

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
        try:
            fields.setdefault("exc_info", True)
            self.error(*(() if event is _MISSING else (event,)), *args, **fields)
        except RecursionError:
            route.unplaced += 1

    async def aexception(self, event: Any = _MISSING, /, *args: Any, **fields: Any) -> None:
        """Do the same from a coroutine."""
        self.exception(*(() if event is _MISSING else (event,)), *args, **fields)

    def log(self, level: Any = _MISSING, event: Any = _MISSING, /, *args: Any, **fields: Any) -> None:
        """Log at *level*: a number of the standard library, rounded down to a named one, or a name."""
        if level is _MISSING:
            level = fields.pop("level", None)
        try:
            getattr(self, LEVEL_NAMES[_named_level(level)])(*(() if event is _MISSING else (event,)), *args, **fields)
        except RecursionError:
            route.unplaced += 1

    async def alog(self, level: Any = _MISSING, event: Any = _MISSING, /, *args: Any, **fields: Any) -> None:
        """Do the same from a coroutine."""
        given = [each for each in (level, event) if each is not _MISSING]
        self.log(*given, *args, **fields)

    def is_enabled_for(self, level: int) -> bool:
        """Return whether an event at *level* would be logged."""
        settle()
        return self._gate.level <= level

    def get_effective_level(self) -> int:
        """Return the level from which this logger logs."""
        settle()
        return self._gate.level

    isEnabledFor = is_enabled_for  # noqa: N815 - logging's names, for code that was written for its loggers
    getEffectiveLevel = get_effective_level  # noqa: N815

    def setLevel(self, level: int | str) -> None:  # noqa: N802 - logging's name
        """
        Set the level of all loggers of this name and those below it, as `fapilog.set_level()` does.

        Raises:
            ValueError: There is no such level.
        """
        self._logger.setLevel(level)

    def __reduce__(self) -> tuple[Callable[..., FapilogLogger], tuple[Any, ...]]:
        chain = None if self._processors is processors else self._processors
        return _restored, (self.__class__, self._logger, chain, self._context.__class__(self._context))


def _restored(cls: type[FapilogLogger], core: LoggerCore, chain: Any, context: Any) -> FapilogLogger:
    return cls(core, processors if chain is None else chain, context)


def _adopted(logger: Any, chain: Any) -> tuple[LoggerCore, Any]:
    """Return the core and the processors for a *logger* that somebody has wrapped; with a *chain* of theirs, it is the output."""
    name = getattr(logger, "name", None)
    core = LoggerCore(name if isinstance(name, str) else calling_module())
    return core, chain if chain is processors else ForeignChain(chain, logger)


def pickle_proxies() -> None:
    """
    Let what `structlog.get_logger()` returns be pickled although it is cached.

    structlog's own way fails there, so that an object with such a logger could not be sent to a child process.
    """
    copyreg.pickle(type(structlog.get_logger()), _reduced_proxy)


def _reduced_proxy(proxy: Any) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    state = dict(vars(proxy))
    cached = state.pop("bind", None)
    if cached is not None and isinstance(cached(), FapilogLogger):
        return cached().__reduce__()  # type: ignore[no-any-return]
    config = structlog.get_config()
    own = [state["_logger"], state["_processors"], state["_wrapper_class"]]
    ours = own == [None] * 3 and config["processors"] is processors and issubclass(config["wrapper_class"], FapilogLogger)
    if ours:
        names = [name for name in state["_logger_factory_args"] if isinstance(name, str)]
        state["_logger"] = LoggerCore(names[0]) if names else None
        state["_wrapper_class"] = config["wrapper_class"]
    return _restored_proxy, (state, ours)


def _restored_proxy(state: dict[str, Any], ours: bool) -> Any:
    """Return a proxy; one of *ours* writes into fapilog where structlog is not configured yet, as in a spawned child."""
    proxy = structlog.get_logger()
    proxy.__setstate__({**state, "_processors": processors, "_cache_logger_on_first_use": True} if ours else state)
    return proxy


def get_logger(name: str | None = None, /, **bound: Any) -> FapilogLogger:
    """
    Return a logger. At import time or later, before or after `configure_logging()`, before or after a fork.

    Args:
        name: Shown as `logger` and matched by per-logger levels; the calling module's name by default, and instead of what is
            no text. May be given as ``name=``, which is a field where it is no text, or beside a positional name.
        bound: Fields that every event of this logger has.
    """
    if name is None and isinstance(bound.get("name"), str | None):
        name = bound.pop("name", None)
    return FapilogLogger(LoggerCore((name if isinstance(name, str) else None) or calling_module()), processors, bound)
