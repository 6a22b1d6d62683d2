"""
Set-up: the only place that wires the parts together.

Invariants:

1. Set-up is idempotent: the same settings again change nothing, other settings take over after what was accepted before has been
   delivered. Threads, files and exit hooks do not grow with the number of calls.
2. A wrong value is one `ConfigurationError` here, before any worker is forked, never an error in a log call.
3. Set-up starts no thread and opens no file: that happens in the process that logs, at its first event.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import structlog

from fapilog._internal import capture
from fapilog._internal.applications import middleware_into
from fapilog._internal.built_in import built_in, chosen_run_dir
from fapilog._internal.chain import processor_name
from fapilog._internal.gates import gates
from fapilog._internal.notes import note
from fapilog._internal.overview import alone, overview
from fapilog._internal.queue import queue_sink
from fapilog._internal.route import route, settle
from fapilog._internal.snapshot import moment
from fapilog._internal.starting import follow
from fapilog._internal.state import Spec
from fapilog._internal.threaded import ThreadedSink
from fapilog.coordinator import coordinator
from fapilog.errors import ConfigurationError
from fapilog.identity import Identity
from fapilog.logger import FapilogLogger, core_factory, pickle_proxies, processors
from fapilog.settings import FapilogSettings, level_number, load_settings, warnings_for
from fapilog.sinks.file import FileSink
from fapilog.sinks.stream import StreamSink
from fapilog.typing import Sink

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fapilog._internal.queue import QueueWorker
    from fapilog.results import FlushResult, HubStatistics, ServiceStatistics


_STRUCTLOGS_DEFAULTS: Any = getattr(structlog._config, "_BUILTIN_DEFAULT_PROCESSORS", ())  # noqa: SLF001


class LoggingHub:
    """
    The logging of this process, whichever process that is when a method is called.

    Returned by `configure_logging()`; there is one. Its methods are the functions of the same names in `fapilog`.
    """

    def flush(self, timeout: float | None = None) -> FlushResult:
        """See `fapilog.flush()`."""
        return flush(timeout)

    async def aflush(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - public contract
        """See `fapilog.aflush()`."""
        return await aflush(timeout)

    def shutdown(self, timeout: float | None = None) -> FlushResult:
        """See `fapilog.shutdown_logging()`."""
        return shutdown_logging(timeout)

    def statistics(self) -> HubStatistics:
        """See `fapilog.statistics()`."""
        return statistics()


_hub = LoggingHub()


def configure_logging(
    settings: FapilogSettings | None = None, *, sinks: Iterable[str | Sink] | None = None, app: Any = None, **overrides: Any
) -> LoggingHub:
    """
    Set logging up, for this process and those forked from it.

    May be called at import, in a hook, in a lifespan (without `app`); again at any time; from any thread, one at a time. Each
    call with arguments describes the whole set-up anew; one without any keeps what an earlier one asked for and opens the hub
    again if it was shut down.

    Args:
        settings: Read from the environment by default.
        sinks: Instead of `FAPILOG_SINKS`: names (``stdout``, ``stderr``, ``file``) and `Sink` objects.
        app: A FastAPI, Starlette, Litestar or Flask application, which gets our middleware: the context of requests, their access
            events, and (but for Flask, since WSGI has no such thing) a shutdown that drains the hub.
        overrides: Single settings by flat name, such as ``level="DEBUG"`` or ``queue_size=5000``; and ``processors``, structlog
            processors of your own, run before the event is encoded.

    Raises:
        ConfigurationError: A value cannot be used; the message names it and says what would be right.
    """
    add_middleware = middleware_into(app)
    bare = settings is None and sinks is None and not overrides
    with coordinator.setting_up():
        if not (bare and coordinator.spec is not None and coordinator.spec.explicit):
            coordinator.configure(spec_of(settings, sinks, overrides, explicit=not bare))
        coordinator.open()
        _note_replaced_processors()
        _configure_structlog()
        _capture_stdlib()
    add_middleware()
    return _hub


def spec_of(
    settings: FapilogSettings | None, sinks: Iterable[str | Sink] | None, overrides: dict[str, Any], *, explicit: bool
) -> Spec:
    """Return what a call of `configure_logging()` asks for; raises what that raises, and changes nothing."""
    own_processors = tuple(overrides.pop("processors", ()))
    sinks = None if sinks is None else list(sinks)
    chosen = _settings(settings, sinks, overrides)
    prototypes = _prototypes(chosen, sinks)
    _check(chosen, prototypes)
    return Spec(
        chosen,
        tuple(prototypes),
        own_processors,
        chosen_run_dir(chosen),
        tuple(_target(sink) for sink in prototypes),
        _key(chosen, prototypes, own_processors),
        explicit,
    )


def shutdown_logging(timeout: float | None = None) -> FlushResult:
    """
    Deliver what waits and close the sinks, within *timeout* seconds (`FAPILOG_DRAIN_TIMEOUT` by default).

    Any thread; idempotent. Later events are written synchronously, where the sink can do that at once, or counted `after_close`.
    """
    return coordinator.drain(timeout)


def flush(timeout: float | None = None) -> FlushResult:
    """Deliver everything accepted before the call, within *timeout* seconds (`FAPILOG_DRAIN_TIMEOUT` by default); any thread."""
    return coordinator.flush(timeout)


async def aflush(timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - public contract
    """Do what `flush()` does without blocking the running event loop."""
    return await coordinator.aflush(timeout)


def statistics() -> HubStatistics:
    """Return the books of this process, starting its hub if nothing was logged yet; any thread."""
    coordinator.start()
    hub = coordinator.state.hub
    if hub is None:
        message = "the hub of this process could not start; the reason is on stderr"
        raise ConfigurationError(message)
    return hub.statistics()


def service_statistics() -> ServiceStatistics:
    """
    Return the books of all processes that meet in this one's run directory, also of those that are gone; any thread.

    They are what each process wrote there last, at most half a second ago while it lives. A process without a usable run
    directory speaks for itself alone.

    Raises:
        ConfigurationError: The hub of this process could not start.
        OSError: The run directory may not be read.
    """
    own = statistics()
    state = coordinator.state
    if state.row is not None and coordinator.spec is not None:
        return overview(coordinator.spec.run_dir())
    assert state.hub is not None
    return alone(own.identity, state.role, *moment(state.hub.queue, state.hub.books, own.sinks, state.hub.worker.oldest_counted))


def set_level(level: str | int, logger: str | None = None) -> None:
    """
    Set the level of this process from now on, for all loggers or for *logger* and those below it; any thread.

    It holds for loggers of the standard library too, where their records are taken (`FAPILOG_CAPTURE_STDLIB`).

    Raises:
        ConfigurationError: There is no such level.
    """
    number = level_number(level)
    settle()  # what the environment says comes first, and is not to undo this
    gates.set_one(number, logger or "")
    capture.follow_levels()


def use_worker(worker: QueueWorker | None) -> None:
    """Make a hand-made *worker* the target of `queue_sink` in this process; *None* gives it back to the hub."""
    route.by_hand = None if worker is None else worker.queue


def _settings(settings: FapilogSettings | None, sinks: Iterable[str | Sink] | None, overrides: dict[str, Any]) -> FapilogSettings:
    if sinks is not None:
        overrides = {**overrides, "sinks": [sink for sink in sinks if isinstance(sink, str)]}
    if settings is not None:
        return load_settings({**settings.model_dump(), **overrides}, {}) if overrides else settings
    loaded = load_settings(overrides)
    for index, warning in enumerate(warnings_for(os.environ)):
        note(f"settings {index}", warning)
    return loaded


def _prototypes(settings: FapilogSettings, sinks: Iterable[str | Sink] | None) -> list[Any]:
    made = [
        built_in(name, settings) if isinstance(name, str) else _wrapped(name)
        for name in (settings.sinks if sinks is None else sinks)
    ]
    names = [sink.name for sink in made]
    for name in names:
        if names.count(name) > 1:
            message = f"sinks: two sinks are named {name!r}; give one another name"
            raise ConfigurationError(message)
    return made


def _wrapped(sink: object) -> Any:
    if isinstance(sink, FileSink | StreamSink):
        return sink
    if isinstance(sink, type) or not isinstance(sink, Sink):
        message = f"sinks: {sink!r} is neither the name of a sink nor a Sink (name, open(), write(), close())"
        raise ConfigurationError(message)
    return ThreadedSink(sink)


def _check(settings: FapilogSettings, prototypes: Sequence[Any]) -> None:
    for sink in prototypes:
        if not settings.queue_enabled and not hasattr(sink, "write_now"):
            message = f"FAPILOG_QUEUE_ENABLED=false writes synchronously, and sink {sink.name!r} has no write_now()"
            raise ConfigurationError(message)
        if settings.file_strict and isinstance(sink, FileSink):
            sink.fresh().check(Identity.of_this_process(settings.service, settings.env))


def _target(sink: Any) -> str:
    inner = sink.sink if isinstance(sink, ThreadedSink) and sink.built_in else sink
    return str(getattr(inner, "target", sink.name))


def _key(settings: FapilogSettings, prototypes: Sequence[Any], own_processors: tuple[object, ...]) -> tuple[object, ...]:
    return (
        settings.model_dump(),
        tuple(map(_key_of, prototypes)),
        tuple(map(id, own_processors)),
    )


def _key_of(sink: Any) -> object:
    if isinstance(sink, ThreadedSink) and not sink.built_in:
        return id(sink.sink)
    return type(sink), _target(sink), getattr(sink, "policy", None)


def _note_replaced_processors() -> None:
    """Say that processors which the program has given to structlog itself do not run any more, unless it gave us some, too."""
    assert coordinator.spec is not None
    chain = structlog.get_config()["processors"]
    if not structlog.is_configured() or chain is processors or queue_sink in chain or coordinator.spec.processors:
        return
    if list(chain) != list(_STRUCTLOGS_DEFAULTS):
        names = ", ".join(processor_name(each) for each in chain)
        note(
            "processors",
            f"the processors that structlog.configure() was given before configure_logging() do not run any more ({names}); "
            "give those that are still needed to configure_logging(processors=[...]), or end the chain in fapilog.queue_sink",
        )


def _configure_structlog() -> None:
    current = structlog.get_config()
    chain, wrapper = current["processors"], current["wrapper_class"]
    if chain is processors or queue_sink in chain:  # ours, or a chain of the user's own that feeds us, which is left as it is
        return
    pickle_proxies()
    structlog.configure(
        processors=processors,
        wrapper_class=FapilogLogger if wrapper.__module__.partition(".")[0] == "structlog" else wrapper,
        logger_factory=core_factory,
        cache_logger_on_first_use=True,
    )


def _capture_stdlib() -> None:
    assert coordinator.spec is not None
    settings = coordinator.spec.settings
    if settings.capture_stdlib:
        capture.start(access=settings.access_log)
    else:
        capture.stop()


def _configure_from_environment() -> None:
    """
    Configure for an event that came before `configure_logging()`: from the environment, or, if that is wrong, by defaults.

    For one that comes in the midst of set-up, on another thread or in a signal handler, do what that is about to do.
    """
    if coordinator.spec is not None and not route.configured:
        follow(coordinator.spec)
        return
    try:
        configure_logging()
    except ConfigurationError as error:
        note("settings", f"{error}; going on with the defaults")
        configure_logging(load_settings(environ={}))


coordinator.autoconfigure = route.begin = _configure_from_environment
