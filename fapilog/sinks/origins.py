"""
Who wrote a line, and when: what a server is told of an event beside its text; pure.

Invariants:

1. Both are found in the line alone, so whoever sends it again, and whenever, says the same: a process that sends what another one
   left behind says that one's. A line that no hub has made gets the identity of the sender.
2. The time is that of the event in microseconds, with `seq` mod 1000 below, so that a thousand events of a process in a row have
   different times at the same microsecond. Where `seq` reaches a multiple of 1000 within one, the later events come before the
   earlier ones: no number below 1000 that is made of an unlimited `seq` alone can always rise. `seq` itself says the order.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, TypeVar

import orjson

from fapilog.identity import HUB_FIELDS, Identity

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_KNOWN = 64  # other processes that are remembered
SECOND_NS = 1_000_000_000

_SEQ = re.compile(rb"[0-9]+\}\n\Z")
_FIRST_FIELD = b',"service":"'
_STAMP = re.compile(rb'\{"timestamp":"([0-9-]{10}T[0-9:]{8})\.([0-9]{6})Z"')

Origin = TypeVar("Origin")


class Origins(Generic[Origin]):
    """
    Finds the origin of a line; for one thread.

    Args:
        identity: Of the process that sends.
        made: Makes of an identity what a server is told of the process.
    """

    def __init__(self, identity: Identity, made: Callable[[Identity], Origin]) -> None:
        self._made = made
        self.own = made(identity)
        self._own_end = identity.ends()
        self._others: dict[bytes, Origin] = {}

    def of(self, line: bytes) -> tuple[Origin, int]:
        """Return the origin and the `seq` of *line*: that of this process, and perhaps 0, where the line does not say."""
        end = line.rfind(b":") + 1
        origin = self.own if line.endswith(self._own_end, 0, end) else self._found(line, end)
        return origin, _number(line[end:-2])

    def _found(self, line: bytes, end: int) -> Origin:
        start = line.rfind(_FIRST_FIELD, 0, end)  # in what comes after it, a quotation mark within a text has a backslash
        if start < 0 or not _SEQ.match(line, end):
            return self.own
        fields = line[start:end]
        known = self._others.get(fields)
        if known is not None:
            return known
        identity = _identity(fields)
        if identity is None:
            return self.own
        if len(self._others) >= MAX_KNOWN:
            self._others.clear()
        origin = self._others[fields] = self._made(identity)
        return origin


def _identity(fields: bytes) -> Identity | None:
    """Return the identity of which *fields* is the end of a line up to its `seq`, if it is one to the byte."""
    try:
        found = orjson.loads(b"{" + fields[1:] + b"0}")
        identity = Identity(**{name: found[name] for name in HUB_FIELDS[:-1]})
    except (ValueError, KeyError):
        return None
    types = (str, str, str, int, int, str)
    if tuple(map(type, identity.fields().values())) != types or identity.ends() != fields:
        return None
    return identity


def time_ns_of(line: bytes, seq: int) -> int | None:
    """Return the time of an event in nanoseconds since the epoch; *None* for a line that has none."""
    found = _STAMP.match(line)
    second = _second(found[1]) if found is not None else None
    if found is None or second is None:
        return None
    return second * SECOND_NS + int(found[2]) * 1000 + seq % 1000


@lru_cache(maxsize=64)
def _second(text: bytes) -> int | None:
    try:
        return int(datetime.fromisoformat(text.decode()).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _number(digits: bytes) -> int:
    """Return the `seq` that *digits* are; 0 where they are none, in a line that was handed to `write()` by somebody else."""
    try:
        return int(digits)
    except ValueError:
        return 0
