"""
Where the events of this process go now, and what is masked in them.

Invariant: nothing here belongs to a logger. All is looked up at call time, so a logger that was made, bound or cached before a
fork or a re-configuration does what its process does now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fapilog._internal.settling import SPECIAL
from fapilog.redaction import Redactor, redaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fapilog._internal.accounting import Reason
    from fapilog._internal.event_queue import EventQueue
    from fapilog._internal.sampling import Sampler


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
        sampler: The rules of `FAPILOG_SAMPLING`; None where there are none.
        filtered: How many events the user's own processors dropped.
    """

    __slots__ = ("accept", "begin", "by_hand", "configured", "exception_locals", "filtered", "max_bytes", "refuse", "sampler")

    def __init__(self) -> None:
        self.accept: Callable[[int, bytes], bool] = _nowhere
        self.begin: Callable[[], None] | None = None
        self.refuse: Callable[[Reason], bool] = _nothing
        self.by_hand: EventQueue | None = None
        self.configured = False
        self.max_bytes = 262_144
        self.exception_locals = False
        self.sampler: Sampler | None = None
        self.filtered = 0

    def renew(self) -> None:
        """Forget what belongs to the process that this one was forked from; what was configured stays."""
        self.by_hand = None
        self.filtered = 0
        if self.sampler is not None:
            self.sampler = self.sampler.fresh()


def _nowhere(_levelno: int, _head: bytes) -> bool:
    return False


def _nothing(_reason: Reason) -> bool:
    return False


route = Route()


def redact(*, enabled: bool = True, keys: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
    """Mask what these arguments say from now on; see `Redactor`."""
    redaction.current = Redactor(enabled=enabled, keys=keys, patterns=patterns, reserved=SPECIAL)


class _Cold(Redactor):
    """
    The redactor of a process where nothing has been configured: the first log call has the environment read.

    It asks here because every log call does, so that none pays for the question once the answer is known. Later would be too
    late: the first event, too, is masked as the environment says.
    """

    def __init__(self) -> None:
        super().__init__(reserved=SPECIAL)
        self.are_plain = self._begin

    def _begin(self, _names: Iterable[object]) -> bool:
        self.are_plain = lambda _names: False
        if route.begin is not None and not route.configured:
            route.begin()
        return False


def cool() -> None:
    """Let the next log call configure: as if nobody had."""
    redaction.current = _Cold()


cool()
