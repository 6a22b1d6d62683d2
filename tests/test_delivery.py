"""The delivery of one sink: batches, waits, retries, expiry, and whatever a sink may raise."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import time
import weakref
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog._internal.accounting import Reason
from fapilog._internal.backlog import Backlog
from fapilog._internal.delivery import Delivery
from fapilog._internal.event_queue import EventQueue
from fapilog._internal.terms import RETRY_FLOOR, Terms, terms_of
from fapilog._internal.worker import QueueWorker
from fapilog.errors import SinkRejected, SinkUnavailable
from fapilog.identity import Identity, seq_of
from tests import fake_time
from tests.recording import until

ME = Identity("shop", "", "h", 1, 7, "b00t")
HOUR = 3600.0


def line(seq: int, padding: int = 0) -> bytes:
    return b'{"x":"%b","seq":%d}\n' % (b"x" * padding, seq)


def lines(first: int, count: int, padding: int = 0) -> list[bytes]:
    return [line(seq, padding) for seq in range(first, first + count)]


class Lines:
    """A sink that notes when it got what; `answers` are raised in turn, the last one for ever if `for_ever`."""

    name = "lines"

    def __init__(self, *answers: Any, for_ever: bool = False) -> None:
        self.answers = deque(answers)
        self.for_ever = for_ever
        self.got: list[int] = []
        self.times: list[float] = []
        self.sizes: list[int] = []
        self.closed = 0

    async def open(self, identity: Identity) -> None:
        """Do nothing."""

    async def write_lines(self, batch: list[bytes]) -> None:
        self.times.append(asyncio.get_running_loop().time())
        if self.answers:
            answer = self.answers[0] if self.for_ever and len(self.answers) == 1 else self.answers.popleft()
            if isinstance(answer, BaseException):
                raise answer
            if answer is not None:
                await answer
        self.sizes.append(sum(map(len, batch)))
        self.got += map(seq_of, batch)

    async def close(self) -> None:
        self.closed += 1


@contextlib.asynccontextmanager
async def delivering(sink: Any, **terms: Any) -> Any:
    delivery = Delivery(sink, terms=Terms(**{"rng": lambda: 1.0, **terms}))
    delivery.start(ME)
    yield delivery
    await delivery.close(1.0)
    books = delivery.books
    assert (books.in_flight, books.backlog_bytes) == (0, 0)


def offer(delivery: Delivery, batch: list[bytes]) -> None:
    delivery.offer(batch, sum(map(len, batch)))


def dropped(delivery: Delivery) -> dict[str, int]:
    return {str(reason): window.count for reason, window in delivery.books.dropped.items() if window.count}


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 300), min_size=1, max_size=8), st.floats(0, 20)), max_size=20),
    st.integers(50, 1000),
    st.none() | st.just(100.0),
)
def test_what_comes_out_of_a_backlog(offers: list[tuple[list[int], float]], batch_bytes: int, max_elapsed: float | None) -> None:
    """The lines that went in, in order; batches within the bytes or of one line, and of much the same age where they expire."""
    backlog = Backlog(Terms(batch_bytes=batch_bytes, max_elapsed=max_elapsed))
    came: dict[bytes, float] = {}
    expected: list[bytes] = []
    now = 0.0
    for paddings, pause in offers:
        now += pause
        batch = [line(len(expected) + number, padding) for number, padding in enumerate(paddings)]
        came.update(dict.fromkeys(batch, now))
        expected += batch
        backlog.add(batch, sum(map(len, batch)), now)
    assert backlog.size == sum(map(len, expected))
    found = []
    while backlog:
        out = backlog.take()
        ages = [came[each] for each in out.lines]
        assert out.size == sum(map(len, out.lines))
        assert out.size <= batch_bytes or len(out.lines) == 1
        assert out.since == min(ages)
        assert max_elapsed is None or max(ages) - min(ages) <= max_elapsed / 10
        found += out.lines
    assert (found, backlog.size) == (expected, 0)


def test_an_event_alone() -> None:
    """It waits for company for as long as the sink's terms say, and no longer."""

    async def main() -> list[float]:
        sink = Lines()
        async with delivering(sink, batch_timeout=5.0) as delivery:
            for seq in (1, 2, 3):
                offer(delivery, [line(seq)])
                await asyncio.sleep(1.0)
            await asyncio.sleep(10)
        assert sink.got == [1, 2, 3]
        return sink.times

    assert fake_time.run(main()) == [5.0]


