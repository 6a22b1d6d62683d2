"""
The types that users and sinks meet: `Event` and the `Sink` protocol.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fapilog.identity import Identity


class Event(dict[str, Any]):
    """
    One accepted log call: a dict that also carries its encoded line.

    The line is the truth, frozen when the call was made, and all that waits in queues and backlogs. The dict is what the line
    says (identity included), decoded when a sink of yours or `EventQueue.get()` asks for it. So what a sink reads can neither
    change after the call nor differ from what is in the file, and each sink has its own copy.

    Attributes:
        line: The event as one JSON line in UTF-8, its newline included.
        seq: Its number in the life of the process, from 1.
        size: The size of its line in bytes.
        levelno: Its level as the standard library counts (`logging.INFO` is 20).
    """

    __slots__ = ("levelno", "line", "seq", "size")

    levelno: int
    line: bytes
    seq: int
    size: int

    @classmethod
    def of(cls, line: bytes) -> Self:
        """Return the event of *line*, which one of the hub's queues has completed."""
        event = cls(decode(line))
        event.line = line
        event.size = len(line)
        event.seq = event["seq"]
        event.levelno = LEVELS.get(event.get("level", ""), 20)
        return event


#: The levels that lines have, with the standard library's numbers.
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


def decode(line: bytes) -> dict[str, Any]:
    """Return what *line* says, with integers of any size exact: orjson reads those over 64 bits as floats, or not at all."""
    if _LONG_NUMBER.search(line):
        return dict(json.loads(line))
    return dict(orjson.loads(line))


def takes_lines(sink: Any) -> bool:
    """Whether *sink* is to be called by `write_lines()` and not by `write()`; see `Sink`."""
    if "write" in getattr(sink, "__dict__", ()):
        return False
    for each in type(sink).__mro__:
        if "write_lines" in vars(each) or "write" in vars(each):
            return "write_lines" in vars(each)
    return False


@runtime_checkable
class Sink(Protocol):
    """
    What takes events out of the process. Any object with these four members is one.

    The coroutines are called on a thread and an event loop that belong to this sink alone, so a blocking call in them delays
    no other sink and no log call. After a fork the child calls `open()` again on its copy.

    One is called at a time, and none has a time limit while the hub runs: one that hangs, be it `open()`, holds up this sink
    alone, whose events then wait, up to the bound of its backlog. Give your own calls limits. When the hub closes, the one that
    runs is cancelled (`asyncio.CancelledError`) and `close()` is called, each for a limited time. A sink that goes on
    nevertheless is left behind: nothing it says of that batch counts any more, and if it is used again in this process, `open()`
    is called when that call has ended. Whatever these coroutines raise, `close()` and `reopen()` included, ends no delivery.

    A sink may also have a method ``write_now(lines: Sequence[bytes]) -> None``: it is called from any thread once the hub
    is closed (late events of an exiting process) or when the queue is switched off, perhaps without an `open()` before it. It
    must not wait. Without it such events are counted `after_close`. It may have ``async reopen() -> None``: called between
    two writes when a server is told to open its log files anew (SIGUSR1 under gunicorn). And it may have
    ``async write_lines(lines: Sequence[bytes]) -> None``, which is then called instead of `write()`, on the same terms: for a
    sink that has no use for the dicts. Of the two the one that is nearer to the sink's class counts, so that a subclass may
    override either.

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
            SinkUnavailable: Call me again with the same events, all of them; it may say how many have arrived already.
            SinkRejected: Some of these will never be taken.

        Any other exception is treated like `SinkUnavailable`.
        """

    async def close(self) -> None:
        """Let go of what `open()` took."""
