"""What a program has left in its process after its import: handlers, threads, queues, loggers."""

from __future__ import annotations

import gc
import inspect
import logging
import logging.handlers
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import structlog

from fapilog._internal.queue import queue_sink
from fapilog.asgi import FapilogMiddleware
from fapilog.cli.probe.sight import FileSeen, QueueSeen, StructlogSeen, ThreadSeen
from fapilog.logger import FapilogLogger, processors
from fapilog.stdlib import HubHandler
from fapilog.wsgi import FapilogMiddleware as WsgiMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from logging.handlers import QueueListener

ROTATING = (logging.handlers.RotatingFileHandler, logging.handlers.TimedRotatingFileHandler)
SAFE_PACKAGES = frozenset(("concurrent_log_handler",))  # whose handlers lock their file
MOST_NAMES = 5000
_DEPTH = 50  # of middlewares around an application
_BETWEEN = "multiprocessing"


def threads() -> tuple[ThreadSeen, ...]:
    """Return the threads that live, but for the main one."""
    others = (thread for thread in threading.enumerate() if thread is not threading.main_thread())
    return tuple(ThreadSeen(thread.name, _package_of(thread)) for thread in others)


def _package_of(thread: threading.Thread) -> str:
    target = getattr(thread, "_target", None)
    module = getattr(target, "__module__", None) if target is not None else type(thread).__module__
    return str(module or type(thread).__module__)


def files(listeners: Iterable[QueueListener]) -> tuple[FileSeen, ...]:
    """Return the files of log handlers that all workers have, those behind *listeners* and loguru's included."""
    on: dict[logging.Handler, list[str]] = {}
    for name, logger in _loggers():
        for handler in logger.handlers:
            on.setdefault(handler, []).append(name)
    # Handlers that stand on no logger may stand behind a queue, or in the memory of another handler.
    behind = [handler for listener in listeners for handler in listener.handlers]
    known = [each() for each in logging._handlerList]  # type: ignore[attr-defined]  # noqa: SLF001 - nothing public tells
    for handler in filter(None, [*behind, *(known if listeners else ())]):
        on.setdefault(handler, [])
    found = [_seen(handler, names) for handler, names in on.items() if isinstance(handler, logging.FileHandler)]
    return (*filter(None, found), *_files_of_loguru())


def _seen(handler: logging.FileHandler, names: list[str]) -> FileSeen | None:
    kind = type(handler)
    path = handler.baseFilename
    device = path.startswith(("/dev/", "/proc/")) and not path.startswith("/dev/shm/")  # noqa: S108 - a file system like any other
    locks = any(base.__module__.partition(".")[0] in SAFE_PACKAGES for base in kind.__mro__)
    if locks or device or str(os.getpid()) in os.path.basename(path):
        return None
    return FileSeen(kind.__name__, path, isinstance(handler, ROTATING), tuple(names))


def _loggers() -> Iterator[tuple[str, logging.Logger]]:
    yield "root", logging.root
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            yield name, logger


def _handlers_of_loguru() -> list[Any]:
    core = getattr(getattr(sys.modules.get("loguru"), "logger", None), "_core", None)
    return list(getattr(core, "handlers", {}).values())


def _files_of_loguru() -> list[FileSeen]:
    found = []
    for handler in _handlers_of_loguru():
        sink = getattr(handler, "_sink", None)
        path = getattr(sink, "_path", None)
        if path is not None and not getattr(handler, "_enqueue", False):
            rotates = getattr(sink, "_rotation_function", None) is not None
            found.append(FileSeen("loguru", os.path.abspath(path), rotates, ()))
    return found


def queues(listeners: Iterable[QueueListener]) -> tuple[QueueSeen, ...]:
    """Return the queues of log records that a thread of this process empties."""
    found = [_queue("QueueListener", each.queue) for each in listeners if getattr(each, "_thread", None) is not None]
    enqueued = (handler for handler in _handlers_of_loguru() if getattr(handler, "_enqueue", False))
    return (*found, *(_queue("loguru", getattr(handler, "_queue", None)) for handler in enqueued))


def _queue(kind: Any, queue: object) -> QueueSeen:
    module = type(queue).__module__
    return QueueSeen(kind, f"{module}.{type(queue).__qualname__}", module.partition(".")[0] == _BETWEEN)


def disabled() -> tuple[str, ...]:
    """Return the loggers that are disabled."""
    return tuple(name for name, logger in _loggers() if logger.disabled)


def names() -> tuple[str, ...]:
    """Return the names of loggers, or of the first few thousand."""
    return tuple(name for name, _ in _loggers())[:MOST_NAMES]


def streams() -> tuple[str, ...]:
    """Return the handlers on the root logger that write to stdout or stderr, by class."""
    ends = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    return tuple(
        type(handler).__name__
        for handler in logging.root.handlers
        if not isinstance(handler, HubHandler) and any(getattr(handler, "stream", None) is end for end in ends if end is not None)
    )


def structlogs(where: str, *, caches: bool) -> StructlogSeen:
    """
    Return structlog's configuration.

    Args:
        where: Somebody else's last one stands, or empty.
        caches: Whether that asked for loggers to be cached.
    """
    feeds = _feeds(structlog.get_config()["processors"])
    return StructlogSeen(structlog.is_configured(), feeds, where, caches, _old_loggers() if feeds else ())


def _feeds(chain: Any) -> bool:
    return chain is processors or (isinstance(chain, list | tuple) and queue_sink in chain)


def _old_loggers() -> tuple[str, ...]:
    """
    Return where loggers come from that were bound or used, and so finished, before structlog was told to feed fapilog.

    Types are compared, since `isinstance()` asks objects for their class, and some start to work when they are asked.
    """
    proxy = type(structlog.get_logger())
    modules: set[str] = set()
    kinds: set[str] = set()  # of those that are in no module: in objects, or behind one that was found
    for each in gc.get_objects():
        kind = type(each)
        finished = each.bind() if kind is proxy and "bind" in vars(each) else each
        if not issubclass(type(finished), structlog.BoundLoggerBase) or isinstance(finished, FapilogLogger):
            continue
        if not _feeds(getattr(finished, "_processors", None)):
            modules.update(_holders(each))
            kinds.add(type(finished).__name__)
    return tuple(sorted(modules or kinds))


def _holders(logger: object) -> list[str]:
    """Return the modules that have *logger* as a global."""
    return [
        name
        for name, module in list(sys.modules.items())
        if any(value is logger for value in list(getattr(module, "__dict__", {}).values()))
    ]


def is_asgi(app: object) -> bool:
    """Whether *app* looks like an ASGI application."""
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(inspect.getattr_static(type(app), "__call__", None))


def has_middleware(app: Any) -> bool:
    """Whether our middleware is in *app*, as far as that can be seen from outside."""
    if any(getattr(entry, "cls", None) is FapilogMiddleware for entry in getattr(app, "user_middleware", ())):
        return True
    for _ in range(_DEPTH):
        if isinstance(app, FapilogMiddleware | WsgiMiddleware):
            return True
        inner = [getattr(app, name, None) for name in ("app", "asgi_handler", "wsgi_app")]
        app = next((each for each in inner if each is not None), None)
    return False
