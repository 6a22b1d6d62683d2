"""One worker of the fleet: its own `LokiSink` and `Delivery`, with the model where the HTTP exchange would be."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fapilog._internal.delivery import Delivery
from fapilog.identity import Identity
from fapilog.sinks.answers import Answer, Fate
from fapilog.sinks.loki import LokiSink
from fapilog.sinks.push import labels_of, origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.fleet.server import Server
    from fapilog._internal.terms import Terms
    from fapilog.sinks.pushing import _Part

LINE_BYTES = 330  # of a request event with some fields of its own, measured in docs/performance.md
SEQ_BYTES = len("seq") + 6


class Lines:
    """
    The events of the fleet: one line for all that happen at one moment, and when that was.

    To make a line of its own for each of millions of events would measure the making. Sizes are right, nobody looks at contents.
    """

    def __init__(self) -> None:
        self._born: dict[bytes, float] = {}
        self._tail = Identity("shop", "prod", "host-0500", 8, 12345, "b00tb00tb00tb00t").tail()

    def at(self, now: float) -> bytes:
        """Return the line of an event that happens *now*."""
        head = b'{"timestamp":"%017.6f","level":"info","event":"request"' % now
        end = self._tail % (int(now * 1000) + 100_000)
        line = head + b',"path":"%b"' % (b"x" * (LINE_BYTES - len(head) - len(end) - len(',"path":""'))) + end
        self._born[line] = now
        return line

    def times(self, lines: Sequence[bytes]) -> list[float]:
        """Return when the events of *lines* happened."""
        return list(map(self._born.__getitem__, lines))


class ModelledSink(LokiSink):
    """
    A Loki sink that hands its requests to the model; everything before and after that is the product's own code.

    It does not encode and compress them, since the model would only undo that.
    """

    server: Server
    lines: Lines

    def for_worker(self, terms: Terms) -> ModelledSink:
        """Return one for another worker; a new one of the settings would read the certificates anew."""
        sink = copy.copy(self)
        sink._parts = deque()
        sink.terms = terms
        return sink

    async def open(self, identity: Identity) -> None:
        """Make the labels."""
        labels, _ = labels_of(identity, {}, self._names)
        self._key = tuple(labels.items())
        metadata = origin_of(identity, {}, self._names).metadata
        self._metadata_bytes = sum(len(name) + len(value) for name, value in metadata.items()) + SEQ_BYTES

    async def close(self) -> None:
        """Forget what was begun."""
        self._batch = ()
        self._parts.clear()

    async def _pushed(self, part: _Part) -> Answer:
        lines = part.lines
        size = sum(map(len, lines)) + len(lines) * (self._metadata_bytes - 1)
        reply = self.server.push(self._key, self.lines.times(lines), size, asyncio.get_running_loop().time())
        if not reply.status:
            return Answer(Fate.AGAIN, 0, "ConnectError: All connection attempts failed")
        return self.judged(reply.status, reply.headers or {}, reply.text.encode(), len(lines))


@dataclass(slots=True, eq=False)
class Worker:
    """
    Args:
        delivery: The real one.
        mark: Its position when the outage ended.
    """

    delivery: Delivery
    mark: int = 0


def fleet_of(
    hosts: int, workers: int, prototype: ModelledSink, rng: Callable[[], float], change: Callable[[Terms], Terms]
) -> list[Worker]:
    """Return the workers of *hosts*, started, each on its sink's own terms after *change*."""
    terms = change(replace(prototype.terms, rng=rng))
    fleet = []
    for host in range(hosts):
        for number in range(1, workers + 1):
            identity = Identity("shop", "prod", f"host-{host:04}", number, 1000 + number, f"{host:08x}{number:08x}")
            delivery = Delivery(prototype.for_worker(terms), terms=terms)
            delivery.start(identity)
            fleet.append(Worker(delivery))
    return fleet
