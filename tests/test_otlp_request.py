"""What the OTLP sink sends: resources, scopes and records, by the logs data model."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog._internal.exceptions import told
from fapilog.encoding import encode_open
from fapilog.identity import Identity
from fapilog.sinks import otlp_request
from fapilog.sinks.origins import MAX_KNOWN, Origins
from fapilog.sinks.otlp_request import MAX_DEPTH, encode_request, resource_of
from tests.loki.lines import ME, line, lines
from tests.otlp.standin import records_in

if TYPE_CHECKING:
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    from tests.otlp import Record

STAMP = "2026-11-28T05:17:29.123456Z"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
OTHER = Identity("shop", "", "h1", 3, 78, "b0b")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner, max_size=4),
    max_leaves=12,
)


def origins_of(identity: Identity = ME, **configured: object) -> Origins[Resource]:
    return Origins(identity, partial(resource_of, configured=configured))


def sent(*made: bytes, identity: Identity = ME) -> list[Record]:
    return records_in(encode_request(origins_of(identity), made))


def made(seq: int = 1, identity: Identity = ME, **fields: Any) -> bytes:
    """Return the line of an event."""
    record = {"timestamp": STAMP, "level": "info", "event": "e", **fields}
    return encode_open(record, 1 << 20) + identity.tail() % seq


def test_a_record() -> None:
    """Time, severity, body, scope and attributes are those of the event; its process is the resource."""
    (found,) = sent(made(1234, level="warning", logger="shop.orders", n=7, x=1.5, ok=True))
    assert found.resource == {
        "service.name": "shop",
        "deployment.environment.name": "prod",
        "host.name": "h1",
        "service.instance.id": "b00t",
        "process.pid": 77,
        "fapilog.worker": 2,
    }
    record = found.record
    assert found.scope == "shop.orders"
    assert record.time_unix_nano == record.observed_time_unix_nano == 1795843049123456234
    assert (record.severity_number, record.severity_text) == (13, "WARNING")
    assert record.body.string_value == "e"
    assert found.fields == {"n": 7, "x": 1.5, "ok": True, "fapilog.seq": 1234}
    assert (record.trace_id, record.span_id, record.flags) == (b"", b"", 0)


@pytest.mark.parametrize(("level", "number"), [("debug", 5), ("info", 9), ("warning", 13), ("error", 17), ("critical", 21)])
def test_severities(level: str, number: int) -> None:
    """They are the data model's for the names of our levels."""
    (found,) = sent(made(level=level))
    assert (found.record.severity_number, found.record.severity_text) == (number, level.upper())


@given(JSON)
def test_any_value(value: Any) -> None:
    """It has its own type; integers of more than 64 bits are texts."""
    (found,) = sent(json.dumps({"event": "e", "v": value}).encode() + b"\n")
    assert found.fields["v"] == as_sent(value)


