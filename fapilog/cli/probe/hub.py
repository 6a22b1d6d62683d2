"""What fapilog was asked for, of a program or of the environment, in the form that the checks read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fapilog._internal.threaded import ThreadedSink
from fapilog.cli.probe.sight import FileSinkSeen, HubSeen
from fapilog.sinks.file import FileSink
from fapilog.sinks.stream import StreamSink

if TYPE_CHECKING:
    from fapilog._internal.state import Spec


def hub_of(spec: Spec) -> HubSeen:
    """Return what *spec* asks for."""
    sinks: tuple[Any, ...] = spec.sinks
    threaded = [sink for sink in sinks if isinstance(sink, ThreadedSink)]
    return HubSeen(
        spec.explicit,
        spec.settings.model_dump(),
        spec.targets,
        tuple(FileSinkSeen(sink.name, sink.template, sink.policy.rotates) for sink in sinks if isinstance(sink, FileSink)),
        tuple(sink.name for sink in sinks if isinstance(sink, StreamSink)),
        tuple(sink.name for sink in threaded if sink.built_in),
        not all(sink.built_in for sink in threaded),
    )
