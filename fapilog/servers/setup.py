"""What servers' adapters share: set-up that ends the start with one line if it must, and errors of the start on stderr."""

from __future__ import annotations

import logging
import os

import orjson

from fapilog import bootstrap
from fapilog._internal.route import route
from fapilog.coordinator import coordinator
from fapilog.errors import ConfigurationError
from fapilog.sinks.stream import StreamSink
from fapilog.stdlib import message_of

_STDERR = 2


def configure_or_exit() -> None:
    """
    Configure from the environment, unless that was done: the settings are validated before any worker exists.

    Raises:
        SystemExit: With the one line that says which setting is wrong.
    """
    if route.configured:
        return
    try:
        bootstrap.configure_logging()
    except ConfigurationError as error:
        raise SystemExit(f"fapilog: {error}") from None


def echo(record: logging.LogRecord) -> None:
    """
    Write an error of a server's start to stderr too, as one JSON line, where no sink is a stream: somebody is waiting there.

    Never raises; past Python's buffers, so it takes no lock.
    """
    spec = coordinator.spec
    if record.levelno < logging.ERROR or spec is None or any(isinstance(sink, StreamSink) for sink in spec.sinks):
        return
    told = {"level": record.levelname.lower(), "event": message_of(record), "logger": record.name, "pid": os.getpid()}
    if record.exc_info:
        told["exception"] = logging.Formatter().formatException(record.exc_info)
    try:
        os.write(_STDERR, orjson.dumps(told) + b"\n")
    except (OSError, TypeError):
        return