def as_sent(value: Any) -> Any:
    if isinstance(value, dict):
        return {clean(name): as_sent(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_sent(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 63:
        return str(value)
    return clean(value) if isinstance(value, str) else value


def clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def test_types_that_look_alike() -> None:
    """A float that is whole stays one, a boolean is no number, an empty list and an empty mapping are told from nothing."""
    (found,) = sent(made(a=1.0, b=False, c=[], d={}, e=None, f=""))
    kinds = {pair.key: pair.value.WhichOneof("value") for pair in found.record.attributes}
    assert kinds == {
        "a": "double_value",
        "b": "bool_value",
        "c": "array_value",
        "d": "kvlist_value",
        "e": None,
        "f": "string_value",
        "fapilog.seq": "int_value",
    }


def test_what_is_nested_deep() -> None:
    """Below a certain depth it is JSON as text: a server that bounds messages in one another would refuse the whole request."""
    value: Any = "x"
    for _ in range(12):
        value = {"k": [value]}
    (found,) = sent(made(v=value))
    inner, depth = found.fields["v"], 0
    while not isinstance(inner, str):
        inner = inner["k"] if isinstance(inner, dict) else inner[0]
        depth += 1
    assert depth == MAX_DEPTH
    assert inner == json.dumps(nested(value, MAX_DEPTH))


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = value["k"] if isinstance(value, dict) else value[0]
    return value


def test_an_event_that_is_no_text() -> None:
    """It is the body all the same, with its own type."""
    (found,) = sent(made(event={"a": [1]}))
    assert found.record.body.kvlist_value.values[0].key == "a"


def test_the_span_of_an_event() -> None:
    """Its identifiers are bytes of the record and no attributes."""
    (found,) = sent(made(trace_id=TRACE, span_id=SPAN, trace_flags="01"))
    assert (found.record.trace_id.hex(), found.record.span_id.hex(), found.record.flags) == (TRACE, SPAN, 1)
    assert found.fields == {"fapilog.seq": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"trace_id": "mine", "span_id": SPAN},
        {"trace_id": 7, "span_id": 8, "trace_flags": 1},
        {"trace_id": "0" * 32, "span_id": SPAN},
        {"trace_id": TRACE + "\n"},
        {"trace_id": TRACE.upper()},
        {"span_id": SPAN, "trace_flags": "01"},
    ],
)
def test_identifiers_of_the_users_own_that_are_none(fields: dict[str, Any]) -> None:
    """They are attributes like any other."""
    (found,) = sent(made(**fields))
    assert found.fields == {**fields, "fapilog.seq": 1}
    assert (found.record.trace_id, found.record.span_id, found.record.flags) == (b"", b"", 0)


def test_a_trace_without_a_span() -> None:
    """The trace is the record's; what is no span stays an attribute."""
    (found,) = sent(made(trace_id=TRACE, span_id="0" * 16, trace_flags="xx"))
    assert (found.record.trace_id.hex(), found.record.span_id, found.record.flags) == (TRACE, b"", 0)
    assert found.fields == {"span_id": "0" * 16, "trace_flags": "xx", "fapilog.seq": 1}


def raised() -> BaseException:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise json.JSONDecodeError("outer", "doc", 0) from inner
    except ValueError as error:
        return error


def test_an_exception() -> None:
    """It has the names of the semantic convention; the text is Python's own, with the cause."""
    (found,) = sent(made(exception=told(raised())))
    assert found.fields["exception.type"] == "json.decoder.JSONDecodeError"
    assert found.fields["exception.message"] == "outer: line 1 column 1 (char 0)"
    stack = found.fields["exception.stacktrace"]
    assert stack.startswith("Traceback (most recent call last):\n  File ")
    assert stack.endswith("\njson.decoder.JSONDecodeError: outer: line 1 column 1 (char 0)")
    assert "KeyError: 'inner'\n\nThe above exception was the direct cause of the following exception:\n" in stack
    assert "exception" not in found.fields


@pytest.mark.parametrize(
    ("exception", "attributes"),
    [
        ({"type": "ZeroDivisionError", "module": "builtins", "message": "x"}, {"exception.type": "ZeroDivisionError"}),
        ("Traceback:\n  x\n", {"exception.stacktrace": "Traceback:\n  x"}),
        ("no", {"exception": "no"}),
        ({"code": 7}, {"exception": {"code": 7}}),
        (["a"], {"exception": ["a"]}),
    ],
)
def test_forms_of_exceptions(exception: Any, attributes: dict[str, Any]) -> None:
    """A built-in's name stands alone, a traceback as text is the stack; what has another form stays what it is."""
    (found,) = sent(made(exception=exception))
    assert attributes.items() <= found.fields.items()


def test_names_that_are_ours() -> None:
    """The user's attribute is kept under the same name with an underscore."""
    fields: dict[str, Any] = {"fapilog.seq": "a", "fapilog.seq_": "b", "exception.type": "c", "": "d"}
    (found,) = sent(made(exception=told(raised()), **fields))
    assert found.fields["fapilog.seq"] == 1
    assert found.fields["fapilog.seq__"] == "a"
    assert (found.fields["fapilog.seq_"], found.fields["exception.type_"], found.fields["_"]) == ("b", "c", "d")


def test_the_same_lines_again() -> None:
    """They are the same bytes, whoever encodes them: the process that wrote them, or one that recovers them."""
    some = lines(1, 50)
    assert (
        encode_request(origins_of(), some) == encode_request(origins_of(), list(some)) == encode_request(origins_of(OTHER), some)
    )


def test_lines_of_several_processes_and_loggers() -> None:
    """Each process is a resource, each of its loggers a scope, both once; in each the order is that of the lines."""
    batch = [made(seq, identity, logger=name) for seq in range(1, 4) for identity in (ME, OTHER) for name in ("a", "b")]
    found = sent(*batch)
    assert [(each.resource["fapilog.worker"], each.scope, each.seq) for each in found] == [
        (worker, scope, seq) for worker in (2, 3) for scope in ("a", "b") for seq in (1, 2, 3)
    ]
    assert "deployment.environment.name" not in found[-1].resource


def test_lines_of_very_many_processes() -> None:
    """Each has its own resource, also where more come in one request than are remembered."""
    others = [Identity("shop", "", "h1", number, number, f"b{number}") for number in range(1, 3 * MAX_KNOWN)]
    found = sent(*(made(1, identity) for identity in others))
    assert [(each.resource["fapilog.worker"], each.resource["service.instance.id"]) for each in found] == [
        (identity.worker, identity.boot) for identity in others
    ]


def test_configured_attributes() -> None:
    """They win over what is found, but for what tells processes apart; those without a name are left out."""
    configured: dict[str, Any] = {
        "team": "core",
        "n": 7,
        "host.name": "pod-1",
        "service.name": "other",
        "": "x",
        "service.instance.id": "same",
        "process.pid": 1,
        "fapilog.worker": 1,
    }
    (found,) = records_in(encode_request(origins_of(**configured), [line(1)]))
    assert found.resource == {
        "service.name": "other",
        "deployment.environment.name": "prod",
        "host.name": "pod-1",
        "team": "core",
        "n": 7,
        "service.instance.id": "b00t",
        "process.pid": 77,
        "fapilog.worker": 2,
    }


def test_signs_that_have_no_form() -> None:
    """Half a surrogate pair, which JSON can name, is a question mark, in names and in texts at any depth."""
    odd = b'{"event":"\\ud800","n":12345678901234567890123,"\\ud800":"\\ud800","d":{"\\ud800":["\\ud800"]},"":"\\ud800"}\n'
    (found,) = sent(odd)
    assert found.record.body.string_value == "?"
    assert found.fields == {"n": "12345678901234567890123", "?": "?", "d": {"?": ["?"]}, "_": "?"}


def test_a_line_that_is_nested_too_deep_to_be_read() -> None:
    """It is the body of a record, and those around it are as they would be."""
    deep = b'{"event":"e","n":12345678901234567890123,"d":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n"
    found = sent(line(1), deep, line(2))
    assert [each.record.body.string_value for each in found] == ["x", deep.decode().rstrip(), "x"]


def test_a_value_that_cannot_be_told(monkeypatch) -> None:
    """Its line is the body of a record, with the time and nothing by halves; those around it are as they would be."""
    fill = otlp_request._fill

    def fails(target: Any, value: Any, depth: int = 0) -> None:
        if value == 7:
            raise RuntimeError
        fill(target, value, depth)

    monkeypatch.setattr(otlp_request, "_fill", fails)
    bad = made(5, a="x", b=7)
    found = sent(line(1), bad, line(2))
    assert [each.record.body.string_value for each in found] == ["x", bad.decode().rstrip(), "x"]
    assert (found[1].record.time_unix_nano % 1000, found[1].fields) == (5, {"fapilog.seq": 5})


def test_a_time_in_another_form() -> None:
    """It is an attribute; the record has no time of its own."""
    (found,) = sent(b'{"timestamp":"yesterday","event":"e"}\n')
    assert (found.record.time_unix_nano, found.fields) == (0, {"timestamp": "yesterday"})


@pytest.mark.parametrize("text", [b"plain text\n", b"\xff\n", b"[1]\n", b"7\n", b"\n"])
def test_what_no_hub_has_made(text: bytes) -> None:
    """Its text is the body; it has no time of its own, and the moment at which it was seen."""
    before = time.time_ns()
    (found,) = sent(text)
    assert found.record.body.string_value == text.rstrip(b"\n").decode("utf-8", "replace")
    assert found.record.time_unix_nano == 0
    assert before <= found.record.observed_time_unix_nano <= time.time_ns()
    assert found.fields == {}
