"""
What your own tests need: captured events, sinks that fail or stall, a clock that stands still. See docs/testing.md.

Nothing here is loaded by `import fapilog`. pytest is needed for the fixture only.

Invariants:

1. Whatever was logged before a `CapturedEvents` is read is in it, from whichever thread, in the order of its `seq`.
2. Captured events are what a sink would get: they have been through levels, processors, redaction and encoding, and carry the
   identity. They go to no sink.
3. A capture survives whatever the code under test does to the set-up, and leaves the set-up as it was found.
4. Log calls cost what they did before once a capture is over.

(PYTEST_DONT_REWRITE: the assertions here bring their own texts.)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Any, Self

from fapilog._internal import flat, sampling
from fapilog._internal.captured import POLL, CapturedEvents
from fapilog._internal.event_queue import EventQueue
from fapilog._internal.isolation import SLOTS, FoundSetUp
from fapilog._internal.route import Route, route
from fapilog.bootstrap import _configure_structlog, set_level
from fapilog.coordinator import coordinator
from fapilog.errors import ConfigurationError, SinkUnavailable
from fapilog.identity import Identity
from fapilog.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fapilog.typing import Event

__all__ = [
    "CapturedEvents",
    "FailingSink",
    "FakeClock",
    "RecordingSink",
    "StalledSink",
    "capture_events",
    "logging_restored",
]

_UNBOUNDED = 1 << 60


class _Capture:
    """Takes the events of this process in place of its hub, numbered and signed like those."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._queue = EventQueue(_UNBOUNDED, max_bytes=_UNBOUNDED)
        self.events = CapturedEvents(self._queue)
        self._sign()

    def accept(self, levelno: int, head: bytes, until: float = 0.0) -> bool:
        """Be `Route.accept`."""
        if os.getpid() != self._pid:  # nobody reads this copy of a forked child's: its events go where they would go without
            return bool(SLOTS["accept"].__get__(route)(levelno, head))
        if coordinator.spec is not self._signed_for:
            self._sign()
        return self._queue.accept(levelno, head, until)

    def _sign(self) -> None:
        """Let the events say whose they are under the settings of now."""
        spec = self._signed_for = coordinator.spec
        try:
            settings = load_settings() if spec is None else spec.settings
        except ConfigurationError:  # the code under test may be about to say better
            settings = load_settings(environ={})
        slot = coordinator.state.slot
        worker = 1 if slot is None else slot.number
        boot = self._queue.identity.boot
        self._queue.set_identity(Identity.of_this_process(settings.service, settings.env, worker, boot))


_captures: list[_Capture] = []


def _covering(name: str, value: Callable[[], Any]) -> Any:
    return property(lambda _route: value(), SLOTS[name].__set__)


def _counted_nowhere(_reason: object) -> bool:
    """Be `Route.refuse`: what a sampling rule stops is in no capture, and in no books of a hub that had no part in it."""
    return False


class _CoveredRoute(Route):
    """
    The class of `route` during a capture: what is read is the capture's, what is written is kept for afterwards.

    So the code under test may set logging up, shut it down or log before either, and the log call is not slower by a branch for
    captures: outside of one there is none.
    """

    __slots__ = ()
    accept = _covering("accept", lambda: _captures[-1].accept)
    by_hand = _covering("by_hand", lambda: None)
    configured = _covering("configured", lambda: True)
    refuse = _covering("refuse", lambda: _counted_nowhere)


@contextlib.contextmanager
def logging_restored() -> Iterator[None]:
    """
    Put logging back as it was found: settings, sinks, levels, processors, structlog's configuration and contextvars.

    For tests that set logging up. What was logged meanwhile is delivered first.
    """
    found = FoundSetUp()
    try:
        yield
    finally:
        found.restore()


@contextlib.contextmanager
def capture_events(*, level: str | int | None = None) -> Iterator[CapturedEvents]:
    """
    Capture the events of this process, from all loggers and threads, instead of sending them to the sinks.

    Logging need not be set up; the code under test may do so or not. Afterwards it is as it was found. Captures may be nested;
    the innermost gets the events. Events of child processes are not captured.

    Args:
        level: The level from which events are let through; by default the one that is set.
    """
    with logging_restored():
        if level is not None:
            set_level(level)
        _configure_structlog()
        capture = _Capture()
        _captures.append(capture)
        route.__class__ = _CoveredRoute
        try:
            yield capture.events
        finally:
            _captures.remove(capture)
            if not _captures:
                route.__class__ = Route


