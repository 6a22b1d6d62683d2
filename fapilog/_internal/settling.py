"""
The fields of one call in their final form: the exception as data, no name of the hub's taken, no secret left.
"""

from __future__ import annotations

import itertools
import re
import sys
from types import TracebackType
from typing import Any

import structlog

from fapilog._internal.exceptions import told
from fapilog._internal.forms import cut_text
from fapilog._internal.members import Names
from fapilog._internal.plain import MAX_KEY
from fapilog.encoding import MAX_FIELDS
from fapilog.identity import HUB_FIELDS
from fapilog.redaction import MASK, is_maskable, redaction

HEAD_FIELDS = ("timestamp", "level", "event", "logger")
SPECIAL = frozenset((*HEAD_FIELDS, *HUB_FIELDS, "exc_info", "stack_info"))
_OUR_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{6})?Z")
_STACK = structlog.processors.StackInfoRenderer(additional_ignores=["fapilog."])


def settled(fields: dict[str, Any], level: str, stamp: object, *, with_locals: bool = False) -> tuple[object, dict[str, Any]]:
    """
    Turn `exc_info` and `stack_info` into what the line says, move the user's values out of the hub's names, and mask secrets.

    A `timestamp` in our own form (structlog's `TimeStamper(fmt="iso", utc=True)` writes it) is taken as the event's time, and a
    `level` that says what we say is no clash.
    """
    fields = dict(fields) if len(fields) <= MAX_FIELDS else _fewer(fields)
    given = fields.get("timestamp")
    ours = _OUR_TIMESTAMP.fullmatch(given) if type(given) is str else None
    if ours is not None:
        del fields["timestamp"]
        stamp = f"{ours[1]}{ours[2] or '.000000'}Z"  # `isoformat()` leaves six zeros out
    if type(fields.get("level")) is str and fields["level"] == level:
        del fields["level"]
    if "exc_info" in fields:
        _exception_in_place(fields, with_locals=with_locals)
    if "stack_info" in fields:
        _stack_in_place(fields)
    for name in [name for name in fields if name in SPECIAL]:
        keep(fields, name)
    _mask(fields)
    return stamp, fields


def _fewer(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the first fields, with a mark: more of them cost the caller more than a line is worth."""
    return {**dict(itertools.islice(fields.items(), MAX_FIELDS)), "...": f"...[cut: {len(fields)} items]"}


def keep(fields: dict[str, Any], name: str) -> None:
    """Move a value of the user's out of the hub's way: under the same name with ``_`` added, or more of them."""
    if name in fields:
        kept = name + "_"
        while kept in fields:
            kept += "_"
        fields[kept] = fields.pop(name)


def _mask(fields: dict[str, Any]) -> None:
    redactor = redaction.current
    names = Names()
    for name in [name for name in fields if type(name) is str and len(name) > MAX_KEY]:
        fields[names.free(cut_text(name, MAX_KEY), fields)] = fields.pop(name)
    for name, value in fields.items():
        if not redactor.is_secret(name):
            redactor.learn(name)
        elif is_maskable(value):
            fields[name] = MASK


def _exception_in_place(fields: dict[str, Any], *, with_locals: bool) -> None:
    """Turn an `exc_info` that means an exception into its data; another value under that name is a clash."""
    given = fields["exc_info"]
    if issubclass(type(given), BaseException):
        error: Any = given
        traceback = None
    elif type(given) is tuple and len(given) == 3 and issubclass(type(given[1]), BaseException):
        _, error, traceback = given
    elif not _is_true(given) or (type(given) is tuple and all(part is None for part in given)):
        error = traceback = None
    else:  # as structlog has it, whatever is true means the one that is being handled
        error, traceback = sys.exc_info()[1:]
        if error is None and type(given) is not bool:
            return
    del fields["exc_info"]
    if error is not None:
        keep(fields, "exception")
        fields["exception"] = told(error, traceback if isinstance(traceback, TracebackType) else None, with_locals=with_locals)


def _is_true(value: object) -> bool:
    try:
        return bool(value)
    except Exception:  # an array, an object that fights back
        return True


def _stack_in_place(fields: dict[str, Any]) -> None:
    """Turn a `stack_info` that asks for a stack into the stack; another value under that name is a clash."""
    given = fields["stack_info"]
    if given is None or issubclass(type(given), int):
        del fields["stack_info"]
        if given:
            keep(fields, "stack")
            fields["stack"] = _STACK(None, "", {"stack_info": True})["stack"]
