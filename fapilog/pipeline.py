"""
The caller's side: from a log call to an encoded line at the door of the queue. Pure: no thread, no I/O, no lock.

Invariants:

1. A log call raises no `Exception`, whatever the values; `BaseException` of user code passes. That goes for what a signal handler
   throws while the call runs, too.
2. The line shows the values at call time: it is encoded before the call returns.
3. Nothing here belongs to one process: the way out is looked up in `route` at call time, so a logger that was made, bound or
   cached before a fork or a re-configuration writes where its process writes now.
4. On a name clash the hub's field wins and the user's value is kept under the same name with ``_`` added.

Order: level gate (in the logger) -> sampling rules, which see the event as it was logged -> contextvars, bound values, call
values -> the user's processors -> exception -> clashes -> encode -> `route.accept`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextvars import copy_context
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import structlog

from fapilog._internal.notes import note
from fapilog.encoding import encode_open, safe_text
from fapilog.identity import HUB_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog._internal.accounting import Reason
    from fapilog._internal.event_queue import EventQueue
    from fapilog._internal.sampling import Sampler

LEVELS_BY_NAME = {
    "debug": 10,
    "info": 20,
    "warn": 30,
    "warning": 30,
    "error": 40,
    "err": 40,
    "exception": 40,
    "critical": 50,
    "fatal": 50,
    "msg": 20,
    "log": 20,
}
LEVEL_NAMES = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}

_HEAD_FIELDS = ("timestamp", "level", "event", "logger")
_SPECIAL = frozenset((*_HEAD_FIELDS, *HUB_FIELDS, "exc_info", "stack_info"))
_CLASHING = frozenset((*_HEAD_FIELDS, *HUB_FIELDS))
_PREFIX = "structlog_"
_OUR_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_STACK = structlog.processors.StackInfoRenderer(additional_ignores=["fapilog"])
_now = datetime.now


class Gate:
    """The level from which one logger name is let through. Shared by all loggers of that name; set in place."""

    __slots__ = ("level",)

    def __init__(self, level: int) -> None:
        self.level = level


class Gates:
    """
    The gates of a process by logger name; a rule for ``a.b`` holds for ``a.b.c`` too.

    `of()` and `set()` may be called from any thread. A log call only reads `Gate.level`.
    """

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}
        self._rules: dict[str, int] = {"": 20}

    def of(self, name: str | None) -> Gate:
        """Return the gate of the logger *name*; *None* is the root."""
        key = name or ""
        gate = self._gates.get(key)
        return gate if gate is not None else self._gates.setdefault(key, Gate(self._level(key)))

    def set(self, default_level: int, rules: dict[str, int]) -> None:
        """Replace all rules."""
        self._rules = {**rules, "": default_level}
        self._apply()

    def set_one(self, level: int, name: str = "") -> None:
        """Set the rule of one logger name; ``""`` is the default."""
        self._rules = {**self._rules, name: level}
        self._apply()

    def _apply(self) -> None:
        for name, gate in list(self._gates.items()):
            gate.level = self._level(name)

    def rule_of(self, name: str) -> int | None:
        """Return the level of the rule that names *name* or one above it; None where only the default holds."""
        rules = self._rules
        while name:
            if name in rules:
                return rules[name]
            name = name.rpartition(".")[0]
        return None

    def _level(self, name: str) -> int:
        rule = self.rule_of(name)
        return self._rules[""] if rule is None else rule


class Route:
    """
    Where this process's events go now. One per process, its attributes replaced in place.

    Attributes:
        accept: ``accept(levelno, head) -> bool`` of the current queue; *head* is the line without identity and brace.
        refuse: ``refuse(reason)`` of the current queue, for an event that is not to come as far as `accept`.
        configured: Whether `configure_logging()` was called here or in the process this one was forked from.
        by_hand: The queue of a hand-made worker, which `queue_sink` then prefers.
        max_bytes: `FAPILOG_MAX_EVENT_BYTES`.
        sampler: The rules of `FAPILOG_SAMPLING`; None where there are none.
        filtered: How many events the user's own processors dropped.
    """

    __slots__ = ("accept", "by_hand", "configured", "filtered", "max_bytes", "refuse", "sampler")

    def __init__(self) -> None:
        self.accept: Callable[[int, bytes], bool] = _nowhere
        self.refuse: Callable[[Reason], bool] = _nothing
        self.by_hand: EventQueue | None = None
        self.configured = False
        self.max_bytes = 262_144
        self.sampler: Sampler | None = None
        self.filtered = 0

    def renew(self) -> None:
        """Forget what belongs to the process that this one was forked from; what was configured stays."""
        self.by_hand = None
        self.filtered = 0
        if self.sampler is not None:
            self.sampler = self.sampler.fresh()


def _nowhere(_levelno: int, _head: bytes) -> bool:
    return False


def _nothing(_reason: Reason) -> bool:
    return False


route = Route()
gates = Gates()


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
        if (sampler := route.sampler) is not None and sampler.stops(levelno, event, route.refuse):
            return
        context = copy_context()
        if context:
            fields = {**_inherited(context), **bound, **fields}
        elif bound:
            fields = {**bound, **fields}
        if processors:
            event, fields = _processed(processors, name, level, event, fields)
        now = _now(UTC)
        stamp: object = now if now.microsecond else _timestamp(now)  # orjson leaves six zeros out
        if not _SPECIAL.isdisjoint(fields):
            stamp, fields = _settled(fields, level, stamp)
        record = {"timestamp": stamp, "level": level, "event": event, "logger": name, **fields}
        if name is None:
            del record["logger"]
        head = encode_open(record, route.max_bytes)
    except structlog.DropEvent:
        route.filtered += 1
        return
    except Exception as error:
        head = _last_word(level, name, event, error)
    try:  # of its own: whatever is thrown in here (by a signal handler, say), the event was taken or not, and is not sent again
        route.accept(levelno, head)
    except Exception as error:
        note("accept", f"an exception came up in the middle of a log call, which does not raise: {error!r}")


def emit_dict(logger: object, method_name: str, event_dict: Any) -> None:
    """Take the event dict of a user's own structlog chain, or what a renderer made of it, to the door; what `queue_sink` does."""
    name = getattr(logger, "name", None)
    by_hand = route.by_hand
    try:
        given = event_dict if isinstance(event_dict, Mapping) else {"event": event_dict}
        if (sampler := route.sampler) is not None and sampler.stops(
            _levelno_of(given, method_name), given.get("event"), route.refuse if by_hand is None else by_hand.refuse
        ):
            return
        levelno, head = head_of(given, method_name, name)
    except Exception as error:
        levelno, head = LEVELS_BY_NAME.get(method_name, 20), _last_word(method_name, name, event_dict, error)
    try:
        (route.accept if by_hand is None else by_hand.accept)(levelno, head)
    except Exception as error:
        note("accept", f"an exception came up in the middle of a log call, which does not raise: {error!r}")