def test_a_full_batch() -> None:
    """It waits for nothing."""

    async def main() -> list[float]:
        sink = Lines()
        async with delivering(sink, batch_timeout=5.0, batch_bytes=1000) as delivery:
            await asyncio.sleep(1.0)
            offer(delivery, lines(1, 100))
            await asyncio.sleep(1.0)
            assert len(sink.got) >= 50
            assert max(sink.sizes) <= 1000
            await asyncio.sleep(10.0)
            assert sink.got == list(range(1, 101))
        return sink.times

    assert set(fake_time.run(main())) == {1.0, 6.0}


@pytest.mark.parametrize("how", ["flush", "stop"])
def test_somebody_who_does_not_want_to_wait(how: str) -> None:
    """A flush, and the end, send what waits for company."""

    async def main() -> tuple[list[int], list[float]]:
        sink = Lines()
        async with delivering(sink, batch_timeout=HOUR) as delivery:
            offer(delivery, lines(1, 3))
            await asyncio.sleep(1.0)
            if how == "stop":
                delivery.hurry()
            await delivery.settle(delivery.position, 10.0)
            assert delivery.idle
        return sink.got, sink.times

    assert fake_time.run(main()) == ([1, 2, 3], [1.0])


def test_an_outage_without_end() -> None:
    """Every event is counted expired before it is older than the limit, and not much before; what comes later is delivered."""

    async def main() -> None:
        sink = Lines(SinkUnavailable("no"), for_ever=True)
        loop = asyncio.get_running_loop()
        async with delivering(sink, max_retries=None, max_elapsed=300.0, batch_timeout=1.0) as delivery:
            fates = []
            for seq in range(1, 1001):
                offer(delivery, [line(seq)])
                await asyncio.sleep(1.0)
                fates.append((loop.time(), delivery.books.dropped[Reason.EXPIRED].last_seq))
            assert not delivery.books.up
            for when, last in fates:
                assert last <= max(0.0, when - 300.0 * 0.9 + 1)
                assert last >= when - 300.0 - 1
            sink.answers.clear()
            await asyncio.sleep(60.0)
            assert delivery.books.up
            assert sink.got == list(range(sink.got[0], 1001))
            assert delivery.books.dropped[Reason.EXPIRED].count == sink.got[0] - 1
            assert len(sink.got) >= 250

    fake_time.run(main())


def test_a_write_that_hangs() -> None:
    """What waits behind it expires, and leaves room for newer events; the end counts the batch inside it."""

    async def main() -> None:
        sink: Any = Lines(asyncio.Event().wait())
        delivery = Delivery(sink, terms=Terms(None, max_elapsed=300.0, backlog_bytes=2_000))
        delivery.start(ME)
        for seq in range(1, 1001):
            offer(delivery, [line(seq)])
            await asyncio.sleep(10.0)
            assert delivery.books.backlog_bytes <= 2_000
        counts = dropped(delivery)
        assert counts["expired"] > 900
        assert sum(counts.values()) + delivery.books.in_flight == 1000
        await delivery.close(1.0)
        assert dropped(delivery)["after_close"] >= 2
        assert delivery.books.in_flight == 0

    fake_time.run(main())


