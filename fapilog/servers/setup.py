"""
What servers' adapters share: set-up that ends the start with one line if it must, a handler for a server's records, and errors of
the start on stderr.
"""

from __future__ import annotations

import logging
import os
from typing import Any

import orjson

from fapilog import bootstrap
from fapilog._internal import capture
from fapilog._internal.access_records import is_access_record, log_access_record
from fapilog._internal.exchange import logs_access
from fapilog._internal.route import route
from fapilog.coordinator import coordinator
from fapilog.errors import ConfigurationError
from fapilog.sinks.stream import StreamSink
from fapilog.stdlib import HubHandler, message_of

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


class RecordsHandler(HubHandler):
    """
    Takes the records of a server that tells of each request by one of them: an access event, unless our middleware logs that.

    Args:
        up: How the message begins by which the server says that it is up; until then its errors are also on stderr.
    """

    def __init__(self, up: str) -> None:
        super().__init__(obeys=False)
        self._up = up
        self._starting = True

    def log(self, record: logging.LogRecord) -> None:
        """Log *record* as an event; an access record by the names of the access event as far as the server tells them."""
        if is_access_record(record):
            if logs_access() and not capture.has_middleware():
                log_access_record(record)
            return
        super().log(record)
        if self._starting:
            self._starting = not str(record.msg).startswith(self._up)
            echo(record)


def log_config_of(server: str, own: str, access: str) -> dict[str, Any]:
    """Return the `logging.config` dict that hands the loggers *own* and *access* to the handler of `fapilog.servers.SERVER`."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {},
        "handlers": {"fapilog": {"()": f"fapilog.servers.{server}.handler"}},
        "loggers": {
            own: {"handlers": ["fapilog"], "propagate": False},
            access: {"handlers": ["fapilog"], "level": "INFO", "propagate": False},
        },
    }


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