def head_of(event_dict: Mapping[str, Any], method_name: str = "info", name: object = None) -> tuple[int, bytes]:
    """Return the level number and the head of the line for an event that came as a dict."""
    fields = dict(event_dict)
    event = fields.pop("event", None)
    logger_name = fields.pop("logger") if isinstance(fields.get("logger"), str) else name
    levelno = _levelno_of(fields, method_name)
    level = LEVEL_NAMES[levelno]
    if str(fields.get("level", "")).lower() in LEVELS_BY_NAME:
        del fields["level"]
    stamp, fields = _settled(fields, level, _timestamp(_now(UTC)))
    record = {"timestamp": stamp, "level": level, "event": event}
    if isinstance(logger_name, str):
        record["logger"] = logger_name
    return levelno, encode_open({**record, **fields}, route.max_bytes)


def _levelno_of(fields: Mapping[str, Any], method_name: str) -> int:
    return LEVELS_BY_NAME.get(str(fields.get("level", method_name)).lower(), LEVELS_BY_NAME.get(method_name, 20))


def _inherited(context: Any) -> dict[str, Any]:
    """Return what structlog's contextvars hold; the lowest in rank, as in `structlog.contextvars.merge_contextvars`."""
    found = {}
    for var in context:
        if var.name.startswith(_PREFIX):
            value = context[var]
            if value is not Ellipsis:
                found[var.name[10:]] = value
    return found