def test_an_hour_without_a_server() -> None:
    """The backlog stays within its bound whatever comes in, the newest are dropped, and all of the rest arrives afterwards."""

    async def main() -> None:
        sink = Lines(SinkUnavailable("no"), for_ever=True)
        async with delivering(sink, max_retries=None, backlog_bytes=100_000, batch_bytes=10_000) as delivery:
            for second in range(int(HOUR)):
                offer(delivery, lines(second * 10 + 1, 10, 100))
                await asyncio.sleep(1.0)
                assert delivery.books.backlog_bytes <= 100_000
            assert dropped(delivery)["backlog_full"] > 30_000
            assert len(sink.times) < HOUR / 10  # full jitter would be 15 s apart in the mean, here it is always 30 s
            sink.answers.clear()
            await asyncio.sleep(60.0)
            assert sink.got == list(range(1, len(sink.got) + 1))
            assert len(sink.got) + dropped(delivery)["backlog_full"] == HOUR * 10

    fake_time.run(main())


def test_waits_between_tries() -> None:
    """They double up to the cap, times the jitter."""
    terms = Terms(None, 1.0, 30.0, rng=lambda: 0.5)
    assert [terms.wait(attempt) for attempt in (1, 2, 3, 4, 5, 6, 7, 2000)] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


@pytest.mark.parametrize(
    ("jitter", "times"), [(0.0, [0.0, 2.0, 32.0, 32.02, 32.04]), (0.5, [0.0, 3.0, 48.0, 50.0, 54.0])], ids=["least", "mean"]
)
def test_a_server_that_asks_for_a_wait(jitter: float, times: list[float]) -> None:
    """It is waited for as long as it asks, up to the cap, and longer with jitter: "0" is no leave to hammer (O-LOKI-4)."""

    async def main() -> list[float]:
        asks = [SinkUnavailable("later", retry_after=seconds) for seconds in (2.0, 3600.0, -5.0, 0.0)]
        sink = Lines(*asks)
        async with delivering(sink, max_retries=None, rng=lambda: jitter) as delivery:
            offer(delivery, lines(1, 2))
            await asyncio.sleep(HOUR)
            assert delivery.books.retries == 4
        return sink.times

    assert fake_time.run(main()) == pytest.approx(times)


@given(st.integers(1, 50), st.floats(0.1, 100.0), st.floats(0.0, 1.0, exclude_max=True))
def test_processes_that_are_asked_for_the_same_wait(attempt: int, asked: float, jitter: float) -> None:
    """None comes back earlier than asked, and they spread over as long again, or over the wait without it where it is longer."""
    terms = Terms(None, 1.0, 30.0, rng=lambda: jitter)
    asked_for = min(asked, 30.0)
    own = min(30.0, 2.0 ** (attempt - 1))
    assert terms.wait(attempt, asked) == pytest.approx(asked_for + jitter * max(asked_for, own))
    assert terms.wait(attempt, asked) >= asked_for


def test_batches_that_fail_one_after_the_other() -> None:
    """The wait goes on to grow from batch to batch: it is that of the sink. Once a try succeeds it begins anew."""

    async def main() -> list[float]:
        sink = Lines(*[SinkUnavailable("no")] * 7, None, SinkUnavailable("no"))
        async with delivering(sink, max_retries=1, batch_bytes=1) as delivery:
            offer(delivery, lines(1, 6))
            await asyncio.sleep(HOUR)
            assert dropped(delivery) == {"retries_exhausted": 3}
            assert sink.got == [4, 5, 6]
        return sink.times

    times = fake_time.run(main())
    assert [after - before for before, after in itertools.pairwise(times)] == [1, 2, 4, 8, 16, 30, 30, 0, 1, 0]


def test_batches_that_expire_while_the_sink_is_left_alone() -> None:
    """The next one waits for the rest of the wait."""

    async def main() -> list[float]:
        sink = Lines(SinkUnavailable("no"), for_ever=True)
        async with delivering(sink, max_retries=None, max_elapsed=10.0, batch_timeout=1.0) as delivery:
            for seq in range(1, 601):
                offer(delivery, [line(seq)])
                delivery.expire()
                await asyncio.sleep(1.0)
            assert dropped(delivery)["expired"] > 580
        return sink.times

    times = fake_time.run(main())
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses[:5] == pytest.approx([1, 2, 4, 8, 16])
    assert set(map(round, pauses[5:])) == {30}


