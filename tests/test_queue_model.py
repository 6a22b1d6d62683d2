"""A model test: random actions on queue, worker and failing sinks, with the books checked after every step."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fapilog import QueueWorker, SinkRejected, SinkUnavailable
from fapilog.identity import seq_of
from fapilog.pipeline import own_head
from tests.recording import RecordingSink

FAILURES = {
    "nothing": lambda: None,
    "unavailable": lambda: SinkUnavailable("no", retry_after=0.0),
    "odd": lambda: RuntimeError("odd"),
    "exit": lambda: SystemExit(1),
    "rejected": lambda: SinkRejected(None),
}


class BooksBalance(RuleBasedStateMachine):
    """
    Between two steps the loop stands still, so every state that a step leaves behind is seen by the invariants.

    The model is small: the sinks remember what they took; the queue and the deliveries must account for all the rest.
    """

    @initialize(
        policy=st.sampled_from(["drop", "drop_oldest", "sample"]),
        size=st.integers(1, 30),
        reserve=st.sampled_from([0.0, 0.1, 1.0]),
        retries=st.integers(0, 2),
        backlog=st.sampled_from([500, 4_000, 1 << 20]),
    )
    def begin(self, policy, size, reserve, retries, backlog):
        self.runner = asyncio.Runner()
        self.runner.run(asyncio.sleep(0))
        self.sinks = [RecordingSink("one"), RecordingSink("two")]
        self.logged = 0
        self.said = []
        self.stopped = False
        self.flush_result = None

        async def start():
            self.worker = QueueWorker(
                self.sinks,
                queue_size=size,
                batch_timeout=0.0,
                retry_delay=0.0,
                max_retries=retries,
                overflow=policy,
                sample_rate=0.5,
                reserve=reserve,
                backlog_bytes=backlog,
                announce=False,
            )
            self.worker.start()

        self.runner.run(start())
        self.queue = self.worker.queue

    def teardown(self):
        if hasattr(self, "runner"):
            for sink in self.sinks:
                sink.gate = None
                sink.failures = []
            self.runner.run(self.worker.stop(1.0))
            self.check_final()
            self.runner.close()

    @rule(count=st.integers(1, 60), level=st.sampled_from([(10, "debug"), (20, "info"), (30, "warning"), (40, "error")]))
    def log(self, count, level):
        levelno, name = level
        for _ in range(count):
            self.queue.accept(levelno, own_head("x", name, n=self.logged))
            self.logged += 1

    @precondition(lambda self: not self.stopped)
    @rule(count=st.integers(1, 5))
    def say_something_of_its_own(self, count):
        for _ in range(count):
            self.queue.admit(own_head("own", "info"))
            self.said.append(self.queue.last_seq)
            self.logged += 1

    @rule(steps=st.integers(1, 30))
    def let_the_loop_run(self, steps):
        async def turn():
            self.queue.wake()
            for _ in range(steps):
                await asyncio.sleep(0)

        self.runner.run(turn())

    @rule(which=st.integers(0, 1), failures=st.lists(st.sampled_from(sorted(FAILURES)), max_size=4))
    def make_a_sink_fail(self, which, failures):
        self.sinks[which].failures += [FAILURES[name]() for name in failures]

    @rule(which=st.integers(0, 1))
    def stall_a_sink(self, which):
        self.sinks[which].gate = asyncio.Event()

    @rule(which=st.integers(0, 1))
    def release_a_sink(self, which):
        async def release():
            if self.sinks[which].gate is not None:
                self.sinks[which].gate.set()
            self.sinks[which].gate = None

        self.runner.run(release())

    @precondition(lambda self: not self.stopped)
    @rule()
    def flush(self):
        accepted = self.queue.put_events
        result = self.runner.run(self.worker.flush(0.02))
        if result.complete:
            for sink in self.sinks:
                assert len(sink.events) == accepted

    @rule()
    def stop(self):
        self.runner.run(self.worker.stop(0.02))
        self.stopped = True
        assert all(not delivery.books.in_flight for delivery in self.worker.deliveries)

    @precondition(lambda self: self.stopped)
    @rule()
    def start_again(self):
        async def start():
            self.worker.start()

        self.runner.run(start())
        self.stopped = False

    @invariant()
    def what_was_logged_was_accepted_or_refused(self):
        if not hasattr(self, "queue"):
            return
        refused = sum(window.count for window in self.queue.refused.values())
        assert self.logged == self.queue.last_seq == self.queue.put_events + refused

    @invariant()
    def what_was_accepted_was_delivered_dropped_or_is_in_flight(self):
        if not hasattr(self, "queue"):
            return
        uncounted = self.queue.oldest_dropped.count - self.worker.oldest_counted
        for delivery in self.worker.deliveries:
            books = delivery.books
            assert self.queue.put_events == books.offered + self.queue.qsize() + uncounted
            assert books.in_flight >= 0
            assert books.offered == books.delivered + books.dropped_total() + books.in_flight

    @invariant()
    def nothing_of_its_own_was_thrown_out(self):
        if not hasattr(self, "queue"):
            return
        waiting = {seq_of(line) for line in self.queue._buffer}
        assert waiting.issuperset(seq for seq in self.said if seq > self.queue.taken_seq)

    @invariant()
    def every_sink_got_each_event_at_most_once_and_in_order(self):
        for sink in getattr(self, "sinks", ()):
            assert sink.seqs() == sorted(set(sink.seqs()))

    def check_final(self):
        for delivery, sink in zip(self.worker.deliveries, self.sinks, strict=True):
            assert delivery.books.delivered == len(sink.events)
            assert delivery.books.in_flight == 0


TestBooksBalance = BooksBalance.TestCase
TestBooksBalance.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
