"""What a journal is told of the way of the events: how far each sink has come, and what was overwritten before it had."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from fapilog import QueueWorker
from fapilog._internal import remains
from fapilog._internal.accounting import Reason, SinkBooks
from fapilog._internal.event_queue import EventQueue
from fapilog._internal.journal import Journal
from fapilog._internal.protection import Passage, Protection
from fapilog.identity import Identity
from tests.recording import HangingSink, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RING = 4096
LINE = 256  # so 16 of them fill the ring
OWN = Identity("s", "", "h", 1, 7, "ab" * 8)


class Bench:
    """A queue and its journal, with a worker by hand that offers everything to two sinks."""

    def __init__(self, run_dir: Path, names: tuple[str, ...] = ("file", "loki"), limit: int = 1000) -> None:
        self.queue = EventQueue(limit, overflow="drop_oldest", reserve=0.0, identity=OWN)
        self.journal = Journal.make(run_dir, OWN, names, "", RING)
        self.books = [SinkBooks(name) for name in names]
        self.protection = Protection(self.journal, self.queue, self.books)
        self.queue.protect(self.journal)
        self.position = 0

    def log(self, count: int = 1, size: int = LINE) -> list[int]:
        """Log events of *size* bytes each; return their seqs."""
        seqs = []
        for _ in range(count):
            head, end = b'{"timestamp":"x","event":"', b'"'
            tail = len(OWN.tail() % (self.queue.last_seq + 1))
            assert self.queue.accept(20, head + b"y" * (size - len(head) - len(end) - tail) + end)
            seqs.append(self.queue.last_seq)
        return seqs

    def take(self, settled: int = 0) -> list[bytes]:
        """Take what waits, as the worker does; nothing of it is delivered yet."""
        lines, _ = self.queue.take()
        if lines:
            self.position += len(lines)
            taken = self.protection.took()
            for passage in self.passages:
                passage.took(self.position, settled, *taken)
        self.protection.look()
        return lines

    @property
    def passages(self) -> list[Passage]:
        return self.protection.passages

    def found(self) -> remains.Remains:
        fd = os.open(self.journal.path, os.O_RDONLY)
        try:
            left = remains.read(fd)
        finally:
            os.close(fd)
        assert left is not None
        return left

    def cursors(self) -> list[int]:
        return list(self.found().cursors.values())

    def unprotected(self) -> list[int]:
        return [books.unprotected for books in self.books]


@pytest.fixture
def bench(run_dir: Path) -> Iterator[Bench]:
    made = Bench(run_dir)
    yield made
    made.journal.close(done=True)


# How far a sink has come


def test_what_was_taken_and_not_delivered(bench: Bench) -> None:
    """No cursor passes it."""
    bench.log(3)
    bench.take()
    assert bench.cursors() == [0, 0]
    assert list(bench.found().after(0)) == [1, 2, 3]


def test_a_take_that_was_delivered_in_part(bench: Bench) -> None:
    """The cursor stays before it until the last event of it has met its fate."""
    bench.log(3)
    bench.take()
    bench.log(2)
    bench.take()
    passage = bench.passages[0]
    cursors = []
    for position in range(1, 6):
        passage.reached(position)
        cursors.append(bench.cursors()[0])
    assert cursors == [0, 0, 3, 3, 5]


def test_two_sinks(bench: Bench) -> None:
    """Each has a cursor of its own: what one of them lacks is there for it, whatever the other has."""
    bench.log(4)
    bench.take()
    bench.passages[0].reached(4)
    assert bench.cursors() == [4, 0]
    assert list(bench.found().after(0)) == [1, 2, 3, 4]
    bench.passages[1].reached(4)
    assert bench.cursors() == [4, 4]


def test_what_waits_in_the_queue(bench: Bench) -> None:
    """A cursor comes no further than what was taken, and finds the rest in the ring."""
    bench.log(2)
    bench.take()
    bench.log(2)
    bench.passages[0].reached(2)
    assert bench.cursors()[0] == 2
    assert list(bench.found().after(2)) == [3, 4]


def test_a_take_of_which_nothing_was_kept(bench: Bench) -> None:
    """It was dropped as a whole, with nothing before it under way: it has met its fate, and the books say which."""
    bench.log(2)
    bench.queue.take()
    bench.books[0].drop(Reason.BACKLOG_FULL, 2, 1, 2, 99)
    bench.passages[0].took(0, 0, *bench.protection.took())
    left = bench.found()
    assert left.cursors["file"] == 2
    assert [(each.scope, each.reason, each.count) for each in left.unannounced] == [("file", Reason.BACKLOG_FULL, 2)]
    assert left.lost["file"] == 0


def test_a_take_of_which_nothing_was_kept_behind_another_one(bench: Bench) -> None:
    """The cursor does not pass the one before, which is under way."""
    bench.log(2)
    bench.take()
    bench.log(2)
    bench.queue.take()
    passage = bench.passages[0]
    passage.took(2, 0, *bench.protection.took())
    assert bench.cursors()[0] == 0
    passage.reached(2)
    assert bench.cursors()[0] == 4


def test_a_sink_that_hangs_while_its_backlog_is_full(bench: Bench) -> None:
    """What is dropped take by take costs no memory, however long that goes on, and the cursor finds its way afterwards."""
    bench.log(1)
    bench.take()
    passage = bench.passages[0]
    for _ in range(5_000):
        bench.log(1)
        bench.queue.take()
        passage.took(1, 0, *bench.protection.took())
    assert len(passage._takes) <= 2
    assert bench.cursors()[0] == 0
    passage.reached(1)
    assert bench.cursors()[0] == 5_001


def test_what_drop_oldest_has_thrown_out(run_dir: Path) -> None:
    """It comes back for no sink, and nothing counts it as lost."""
    bench = Bench(run_dir, limit=2)
    bench.log(5)
    assert list(bench.found().lines) == [4, 5]
    bench.take()
    assert bench.found().lost == {"file": 0, "loki": 0}
    bench.passages[0].reached(2)
    assert bench.cursors() == [5, 0]
    bench.journal.close(done=True)


def test_a_hub_that_gets_its_journal_late(run_dir: Path) -> None:
    """What was delivered before is passed, and what waits is in it."""
    queue = EventQueue(10, identity=OWN)
    books = SinkBooks("file")
    for _ in range(2):
        queue.accept(20, b'{"timestamp":"x","event":"early"')
    queue.take()
    for _ in range(2):
        queue.accept(20, b'{"timestamp":"x","event":"waits"')
    journal = Journal.make(run_dir, OWN, ["file"], "", RING)
    Protection(journal, queue, [books])
    queue.protect(journal)
    left = left_in(journal)
    assert left.cursors == {"file": 2}
    assert list(left.lines) == [3, 4]
    assert (left.last_seq, left.interrupted, left.lost) == (4, 0, {"file": 0})
    journal.close(done=True)


# What was overwritten


def test_a_ring_that_has_room(bench: Bench) -> None:
    """Nothing counts as unprotected as long as nothing is overwritten, up to the last byte."""
    for _ in range(16):
        bench.log()
        bench.take()
    assert bench.journal.head == RING
    assert bench.unprotected() == [0, 0]
    assert list(bench.found().lines) == list(range(1, 17))


def test_what_was_overwritten_before_a_sink_had_it(bench: Bench) -> None:
    """It counts as unprotected for this sink alone, once."""
    bench.log(4)
    bench.take()
    bench.passages[0].reached(4)
    for _ in range(14):
        bench.log(1)
        bench.take()
    assert bench.unprotected()[0] == 0
    first = bench.unprotected()[1]
    assert first == 4
    for _ in range(3):
        bench.protection.look()
    assert bench.unprotected() == [0, first]


def test_a_lap_and_another_one(bench: Bench) -> None:
    """Each event counts once, however often the ring comes round."""
    for _ in range(100):
        bench.log(1)
        bench.take()
    assert bench.unprotected() == [bench.unprotected()[0]] * 2
    assert 100 - 16 <= bench.unprotected()[0] <= 100 - 15
    for passage in bench.passages:
        passage.reached(100)
    for _ in range(15):
        bench.log(1)
        bench.take()
    assert 84 <= bench.unprotected()[0] <= 85


def test_what_was_delivered_before_it_was_overwritten(bench: Bench) -> None:
    """It was never unprotected."""
    for number in range(1, 101):
        bench.log(1)
        bench.take()
        for passage in bench.passages:
            passage.reached(number)
    assert bench.unprotected() == [0, 0]
    assert bench.cursors() == [100, 100]


def test_the_count_is_never_too_low(bench: Bench) -> None:
    """What a sink lacks and the ring has not is counted, whole takes at a time."""
    for size in (1, 3, 2, 7, 1, 5, 4, 6, 2, 3):
        bench.log(size, 100 + 13 * size)
        bench.take()
        left = bench.found()
        assert left.lost["file"] <= bench.unprotected()[0]
        assert bench.unprotected()[0] <= bench.queue.last_seq


# What is left at the end


def test_what_is_left_while_the_ring_has_it(bench: Bench) -> None:
    """All of it is left to whoever finds the journal."""
    bench.log(3)
    lines = bench.take()
    passage = bench.passages[0]
    assert passage.leave(lines) == []
    assert passage.left == 3
    assert list(bench.found().after(bench.cursors()[0]).values()) == lines


def test_what_is_left_after_the_ring_has_come_round(bench: Bench) -> None:
    """What it does not have any more is returned, to be counted; the rest stands there whole."""
    lines = []
    for _ in range(40):
        bench.log(1)
        lines += bench.take()
    passage = bench.passages[0]
    gone = passage.leave(lines)
    assert [line for line in lines if line not in gone] == list(bench.found().lines.values())
    assert (passage.left, len(gone)) == (15, 25)  # the one that is next to be overwritten is trusted by nobody


def test_lines_of_a_dead_process_that_are_left(bench: Bench) -> None:
    """They stand in its journal, not in this one, and are not counted as gone."""
    lines = []
    for _ in range(40):
        bench.log(1)
        lines += bench.take()
    dead = Identity("s", "", "h", 1, 6, "cd" * 8)
    adopted = [b'{"timestamp":"x","event":"e"' + dead.tail() % seq for seq in (1, 2, 39)]
    passage = bench.passages[0]
    assert passage.leave([*adopted, *lines[-3:]]) == []
    assert passage.left == 6


class Uninsured:
    """As much of an `Insurance` as a worker needs that has a journal and nothing to recover."""

    def __init__(self, journal: Journal) -> None:
        self.journal: Journal | None = journal
        self.kept = False

    async def first(self, deliveries: object, over: object) -> None:
        return

    async def last(self, until: float) -> None:
        return

    def look(self) -> None:
        return

    def settle(self) -> None:
        return

    def end(self, *, done: bool) -> None:
        self.kept = not done
        if self.journal is not None:
            self.journal.close(done=done)


def begun(journal: Journal) -> QueueWorker:
    """Return a worker that has *journal* and delivers to a sink that hangs."""
    worker = QueueWorker([HangingSink("hangs")], identity=OWN, batch_timeout=0.0)
    worker.insurance = Uninsured(journal)  # type: ignore[assignment]
    worker.protect()
    worker.start()
    return worker


def left_in(journal: Journal) -> remains.Remains:
    with journal.path.open("rb") as file:
        left = remains.read(file.fileno())
    assert left is not None
    return left


def test_a_ring_that_comes_round_in_the_last_moment(run_dir: Path) -> None:
    """What was overwritten while the hub was closing is counted, and not taken for something that is left in the journal."""
    journal = Journal.make(run_dir, OWN, ["hangs"], "", RING)

    async def main() -> QueueWorker:
        worker = begun(journal)
        worker.queue.accept(20, b'{"timestamp":"x","event":"early"')
        await until(lambda: worker.deliveries[0].sink.attempts)  # type: ignore[attr-defined]
        worker.request_stop(0.0)
        for _ in range(100):
            worker.queue.accept(20, b'{"timestamp":"x","event":"late"')
        await worker.stop(0.0)
        worker.give_up_journal()
        return worker

    worker = asyncio.run(main())
    left = left_in(journal)
    (delivery,) = worker.deliveries
    assert delivery.passage is not None
    assert 0 < delivery.passage.left == len(left.after(left.cursors["hangs"]))
    dropped = delivery.books.dropped[Reason.AFTER_CLOSE].count
    assert dropped > 0
    assert dropped + delivery.passage.left == worker.queue.put_events


def test_a_hub_that_closes_with_all_of_it_in_the_ring(run_dir: Path) -> None:
    """Nothing counts as dropped, and all of it is left."""
    journal = Journal.make(run_dir, OWN, ["hangs"], "", RING)

    async def main() -> QueueWorker:
        worker = begun(journal)
        for _ in range(10):
            worker.queue.accept(20, b'{"timestamp":"x","event":"late"')
        await worker.stop(0.0)
        worker.give_up_journal()
        return worker

    worker = asyncio.run(main())
    left = left_in(journal)
    assert left.closed
    assert worker.deliveries[0].books.dropped_total() == 0
    assert len(left.after(left.cursors["hangs"])) == worker.queue.put_events