@pytest.mark.parametrize("asked", [0, -1.0, "soon", float("nan"), True, None, b"5", 10**400, float("inf")])
def test_a_wait_that_is_asked_for_in_a_strange_way(asked: Any) -> None:
    """What is no number is not asked for; the delivery lives, and never tries without a pause, also when jitter comes out 0."""

    async def main() -> None:
        sink = Lines(*[SinkUnavailable("later", retry_after=asked)] * 3)
        async with delivering(sink, max_retries=None, rng=lambda: 0.0) as delivery:
            offer(delivery, lines(1, 2))
            await asyncio.sleep(HOUR)
            assert sink.got == [1, 2]
        pauses = [after - before for before, after in itertools.pairwise(sink.times)]
        assert all(RETRY_FLOOR * 0.999 <= pause <= 30.0 for pause in pauses)

    fake_time.run(main())


def test_a_server_that_asks_for_no_wait_at_the_end() -> None:
    """The drain tries again and again, but not in a tight loop."""

    async def main() -> int:
        sink = Lines(SinkUnavailable("later", retry_after=0.0), for_ever=True)
        async with delivering(sink, max_retries=None, retry_delay=0.0) as delivery:
            offer(delivery, lines(1, 2))
            delivery.hurry()
            await delivery.settle(2, 3.0)
        return len(sink.times)

    assert 10 <= fake_time.run(main()) <= 3.0 / RETRY_FLOOR + 1


def test_the_end_during_a_long_wait() -> None:
    """It cuts the wait short, and tries once more (O-LOKI-4)."""

    async def main() -> tuple[list[int], float]:
        sink = Lines(SinkUnavailable("later", retry_after=3600.0))
        async with delivering(sink, max_retries=None, retry_cap=HOUR) as delivery:
            offer(delivery, lines(1, 2))
            await asyncio.sleep(1.0)
            delivery.hurry()
            await delivery.settle(2, 3.0)
        return sink.got, asyncio.get_running_loop().time()

    got, end = fake_time.run(main())
    assert got == [1, 2]
    assert end < 1.5


def test_a_wait_that_another_exception_speaks_of() -> None:
    """It is not ours to read: whose unit it is in nobody knows."""

    class Throttled(Exception):
        retry_after = 20_000

    async def main() -> list[float]:
        sink = Lines(Throttled())
        async with delivering(sink) as delivery:
            offer(delivery, lines(1, 2))
            await asyncio.sleep(HOUR)
        return sink.times

    assert fake_time.run(main()) == [0.0, 1.0]


