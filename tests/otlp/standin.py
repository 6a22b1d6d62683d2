"""The stand-in Collector: takes OTLP's requests, and answers as the specification says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from tests.loki.standin import LIMIT_S, StandIn
from tests.loki.wire import Refused, decompressed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

    from tests.loki.exchange import Exchange
    from tests.loki.store import Failures

WHY = "these are too old"


@dataclass(frozen=True, slots=True)
class Record:
    """A stored record: *request* counts from 1."""

    resource: dict[str, Any]
    scope: str
    record: LogRecord
    request: int = -1

    @property
    def fields(self) -> dict[str, Any]:
        return attributes(self.record.attributes)

    @property
    def seq(self) -> int:
        return int(self.fields["fapilog.seq"])


def value_of(value: Any) -> Any:
    """Return an `AnyValue` as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    """Return attributes as a dict; each name is there once."""
    pairs = list(pairs)
    found = {pair.key: value_of(pair.value) for pair in pairs}
    assert len(found) == len(pairs)
    assert "" not in found
    return found


def records_in(body: bytes, request: int = -1) -> list[Record]:
    """Return the records of a request's body."""
    return [
        Record(attributes(group.resource.attributes), scope.scope.name, record, request)
        for group in ExportLogsServiceRequest.FromString(body).resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]


class Collector(StandIn):
    """See `tests.otlp`; takes what `StandIn` takes."""

    name = "stand-in collector"
    path = "/v1/logs"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._records: list[Record] = []

    def take(self, exchange: Exchange, body: bytes, failures: Failures) -> tuple[int, str | bytes]:
        headers = exchange.handler.headers
        if headers.get("Content-Type") != "application/x-protobuf":
            raise Refused(415, "415 unsupported media type")
        encoding = headers.get("Content-Encoding", "")
        if encoding not in {"", "gzip"}:
            raise Refused(400, "unsupported Content-Encoding")
        try:
            records = records_in(decompressed(encoding, body, self.limits.max_decompressed_size), exchange.request.number)
        except DecodeError as error:
            raise Refused(400, str(error)) from None
        rejected = min(failures.count, len(records))
        self._records += records[rejected:]
        partial = ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=WHY) if rejected else None
        return 200, ExportLogsServiceResponse(partial_success=partial).SerializeToString()

    def records(self) -> list[Record]:
        """Return what it stored, in the order of its coming."""
        return list(self._records)

    def wait_records(self, count: int, seconds: float = LIMIT_S) -> list[Record]:
        """Wait until at least *count* records are there; return all."""
        self.wait_for(lambda: len(self._records) >= count, f"{count} records are there", seconds)
        return self.records()