class RecordingSink:
    """
    A sink that takes everything and keeps it.

    Attributes:
        name: Its name in statistics.
        events: What it took.
        attempts: What each call of `write()` was given, failed ones too.
        identity: What it was opened with.
        closed: How often it was closed.
    """

    def __init__(self, name: str = "recording") -> None:
        self.name = name
        self.events: list[Event] = []
        self.attempts: list[list[Event]] = []
        self.identity: Identity | None = None
        self.closed = 0

    async def open(self, identity: Identity) -> None:
        """Keep *identity*."""
        self.identity = identity

    async def write(self, events: Sequence[Event]) -> None:
        """Keep *events*."""
        self.attempts.append(list(events))
        self.events += events

    async def close(self) -> None:
        """Count."""
        self.closed += 1

    def wait_for_attempts(self, count: int = 1, timeout: float = 5.0) -> None:
        """Wait up to *timeout* seconds until `write()` was called *count* times in all, else raise `AssertionError`."""
        __tracebackhide__ = True
        end = time.monotonic() + timeout
        while len(self.attempts) < count:
            if time.monotonic() >= end:
                raise AssertionError(f"sink {self.name!r}: {len(self.attempts)} attempts after {timeout:g} s, not {count}")
            time.sleep(POLL)


class FailingSink(RecordingSink):
    """
    A sink that fails.

    Args:
        times: How many writes fail before they succeed; *None* for all.
        error: What they raise, or a function of the events that returns it; `SinkUnavailable` by default.
        name: Its name in statistics.
    """

    def __init__(
        self,
        times: int | None = None,
        error: Exception | Callable[[Sequence[Event]], Exception] | None = None,
        *,
        name: str = "failing",
    ) -> None:
        super().__init__(name)
        self._times = times
        self._error = error or SinkUnavailable("this sink is made to fail")

    async def write(self, events: Sequence[Event]) -> None:
        """Fail, or keep *events*."""
        if self._times is None or len(self.attempts) < self._times:
            self.attempts.append(list(events))
            error = self._error if isinstance(self._error, Exception) else self._error(events)
            raise error.with_traceback(None)
        await super().write(events)


class StalledSink(RecordingSink):
    """
    A sink whose writes do not return before `release()`.

    Args:
        name: Its name in statistics.
    """

    def __init__(self, name: str = "stalled") -> None:
        super().__init__(name)
        self._released = threading.Event()

    async def write(self, events: Sequence[Event]) -> None:
        """Wait for the release, then keep *events*."""
        self.attempts.append(list(events))
        while not self._released.is_set():
            await asyncio.sleep(POLL)
        self.events += events

    def release(self) -> None:
        """Let all writes return, those to come too; any thread."""
        self._released.set()


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class FakeClock:
    """
    A clock under the test's control: in a ``with`` block, events get their `timestamp` from it, and the intervals of
    `FAPILOG_SAMPLING` pass by it.

    Calling it is `time.monotonic()` under control: seconds that never go back, for what takes such a clock.

    Args:
        start: What it shows at first; without a zone, UTC.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start if start.tzinfo is not None else start.replace(tzinfo=UTC)
        self._began = time.monotonic()
        self._elapsed = 0.0
        self._before: list[Any] = []

    def now(self, tz: tzinfo | None = None) -> datetime:
        """Return the time that it shows, in *tz* or UTC."""
        return (self._start + timedelta(seconds=self._elapsed)).astimezone(tz or UTC)

    def _ns(self) -> int:
        return (self.now() - _EPOCH) // timedelta(microseconds=1) * 1000

    def __call__(self) -> float:
        """Return the seconds of a monotonic clock."""
        return self._began + self._elapsed

    def advance(self, seconds: float) -> None:
        """
        Move it on.

        Raises:
            ValueError: *seconds* is negative.
        """
        if seconds < 0:
            raise ValueError(f"a clock does not go back: {seconds}")
        self._elapsed += seconds

    def __enter__(self) -> Self:
        self._before.append((flat.clock_ns, sampling.monotonic))  # the seams for this
        flat.clock_ns = self._ns
        sampling.monotonic = self
        return self

    def __exit__(self, *_error: object) -> None:
        flat.clock_ns, sampling.monotonic = self._before.pop()


try:
    import pytest
except ImportError:  # the fixture is for those who use pytest
    pass
else:

    @pytest.fixture
    def fapilog_events(request: pytest.FixtureRequest) -> Iterator[CapturedEvents]:
        """Capture the events of the test, see `fapilog.testing.capture_events()`; shown when it fails."""
        with capture_events() as events:
            yield events
            if events:
                request.node.add_report_section("teardown", "fapilog events", events.text())
