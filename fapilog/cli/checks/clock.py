"""The clock of this machine: the times of all events are its."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fapilog.cli.checks.finding import Finding, error, fine
from fapilog.cli.shown import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fapilog.cli.checks.case import Case

CHECK = "clock"
FIRST_YEAR = 2025  # nothing of this version can have run before
TOLERANCE = 300.0  # seconds between this clock and a server's
_CHANGE = "Set the clock; let chrony, systemd-timesyncd or the host keep it right."


def check_clock(_case: Case, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Look whether the clock was ever set."""
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now()))
    if int(date[:4]) < FIRST_YEAR:
        found = f"The clock says {date} UTC, which is past: all events get such times, Loki refuses them, and TLS fails."
        yield error(CHECK, found, _CHANGE)
    else:
        yield fine(CHECK, f"It says {date} UTC.")


def compared(here: float, there: float, whose: str) -> Finding | None:
    """Return what is to be said about the difference to the clock of a server, in seconds since the epoch; None for little."""
    difference = here - there
    if abs(difference) <= TOLERANCE:
        return None
    way = "ahead of" if difference > 0 else "behind"
    found = (
        f"This clock is {duration(abs(difference))} {way} that of {whose}: Loki refuses what comes from the future, or too late."
    )
    return error(CHECK, found, _CHANGE)
