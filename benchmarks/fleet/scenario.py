"""
What happens to the fleet: a while of steady load, an outage, and the time after it.

Invariants:

1. The same scenario gives the same numbers: all chance comes from one seed, and no real clock is looked at.
2. The books balance at the end, fleet-wide: offered = delivered + dropped, by reason; the server has stored what was delivered.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from benchmarks.fleet import clock
from benchmarks.fleet.server import Limits, Second, Server
from benchmarks.fleet.worker import Lines, ModelledSink, fleet_of
from fapilog._internal import notes

if TYPE_CHECKING:
    from fapilog._internal.terms import Terms

WORKERS = 16
GROUPS = 200  # of workers, at most, whose events come at the same moment
TAKE_EVERY = 1.0  # seconds for which events wait to be taken from the queue (`FAPILOG_QUEUE_BATCH_TIMEOUT`)
NAIVE_WAIT = 1.0
NOTES = ("down loki", "rejected loki")
NO_WORKER = ("service", "env", "host")
ALL_LABELS = ("service", "env", "host", "worker")

Retry = Literal["fapilog", "naive", "without replay"]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """
    Args:
        name: For the report.
        hosts: Each of `WORKERS` workers.
        events: Of one worker in a second.
        limits: Of the server, for these hosts.
        labels: Of streams.
        retry: Whose: fapilog's own; every `NAIVE_WAIT` seconds, for ever; or fapilog's, but the backlog as fast as it goes.
        retry_after: Of a proxy that answers 503 while the server is away; *None*: connections are refused.
        max_elapsed: `FAPILOG_LOKI_MAX_ELAPSED`, in seconds.
        steady: Seconds before the outage.
        outage: Its seconds.
        most: Seconds after it, at most; it ends `settle` seconds after everybody has caught up.
        settle: See *most*.
        seed: Of all chance.
    """

    name: str
    hosts: int
    events: float = 0.25
    limits: Limits = field(default_factory=Limits)
    labels: tuple[str, ...] = NO_WORKER
    retry: Retry = "fapilog"
    retry_after: float | None = None
    max_elapsed: float = 300.0
    steady: int = 60
    outage: int = 3600
    most: int = 3600
    settle: int = 60
    seed: int = 1

    @property
    def workers(self) -> int:
        """How many there are in all."""
        return self.hosts * WORKERS


@dataclass(slots=True)
class Outcome:
    """
    What came of a scenario; times in seconds after the end of the outage.

    Args:
        scenario: Which.
        seconds: What the server saw, second by second.
        drained: When everything accepted before the end of the outage had met its fate; *None*: not in the time.
        caught_up: When no more events waited than in the steady state before; *None*: not in the time.
        offered: Events, in all.
        delivered: Of them.
        dropped: Of them, by reason.
        backlog_bytes: The most that waited in the whole fleet.
        entries: What the server did with the entries that came.
        answers: How it answered how many requests.
        streams: How many are active at the end.
    """

    scenario: Scenario
    seconds: list[Second] = field(default_factory=list)
    drained: float | None = None
    caught_up: float | None = None
    offered: int = 0
    delivered: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    backlog_bytes: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    streams: int = 0

    @property
    def before(self) -> list[Second]:
        """The steady state, without the start of it."""
        return self.seconds[self.scenario.steady // 2 : self.scenario.steady]

    @property
    def during(self) -> list[Second]:
        """The outage."""
        return self.seconds[self.scenario.steady : self.scenario.steady + self.scenario.outage]

    @property
    def after(self) -> list[Second]:
        """What came after it."""
        return self.seconds[self.scenario.steady + self.scenario.outage :]

    @property
    def draining(self) -> list[Second]:
        """The time after the outage until everybody had caught up."""
        return self.after if self.caught_up is None else self.after[: int(self.caught_up) + 1]


def _naive(terms: Terms) -> Terms:
    return replace(terms, retry_delay=NAIVE_WAIT, retry_cap=NAIVE_WAIT, replay_speed=None, rng=lambda: 1.0)


_TERMS = {"fapilog": lambda terms: terms, "naive": _naive, "without replay": lambda terms: replace(terms, replay_speed=None)}


class Fleet:
    """A scenario that is going on; made on the loop that runs it."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.outcome = Outcome(scenario)
        self.server = Server(scenario.limits, scenario.retry_after)
        rng = random.Random(scenario.seed)
        self._lines = Lines()
        prototype = ModelledSink("http://loki:3100", stream_labels=scenario.labels, max_elapsed=scenario.max_elapsed)
        prototype.server, prototype.lines = self.server, self._lines
        self.workers = fleet_of(scenario.hosts, WORKERS, prototype, rng.random, _TERMS[scenario.retry])
        order = rng.sample(self.workers, len(self.workers))
        groups = min(GROUPS, len(order))
        self._groups = [order[number::groups] for number in range(groups)]
        self._arriving = asyncio.create_task(self._arrive())

    async def _arrive(self) -> None:
        """Let events come, for ever: as often as one comes, or as the worker takes those that came since it last did."""
        groups = len(self._groups)
        period = max(TAKE_EVERY, 1 / self.scenario.events)
        count = round(self.scenario.events * period)
        loop = asyncio.get_running_loop()
        for tick in range(10**9):
            await asyncio.sleep(tick * period / groups - loop.time())
            lines = [self._lines.at(loop.time())] * count
            size = sum(map(len, lines))
            for worker in self._groups[tick % groups]:
                worker.delivery.offer(lines, size)
                worker.delivery.expire()

    async def run(self) -> Outcome:
        """Go through the scenario."""
        scenario, outcome = self.scenario, self.outcome
        await asyncio.sleep(scenario.steady)
        usual = self._waiting()
        self.server.away = bool(scenario.outage)
        await asyncio.sleep(scenario.outage)
        outcome.backlog_bytes = sum(worker.delivery.books.backlog_bytes for worker in self.workers)
        self.server.away = False
        for worker in self.workers:
            worker.mark = worker.delivery.position
        for second in range(1, scenario.most + 1):
            await asyncio.sleep(1.0)
            self._look(second, usual)
            if outcome.caught_up is not None and second >= outcome.caught_up + scenario.settle:
                break
        await self._end()
        return outcome

    def _waiting(self) -> int:
        return sum(worker.delivery.books.backlog_bytes for worker in self.workers)

    def _look(self, second: int, usual: int) -> None:
        outcome = self.outcome
        if outcome.drained is None and all(worker.delivery.settled(worker.mark) for worker in self.workers):
            outcome.drained = second
        if outcome.drained is not None and outcome.caught_up is None and self._waiting() <= 1.05 * usual:
            outcome.caught_up = second

    async def _end(self) -> None:
        """Stop the events, deliver what is left, and add up the books."""
        self._arriving.cancel()
        outcome = self.outcome
        outcome.seconds = [replace(second) for second in self.server.seconds]
        for worker in self.workers:
            worker.delivery.hurry()
        await asyncio.sleep(5.0)
        await asyncio.gather(*(worker.delivery.close(1.0) for worker in self.workers))
        for worker in self.workers:
            books = worker.delivery.books
            assert books.in_flight == 0
            outcome.offered += books.offered
            outcome.delivered += books.delivered
            outcome.dropped.update({str(reason): window.count for reason, window in books.dropped.items() if window.count})
        outcome.entries, outcome.answers, outcome.streams = self.server.entries, self.server.answers, self.server.streams
        assert outcome.offered == outcome.delivered + outcome.dropped.total()
        assert outcome.delivered == outcome.entries["stored"]


async def _main(scenario: Scenario) -> Outcome:
    return await Fleet(scenario).run()


def play(scenario: Scenario) -> Outcome:
    """Go through *scenario* in virtual time."""
    gc.collect()
    gc.disable()  # nothing here is in cycles but what lives to the end
    notes._last.update(dict.fromkeys(NOTES, float("inf")))  # that the server is away is no news here
    try:
        outcome: Outcome = clock.run(_main(scenario))
    finally:
        for kind in NOTES:
            notes._last.pop(kind, None)
        gc.enable()
        gc.collect()
    return outcome
