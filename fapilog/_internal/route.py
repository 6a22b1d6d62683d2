"""
Where the events of this process go now, and what is masked in them.

Invariant: nothing here belongs to a logger. All is looked up at call time, so a logger that was made, bound or cached before a
fork or a re-configuration does what its process does now.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from fapilog._internal.accounting import Reason
from fapilog._internal.gates import gates
from fapilog._internal.native import nap, thread_id
from fapilog._internal.settling import SPECIAL
from fapilog.redaction import Redactor, redaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import EllipsisType

    from fapilog._internal.event_queue import EventQueue
    from fapilog._internal.sampling import Sampler


ALL_PASS = -1  # the level of all gates until somebody has configured
DEFAULT_LEVEL = 20
MAX_DEPTH = 8  # of set-ups in one another
PATIENCE = 1.0  # seconds that a thread waits for another one's set-up
FRAMES = 200  # of the stack that are left to set-up: it takes 25, and up to 120 where it imports what a sink needs


class Route:
    """
    Where this process's events go now. One per process, its attributes replaced in place.

    Attributes:
        begin: Configures from the environment; called by the first log call of a process where nobody has.
        accept: ``accept(levelno, head) -> bool`` of the current queue; *head* is the line without identity and brace.
        refuse: ``refuse(reason)`` of the current queue, for an event that is not to come as far as `accept`.
        configured: Whether `configure_logging()` was called here or in the process this one was forked from.
        by_hand: The queue of a hand-made worker, which `queue_sink` then prefers.
        max_bytes: `FAPILOG_MAX_EVENT_BYTES`.
        exception_locals: `FAPILOG_EXCEPTION_LOCALS`.
        sampler: The rules of `FAPILOG_SAMPLING`; None where there are none; `Cold` where nothing is configured.
        filtered: How many events the user's own processors dropped.
        unplaced: How many log calls found no stack left, not even for a refusal; waiting to be counted (`refuse_unplaced`).
    """

    __slots__ = (
        "accept",
        "begin",
        "by_hand",
        "configured",
        "exception_locals",
        "filtered",
        "max_bytes",
        "refuse",
        "sampler",
        "unplaced",
    )

    def __init__(self) -> None:
        self.accept: Callable[[int, bytes], bool] = _nowhere
        self.begin: Callable[[], None] | None = None
        self.refuse: Callable[[Reason], bool] = _nothing
        self.by_hand: EventQueue | None = None
        self.configured = False
        self.max_bytes = 262_144
        self.exception_locals = False
        self.sampler: Sampler | Cold | None = None
        self.filtered = 0
        self.unplaced = 0

    def renew(self) -> None:
        """Forget what belongs to the process that this one was forked from; what was configured stays."""
        self.by_hand = None
        self.filtered = 0
        self.unplaced = 0
        if self.sampler is not None:
            self.sampler = self.sampler.fresh()


def _nowhere(_levelno: int, _head: bytes) -> bool:
    return False


def _nothing(_reason: Reason) -> bool:
    return False


route = Route()


def has_frames() -> bool:
    """
    Whether set-up fits on what the caller's thread has left of the stack: `FRAMES`, or a third of it where the limit is low.

    To be asked before set-up, which the end of the stack must not cut short, leave half done, or make look like a failure.
    """
    return _fits(min(FRAMES, sys.getrecursionlimit() // 3))


def _fits(frames: int) -> bool:
    try:
        return not frames or _fits(frames - 1)
    except RecursionError:
        return False


def refuse_unplaced(refuse: Callable[[Reason], object]) -> None:
    """Let *refuse* count the log calls that could not do so themselves, since the stack was at its end; any thread."""
    # No call between the question and the subtraction, hence atomic under the GIL: each is counted once.
    while route.unplaced > 0:
        route.unplaced -= 1
        refuse(Reason.STACK_EXHAUSTED)


def redact(*, enabled: bool = True, keys: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
    """Mask what these arguments say from now on; see `Redactor`."""
    redaction.current = Redactor(enabled=enabled, keys=keys, patterns=patterns, reserved=SPECIAL)


class Cold:
    """
    Stands where the sampling rules will: the first log call of a process that nobody has configured reads the environment.

    It stands there because every log call looks there first, so that no call pays for the question once the answer is known. What
    the environment says (levels, rules, redaction) holds for that first call too: until then the gates let everything pass, and
    are asked again here. It holds also for a call on another thread, which waits, and for one in a signal handler in the midst
    of set-up, which does all of that itself.
    """

    def __init__(self) -> None:
        self._thread = 0
        self._depth = 0

    def stops(
        self, levelno: int, event: object, refuse: Callable[[Reason], object], name: str | EllipsisType | None = ...
    ) -> bool:
        """Return whether the level or a rule stops the event. Without a *name* it came from a chain of the user's own."""
        if name is ...:
            return False
        if not has_frames():  # nothing is known of what is to be masked
            route.unplaced += 1
            return True
        self.settle()
        level = gates.of(name).level
        if (DEFAULT_LEVEL if level == ALL_PASS else level) > levelno:
            return True
        sampler = route.sampler
        return type(sampler) is not Cold and sampler is not None and sampler.stops(levelno, event, refuse)

    def settle(self) -> None:
        """Configure, or wait until the thread that does is done with it."""
        me = thread_id()
        begin = route.begin
        if route.configured or begin is None:
            return
        # A test-and-set without a call between the two, hence atomic under the GIL.
        thread = self._thread
        if not thread or thread == me:
            self._thread = me
            self._run(begin)
        else:
            end = time.monotonic() + PATIENCE
            while self._thread and not route.configured and time.monotonic() < end:
                nap(0.001)

    def _run(self, begin: Callable[[], None]) -> None:
        """Configure; also in a signal handler, or a finaliser, that logs in the midst of that: set-up may be done twice."""
        if self._depth >= MAX_DEPTH:  # set-up itself logs
            return
        self._depth += 1
        try:
            begin()
        finally:
            self._depth -= 1
            if not self._depth:
                self._thread = 0

    def fresh(self) -> Cold:
        """Return another one, for a forked child."""
        return Cold()


def settle() -> None:
    """Let the environment configure this process if nobody has: for whoever asks about levels, or sets one."""
    sampler = route.sampler
    if type(sampler) is Cold:
        sampler.settle()


def cool() -> None:
    """Let the next log call configure: as if nobody had."""
    gates.set(ALL_PASS, {})
    redact()
    route.sampler = Cold()


cool()
