"""
OTLP's request: resources, scopes and log records made of lines; pure.

Sources: `opentelemetry/proto/logs/v1/logs.proto` and the logs data model of the OpenTelemetry specification; its semantic
conventions for resources and exceptions.

Invariants:

1. A record is made from its line alone, so whoever sends it again, and whenever, sends the same; its resource is that of the
   process that wrote the line. Only the configured attributes, which no line holds, are the sender's.
2. Records of a resource and a scope come in the order of their lines.
3. No value is lost or changes its type: what OTLP has no type for (integers over 64 bits, what is nested too deep) becomes text.
4. No two attributes of a record have one name: ours win, and the user's is kept under the same name with ``_`` added.
5. An identifier of a trace or span that is none is an attribute like any other.
6. A line that cannot be told in its parts is a record with its text as the body: none holds up the others.
"""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from fapilog.identity import HUB_FIELDS
from fapilog.sinks.origins import time_ns_of
from fapilog.sinks.terminal import plain
from fapilog.sinks.tracebacks import no_source, traceback_lines
from fapilog.typing import decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

    from fapilog.identity import Identity
    from fapilog.sinks.origins import Origins

#: By the level of a line: SeverityNumber, and the name that the level has at the source.
SEVERITIES = {
    "debug": (5, "DEBUG"),
    "info": (9, "INFO"),
    "warning": (13, "WARNING"),
    "error": (17, "ERROR"),
    "critical": (21, "CRITICAL"),
}
MAX_DEPTH = 16  # of values; three messages in one another for each, and servers take 100
INT64 = 1 << 63
SEQ = "fapilog.seq"

_HEX = {length: re.compile(rf"(?!0+\Z)[0-9a-f]{{{length}}}\Z") for length in (32, 16)}
_FLAGS = re.compile(r"[0-9a-f]{2}\Z")


def resource_of(identity: Identity, configured: Mapping[str, object]) -> Resource:
    """
    Return what OTLP is told of a process.

    Of the configured attributes all win but those that tell processes apart: a service's own would make one of them all.
    """
    told = {
        "service.name": identity.service,
        **({"deployment.environment.name": identity.env} if identity.env else {}),
        "host.name": identity.host,
        **{name: value for name, value in configured.items() if name},
        "service.instance.id": identity.boot,
        "process.pid": identity.pid,
        "fapilog.worker": identity.worker,
    }
    resource = Resource()
    for name, value in told.items():
        _add(resource.attributes, name, value)
    return resource


def encode_request(origins: Origins[Resource], lines: Iterable[bytes]) -> bytes:
    """Return the body of a request: by resource and scope, in the order of their first lines."""
    request = ExportLogsServiceRequest()
    groups: dict[int, tuple[Resource, Any]] = {}  # by the identity of what must be kept for it
    scopes: dict[tuple[int, str], Any] = {}
    for line in lines:
        resource, seq = origins.of(line)
        fields = _fields_of(line)
        name = fields.pop("logger", "") if isinstance(fields.get("logger", ""), str) else ""
        records = scopes.get((id(resource), name))
        if records is None:
            if id(resource) not in groups:
                groups[id(resource)] = resource, request.resource_logs.add(resource=resource)
            scope = groups[id(resource)][1].scope_logs.add()
            scope.scope.name = _clean(name)
            records = scopes[id(resource), name] = scope.log_records
        record = records.add()
        try:
            _fill_record(record, fields, line, seq)
        except Exception:  # a value that fights back must not hold up what is behind it
            record.Clear()
            _fill_record(record, _as_text(line), line, seq)
    return request.SerializeToString()


def _fields_of(line: bytes) -> dict[str, Any]:
    """Return what a line says, without what its resource says; the text as the event where it says nothing."""
    try:
        fields = decode(line)
    except (ValueError, TypeError, RecursionError):  # a line that was handed to `write_lines()` by somebody else
        return _as_text(line)
    if "boot" in fields:
        for name in HUB_FIELDS:
            fields.pop(name, None)
    return fields


