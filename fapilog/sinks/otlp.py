"""
The OTLP sink: pushes batches of events as OpenTelemetry's log records, in protobuf over HTTP.

What all such sinks share, and their invariants, stand in `sinks/pushing.py`. What each answer means is said in
`sinks/otlp_answers.py`, what a request looks like in `sinks/otlp_request.py`. OpenTelemetry's own variables are read with the
settings (`_internal/standard.py`); what is made by hand knows its arguments alone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fapilog._internal.notes import note
from fapilog._internal.standard import headers as headers_in
from fapilog._internal.standard import logs_path
from fapilog._internal.terms import BACKLOG_BYTES, BATCH_BYTES
from fapilog.errors import ConfigurationError
from fapilog.sinks.answers import Fate
from fapilog.sinks.endpoint import Tls, authorization, server_url
from fapilog.sinks.origins import Origins
from fapilog.sinks.pushing import PushSink, push_terms

try:
    from fapilog.sinks.otlp_answers import PROTOBUF, judged
    from fapilog.sinks.otlp_request import encode_request, resource_of
except ImportError as error:
    if (error.name or "").partition(".")[0] not in {"opentelemetry", "google"}:
        raise
    raise ImportError(
        "the sink otlp needs a package that is not there: pip install opentelemetry-proto", name=error.name
    ) from error

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    from fapilog.identity import Identity
    from fapilog.sinks.answers import Answer

DEFAULT_ENDPOINT = "http://localhost:4318"  # the specification's
OURS = frozenset(("content-type", "content-encoding", "content-length", "accept-encoding", "transfer-encoding", "host"))


class OtlpSink(PushSink):
    """
    Pushes events to an OpenTelemetry Collector, or to what takes OTLP over HTTP.

    Args:
        endpoint: URL of the server, or of its ``/v1/logs``; credentials in it are used and never shown. Empty means
            http://localhost:4318.
        endpoint_exact: Whether it is used as it is, without ``/v1/logs`` at its end.
        headers: Of each request: a mapping, or ``key=value,key=value`` with percent-encoded values.
        ca_file: Certificates that are trusted besides those of the system.
        client_certificate: A file with the client's certificate.
        client_key: A file with the key to it, if that is another one.
        compression: ``gzip`` or ``none``.
        resource: Attributes of the resource beside those that tell of the process.
        batch_bytes: Bytes of one request before it is compressed, at most, unless a single event is larger.
        batch_timeout: How long an event waits for others, in seconds.
        timeout: Of one request as a whole, in seconds.
        max_elapsed: After how many seconds of trying an event is given up and counted `expired`.
        backlog_bytes: Bytes of lines that wait, at most.
        name: Of the sink.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        endpoint: str = "",
        *,
        endpoint_exact: bool = False,
        headers: str | Mapping[str, str] = "",
        ca_file: str | os.PathLike[str] | None = None,
        client_certificate: str | os.PathLike[str] | None = None,
        client_key: str | os.PathLike[str] | None = None,
        compression: str = "none",
        resource: Mapping[str, object] | None = None,
        batch_bytes: int = BATCH_BYTES,
        batch_timeout: float = 1.0,
        timeout: float = 10.0,
        max_elapsed: float = 300.0,
        backlog_bytes: int = BACKLOG_BYTES,
        name: str = "otlp",
    ) -> None:
        target, in_url = server_url(endpoint or DEFAULT_ENDPOINT, DEFAULT_ENDPOINT, _as_it_is if endpoint_exact else logs_path)
        given = _checked(headers)
        if not any(header.lower() == "authorization" for header in given):
            given.update(authorization(in_url, ("", ""), ""))
        if compression not in {"gzip", "none"}:
            raise ConfigurationError("the compression must be gzip or none")
        self.compresses = compression == "gzip"
        self.max_body_bytes = batch_bytes
        encoding = {"Content-Encoding": "gzip"} if self.compresses else {}
        sent = {"Content-Type": PROTOBUF, "Accept-Encoding": "identity", **encoding, **given}
        secrets = [in_url[1], *given.values(), *(value.partition(" ")[2] for value in given.values())]
        terms = push_terms(max_elapsed, batch_bytes, batch_timeout, backlog_bytes)
        super().__init__(name, target, sent, secrets, Tls(ca_file, client_certificate, client_key), timeout, terms)
        self._configured = dict(resource or {})
        self._origins: Origins[Resource] | None = None

    def prepare(self, identity: Identity) -> None:
        """Make the resource of this process."""
        self._origins = Origins(identity, partial(resource_of, configured=self._configured))

    def encoded(self, lines: Sequence[bytes]) -> bytes:
        """See `PushSink.encoded()`."""
        assert self._origins is not None
        return encode_request(self._origins, lines)

    def judged(self, status: int, headers: Mapping[str, str], body: bytes, count: int) -> Answer:
        """See `PushSink.judged()`; what a server says beside a success becomes a note."""
        answer = judged(status, headers, body, count, self.hidden_in)
        if answer.fate is Fate.STORED and answer.reason:
            note(f"warned {self.name}", f"sink {self.name!r} was warned by its server: {answer.reason}")
        return answer


def _as_it_is(path: str) -> str:
    return path or "/"


def _checked(headers: str | Mapping[str, str]) -> dict[str, str]:
    try:
        found = headers_in(headers) if isinstance(headers, str) else dict(headers)
    except ValueError as error:
        raise ConfigurationError(
            f"the headers {'must be percent-encoded UTF-8' if isinstance(error, UnicodeError) else error}"
        ) from None
    for name in found:
        if name.lower() in OURS:
            raise ConfigurationError(f"the header {name} is fapilog's own")
    return found
