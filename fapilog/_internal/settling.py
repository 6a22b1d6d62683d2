"""
The fields of one call in their final form: the exception as data, no name of the hub's taken, no secret left.
"""

from __future__ import annotations

import itertools
import re
import sys
from typing import Any

import structlog

from fapilog._internal.exceptions import told
from fapilog.encoding import MAX_FIELDS, safe_text
from fapilog.identity import HUB_FIELDS
from fapilog.redaction import MASK, is_maskable, redaction

HEAD_FIELDS = ("timestamp", "level", "event", "logger")
SPECIAL = frozenset((*HEAD_FIELDS, *HUB_FIELDS, "exc_info", "stack_info"))
_CLASHING = frozenset((*HEAD_FIELDS, *HUB_FIELDS))
_OUR_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_STACK = structlog.processors.StackInfoRenderer(additional_ignores=["fapilog"])


def settled(fields: dict[str, Any], level: str, stamp: object, *, with_locals: bool = False) -> tuple[object, dict[str, Any]]:
    """
    Turn `exc_info` and `stack_info` into what the line says, move the user's values out of the hub's names, and mask secrets.

    A `timestamp` in our own form (structlog's `TimeStamper(fmt="iso", utc=True)` writes it) is taken as the event's time, and a
    `level` that says what we say is no clash.
    """
    fields = dict(fields) if len(fields) <= MAX_FIELDS else _fewer(fields)
    given = fields.get("timestamp")
    if type(given) is str and _OUR_TIMESTAMP.fullmatch(given):
        stamp = fields.pop("timestamp")
    if type(fields.get("level")) is str and fields["level"] == level:
        del fields["level"]
    _exception_in_place(fields, with_locals=with_locals)
    if _is_true(fields.pop("stack_info", False)):
        fields.setdefault("stack", _STACK(None, "", {"stack_info": True})["stack"])
    for name in [name for name in fields if name in _CLASHING]:
        kept = name + "_"
        while kept in fields:
            kept += "_"
        fields[kept] = fields.pop(name)
    _mask(fields)
    return stamp, fields


def _is_true(value: object) -> bool:
    try:
        return bool(value)
    except Exception:  # an array, an object that fights back
        return True


def _fewer(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the first fields, with a mark: more of them cost the caller more than a line is worth."""
    return {**dict(itertools.islice(fields.items(), MAX_FIELDS)), "...": f"...[cut: {len(fields)} items]"}


def _mask(fields: dict[str, Any]) -> None:
    redactor = redaction.current
    for name, value in fields.items():
        if not redactor.is_secret(name):
            redactor.learn(name)
        elif is_maskable(value):
            fields[name] = MASK


def _exception_in_place(fields: dict[str, Any], *, with_locals: bool) -> None:
    given = fields.pop("exc_info", None)
    if issubclass(type(given), BaseException):
        exc_info: Any = (type(given), given, None)
    elif not _is_true(given):
        return
    elif type(given) is tuple:
        exc_info = given
    else:
        exc_info = sys.exc_info()
    if exc_info[0] is not None and "exception" not in fields:
        try:
            fields["exception"] = told(exc_info[1], exc_info[2], with_locals=with_locals)
        except Exception:  # an odd tuple, or an exception that fights back
            fields["exception"] = safe_text(given)
