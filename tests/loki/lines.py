"""Lines as the hub makes them, and a delivery around a Loki sink, for the tests of that sink."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from fapilog._internal.delivery import Delivery
from fapilog._internal.flat import timestamp
from fapilog._internal.threaded import ThreadedSink
from fapilog.identity import Identity
from fapilog.sinks.loki import LokiSink
from tests.loki import faults

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from fapilog.sinks.pushing import PushSink

ME = Identity("shop", "prod", "h1", 2, 77, "b00t")


def line(seq: int, text: str = "x", stamp: str = "") -> bytes:
    """Return the line of one event; the time is today's unless there is a *stamp*."""
    head = '{"timestamp":"%s","level":"info","event":"%s"' % (stamp or timestamp(), text)  # noqa: UP031
    return head.encode() + ME.tail() % seq


def lines(first: int, count: int, text: str = "x") -> list[bytes]:
    """Return *count* lines from the seq *first* on."""
    return [line(seq, text) for seq in range(first, first + count)]


@contextlib.asynccontextmanager
async def delivering(
    url: str, *, identity: Identity = ME, kind: Callable[..., PushSink] = LokiSink, **options: Any
) -> AsyncIterator[Delivery]:
    """Give the delivery to a Loki sink at *url*, as the hub makes it but with short waits; its books balance at the end."""
    terms = {name: options.pop(name) for name in ("max_retries", "retry_cap", "retry_delay", "rng") if name in options}
    sink = kind(url, **{"batch_timeout": 0.02, "timeout": 5.0, **options})
    sink.terms = dataclasses.replace(sink.terms, **{"retry_delay": 0.02, **terms})
    threaded: Any = ThreadedSink(sink)
    delivery = Delivery(threaded, terms=sink.terms)
    delivery.start(identity)
    try:
        yield delivery
    finally:
        await delivery.close(2.0)
    assert (delivery.books.in_flight, delivery.books.backlog_bytes) == (0, 0)


async def offered(delivery: Delivery, batch: list[bytes], seconds: float = 20.0) -> None:
    """Offer *batch* and wait until it has met its fate."""
    delivery.offer(batch, sum(map(len, batch)))
    await delivery.settle(delivery.position, seconds)


def fates(delivery: Delivery) -> dict[str, int]:
    """Return how many events had which fate."""
    found = {str(reason): window.count for reason, window in delivery.books.dropped.items() if window.count}
    return {**({"delivered": delivery.books.delivered} if delivery.books.delivered else {}), **found}


def run(main: Any) -> Any:
    """Run a coroutine for at most a minute."""
    return asyncio.run(asyncio.wait_for(main, 60))


def once(name: str, delivery: Delivery) -> faults.Fault:
    """Return the behaviour *name*, to be met by *delivery*; a server that refuses goes on with it until that has come again."""
    return faults.refuse(until=lambda: delivery.books.retries > 0) if name == "refuse" else faults.CATALOGUE[name]()
