"""The fleet of `benchmarks/fleet`: what a thousand hosts promise of an outage, on a few of them, and the model that says so."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace

import pytest

from benchmarks.fleet import clock
from benchmarks.fleet.report import limits_for, peak, problems, requests_of, scenarios, table, total, wire
from benchmarks.fleet.scenario import ALL_LABELS, NAIVE_WAIT, WORKERS, Scenario, play
from benchmarks.fleet.server import Bucket, Limits, Server
from tests.loki import limits as standin

HOSTS = 2
SMALL = Scenario(name="fapilog", hosts=HOSTS, limits=limits_for(HOSTS))
KEY = (("host", "a"),)


@pytest.mark.matrix
def test_an_outage_of_an_hour() -> None:
    """The fleet drains within the server's limits, in a tenth of the requests of naive retry at most; all is accounted for."""
    fapilog, naive = play(SMALL), play(replace(SMALL, name="naive", retry="naive", hosts=1, limits=limits_for(1)))
    assert problems(fapilog, naive) == []
    assert total(fapilog.seconds, "refused") == 0
    assert peak(fapilog.after, "stored_bytes") <= fapilog.scenario.limits.burst
    assert requests_of(fapilog) <= requests_of(naive) / 10
    assert fapilog.caught_up is not None
    assert fapilog.caught_up <= 400
    assert total(naive.seconds, "refused") > 0
    assert total(naive.during, "requests") == pytest.approx(WORKERS * SMALL.outage / NAIVE_WAIT, rel=0.01)
    assert fapilog.offered == fapilog.delivered + fapilog.dropped["expired"]
    kept = fapilog.delivered - (fapilog.offered - fapilog.scenario.events * SMALL.workers * SMALL.outage)
    assert kept == pytest.approx(fapilog.scenario.events * SMALL.workers * 300, rel=0.15)


@pytest.mark.matrix
def test_a_scenario_twice() -> None:
    """It gives the same numbers, second by second."""
    short = replace(SMALL, outage=120, settle=30)
    first, second = play(short), play(short)
    assert first == second
    assert play(replace(short, seed=2)).seconds != first.seconds


@pytest.mark.matrix
def test_more_streams_than_the_server_takes() -> None:
    """With the worker as a label under a third of the events arrive; without it all do."""
    labels = replace(SMALL, hosts=10, limits=limits_for(10), labels=ALL_LABELS, outage=0, most=400)
    many = play(labels)
    few = play(replace(labels, labels=("service", "env", "host")))
    assert (many.streams, few.streams) == (50, 10)
    assert many.delivered / many.offered == pytest.approx(50 / 160, rel=0.05)
    assert (few.delivered, few.entries["stored"]) == (few.offered, few.offered)


@pytest.mark.matrix
def test_a_backlog_that_is_sent_as_fast_as_it_goes() -> None:
    """It runs into the server's limits: the replay is what keeps the fleet within them."""
    fast = play(replace(SMALL, retry="without replay"))
    assert total(fast.seconds, "refused") > 100
    assert problems(fast, fast) != []


@pytest.mark.matrix
def test_an_hour_that_is_kept() -> None:
    """With the time and the room for it every event of the outage arrives, none too late for its stream."""
    kept = play(replace(SMALL, max_elapsed=7200.0, most=7200))
    assert (kept.delivered, kept.dropped) == (kept.offered, {})
    assert total(kept.seconds, "refused") == 0
    assert kept.caught_up is not None
    assert kept.caught_up <= 4000


def test_the_limits() -> None:
    """They are those of the stand-in Loki, which are Loki's defaults."""
    ours, theirs = Limits(), standin.Limits()
    assert (ours.rate, ours.burst, ours.streams) == (theirs.ingestion_rate, theirs.ingestion_burst, theirs.max_streams)
    assert (ours.stream_rate, ours.stream_burst) == (theirs.per_stream_rate, theirs.per_stream_burst)
    assert ours.unordered_s == theirs.unordered_window


