"""
The events of several series of files as one sequence, in the order of time, in bounded memory. Pure.

Invariants:

1. Every entry that a stream yields comes out once.
2. Entries of one stream whose keys do not fall come out in the order of the stream; equal keys in the order of the streams.
3. Of each stream no more than one block is held, whatever there is of it. So an entry that comes in a later block than one with a
   later key, as lines do that were recovered late, comes out behind what has come out by then.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from fapilog.cli.picking import Wanted

    #: When it was logged, as its line has it, and the line without its end.
    Entry = tuple[str, bytes]

HEADER = "fapilog.rotated"
_key = itemgetter(0)


class Reading:
    """
    What a series of files has come to so far: turns its lines into entries, in their order.

    Args:
        wanted: Whether what a line says is wanted; None if all of it is.

    Attributes:
        bad: How many lines were no events.
    """

    def __init__(self, wanted: Wanted | None = None) -> None:
        self.bad = 0
        self._wanted = wanted
        self._latest = ""
        self._boot: Any = None

    def entries(self, lines: Iterable[bytes]) -> list[Entry]:
        """
        Return the events of *lines* that are wanted.

        In one life time does not run backwards, whatever was done to the clock and however threads overtook each other: an event
        that says so counts as no older than the one before it.
        """
        found = []
        wanted, latest, boot = self._wanted, self._latest, self._boot
        for line in lines:
            try:
                fields = orjson.loads(line)
                stamp = fields["timestamp"]
                life = fields.get("boot")
                if stamp < latest and life == boot:
                    stamp = latest
            except (ValueError, KeyError, TypeError, AttributeError):
                self.bad += bool(line.strip(b"\r\0 "))
                continue
            if "seq" not in fields and fields.get("event") == HEADER:
                continue
            latest, boot = stamp, life
            if wanted is None or wanted(fields):
                found.append((stamp, line))
        self._latest, self._boot = latest, boot
        return found


def merged(streams: Sequence[Iterator[list[Entry]]]) -> Iterator[list[Entry]]:
    """Yield what *streams* yield, some entries at a time, in the order of their keys; see the module."""
    held: dict[int, list[Entry]] = {number: [] for number in range(len(streams))}
    begins = dict.fromkeys(held, 0)
    while True:
        for number in list(held):
            while begins[number] == len(held[number]):
                block = next(streams[number], None)
                if block is None:
                    del held[number]
                    break
                held[number], begins[number] = sorted(block, key=_key), 0
        if not held:
            return
        until = min(block[-1][0] for block in held.values())
        ready: list[Entry] = []
        for number, block in held.items():
            end = bisect_right(block, until, lo=begins[number], key=_key)
            ready += block[begins[number] : end]
            begins[number] = end
        ready.sort(key=_key)
        yield ready
