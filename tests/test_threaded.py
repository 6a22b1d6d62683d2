"""A custom sink on its own thread: it is called on one thread at a time, whatever was left behind at an earlier end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import Any

import pytest

import fapilog
from fapilog._internal import threaded
from fapilog._internal.accounting import Reason
from fapilog._internal.delivery import Delivery
from fapilog._internal.native import elsewhere, new_loop
from fapilog._internal.terms import Terms
from fapilog._internal.threaded import ThreadedSink
from fapilog.identity import Identity, seq_of
from tests._support import process_restored, ran_well, run_script
from tests.recording import RecordingSink

ME = Identity("shop", "", "h", 1, 7, "b00t")
LIMIT = 10.0


class Blocking:
    """Blocks its thread in the first call of a name, until it is let go on."""

    name = "blocking"

    def __init__(self, where: str) -> None:
        self.where = where
        self.go_on = threading.Event()
        self.reached = threading.Event()
        self.inside = 0
        self.calls: list[str] = []
        self.got: list[int] = []

    async def open(self, identity: Identity) -> None:
        self.call("open")

    async def write_lines(self, batch: list[bytes]) -> None:
        self.call("write")
        await asyncio.sleep(0)  # where a cancellation comes in
        self.got += map(seq_of, batch)

    async def close(self) -> None:
        self.call("close")

    def call(self, name: str) -> None:
        assert not self.inside, "two calls at a time"
        self.inside += 1
        self.calls.append(name)
        if name == self.where and self.calls.count(name) == 1:
            self.reached.set()
            assert self.go_on.wait(LIMIT)
        self.inside -= 1


def started(sink: Any) -> Delivery:
    """A delivery to *sink* through a wrapper of its own, as every hub makes one."""
    wrapper: Any = ThreadedSink(sink)
    delivery = Delivery(wrapper, terms=Terms(None, 0.02, 0.02))
    delivery.start(ME)
    return delivery


def offer(delivery: Delivery, *seqs: int) -> None:
    lines = [b'{"event":"x","seq":%d}\n' % seq for seq in seqs]
    delivery.offer(lines, sum(map(len, lines)))


async def reached(condition: Any) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("where", ["open", "write", "close"])
def test_a_sink_that_is_opened_again_while_it_blocks_its_thread(where: str, capfd, monkeypatch) -> None:
    """The new opening waits for that thread, and says so; then it delivers, and the call that was left behind counts nowhere."""
    monkeypatch.setattr(threaded, "NOTED_AFTER", 0.05)
    monkeypatch.setattr("fapilog._internal.notes._last", {})

    async def main() -> None:
        sink = Blocking(where)
        first = started(sink)
        offer(first, 1, 2)
        if where == "close":
            await first.settle(2, LIMIT)
        else:
            await reached(sink.reached.is_set)
        await first.close(0.05)
        assert first.books.delivered + first.books.dropped[Reason.AFTER_CLOSE].count == 2
        calls = list(sink.calls)
        second = started(sink)
        offer(second, 3, 4)
        said = ""
        while "still in a call" not in said:
            await asyncio.sleep(0.01)
            said += capfd.readouterr().err
        assert (sink.calls, second.books.in_flight) == (calls, 2)
        sink.go_on.set()
        await second.settle(2, LIMIT)
        assert (second.books.delivered, sink.got[-2:], sink.inside) == (2, [3, 4], 0)
        await second.close(LIMIT)
        assert first.books.delivered + first.books.dropped[Reason.AFTER_CLOSE].count == 2
        assert (first.books.in_flight, first.books.backlog_bytes) == (0, 0)

    asyncio.run(main())


def test_an_opening_that_was_given_up_while_it_waited() -> None:
    """The one after it waits for the same thread."""

    async def main() -> None:
        sink = Blocking("write")
        first = started(sink)
        offer(first, 1)
        await reached(sink.reached.is_set)
        await first.close(0.05)
        second = started(sink)
        offer(second, 2)
        await asyncio.sleep(0)
        await second.close(0.05)
        third = started(sink)
        offer(third, 3)
        await third.settle(1, 0.1)
        assert sink.calls == ["open", "write"]
        sink.go_on.set()
        await third.settle(1, LIMIT)
        assert (third.books.delivered, sink.got) == (1, [3])
        await third.close(LIMIT)
        assert sink.calls == ["open", "write", "open", "write", "close"]

    asyncio.run(main())


def test_nothing_is_kept_of_a_sink_that_has_ended() -> None:
    """Neither of one that was opened nor of one that never was."""

    async def main() -> None:
        for seqs in ((1, 2), ()):
            sink = Blocking("")
            delivery = started(sink)
            offer(delivery, *seqs)
            if seqs:
                await delivery.settle(delivery.position, LIMIT)
            else:
                delivery.sink.prepare()  # type: ignore[attr-defined]
            await delivery.close(LIMIT)
            await reached(lambda sink=sink: not any(each.sink is sink for each in threaded._openings))

    asyncio.run(main())


def test_a_child_forked_while_a_sink_blocks(tmp_path) -> None:
    """It waits for no thread of its parent's."""
    ran_well(
        run_script(
            """
            import os, threading
            import fapilog

            go_on, reached = threading.Event(), threading.Event()
            parent = os.getpid()

            class Blocking:
                name = "blocking"
                got = 0
                async def open(self, identity):
                    pass
                async def write(self, events):
                    if os.getpid() == parent:
                        reached.set()
                        assert go_on.wait(20)
                    self.got += len(events)
                async def close(self):
                    pass

            sink = Blocking()
            fapilog.configure_logging(sinks=[sink], queue_batch_timeout=0.01)
            fapilog.get_logger().error("parent")
            assert reached.wait(20)
            child = os.fork()
            if not child:
                fapilog.get_logger().error("child")
                os._exit(0 if fapilog.flush(10).complete and sink.got else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            go_on.set()
            assert fapilog.flush(10).complete
            """,
            tmp_path,
        )
    )


