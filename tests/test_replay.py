"""What has waited behind a server that was away: how fast it goes out when that is back, and what this does not slow down."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fapilog._internal.delivery import Delivery
from fapilog._internal.replay import SLICE
from fapilog._internal.terms import Terms
from fapilog.errors import SinkRejected, SinkUnavailable
from fapilog.identity import Identity, seq_of
from fapilog.sinks import LokiSink
from tests import fake_time

ME = Identity("shop", "", "h", 1, 7, "b00t")
OUTAGE = 600


class Server:
    """A sink whose server is away until `back`; notes (time, seqs) of what it takes."""

    name = "server"

    def __init__(self, back: float = float("inf")) -> None:
        self.back = back
        self.error: Exception = SinkUnavailable("away")
        self.took: list[tuple[float, list[int]]] = []

    async def open(self, identity: Identity) -> None:
        """Do nothing."""

    async def write_lines(self, lines: list[bytes]) -> None:
        now = asyncio.get_running_loop().time()
        if now < self.back:
            raise self.error
        self.took.append((now, [seq_of(line) for line in lines]))

    async def close(self) -> None:
        """Do nothing."""

    @property
    def seqs(self) -> list[int]:
        return [seq for _, seqs in self.took for seq in seqs]


def delivery_to(server: Any, **terms: Any) -> Delivery:
    given = {"max_retries": None, "retry_cap": 10.0, "batch_timeout": 1.0, "replay_speed": 2.0, "rng": lambda: 1.0}
    delivery = Delivery(server, terms=Terms(**{**given, **terms}))
    delivery.start(ME)
    return delivery


async def a_second_each(delivery: Delivery, first: int, last: int, each: int = 1) -> None:
    """Offer *each* events in each second from *first* to *last*."""
    for second in range(first, last):
        lines = [b'{"seq":%d}\n' % seq for seq in range(second * each + 1, (second + 1) * each + 1)]
        delivery.offer(lines, sum(map(len, lines)))
        await asyncio.sleep(1.0)


def test_an_outage_that_ends() -> None:
    """Its events go out twice as fast as they came, in fewer requests than usual, while new ones come; then as ever."""

    async def main() -> Server:
        server = Server(OUTAGE)
        delivery = delivery_to(server)
        await a_second_each(delivery, 0, 3 * OUTAGE, each=5)
        assert (delivery.books.retries > 0, delivery.books.dropped_total()) == (True, 0)
        await delivery.close(1.0)
        return server

    server = fake_time.run(main())
    assert server.seqs == list(range(1, len(server.seqs) + 1))
    began = server.took[0][0]
    count = 0
    for when, seqs in server.took:
        count += len(seqs)
        if when < 2 * OUTAGE:
            assert count <= 5 * (2 * (when - began) + SLICE + 2)
        assert max(seqs) - min(seqs) <= 5 * (SLICE + 1)
        assert when > 2 * OUTAGE + 20 or count >= 5 * 1.9 * (when - began) - 5
    replayed = [when for when, _ in server.took if when < began + OUTAGE]
    assert OUTAGE / SLICE <= len(replayed) <= 2.5 * OUTAGE / SLICE
    later = [(when, seqs) for when, seqs in server.took if when > began + OUTAGE + 20]
    assert all(when - min(seqs) / 5 < 3 for when, seqs in later)


def test_a_delivery_without_that_limit() -> None:
    """What a file or a custom sink has missed goes out as fast as it is taken."""

    async def main() -> list[float]:
        server = Server(OUTAGE)
        delivery = delivery_to(server, replay_speed=None)
        await a_second_each(delivery, 0, OUTAGE + 20)
        await delivery.close(1.0)
        return [when for when, seqs in server.took if min(seqs) <= OUTAGE - 20]

    assert len(set(fake_time.run(main()))) == 1


@pytest.mark.parametrize("speed", [1.0, 0.5, 0.0, -1.0])
def test_a_speed_that_never_catches_up(speed: float) -> None:
    """It sets no limit."""

    async def main() -> list[int]:
        server = Server(OUTAGE)
        delivery = delivery_to(server, replay_speed=speed)
        await a_second_each(delivery, 0, OUTAGE + 20)
        await delivery.close(1.0)
        return server.seqs

    assert len(fake_time.run(main())) > OUTAGE


@pytest.mark.parametrize("how", ["flush", "end"])
def test_somebody_who_waits(how: str) -> None:
    """A flush, and the end, get all of the backlog out at once, in large batches."""

    async def main() -> Server:
        server = Server(OUTAGE)
        delivery = delivery_to(server)
        await a_second_each(delivery, 0, OUTAGE + 20)
        assert not delivery.idle
        if how == "end":
            delivery.hurry()
        began = asyncio.get_running_loop().time()
        await delivery.settle(delivery.position, 60.0)
        assert delivery.idle
        assert asyncio.get_running_loop().time() == began
        await delivery.close(1.0)
        assert [when for when, _ in server.took if when == began] == [began]
        return server

    assert fake_time.run(main()).seqs == list(range(1, OUTAGE + 21))


def test_a_flood_on_a_server_that_is_there() -> None:
    """It goes out as fast as the server takes it, also long after an outage; a backlog without a failed try is none."""

    async def main() -> None:
        server = Server(OUTAGE)
        delivery = delivery_to(server, batch_bytes=1000)
        await a_second_each(delivery, 0, OUTAGE)
        await a_second_each(delivery, OUTAGE, 3 * OUTAGE)
        before = asyncio.get_running_loop().time()
        await a_second_each(delivery, 3 * OUTAGE, 3 * OUTAGE + 1, each=1)
        lines = [b'{"seq":%d}\n' % seq for seq in range(100_000, 110_000)]
        delivery.offer(lines, sum(map(len, lines)))
        await asyncio.sleep(3.0)
        assert delivery.idle
        assert max(when for when, _ in server.took) < before + 3.0
        await delivery.close(1.0)

    fake_time.run(main())


def test_a_flood_right_after_a_single_failure() -> None:
    """It is not held back: only what came in before the server was back is."""

    async def main() -> None:
        server = Server(1.5)
        delivery = delivery_to(server, batch_bytes=1000)
        await a_second_each(delivery, 0, 5)
        lines = [b'{"seq":%d}\n' % seq for seq in range(6, 10_006)]
        delivery.offer(lines, sum(map(len, lines)))
        await asyncio.sleep(1.1)
        assert (delivery.idle, len(server.seqs)) == (True, 10_005)
        await delivery.close(1.0)

    fake_time.run(main())


def test_what_nothing_expires_of() -> None:
    """No event gets older by the replay than the oldest was when the server came back."""

    async def main() -> None:
        server = Server(OUTAGE)
        delivery = delivery_to(server, max_elapsed=OUTAGE + 30.0)
        await a_second_each(delivery, 0, 3 * OUTAGE)
        assert delivery.books.dropped_total() == 0
        ages = [when - min(seqs) for when, seqs in server.took]
        assert max(ages) <= OUTAGE + 15
        await delivery.close(1.0)

    fake_time.run(main())


def test_a_server_that_goes_away_again() -> None:
    """The replay goes on from where it was, no faster than before."""

    async def main() -> Server:
        server = Server(OUTAGE)
        delivery = delivery_to(server)
        await a_second_each(delivery, 0, OUTAGE + 60)
        server.back = OUTAGE + 120.0
        await a_second_each(delivery, OUTAGE + 60, 3 * OUTAGE)
        await delivery.close(1.0)
        return server

    server = fake_time.run(main())
    assert server.seqs == list(range(1, len(server.seqs) + 1))
    second = [(when, seqs) for when, seqs in server.took if when >= OUTAGE + 120]
    began, first = second[0][0], second[0][1][0]
    for when, seqs in second:
        if when < began + OUTAGE - 20:
            assert max(seqs) - first <= 2 * (when - began) + SLICE + 2
    assert server.seqs[-1] >= 3 * OUTAGE - 3


def test_a_server_that_comes_back_with_a_refusal() -> None:
    """It is back."""

    class Refusing(Server):
        async def write_lines(self, lines: list[bytes]) -> None:
            await super().write_lines(lines)
            if len(self.took) == 1:
                raise SinkRejected(1)

    async def main() -> Server:
        server = Refusing(OUTAGE)
        delivery = delivery_to(server)
        await a_second_each(delivery, 0, OUTAGE + 60)
        await delivery.close(1.0)
        return server

    assert 100 < len(fake_time.run(main()).seqs) < 160


def test_which_sinks_hold_back() -> None:
    """Those that push to servers."""
    assert LokiSink("http://loki:3100").terms.replay_speed == 2.0
    assert Terms().replay_speed is None


def test_a_flush_that_was_given_up() -> None:
    """What it asked for does not wait for nobody: the events of the outage go out as slowly as without it."""

    async def main() -> Server:
        server = Server(OUTAGE)
        delivery = delivery_to(server)
        await a_second_each(delivery, 0, OUTAGE - 20, each=5)
        await delivery.settle(delivery.position, 1.0)
        await a_second_each(delivery, OUTAGE - 20, OUTAGE + 60, each=5)
        await delivery.close(1.0)
        return server

    server = fake_time.run(main())
    first = server.took[0][0]
    assert len([seq for at, seqs in server.took for seq in seqs if at <= first + 10]) < 5 * 60


def test_a_backlog_that_is_nearly_full() -> None:
    """It is sent ahead of its time: an event that is dropped for want of room is worse than one that comes early."""

    async def main() -> tuple[Server, int]:
        server = Server(OUTAGE)
        delivery = delivery_to(server, backlog_bytes=100_000)
        await a_second_each(delivery, 0, OUTAGE, each=5)  # half of it is full
        while not server.took:
            await asyncio.sleep(0.1)
        await a_second_each(delivery, OUTAGE + 100, OUTAGE + 200, each=400)
        dropped = delivery.books.dropped_total()
        await delivery.close(1.0)
        return server, dropped

    server, dropped = fake_time.run(main())
    assert dropped == 0
    assert server.seqs == sorted(server.seqs)
