"""The built-in sinks, one file each, written to the public protocol `fapilog.Sink`."""

from __future__ import annotations

from fapilog.sinks.file import FileSink
from fapilog.sinks.stream import StreamSink

__all__ = ["FileSink", "StreamSink"]
