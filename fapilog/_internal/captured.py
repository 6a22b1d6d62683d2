"""
What a capture has caught, and how a test looks into it.

Whatever was logged before it is read is in it: the events wait in a queue of their own and are taken out by each reading.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

from fapilog.encoding import cut_text, encode_open
from fapilog.identity import HUB_FIELDS
from fapilog.typing import Event, decode

if TYPE_CHECKING:
    from fapilog._internal.event_queue import EventQueue

POLL = 0.002
_MOST_SHOWN = 40
_UNBOUNDED = 1 << 60
_SHOWN_ELSEWHERE = frozenset(("timestamp", "level", "event", *HUB_FIELDS))
_MISSING = object()


class CapturedEvents(Sequence[Event]):
    """
    The events of a capture, oldest first: a sequence of dicts that has whatever was logged before it is read.

    In all searches *event* is the event's name, *None* for any, and *fields* are values that it must have. A value is equal if it
    is so as it stands or in the form that it takes in a line (a tuple as a list, a datetime as text).
    """

    def __init__(self, queue: EventQueue) -> None:
        self._queue = queue
        self._read: list[Event] = []

    def _all(self) -> list[Event]:
        waiting, _ = self._queue.take()
        self._read += map(Event.of, waiting)
        return self._read

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        return self._all()[index]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, CapturedEvents | list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"<{len(self)} captured events>\n{self.text()}" if len(self) else "<no captured events>"

    def names(self) -> list[Any]:
        """Return the names of all events in their order."""
        return [event["event"] for event in self]

    def named(self, event: str | None = None, /, **fields: Any) -> list[Event]:
        """Return the events of that name and with those fields."""
        return [each for each in self if (event is None or each["event"] == event) and _has(each, fields)]

    def one(self, event: str | None = None, /, **fields: Any) -> Event:
        """
        Return the only event of that name and with those fields.

        Raises:
            AssertionError: There is none, or more than one; the text shows what there is.
        """
        __tracebackhide__ = True
        found = self.named(event, **fields)
        if len(found) != 1:
            raise AssertionError(self._instead_of_one(found, event, fields))
        return found[0]

    def wait_for(self, event: str | None = None, timeout: float = 5.0, /, **fields: Any) -> Event:
        """
        Return the first event of that name and with those fields, waiting up to *timeout* seconds for another thread to log it.

        Raises:
            AssertionError: There is none by then; the text shows what there is.
        """
        __tracebackhide__ = True
        end = time.monotonic() + timeout
        while not (found := self.named(event, **fields)):
            if time.monotonic() >= end:
                raise AssertionError(f"after {timeout:g} s: {self._instead_of_one([], event, fields)}")
            time.sleep(POLL)
        return found[0]

    def clear(self) -> None:
        """Forget what was captured so far."""
        self._all().clear()

    def text(self) -> str:
        """Return a line for each event, as far as there are not too many; for people."""
        return _listed(self._all())

    def _instead_of_one(self, found: list[Event], event: str | None, fields: dict[str, Any]) -> str:
        wanted = "event" if event is None else f"event {event!r}"
        if fields:
            wanted += " with " + ", ".join(f"{name}={value!r}" for name, value in fields.items())
        if found:
            return f"one {wanted} was expected, there are {len(found)}:\n{_listed(found)}"
        alike = self.named(event) if event is not None and fields else []
        if alike:
            return f"no {wanted}; these are named like that:\n{_listed(alike)}"
        return f"no {wanted}; " + (f"all that was captured:\n{self.text()}" if len(self) else "nothing was captured")


def _has(event: Event, fields: dict[str, Any]) -> bool:
    return all(_equal(event.get(name, _MISSING), value) for name, value in fields.items())


def _equal(found: Any, wanted: Any) -> bool:
    return bool(found == wanted) or found == decode(encode_open({"": wanted}, _UNBOUNDED) + b"}")[""]


def _listed(events: Sequence[Event]) -> str:
    lines = [_shown(event) for event in events[:_MOST_SHOWN]]
    if len(events) > _MOST_SHOWN:
        lines.append(f"  ... and {len(events) - _MOST_SHOWN} more")
    return "\n".join(lines)


def _shown(event: Event) -> str:
    fields = " ".join(f"{name}={value!r}" for name, value in event.items() if name not in _SHOWN_ELSEWHERE)
    return f"  {event.get('level')} {event.get('event')!r} {cut_text(fields, 400)}"