def _processed(
    processors: list[Any], name: str | None, level: str, event: object, fields: dict[str, Any]
) -> tuple[object, dict[str, Any]]:
    """Run the user's processors as structlog would; one that raises is named on the event and does not stop it."""
    if "event" in fields:
        fields = {**fields, "event_": fields["event"]}
    current: Any = {**fields, "event": event}
    failed: list[str] = []
    for processor in processors:
        try:
            current = processor(_NamedLogger(name), level, current)
        except structlog.DropEvent:
            raise
        except Exception as error:
            failed.append(f"{getattr(processor, '__qualname__', type(processor).__qualname__)}: {safe_text(error)}")
        if not isinstance(current, dict):
            return current, {}
    fields = dict(current)
    if failed:
        fields["processor_error"] = "; ".join(failed)
    return fields.pop("event", None), fields


class _NamedLogger:
    """What the user's processors get as *logger*: its name."""

    __slots__ = ("name",)

    def __init__(self, name: str | None) -> None:
        self.name = name


def _settled(fields: dict[str, Any], level: str, stamp: object) -> tuple[object, dict[str, Any]]:
    """
    Turn `exc_info` and `stack_info` into what the line says, and move the user's values out of the hub's names.

    A `timestamp` in our own form (structlog's `TimeStamper(fmt="iso", utc=True)` writes it) is taken as the event's time, and a
    `level` that says what we say is no clash.
    """
    fields = dict(fields)
    given = fields.get("timestamp")
    if isinstance(given, str) and _OUR_TIMESTAMP.fullmatch(given):
        stamp = fields.pop("timestamp")
    if fields.get("level") == level:
        del fields["level"]
    _exception_in_place(fields)
    if fields.pop("stack_info", False):
        fields.setdefault("stack", _STACK(None, "", {"stack_info": True})["stack"])
    for name in [name for name in fields if name in _CLASHING]:
        kept = name + "_"
        while kept in fields:
            kept += "_"
        fields[kept] = fields.pop(name)
    return stamp, fields


def _exception_in_place(fields: dict[str, Any]) -> None:
    given = fields.pop("exc_info", None)
    if not given:
        return
    if isinstance(given, BaseException):
        exc_info: Any = (type(given), given, given.__traceback__)
    elif isinstance(given, tuple):
        exc_info = given
    else:
        exc_info = sys.exc_info()
    if exc_info[0] is not None and "exception" not in fields:
        from structlog.tracebacks import ExceptionDictTransformer

        try:
            fields["exception"] = ExceptionDictTransformer(show_locals=False)(exc_info)
        except Exception:  # an odd tuple, or an exception that fights back
            fields["exception"] = safe_text(given)


def _timestamp(now: datetime) -> str:
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond:06d}Z"


def _last_word(level: str, name: object, event: object, error: Exception) -> bytes:
    """Return a head with at least the event of a call that our own code could not take."""
    shown = event if isinstance(event, str) else safe_text(event)
    record = {"timestamp": _timestamp(_now(UTC)), "level": level, "event": shown, "pipeline_error": safe_text(error)}
    if isinstance(name, str):
        record["logger"] = name
    return encode_open(record, route.max_bytes)


def own_head(event: str, level: str = "info", **fields: Any) -> bytes:
    """Return the head of one of the hub's own events (`fapilog.closed` and the like)."""
    record = {"timestamp": _timestamp(_now(UTC)), "level": level, "event": event, "logger": "fapilog", **fields}
    return encode_open(record, 1 << 20)
