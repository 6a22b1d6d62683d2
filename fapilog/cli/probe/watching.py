"""
Remembers who has set up the standard library's logging and structlog, and where.

For a process of its own that ends with the look: nothing here can be taken back.
"""

from __future__ import annotations

import functools
import logging.config
import logging.handlers
import os
from typing import TYPE_CHECKING, Any

import structlog

from fapilog._internal.frames import frames, module_of
from fapilog._internal.queue import queue_sink
from fapilog.cli.probe.sight import ConfigSeen
from fapilog.logger import processors

if TYPE_CHECKING:
    import traceback
    from collections.abc import Callable, Iterable

SERVERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "gunicorn.error", "gunicorn.access")
_OURS = {"fapilog", "structlog", "logging", "importlib", "gunicorn"}


class Watch:
    """
    What has happened since `begin()`.

    Attributes:
        configs: Calls of `dictConfig()` and `fileConfig()`.
        listeners: The `QueueListener` objects that were started.
        structlog: Where somebody else has configured structlog, and whether they asked for loggers to be cached; the last time.
    """

    def __init__(self) -> None:
        self.configs: list[ConfigSeen] = []
        self.listeners: list[logging.handlers.QueueListener] = []
        self.structlog = ("", False)

    def begin(self) -> None:
        """Put functions around those that set logging up."""
        self._around(logging.config, "dictConfig", self._dict_config)
        self._around(logging.config, "fileConfig", self._file_config)
        self._around(logging.handlers.QueueListener, "start", self.listeners.append)
        self._around(structlog, "configure", self._configured)
        self._around(structlog, "configure_once", self._configured)

    def _around(self, target: Any, name: str, look: Callable[..., object]) -> None:
        before = getattr(target, name)

        @functools.wraps(before)
        def watched(*args: Any, **options: Any) -> Any:
            look(*args, **options)
            return before(*args, **options)

        setattr(target, name, watched)

    def _dict_config(self, config: Any = None, **_: Any) -> None:
        told = config if isinstance(config, dict) else {}
        loggers = told.get("loggers")
        given = loggers if isinstance(loggers, dict) else {}
        servers = tuple(name for name in SERVERS if isinstance(given.get(name), dict) and given[name].get("handlers"))
        disables = not told.get("incremental") and bool(told.get("disable_existing_loggers", True))
        self.configs.append(ConfigSeen("dictConfig", _caller(), disables, servers))

    def _file_config(
        self, _file: Any = None, _defaults: Any = None, disable_existing_loggers: object = True, **_options: Any
    ) -> None:
        self.configs.append(ConfigSeen("fileConfig", _caller(), bool(disable_existing_loggers), ()))

    def _configured(self, chain: Any = None, *args: Any, **options: Any) -> None:
        chain = options.get("processors", chain)
        if chain is processors or (isinstance(chain, list | tuple) and queue_sink in chain):
            return
        caches = options.get("cache_logger_on_first_use", args[3] if len(args) > 3 else False)
        self.structlog = (_caller(), bool(caches))


def _caller() -> str:
    """Return the place in the user's code that called what is watched; else the nearest that is not the library's own."""
    theirs = (frame for frame in frames() if module_of(frame).partition(".")[0] not in _OURS)
    places = [place(frame.f_code.co_filename, frame.f_lineno) for frame in theirs]
    return next(filter(_is_the_users, places), (places or [""])[0])


def place(path: str, line: int | None) -> str:
    """Return ``app.py:12``, with a path that is relative to the working directory if it is below it."""
    relative = os.path.relpath(path)
    return f"{path if relative.startswith(os.pardir) else relative}:{line}"


def last_of_the_users(frames: Iterable[traceback.FrameSummary]) -> str:
    """Return the innermost place of a traceback that is in the user's code; else the innermost at all."""
    places = [place(frame.filename, frame.lineno) for frame in frames if not frame.filename.startswith("<")]
    return next(filter(_is_the_users, reversed(places)), (places or [""])[-1])


def _is_the_users(where: str) -> bool:
    """Whether a place is below the working directory, and not in packages that are installed there."""
    return not os.path.isabs(where) and not where.startswith("<") and "site-packages" not in where
