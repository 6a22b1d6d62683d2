"""
The types that users and sinks meet: `Event` and the `Sink` protocol.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.identity import Identity


class Event(dict[str, Any]):
    """
    One accepted log call: a dict that also carries its encoded line.

    The line is the truth, frozen when the call was made. The dict is what the line says (identity included), decoded when a sink
    of yours or `EventQueue.get()` asks for it; the built-in sinks read only the line, and for them the dict stays empty. So
    what a sink reads can neither change after the call nor differ from what is in the file, and each sink has its own copy.

    Attributes:
        line: The event as one JSON line in UTF-8, its newline included.
        seq: Its number in the life of the process, from 1.
        size: What it is charged for in queues and backlogs, in bytes: its line, rounded up by a few bytes.
        levelno: Its level as the standard library counts (`logging.INFO` is 20).
    """

    __slots__ = ("levelno", "line", "seq", "size")

    levelno: int
    line: bytes
    seq: int
    size: int

    def expanded(self) -> Event:
        """Return a copy whose dict holds what the line says."""
        copy = Event(decode(self.line))
        copy.levelno = self.levelno
        copy.line = self.line
        copy.seq = self.seq
        copy.size = self.size
        return copy


_LONG_NUMBER = re.compile(rb"[0-9]{19}")


def decode(line: bytes) -> dict[str, Any]:
    """Return what *line* says, with integers of any size exact: orjson reads those over 64 bits as floats, or not at all."""
    if _LONG_NUMBER.search(line):
        return dict(json.loads(line))
    return dict(orjson.loads(line))


@runtime_checkable
class Sink(Protocol):
    """
    What takes events out of the process. Any object with these four members is one.

    The coroutines are called on a thread and an event loop that belong to this sink alone, so a blocking call in them delays
    no other sink and no log call. After a fork the child calls `open()` again on its copy.

    A sink may also have a method ``write_now(lines: Sequence[bytes]) -> None``: it is called from any thread once the hub
    is closed (late events of an exiting process) or when the queue is switched off, perhaps without an `open()` before it. It
    must not wait. Without it such events are counted `after_close`. And it may have ``async reopen() -> None``: called between
    two writes when a server is told to open its log files anew (SIGUSR1 under gunicorn).

    Attributes:
        name: Names the sink in statistics and notices; unique among the sinks of a hub.
    """

    name: str

    async def open(self, identity: Identity) -> None:
        """Get ready in the process that *identity* describes; raising means "not yet", it is called again."""

    async def write(self, events: Sequence[Event]) -> None:
        """
        Take *events*, oldest first.

        Raises:
            SinkUnavailable: Call me again with the same events.
            SinkRejected: Some of these will never be taken.

        Any other exception is treated like `SinkUnavailable`.
        """

    async def close(self) -> None:
        """Let go of what `open()` took."""