class Unspeakable(Exception):
    """Cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


class Bare(SinkUnavailable):
    """Lacks what its base class would have set."""

    def __init__(self) -> None:
        """Do not call the base class."""


whatever = pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        SystemExit(3),
        MemoryError(),
        RecursionError(),
        asyncio.CancelledError(),
        TimeoutError(),
        StopAsyncIteration(),
        BaseExceptionGroup("x", [SystemExit(1), ValueError()]),
        SinkUnavailable("x"),
        Unspeakable(),
        Bare(),
    ],
    ids=lambda error: type(error).__name__,
)


@whatever
def test_whatever_a_sink_raises(error: BaseException) -> None:
    """It counts as a failed try: the batch is given again, the delivery lives, and the sink counts as down meanwhile."""

    async def main() -> None:
        sink = Lines(error)
        async with delivering(sink) as delivery:
            offer(delivery, lines(1, 3))
            await asyncio.sleep(0.5)
            assert not delivery.books.up
            offer(delivery, lines(4, 3))
            await asyncio.sleep(5.0)
            assert sink.got == [1, 2, 3, 4, 5, 6]
            assert (delivery.books.up, delivery.books.retries) == (True, 1)

    fake_time.run(main())


@whatever
@pytest.mark.parametrize("call", ["open", "reopen", "close", "retire"])
def test_whatever_a_sink_raises_beside_its_writes(call: str, error: BaseException) -> None:
    """The delivery lives, every event is delivered once, and the end is an orderly one."""

    class Raising(Lines):
        calls = 0

        def fail(self, here: str) -> None:
            if here == call:
                self.calls += 1
                if self.calls == 1:
                    raise error

        async def open(self, identity: Identity) -> None:
            self.fail("open")

        async def reopen(self) -> None:
            self.fail("reopen")

        async def close(self) -> None:
            self.fail("close")

        def retire(self) -> None:
            self.fail("retire")

    async def main() -> None:
        sink = Raising()
        if call != "retire":
            async with delivering(sink) as delivery:
                offer(delivery, lines(1, 3))
                await asyncio.sleep(5.0)
                delivery.reopen()
                offer(delivery, lines(4, 3))
                await asyncio.sleep(5.0)
                assert (sink.got, dropped(delivery)) == ([1, 2, 3, 4, 5, 6], {})
        else:
            async with delivering(sink):
                await asyncio.sleep(5.0)
        assert sink.calls == (2 if call == "open" else 1)

    fake_time.run(main())


def test_a_refusal_without_a_number() -> None:
    """It is of the whole batch, whatever else stands in its place."""

    async def main() -> None:
        strange: Any = "many"
        sink = Lines(SinkRejected(strange), SinkRejected(-3))
        async with delivering(sink) as delivery:
            for first in (1, 11):
                offer(delivery, lines(first, 10))
                await asyncio.sleep(1.0)
            assert (delivery.books.delivered, dropped(delivery)) == (10, {"rejected": 10})

    fake_time.run(main())


class Stubborn(Lines):
    """Does something else than to end when it is cancelled in its first write, or in a call named so."""

    def __init__(self, how: str, seconds: float, where: str = "write") -> None:
        super().__init__()
        self.how = how
        self.seconds = seconds
        self.where = where
        self.calls: list[str] = []
        self.inside = 0

    async def open(self, identity: Identity) -> None:
        await self.call("open")

    async def write_lines(self, batch: list[bytes]) -> None:
        await self.call("write")
        self.got += map(seq_of, batch)

    async def reopen(self) -> None:
        await self.call("reopen")

    async def close(self) -> None:
        await self.call("close")
        self.closed += 1

    async def call(self, name: str) -> None:
        assert not self.inside or name == "close", "two calls at a time"
        self.calls.append(name)
        if name != self.where or self.calls.count(name) > 1:
            return
        self.inside += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await self.disobey()
        finally:
            self.inside -= 1

    async def disobey(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        end = asyncio.get_running_loop().time() + self.seconds
        while (left := end - asyncio.get_running_loop().time()) > 0:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(left)
        if self.how == "forget":
            task.uncancel()
        if self.how == "wrap":
            raise SinkUnavailable("cancelled", delivered=2)


@pytest.mark.parametrize("how", ["swallow", "wrap", "forget"])
def test_a_write_that_outlives_the_end(how: str) -> None:
    """It was counted `after_close`, and no answer changes that; its task ends after it, without another try."""

    async def main() -> None:
        sink = Stubborn(how, 5.0)
        async with delivering(sink, max_retries=None) as delivery:
            offer(delivery, lines(1, 3))
            await asyncio.sleep(1.0)
        offered = delivery.books.offered
        assert (offered, dropped(delivery), sink.closed) == (3, {"after_close": 3}, 1)
        await asyncio.sleep(60.0)
        assert delivery._task is not None
        assert delivery._task.done()
        assert sink.calls == ["open", "write", "close"]
        assert (delivery.books.delivered, dropped(delivery), delivery.books.backlog_bytes) == (0, {"after_close": 3}, 0)

    fake_time.run(main())


@pytest.mark.parametrize(("how", "delivered"), [("swallow", 3), ("wrap", 2), ("forget", 3)])
def test_a_write_that_answers_while_the_end_waits_for_it(how: str, delivered: int) -> None:
    """Its answer counts, and is the last."""

    async def main() -> None:
        sink = Stubborn(how, 0.5)
        async with delivering(sink, max_retries=None) as delivery:
            offer(delivery, lines(1, 3))
            await asyncio.sleep(0.1)
            offer(delivery, lines(4, 3))
        assert delivery.books.delivered == delivered
        assert dropped(delivery) == {"after_close": 6 - delivered}
        assert sink.calls == ["open", "write", "close"]

    fake_time.run(main())


@pytest.mark.parametrize("how", ["swallow", "wrap", "forget"])
@pytest.mark.parametrize("where", ["open", "reopen", "close"])
def test_another_call_that_outlives_the_end(where: str, how: str) -> None:
    """The end comes in its time, the books balance, nothing is written after it, and what `open()` took late is let go."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        sink = Stubborn(how, 20.0, where)
        async with delivering(sink, max_retries=None) as delivery:
            offer(delivery, lines(1, 3))
            await asyncio.sleep(1.0)
            delivery.reopen()
            await asyncio.sleep(1.0)
            offer(delivery, lines(4, 3))
            await asyncio.sleep(1.0)
            began = loop.time()
        assert loop.time() - began < 3.0
        written = list(sink.got)
        await asyncio.sleep(60.0)
        assert (sink.got, sink.inside) == (written, 0)
        assert delivery.books.delivered == len(written)
        if where == "open" and how != "wrap":
            assert sink.calls == ["open", "close"]

    fake_time.run(main())