def _as_text(line: bytes) -> dict[str, Any]:
    return {"event": line.rstrip(b"\n").decode("utf-8", "replace")}


def _fill_record(record: LogRecord, fields: dict[str, Any], line: bytes, seq: int) -> None:
    moment = time_ns_of(line, seq)
    if moment is not None:
        fields.pop("timestamp", None)
    record.time_unix_nano = moment or 0
    record.observed_time_unix_nano = moment or time.time_ns()
    level = fields.get("level")
    if type(level) is str and level in SEVERITIES:
        record.severity_number, record.severity_text = SEVERITIES[level]  # type: ignore[assignment]
        del fields["level"]
    if (event := fields.pop("event", None)) is not None:
        _fill(record.body, event)
    _take_trace(record, fields)
    _set_own(fields, _exception_in(fields))
    if seq:
        _set_own(fields, {SEQ: seq})
    attributes = record.attributes
    for name, value in fields.items():
        _add(attributes, name, value)


def _set_own(fields: dict[str, Any], own: dict[str, Any]) -> None:
    for name, value in own.items():
        if name in fields:
            kept = name + "_"
            while kept in fields:
                kept += "_"
            fields[kept] = fields.pop(name)
        fields[name] = value


def _take_trace(record: LogRecord, fields: dict[str, Any]) -> None:
    """Move the identifiers of trace and span out of *fields*; flags and a span mean nothing without a trace."""
    trace_id = fields.get("trace_id")
    if type(trace_id) is not str or not _HEX[32].match(trace_id):
        return
    record.trace_id = bytes.fromhex(fields.pop("trace_id"))
    span_id, flags = fields.get("span_id"), fields.get("trace_flags")
    if type(span_id) is str and _HEX[16].match(span_id):
        record.span_id = bytes.fromhex(fields.pop("span_id"))
    if type(flags) is str and _FLAGS.match(flags):
        record.flags = int(fields.pop("trace_flags"), 16)


def _exception_in(fields: dict[str, Any]) -> dict[str, str]:
    """Take the exception out of *fields* and return it by the semantic convention; nothing where its form is not known."""
    exception = fields.get("exception")
    lines = traceback_lines(exception, plain, no_source)
    if lines is None:
        return {}
    del fields["exception"]
    told = {"exception.stacktrace": "\n".join(lines)}
    if isinstance(exception, dict):
        module, kind, message = exception.get("module"), exception.get("type"), exception.get("message")
        if isinstance(kind, str):
            told["exception.type"] = f"{module}.{kind}" if isinstance(module, str) and module != "builtins" else kind
        if isinstance(message, str):
            told["exception.message"] = message
    return told


def _add(attributes: Any, name: str, value: object) -> None:
    pair = attributes.add()
    try:
        pair.key = name or "_"  # an empty one is not allowed
        if type(value) is str:  # the most of them, spared a call
            pair.value.string_value = value
            return
    except UnicodeEncodeError:
        pair.key = _clean(name) or "_"
    _fill(pair.value, value)


def _fill(target: AnyValue, value: Any, depth: int = 0) -> None:
    """Put a JSON value into *target*; *None* is its being empty."""
    kind = type(value)
    if kind is str:
        target.string_value = _clean(value)
    elif kind is bool:
        target.bool_value = value
    elif kind is int:
        if -INT64 <= value < INT64:
            target.int_value = value
        else:
            target.string_value = str(value)
    elif kind is float:
        target.double_value = value
    elif value is None:
        target.SetInParent()
    elif depth >= MAX_DEPTH:
        target.string_value = json.dumps(value, ensure_ascii=False)
    elif kind is list:
        target.array_value.SetInParent()
        for item in value:
            _fill(target.array_value.values.add(), item, depth + 1)
    elif kind is dict:
        target.kvlist_value.SetInParent()
        for name, item in value.items():
            pair = target.kvlist_value.values.add()
            pair.key = _clean(name) or "_"
            _fill(pair.value, item, depth + 1)
    else:  # of a configured attribute
        target.string_value = _clean(str(value))


def _clean(text: str) -> str:
    """Return *text* without what UTF-8 has no form for."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
