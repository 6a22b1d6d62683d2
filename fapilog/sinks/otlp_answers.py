"""
What the answer of an OTLP server means for the events of the request.

Source: the OTLP specification, sections "OTLP/HTTP Response" (success, partial success, failures, throttling).

Invariants:

1. 429, 502, 503 and 504 ask for a repeat, and nothing else does: all other failures are for good.
2. What a partial success does not reject is stored and never sent again.
3. Any 2xx is success, as it is to OpenTelemetry's own exporters, though the specification has only 200; but not with a page of
   HTML, which something else has answered.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse

from fapilog.sinks.answers import Answer, Fate, reason_of, retry_after_of, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROTOBUF, JSON, HTML = "application/x-protobuf", "application/json", "text/html"
_AGAIN = frozenset((429, 502, 503, 504))


def judged(
    status: int, headers: Mapping[str, str], body: bytes, count: int, hidden_in: Callable[[str], str] = lambda text: text
) -> Answer:
    """
    Return what an answer means for the *count* events of a request.

    A success with a `reason` is a warning of the server's.

    Args:
        status: Of the answer.
        headers: Of the answer, their names in small letters.
        body: Of the answer, or its beginning.
        count: How many events were sent.
        hidden_in: Takes secrets out of a text that is shown.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if 200 <= status < 300 and kind != HTML:
        rejected, message = _partial(kind, body)
        reason = shown(hidden_in(message))
        rejected = min(rejected, count)
        return Answer(Fate.REFUSED, rejected, reason or "partial success") if rejected > 0 else Answer(Fate.STORED, 0, reason)
    reason = reason_of(status, hidden_in(_message(kind, body)))
    if status == 413:
        return Answer(Fate.TOO_MUCH, count, reason)
    if status in _AGAIN:
        return Answer(Fate.AGAIN, 0, reason, retry_after_of(headers))
    return Answer(Fate.REFUSED, count, reason)


def _partial(kind: str, body: bytes) -> tuple[int, str]:
    """Return how many records a success rejects, and what it says; what cannot be read says nothing."""
    try:
        if kind == PROTOBUF:
            partial = ExportLogsServiceResponse.FromString(body).partial_success
            return partial.rejected_log_records, partial.error_message
        if kind == JSON:
            found = json.loads(body)["partialSuccess"]
            return int(found.get("rejectedLogRecords", 0)), str(found.get("errorMessage", ""))
    except (DecodeError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return 0, ""


def _message(kind: str, body: bytes) -> str:
    """Return the text of a failure, which should be a `google.rpc.Status`."""
    if kind == PROTOBUF:
        try:  # it has a number and a text in the same places as this message
            return ExportLogsPartialSuccess.FromString(body).error_message
        except DecodeError:
            return ""
    return body.decode("utf-8", "replace")