@pytest.mark.parametrize("how", ["swallow", "wrap", "forget"])
@pytest.mark.parametrize("where", ["open", "write", "reopen", "close"])
def test_a_sink_that_is_opened_again_while_it_is_in_a_call(where: str, how: str) -> None:
    """It is let out of that call first; neither the call nor what it says has a part in the new opening."""

    async def main() -> None:
        sink = Stubborn(how, 20.0, where)
        async with delivering(sink, max_retries=None) as delivery:
            offer(delivery, lines(1, 3))
            await asyncio.sleep(1.0)
            delivery.reopen()
            await asyncio.sleep(1.0)
        before = delivery.books.delivered
        delivery.start(ME)
        offer(delivery, lines(11, 3))
        await asyncio.sleep(5.0)
        assert (delivery.books.delivered, delivery.books.in_flight) == (before, 3)
        offer(delivery, lines(14, 3))
        await asyncio.sleep(30.0)
        assert (delivery.books.delivered, delivery.books.in_flight, delivery.books.backlog_bytes) == (before + 6, 0, 0)
        assert sink.got[-6:] == list(range(11, 17))
        await delivery.close(1.0)
        assert sink.closed >= 1

    fake_time.run(main())


def test_an_open_that_hangs() -> None:
    """What waits behind it expires though nothing comes in; a drain and the end come in their time, and the books balance."""

    class Hanging(Lines):
        terms = Terms(None, max_elapsed=0.2)

        async def open(self, identity: Identity) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        sink: Any = Hanging()
        worker = QueueWorker([sink], batch_size=1, announce=False)
        worker.start()
        books = worker.deliveries[0].books
        for _ in range(3):
            worker.queue.accept(40, b'{"event":"x"')
            await until(worker.queue.empty)
        await until(lambda: books.dropped[Reason.EXPIRED].count == 2)
        worker.queue.accept(40, b'{"event":"x"')
        result = await worker.flush(0.1)
        assert not result.complete
        began = time.monotonic()
        await worker.stop(0.2)
        assert time.monotonic() - began < 2.0
        assert {str(reason): window.count for reason, window in books.dropped.items() if window.count} == {
            "expired": 2,
            "after_close": 2,
        }
        assert (books.offered, books.in_flight, books.backlog_bytes) == (4, 0, 0)

    asyncio.run(main())


