"""
When a file's time is over: fixed periods, and the days of the local clock.

Invariants:

1. Every moment lies in exactly one period, and a period's end is the beginning of the next.
2. Fixed periods are aligned to the epoch, so all processes turn at the same moments, whenever they were started.
3. A day begins at its first local moment: at 01:00 where the clock skips midnight, at the first of two where it comes twice.
"""

from __future__ import annotations

import time
from datetime import date, timedelta

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STEP_S = 900  # zones shift their clocks by multiples of a quarter of an hour
_MOST_STEPS = 26 * 4  # a whole day may be missing, west or east of the date line


class Schedule:
    """
    Divides time as a setting says.

    Args:
        every: ``midnight``, or a period as `parsing.rotation()` reads it: ``30s``, ``15m``, ``1h``, ``1d``.
    """

    def __init__(self, every: str) -> None:
        self._seconds = 0 if every == "midnight" else int(every[:-1]) * _UNITS[every[-1]]

    def period(self, at: float) -> tuple[float, float]:
        """Return begin and end of the period that the moment *at* lies in; all in seconds since the epoch."""
        if self._seconds:
            begin = at - at % self._seconds
            return begin, begin + self._seconds
        today = date(*time.localtime(at)[:3])
        return _midnight(today), _midnight(today + timedelta(days=1))


def _midnight(day: date) -> float:
    """Return the first moment of *day*, on the local clock."""
    at = time.mktime((day.year, day.month, day.day, 0, 0, 0, 0, 0, -1))
    for _ in range(_MOST_STEPS):  # the C library may choose either side of a gap
        if _day_of(at) >= day:
            break
        at += _STEP_S
    while _day_of(at - _STEP_S) == day:
        at -= _STEP_S
    return at


def _day_of(at: float) -> date:
    return date(*time.localtime(at)[:3])
