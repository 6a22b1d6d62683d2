"""
The shortest way from a log call to its line: for events whose fields are plain numbers, short texts and lists of numbers.

Invariants:

1. A line that was made here is the one that `encoding.encode_open()` would have made, byte for byte.
2. What is not sure to be harmless, small and flat is left to the other way: there is no doubt here.
3. The cost is bounded: everything is looked at before orjson gets it, and of a list, which another thread may hold too, a copy.
4. What is remembered (the encoded names of loggers and short texts of events) is bounded and free of secrets whatever the
   redactor, so it may outlive one; threads may fill it at once, and losing it costs time only.

It spares an event the making of one dict with all its fields, which costs as much as encoding them. The time is put together from
a text that is remembered for a second and two numbers from a table: a third of the time that it takes to ask for a `datetime`.
"""

from __future__ import annotations

import time
from datetime import date
from types import NoneType
from typing import Any
from uuid import UUID

import orjson

from fapilog._internal.plain import OPTIONS
from fapilog.redaction import redaction

MAX_TEXT = 16_384  # characters of one text
MAX_FLAT = 64  # items of a list that is given to orjson as it is
MAX_FIELDS = 64  # whose texts are not counted together
MAX_KNOWN = 4_096
MAX_KNOWN_TEXT = 256  # characters
MOST_KNOWN_BYTES = 4_096  # of two such texts encoded, and what stands before them

# The signs without which a line has no secret (see `Redactor.suspects`). As numbers, which bytes are searched for ten times as
# fast as for bytes. The colon with a blank, behind a header's name, is looked for in each text that has a blank.
EQUALS, AT, QUOTE, BACKSLASH = b"=@'\\"
OF_HEADERS = b": "
SECOND_NS = 1_000_000_000
BRIEF = frozenset((int, float, bool, NoneType, date, UUID))

clock_ns = time.time_ns  # the seam for `testing.FakeClock`

_dumps = orjson.dumps
_THOUSAND = [b"%03d" % number for number in range(1000)]
_LEVELS = {name: f'Z","level":"{name}","event":'.encode() for name in ("debug", "info", "warning", "error", "critical")}
_names: dict[str | None, bytes] = {}
_events: dict[str, bytes] = {}
_second = (1 << 80, b"")  # when it began and its text: replaced whole, so that threads see both or neither


def timestamp() -> str:
    """Return the time as lines have it."""
    now = clock_ns()
    second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // SECOND_NS))
    return f"{second}.{now % SECOND_NS // 1000:06d}Z"


def encode_flat(level: str, name: str | None, event: object, fields: dict[str, Any], max_bytes: int) -> bytes:
    """Return the event as `encode_open()` does, or nothing if that way is longer; any thread."""
    redactor = redaction.current
    if redactor.rewrites or len(fields) > MAX_FIELDS or not redactor.are_plain(fields) or type(event) is not str:
        return b""
    shown, named, room = _events.get(event), _names.get(name), max_bytes - MOST_KNOWN_BYTES
    if not shown or not named:
        shown, named = shown or _shown(event), named or _named(name)
        if not shown or not named:
            return b""
        room = max_bytes - len(shown) - len(named) - MAX_KNOWN_TEXT
    try:
        for key, value in fields.items():
            kind = type(value)
            if kind is str:
                if len(value) > MAX_TEXT or (" " in value and ": " in value and redactor.text(value) != value):
                    return b""
            elif kind not in BRIEF:
                if kind is not list or len(value) > MAX_FLAT:
                    return b""
                fields[key] = copy = value[:MAX_FLAT]  # not of more, whatever another thread does meanwhile
                for item in copy:
                    if type(item) not in BRIEF:
                        return b""
        raw = _dumps(fields, None, OPTIONS)
    except Exception:  # what JSON has no form for, like half a surrogate pair; a type that fights back
        return b""
    if len(raw) > room:
        return b""
    if (EQUALS in raw or AT in raw or QUOTE in raw or BACKSLASH in raw) and redactor.suspects(raw):
        return b""
    now = clock_ns()
    start, second = _second
    micros = (now - start) // 1000
    if not 0 <= micros < 1_000_000:
        start, second = _next_second(now)
        micros = (now - start) // 1000
    head = b"".join((second, _THOUSAND[micros // 1000], _THOUSAND[micros % 1000], _LEVELS[level], shown, named, raw[1:-1]))
    return head if fields else head[:-1]


def _next_second(now: int) -> tuple[int, bytes]:
    global _second
    seconds = now // SECOND_NS
    _second = (seconds * SECOND_NS, time.strftime('{"timestamp":"%Y-%m-%dT%H:%M:%S.', time.gmtime(seconds)).encode())
    return _second


def _shown(event: str) -> bytes:
    """Return the encoded text of an event; nothing if the longer way has to look at it."""
    return _quiet(event, _events) if len(event) <= MAX_TEXT else b""


def _named(name: str | None) -> bytes:
    """Return what comes between the event and the fields; nothing if the longer way has to look at it."""
    if name is None:
        return b","
    return _quiet(name, _names, b',"logger":%b,') if type(name) is str and len(name) <= MAX_TEXT else b""


def _quiet(text: str, known: dict[Any, bytes], form: bytes = b"%b") -> bytes:
    """Return *text* encoded if there is no secret in it; it is remembered if it has not even a sign of one."""
    try:
        raw = _dumps(text)
    except (TypeError, ValueError):
        return b""
    if EQUALS in raw or AT in raw or QUOTE in raw or BACKSLASH in raw or OF_HEADERS in raw:
        return b"" if redaction.current.suspects(raw) else form % raw
    if len(text) <= MAX_KNOWN_TEXT:
        if len(known) >= MAX_KNOWN:
            known.clear()
        known[text] = form % raw
    return form % raw
