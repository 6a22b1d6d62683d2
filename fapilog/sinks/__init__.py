"""The built-in sinks, one file each, written to the public protocol `fapilog.Sink`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fapilog.sinks.file import FileSink
from fapilog.sinks.stream import StreamSink

if TYPE_CHECKING:
    from fapilog.sinks.loki import LokiSink
    from fapilog.sinks.otlp import OtlpSink

__all__ = ["FileSink", "LokiSink", "OtlpSink", "StreamSink"]


def __getattr__(name: str) -> Any:
    """Load a sink that pushes over HTTP, and httpx with it, when somebody asks for it."""
    if name == "LokiSink":
        from fapilog.sinks.loki import LokiSink

        return LokiSink
    if name == "OtlpSink":
        from fapilog.sinks.otlp import OtlpSink

        return OtlpSink
    raise AttributeError(name)
