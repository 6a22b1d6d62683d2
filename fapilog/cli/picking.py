"""
Which events are wanted: by level, worker, time and the values of fields. Pure.

Invariants:

1. A condition that cannot be understood is a `ConfigurationError` that names it; one that an event cannot answer (it has no such
   field, or one of another kind) is not met, and never raises.
2. Numbers are compared as numbers, everything else as text: a text as it is, other values as JSON writes them.
"""

from __future__ import annotations

import operator
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from fapilog.cli.shown import seconds_of
from fapilog.errors import ConfigurationError
from fapilog.typing import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Wanted = Callable[[dict[str, Any]], bool]

_CONDITION = re.compile(r"([^=<>~!]+)(!=|!~|>=|<=|=|>|<|~)(.*)", re.DOTALL)
_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")
_STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"
_ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
MISSING = object()


def wanted(level: int = 0, workers: Sequence[int] = (), since: str = "", where: Iterable[str] = ()) -> Wanted | None:
    """
    Return what says whether an event (what its line says) is wanted; None if all are.

    Args:
        level: The least level number.
        workers: Of these workers only, if there are any.
        since: The least timestamp, as `timestamp_of()` returns it.
        where: Conditions such as ``status>=500``; all of them are to be met.

    Raises:
        ConfigurationError: A condition is none.
    """
    tests: list[Wanted] = []
    if since:
        tests.append(lambda fields: str(fields.get("timestamp", "")) >= since)
    if level:
        tests.append(lambda fields: LEVELS.get(str(fields.get("level")), 0) >= level)
    if workers:
        tests.append(lambda fields: fields.get("worker") in workers)
    tests += [condition(text) for text in where]
    if len(tests) < 2:
        return tests[0] if tests else None
    return lambda fields: all(test(fields) for test in tests)


def timestamp_of(text: str, now: float | None = None) -> str:
    """
    Return the moment *text* as lines have it.

    Args:
        text: How long before *now*, such as ``90s`` or ``1h30m``, or an ISO 8601 date or time; local where it says no zone.
        now: Seconds since the epoch; the present without it.

    Raises:
        ConfigurationError: It is neither.
    """
    seconds = seconds_of(text)
    try:
        if seconds is not None:
            moment = datetime.fromtimestamp((time.time() if now is None else now) - seconds, UTC)
        else:
            moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        message = (
            f"--since {text}: must be a duration such as 10m, or a time such as 2026-11-28T10:30, local, or 2026-11-28T10:30Z"
        )
        raise ConfigurationError(message) from None
    return moment.strftime(_STAMP)


def condition(text: str) -> Wanted:
    """
    Return the test that *text* is: ``key=value``, or one with ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``~``, ``!~`` (a pattern).

    A key that is no field by itself leads through objects: ``http.status``.

    Raises:
        ConfigurationError: It is none.
    """
    found = _CONDITION.fullmatch(text)
    if found is None or not found[1].strip():
        raise ConfigurationError(f"--where {text}: must be FIELD, one of = != < <= > >= ~ !~, and a value, such as status>=500")
    key, sign = found[1].strip(), found[2]
    holds = _comparison(text, sign.removeprefix("!"), found[3])
    if sign.startswith("!"):
        return lambda fields: not holds(value_of(fields, key))
    return lambda fields: holds(value_of(fields, key))


def _comparison(text: str, sign: str, given: str) -> Callable[[Any], bool]:
    """Return what says whether the value of a field, or `MISSING`, stands in the relation *sign* to *given*."""
    if sign == "~":
        try:
            pattern = re.compile(given)
        except re.error as error:
            raise ConfigurationError(f"--where {text}: {given} is no regular expression: {error}") from None
        return lambda value: value is not MISSING and pattern.search(text_of(value)) is not None
    number = float(given) if _NUMBER.fullmatch(given) else None
    if sign == "=":
        return lambda value: value is not MISSING and (text_of(value) == given or (_is_number(value) and value == number))
    holds = _ORDERS[sign]
    if number is not None:
        return lambda value: _is_number(value) and holds(value, number)
    return lambda value: isinstance(value, str) and holds(value, given)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def value_of(fields: dict[str, Any], key: str) -> Any:
    """Return the value of the field *key*, or of the one that its dots lead to; `MISSING` where there is none."""
    if key in fields or "." not in key:
        return fields.get(key, MISSING)
    at: Any = fields
    for part in key.split("."):
        if not isinstance(at, dict) or part not in at:
            return MISSING
        at = at[part]
    return at


def text_of(value: Any) -> str:
    """Return *value*: a text as it is, anything else as JSON writes it."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
