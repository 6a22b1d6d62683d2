"""One push of a marked event to an OpenTelemetry Collector, by the code that pushes events, and what the answer means."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fapilog._internal.built_in import otlp_arguments
from fapilog.cli.checks.finding import Finding, fine
from fapilog.cli.checks.pushing import Push, Server, checked, failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.cli.checks.case import Case
    from fapilog.settings import FapilogSettings

CHECK = "otlp"
GRPC_PORT = 4317
_NO_ENDPOINT = (
    "Logs are not taken there: FAPILOG_OTLP_ENDPOINT is the URL of a Collector's OTLP receiver for HTTP (port 4318, not the 4317 "
    "of gRPC), and a pipeline for logs has it."
)
_ANSWERS = {
    401: "It wants other credentials: set FAPILOG_OTLP_HEADERS, or OTEL_EXPORTER_OTLP_HEADERS.",
    403: "These credentials may not write there: set others in FAPILOG_OTLP_HEADERS, or OTEL_EXPORTER_OTLP_HEADERS.",
    404: _NO_ENDPOINT,
    405: _NO_ENDPOINT,
    415: _NO_ENDPOINT,
    413: "A proxy before the Collector refuses even a single event: raise its limit.",
    429: "The server is there and limits what it takes: raise its limits, or log less.",
}
_COLLECTOR = Server(
    CHECK,
    "FAPILOG_OTLP_ENDPOINT",
    "FAPILOG_OTLP_CA_FILE",
    "FAPILOG_OTLP_TIMEOUT",
    _ANSWERS,
    "Something that is no Collector has answered, or one that rejects the event: read its answer.",
)


def check_otlp(case: Case) -> Iterator[Finding]:
    """Send one event, unless that is forbidden."""
    given = case.environ.get("FAPILOG_OTLP_ENDPOINT", "")  # that of the standard variables may be there for other signals
    there = CHECK in case.hub.pushing
    yield from checked(case, _COLLECTOR, case.settings.otlp_endpoint if there else given, pushed)


def pushed(settings: FapilogSettings) -> Iterator[Finding]:
    """Send an event to the Collector of *settings*, once."""
    from fapilog.sinks.otlp import OtlpSink  # its package was there when the settings were checked

    push = Push(OtlpSink(**otlp_arguments(settings)))
    push.make(settings)
    if push.problem:
        found = failed(_COLLECTOR, push)
        is_grpc = not push.status and urlsplit(push.sink.url).port == GRPC_PORT
        yield replace(found, change=f"Port {GRPC_PORT} is gRPC's: write that of HTTP, 4318. {found.change}") if is_grpc else found
    else:
        yield fine(CHECK, f"{push.sink.url} took an event in {push.took_ms:.0f} ms; its attribute mark is {push.mark}.")