@pytest.mark.parametrize("how", ["wait", "block"])
def test_an_open_that_hangs_in_a_hub(how: str, tmp_path) -> None:
    """Other sinks are not held up, a flush and the shutdown end within their limits, and every event is counted."""

    class Hanging(Blocking):
        async def open(self, identity: Identity) -> None:
            if how == "block":
                self.call("open")
            await asyncio.Event().wait()

        async def write(self, events: Any) -> None:
            """Never called."""

    quick: Any = RecordingSink("quick")
    hanging = Hanging("open")
    with process_restored():
        fapilog.configure_logging(sinks=[hanging, quick], queue_batch_timeout=0.01, run_dir=str(tmp_path / "run"))
        fapilog.get_logger().error("x")
        began = time.monotonic()
        flushed = fapilog.flush(0.2)
        assert not flushed.complete
        assert (flushed.per_sink["quick"].delivered, flushed.per_sink["blocking"].in_flight) == (1, 1)
        result = fapilog.shutdown_logging(0.2)
        assert time.monotonic() - began < 3.0
        hanging.go_on.set()
    assert result.per_sink["blocking"] == fapilog.SinkResult(0, 2, 0)
    assert result.per_sink["quick"] == fapilog.SinkResult(2, 0, 0)


def test_a_cancellation_when_the_other_loop_is_gone() -> None:
    """It stays one: whoever asked is not told instead that the loop is closed."""

    async def main() -> None:
        loop = new_loop()
        asked = asyncio.create_task(elsewhere(loop, lambda: asyncio.sleep(0)))
        await asyncio.sleep(0)
        loop.close()
        asked.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asked
        assert asked.cancelled()

    asyncio.run(main())


def test_the_end_of_a_sink_that_has_closed_its_loop() -> None:
    """It is an end like any other."""

    async def main() -> None:
        for opened in (True, False):
            wrapper = ThreadedSink(Blocking(""))  # type: ignore[arg-type]
            wrapper.prepare()
            if opened:
                await wrapper.open(ME)
            loop = wrapper._loop
            assert loop is not None
            loop.call_soon_threadsafe(loop.stop)
            await reached(loop.is_closed)
            if opened:
                with pytest.raises(RuntimeError, match="closed"):
                    await wrapper.close()
            else:
                wrapper.retire()

    asyncio.run(main())