def test_a_flush_while_newer_events_meet_their_fate_first() -> None:
    """It waits for the older ones: that as many others have expired settles nothing."""

    async def main() -> None:
        gate = asyncio.Event()
        sink = Lines(gate.wait())
        async with delivering(sink, max_retries=None, max_elapsed=60.0, batch_bytes=100) as delivery:
            offer(delivery, lines(1, 3))
            await asyncio.sleep(1.0)
            older = delivery.position
            offer(delivery, lines(4, 3))
            await asyncio.sleep(100.0)
            delivery.expire()
            assert dropped(delivery) == {"expired": 3}
            await delivery.settle(older, 1.0)
            assert not delivery.settled(older)
            assert not delivery.idle
            gate.set()
            await delivery.settle(delivery.position, 1.0)
            assert delivery.settled(delivery.position)
            assert (delivery.idle, sink.got) == (True, [1, 2, 3])

    fake_time.run(main())


@pytest.mark.parametrize("announce", [True, False])
def test_room_that_is_made_at_the_last_moment(announce: bool) -> None:
    """What a caller drops from the queue just before it closes is in every sink's books; a closed one drops nothing."""

    class Late(EventQueue):
        """Another thread makes room, like `accept()` when the queue is full, just before it is emptied."""

        __slots__ = ()

        def take(self) -> tuple[list[bytes], int]:
            if self.qsize():
                self._make_room(self.qsize(), 1)
            return super().take()

    class Worker(QueueWorker):
        """The same thing happens after the last notice that is written while the queue is open."""

        def _announce_drops(self, now: float, *, final: bool = False) -> None:
            super()._announce_drops(now, final=final)
            if final and self.queue.open:
                self.queue.accept(20, b'{"event":"x"')
                self.queue._make_room(self.queue.qsize(), 1)

    async def main() -> None:
        sinks: list[Any] = [Lines(), Lines()]
        sinks[1].name = "more"
        worker = Worker(sinks, queue=Late(10, overflow="drop_oldest"), announce=announce)
        worker.start()
        worker.queue.accept(20, b'{"event":"x"')
        worker.queue.accept(20, b'{"event":"x"')
        await worker.flush(1.0)
        await worker.stop(0.0)
        lost = worker.queue.oldest_dropped
        assert lost.count >= 2
        assert lost.announced == (lost.count if announce else 0)
        for delivery in worker.deliveries:
            books = delivery.books
            assert books.dropped[Reason.DROP_OLDEST].count == lost.count
            assert (books.offered, books.in_flight) == (worker.queue.put_events, 0)

    asyncio.run(main())


def test_a_batch_that_is_refused_in_part() -> None:
    """The refused ones are counted, the others are delivered, and the next batch goes on (O-LOKI-1)."""

    async def main() -> None:
        sink = Lines(SinkRejected(2, "too old"), SinkRejected(None, "bad"), SinkRejected(99))
        async with delivering(sink) as delivery:
            for first in (1, 11, 21, 31):
                offer(delivery, lines(first, 10))
                await asyncio.sleep(1.0)
            assert dropped(delivery) == {"rejected": 22}
            assert (delivery.books.delivered, delivery.books.retries) == (18, 0)
            assert sink.got == list(range(31, 41))

    fake_time.run(main())


def test_the_terms_of_a_sink() -> None:
    """Its own win, but for the jitter; built-in files and streams try until their backlog is full; anything else is ignored."""

    class Own(Lines):
        terms: Any = Terms(max_elapsed=5.0, batch_timeout=2.0)

    class Patient(Lines):
        retries_until_full = True

    class Odd(Lines):
        terms = "fast"

    given = Terms(2, 0.5, rng=lambda: 0.25)
    assert terms_of(Own(), given) == Terms(max_elapsed=5.0, batch_timeout=2.0, rng=given.rng)
    assert terms_of(Patient(), given) == Terms(None, 0.5, rng=given.rng)
    assert terms_of(Odd(), given) is given