def test_a_bucket() -> None:
    """It gives what has come since, up to its burst, all or nothing."""
    bucket = Bucket(10.0, 20.0, 0.0)
    assert [bucket.allow(20, 0.0), bucket.allow(1, 0.0), bucket.allow(10, 1.0), bucket.allow(21, 100.0)] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("limits", "pushes", "answers"),
    [
        ({"rate": 1.0, "burst": 10.0}, [(0.0, KEY, 8), (0.0, KEY, 8), (8.0, KEY, 8)], [204, 429, 204]),
        ({"streams": 1}, [(0.0, KEY, 8), (0.0, (("host", "b"),), 8)], [204, 429]),
        ({"stream_rate": 1.0, "stream_burst": 10.0}, [(0.0, KEY, 8), (1.0, KEY, 8)], [204, 429]),
    ],
    ids=["rate", "streams", "rate of a stream"],
)
def test_what_is_over_a_limit(limits: dict[str, float], pushes: list[tuple[float, object, int]], answers: list[int]) -> None:
    """It is answered 429, and counted."""
    server = Server(Limits(**limits))  # type: ignore[arg-type]
    assert [server.push(key, [now], size, now).status for now, key, size in pushes] == answers
    assert sum(second.refused for second in server.seconds) == answers.count(429)
    assert server.entries["stored"] == answers.count(204)


def test_entries_that_are_far_behind_their_stream() -> None:
    """They are refused for good, the others of the request stored, and the answer says how many."""
    server = Server(Limits())
    assert server.push(KEY, [5000.0], 100, 5000.0).status == 204
    reply = server.push(KEY, [1000.0, 1399.0, 1401.0, 5000.0], 400, 5000.0)
    assert (reply.status, server.entries) == (400, {"stored": 3, "too_far_behind": 2})
    assert "total ignored: 2 out of 4" in reply.text


def test_a_server_that_is_away() -> None:
    """Nobody answers, or a proxy that says when to come back; nothing is stored."""
    for retry_after, status in ((None, 0), (30.0, 503)):
        server = Server(Limits(), retry_after)
        server.away = True
        reply = server.push(KEY, [1.0], 100, 1.0)
        assert (reply.status, reply.headers) == (status, {"retry-after": "30"} if retry_after else None)
        assert (server.entries["stored"], server.seconds[1].unanswered) == (0, 1)


def test_time_that_passes_at_once() -> None:
    """Waits end in their order, those for the same time in the order in which they were asked for, and cancelled ones never."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        loop.call_later(3600.0, seen.append, 3)
        loop.call_later(60.0, seen.append, 1)
        loop.call_later(60.0, seen.append, 2)
        loop.call_later(61.0, seen.append, 99).cancel()
        await asyncio.sleep(7200.0)
        assert loop.time() == 7200.0
        return seen

    assert clock.run(main()) == [1, 2, 3]


def test_the_report() -> None:
    """It has a column for each scenario with its counts for a thousand hosts, and says what does not hold."""
    outcome = play(replace(SMALL, outage=60, steady=10, most=120, settle=5))
    text = table([outcome, outcome])
    assert len({line.count("|") for line in text.splitlines()}) == 1
    assert f"{outcome.offered * 1000 // HOSTS:,}" in text
    outcome.seconds[-1].refused = 7
    outcome.caught_up = None
    outcome.dropped["rejected"] = 3
    assert len(problems(outcome, outcome)) == 4


def test_the_scenarios() -> None:
    """Each has a name of its own, and limits in proportion to its hosts."""
    found = scenarios(1000, 20)
    assert len({each.name for each in found}) == len(found)
    assert (found[0].workers, found[0].limits) == (16_000, Limits())
    assert found[1].workers == 20 * WORKERS
    assert found[1].limits.rate == Limits().rate / 50
    assert {field.name for field in fields(Limits)} >= {"rate", "burst", "streams"}


def test_bytes_on_the_wire() -> None:
    """They are those of real pushes: several events compress together."""
    one, ten = wire(1), wire(10)
    assert 250 < one[0] < 400
    assert ten[1] < 10 * one[1] / 3
