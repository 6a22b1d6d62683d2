"""
A structured-logging hub for Python services that run as several processes.

Every name here is public. Start with `configure_logging()` and `get_logger()`; see the README.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from structlog.contextvars import (
    bind_contextvars,
    bound_contextvars,
    clear_contextvars,
    get_contextvars,
    reset_contextvars,
    unbind_contextvars,
)

from fapilog._internal.queue import EventQueue, QueueWorker, queue_sink
from fapilog.bootstrap import (
    LoggingHub,
    aflush,
    configure_logging,
    flush,
    service_statistics,
    set_level,
    shutdown_logging,
    statistics,
)
from fapilog.errors import ConfigurationError, FapilogError, SinkError, SinkRejected, SinkUnavailable
from fapilog.identity import Identity
from fapilog.logger import FapilogLogger, get_logger
from fapilog.results import (
    FlushResult,
    HubStatistics,
    ServiceStatistics,
    SinkResult,
    SinkStatistics,
    SinkTotals,
    WorkerStatistics,
)
from fapilog.settings import FapilogSettings
from fapilog.typing import Event, Sink

if TYPE_CHECKING:
    __version__: str

__all__ = [
    "ConfigurationError",
    "Event",
    "EventQueue",
    "FapilogError",
    "FapilogLogger",
    "FapilogSettings",
    "FlushResult",
    "HubStatistics",
    "Identity",
    "LoggingHub",
    "QueueWorker",
    "ServiceStatistics",
    "Sink",
    "SinkError",
    "SinkRejected",
    "SinkResult",
    "SinkStatistics",
    "SinkTotals",
    "SinkUnavailable",
    "WorkerStatistics",
    "aflush",
    "bind_contextvars",
    "bound_contextvars",
    "clear_contextvars",
    "configure_logging",
    "flush",
    "get_contextvars",
    "get_logger",
    "queue_sink",
    "reset_contextvars",
    "service_statistics",
    "set_level",
    "shutdown_logging",
    "statistics",
    "unbind_contextvars",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("fapilog")
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