@pytest.mark.parametrize(
    ("end", "reason"), [("tries", "retries_exhausted"), ("age", "expired"), ("wait", "after_close"), ("write", "after_close")]
)
def test_a_batch_that_is_given_up_when_a_part_has_arrived(end: str, reason: str) -> None:
    """What the sink has delivered or refused of it is counted so; only the rest is lost, whatever the later tries say."""

    async def main() -> None:
        answers: list[Any] = [SinkUnavailable("b", delivered=3), SinkUnavailable("c", delivered=2, rejected=4), OSError("gone")]
        if end == "write":
            answers.append(asyncio.Event().wait())
        sink = Lines(*answers, for_ever=end != "write")
        sink.name = f"in-part-{end}"
        terms: dict[str, Any] = {"tries": {"max_retries": 3}, "age": {"max_retries": None, "max_elapsed": 60.0}}
        async with delivering(sink, **terms.get(end, {"max_retries": None})) as delivery:
            offer(delivery, lines(1, 10))
            await asyncio.sleep(20.0 if reason == "after_close" else 100.0)
            await delivery.close(1.0)
            assert (delivery.books.delivered, dropped(delivery)) == (3, {"rejected": 4, reason: 3})
            window = delivery.books.dropped[Reason(reason)]
            assert (window.first_seq, window.last_seq) == (1, 10)

    fake_time.run(main())


def test_a_batch_that_is_taken_after_a_part_of_it_was() -> None:
    """Its last answer alone counts: what was said meanwhile is part of that."""

    async def main() -> None:
        sink = Lines(SinkUnavailable("b", delivered=3, rejected=2), None, SinkUnavailable("c", rejected=2), SinkRejected(5))
        async with delivering(sink) as delivery:
            for first in (1, 11):
                offer(delivery, lines(first, 10))
                await asyncio.sleep(5.0)
            assert (delivery.books.delivered, dropped(delivery)) == (15, {"rejected": 5})

    fake_time.run(main())


@pytest.mark.parametrize(
    ("delivered", "rejected", "counts"),
    [
        (99, 99, (10, 0)),
        (-1, 99, (0, 10)),
        (7, 7, (7, 3)),
        (None, "x", (0, 0)),
        (float("nan"), 2.5, (0, 0)),
        (10**30, -(10**30), (10, 0)),
    ],
)
def test_a_part_of_a_batch_that_cannot_be(delivered: Any, rejected: Any, counts: tuple[int, int]) -> None:
    """The nearest possible numbers hold, and the books balance."""

    async def main() -> None:
        sink = Lines(SinkUnavailable("no", delivered=delivered, rejected=rejected), for_ever=True)
        async with delivering(sink, max_retries=1) as delivery:
            offer(delivery, lines(1, 10))
            await asyncio.sleep(10.0)
            lost = dropped(delivery)
            assert (delivery.books.delivered, lost.get("rejected", 0)) == counts
            assert lost.get("retries_exhausted", 0) == 10 - sum(counts)

    fake_time.run(main())


def test_what_failed_tries_leave_behind() -> None:
    """Nothing: errors and batches go with the last try, and do not wait for a garbage collection (a batch may be a MiB)."""
    alive: list[weakref.ref[BaseException]] = []

    class Later(SinkUnavailable):
        def __init__(self) -> None:
            super().__init__("later")
            alive.append(weakref.ref(self))

    class Failing(Lines):
        async def write_lines(self, batch: list[bytes]) -> None:
            try:
                await asyncio.open_unix_connection("nowhere")
            except OSError as cause:
                raise Later from cause

    async def main() -> None:
        async with delivering(Failing(), max_retries=2) as delivery:
            for first in (1, 4):
                offer(delivery, lines(first, 3))
                await delivery.settle(first + 2, 100.0)

    gc.collect()
    gc.disable()
    try:
        fake_time.run(main())
        assert len(alive) == 6
        assert [ref() for ref in alive[:3]] == [None] * 3
    finally:
        gc.enable()
