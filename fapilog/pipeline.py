"""
The caller's side: from a log call to an encoded line at the door of the queue. Pure: no thread, no I/O, no lock.

Invariants:

1. A log call raises no `Exception`, whatever the values; `BaseException` of user code passes. That goes for what a signal handler
   throws while the call runs, too.
2. The line shows the values at call time: it is encoded before the call returns.
3. Nothing here belongs to one process: the way out is looked up in `route` at call time, so a logger that was made, bound or
   cached before a fork or a re-configuration writes where its process writes now.
4. On a name clash the hub's field wins and the user's value is kept under the same name with ``_`` added.

Order: level gate (in the logger) -> sampling rules, which see the event as it was logged -> span, contextvars, bound values, call
values -> the user's processors -> exception -> clashes -> redaction -> encode -> `route.accept`.
"""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

import structlog

from fapilog._internal.chain import Taken, event_dict_of, run
from fapilog._internal.flat import encode_flat, timestamp
from fapilog._internal.gates import NamedLogger
from fapilog._internal.notes import note
from fapilog._internal.route import route
from fapilog._internal.settling import settled
from fapilog._internal.tracing import MODULE as _OPENTELEMETRY
from fapilog._internal.tracing import loaded as _loaded
from fapilog._internal.tracing import span_fields
from fapilog.encoding import encode_open, safe_text
from fapilog.redaction import redaction
from fapilog.typing import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LEVELS_BY_NAME = {**LEVELS, "warn": 30, "err": 40, "exception": 40, "fatal": 50, "msg": 20, "log": 20}
LEVEL_NAMES = {number: name for name, number in LEVELS.items()}

_PREFIX = "structlog_"
_key_of: dict[str, str] = {}  # by the name of a context variable, "" for one that is not structlog's
_MOST_KEYS = 4096  # that many are remembered, which costs less than to look at each name at each call

#: What tells the route of the request that this context belongs to: it becomes known only while the request is under way.
request_route: ContextVar[Callable[[], str]] = ContextVar("fapilog_request_route")


def emit(
    levelno: int,
    level: str,
    name: str | None,
    event: object,
    bound: dict[str, Any],
    fields: dict[str, Any],
    processors: list[Any],
) -> None:
    """Take one log call that passed its gate to the door; any thread, signal handler or finaliser. *fields* becomes ours."""
    try:
        if (sampler := route.sampler) is not None and sampler.stops(levelno, event, route.refuse, name):
            return
        context = copy_context()
        if context:
            fields = {**_inherited(context), **bound, **fields}
        elif bound:
            fields = {**bound, **fields}
        if processors:
            event, fields = run(processors, NamedLogger(name), level, event, fields)
        head = encode_flat(level, name, event, fields, route.max_bytes) or _encoded(level, name, event, fields)
    except structlog.DropEvent as drop:
        route.filtered += not isinstance(drop, Taken)
        return
    except Exception as error:
        head = _last_word(level, name, event, error)
    try:  # of its own: whatever a signal handler throws in here, the event was taken or not, and is not sent again
        route.accept(levelno, head)
    except RecursionError:  # no frames left for a queue, let alone for a note
        route.unplaced += 1
    except Exception as error:
        note("accept", f"an exception came up in the middle of a log call, which does not raise: {error!r}")


def _encoded(level: str, name: str | None, event: object, fields: dict[str, Any]) -> bytes:
    stamp: object = timestamp()
    if not redaction.current.are_plain(fields):
        stamp, fields = settled(fields, level, stamp, with_locals=route.exception_locals)
    record = {"timestamp": stamp, "level": level, "event": event, "logger": name, **fields}
    if name is None:
        del record["logger"]
    return encode_open(record, route.max_bytes)


def emit_dict(logger: object, method_name: str, event_dict: Any) -> None:
    """Take the event dict of a user's own structlog chain, or what a renderer made of it, to the door; what `queue_sink` does."""
    name = getattr(logger, "name", None)
    by_hand = route.by_hand
    try:
        given = event_dict_of(event_dict)
        if (sampler := route.sampler) is not None and sampler.stops(
            _levelno_of(given, method_name), given.get("event"), route.refuse if by_hand is None else by_hand.refuse
        ):
            return
        levelno, head = head_of(given, method_name, name)
    except Exception as error:
        levelno, head = LEVELS_BY_NAME.get(method_name, 20), _last_word(method_name, name, event_dict, error)
    try:
        (route.accept if by_hand is None else by_hand.accept)(levelno, head)
    except RecursionError:
        route.unplaced += 1
    except Exception as error:
        note("accept", f"an exception came up in the middle of a log call, which does not raise: {error!r}")


def head_of(event_dict: Mapping[str, Any], method_name: str = "info", name: object = None) -> tuple[int, bytes]:
    """Return the level number and the head of the line for an event that came as a dict."""
    fields = {**span_fields(), **event_dict} if _OPENTELEMETRY in _loaded else dict(event_dict)
    event = fields.pop("event", None)
    logger_name = fields.pop("logger") if isinstance(fields.get("logger"), str) else name
    levelno = _levelno_of(fields, method_name)
    level = LEVEL_NAMES[levelno]
    if str(fields.get("level", "")).lower() in LEVELS_BY_NAME:
        del fields["level"]
    stamp, fields = settled(fields, level, timestamp(), with_locals=route.exception_locals)
    record = {"timestamp": stamp, "level": level, "event": event}
    if isinstance(logger_name, str):
        record["logger"] = logger_name
    return levelno, encode_open({**record, **fields}, route.max_bytes)


def _levelno_of(fields: Mapping[str, Any], method_name: str) -> int:
    return LEVELS_BY_NAME.get(str(fields.get("level", method_name)).lower(), LEVELS_BY_NAME.get(method_name, 20))


def _inherited(context: Any) -> dict[str, Any]:
    """
    Return what structlog's contextvars hold; the lowest in rank, as in `structlog.contextvars.merge_contextvars`, but for the
    current span of OpenTelemetry, which is in a context variable, too: without any there is none.
    """
    found: dict[str, Any] = {**span_fields()} if _OPENTELEMETRY in _loaded else {}
    of_request = ""
    for var, value in context.items():
        name = _key_of.get(var.name)
        if name is None:
            name = _learned(var.name)
        if name:
            if value is not Ellipsis:
                found[name] = value
        elif var is request_route:
            of_request = value()
    if of_request:
        found.setdefault("route", of_request)
    return found


def _learned(name: str) -> str:
    key = name.removeprefix(_PREFIX) if name.startswith(_PREFIX) else ""
    if len(_key_of) < _MOST_KEYS:
        _key_of[name] = key
    return key


def _last_word(level: str, name: object, event: object, error: Exception) -> bytes:
    """Return a head with at least the event of a call that our own code could not take."""
    shown = event if isinstance(event, str) else safe_text(event)
    record = {"timestamp": timestamp(), "level": level, "event": shown, "pipeline_error": safe_text(error)}
    if isinstance(name, str):
        record["logger"] = name
    return encode_open(record, route.max_bytes)


def own_head(event: str, level: str = "info", **fields: Any) -> bytes:
    """Return the head of one of the hub's own events (`fapilog.closed` and the like)."""
    record = {"timestamp": timestamp(), "level": level, "event": event, "logger": "fapilog", **fields}
    return encode_open(record, 1 << 20)
