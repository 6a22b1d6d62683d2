"""How long the worker sleeps between two looks."""

from __future__ import annotations

import pytest

from fapilog._internal.pace import BUSY_TICK, IDLE_TICK, TICK, Pace


def pauses(shares: list[float], patience: float = 1.0) -> list[float]:
    """Return how long it sleeps after looks that find such shares, each at the end of the sleep before."""
    pace, now, found = Pace(patience), 100.0, []
    for share in shares:
        found.append(pace.after(now, share))
        now += found[-1]
    return found


@pytest.mark.parametrize(("share_of_a_second", "expected"), [(0.01, BUSY_TICK), (1.0, 1 / 16), (2.0, 1 / 32), (50.0, TICK)])
def test_events_that_come_at_a_rate(share_of_a_second: float, expected: float) -> None:
    """It sleeps until a sixteenth of the queue is expected to be taken, within its bounds."""
    pace, now, pause = Pace(1.0), 100.0, TICK
    for _ in range(10):
        pause = pace.after(now, max(1e-9, share_of_a_second * pause))
        now += pause
    assert pause == pytest.approx(expected)


def test_a_queue_that_is_nearly_full() -> None:
    """It looks again soon, whatever it did before."""
    assert pauses([0.0] * 6 + [0.9, 0.9])[-1] == TICK


def test_nothing_comes() -> None:
    """Each sleep is twice as long as the one before, up to a bound."""
    assert pauses([0.0] * 6) == [2 * TICK, 4 * TICK, 8 * TICK, 16 * TICK, IDLE_TICK, IDLE_TICK]


@pytest.mark.parametrize(("patience", "longest"), [(0.0, TICK), (0.05, 0.05), (1.0, BUSY_TICK), (60.0, BUSY_TICK)])
def test_events_that_may_not_wait(patience: float, longest: float) -> None:
    """While something comes, it does not sleep longer than an event may wait."""
    assert max(pauses([0.0, 0.0, 0.0] + [0.0001] * 5, patience)[3:]) == longest
