"""The event that every contender logs, and how the loops that log it are made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "order placed"
MARK = b'"order placed"'
FIELDS: dict[str, Any] = {
    "user": "u-1842", "order": 918273, "amount": 129.95, "currency": "EUR", "items": [1, 2, 3], "paid": True,
    "coupon": None, "path": "/api/orders", "ip": "203.0.113.7", "ua": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20",
}  # fmt: skip

_KEYWORDS = ", ".join(f"{key}={value!r}" for key, value in FIELDS.items())
#: How the event is logged, by the kind of logger; ``{level}`` is the method.
AS_KEYWORDS = f'log.{{level}}("{NAME}", {_KEYWORDS})'
AS_EXTRA = f'log.{{level}}("{NAME}", extra={FIELDS!r})'

# The loops are compiled from one text, as timeit does, so that each has nothing but the call in it.
_TIGHT = """
def loop(log, calls):
    for _ in range(calls):
        {call}
"""
# One sample a call, from the moment it was due. With an interval (ns) the wait spins, as a busy application would: a stall
# makes the calls that fell due meanwhile late, and their samples say so.
_TIMED = """
def loop(log, samples, interval, clock):
    due = clock()
    for index in range(len(samples)):
        if interval:
            due += interval
            while clock() < due:
                pass
        else:
            due = clock()
        {call}
        samples[index] = clock() - due
"""


def tight_loop(call: str, names: dict[str, Any], level: str = "info") -> Callable[[Any, int], None]:
    """Return a loop that logs so many events; *names* are those that the call needs beside ``log``."""
    return _compiled(_TIGHT, call, names, level)


def timed_loop(call: str, names: dict[str, Any]) -> Callable[..., None]:
    """Return a loop that fills an array with what each call took, in nanoseconds."""
    return _compiled(_TIMED, call, names, "info")


def _compiled(text: str, call: str, names: dict[str, Any], level: str) -> Callable[..., None]:
    made: dict[str, Callable[..., None]] = {}
    exec(text.replace("{call}", call).replace("{level}", level), names, made)
    return made["loop"]


def fields_of(line: bytes) -> dict[str, Any]:
    """Return what a line says, whatever the contender puts the fields in."""
    found: dict[str, Any] = json.loads(line)
    for place in ("record", "extra", "attributes"):
        if isinstance(inner := found.get(place), dict):
            found = {**found, **fields_of(json.dumps(inner).encode())}
    return found


def written(directory: Path) -> tuple[int, int]:
    """
    Return how many lines of the event are in the files of *directory*, and the size of one in bytes.

    Raises:
        BenchError: The last one does not hold the fields that were logged.
    """
    count, last = 0, b""
    for path in sorted(directory.glob("bench*.jsonl*")):
        for line in path.read_bytes().splitlines():
            if MARK in line:
                count, last = count + 1, line
    if count and {key: fields_of(last).get(key, "missing") for key in FIELDS} != FIELDS:
        raise BenchError(f"fields differ from what was logged: {last.decode()}")
    return count, len(last) + 1
