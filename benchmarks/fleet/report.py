"""The scenarios of `make fleet`, and what came of them as tables; counts are those of a fleet of `HOSTS` hosts."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.fleet.scenario import ALL_LABELS, NO_WORKER, Outcome, Scenario
from benchmarks.fleet.server import Limits, Second
from fapilog._internal.flat import timestamp
from fapilog.identity import Identity
from fapilog.sinks.origins import Origins
from fapilog.sinks.push import encode_push, origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HOSTS = 1000
REDUCED = 10
RAISED = 40  # times the default rate, for a busy fleet
MEASURED = ("requests", "stored_bytes", "unanswered", "refused")


def limits_for(hosts: int, raised: float = 1.0) -> Limits:
    """Return Loki's default limits in proportion to *hosts*, with the rate *raised*."""
    return Limits().raised(raised).scaled(hosts / HOSTS)


def scenarios(hosts: int = HOSTS, reduced: int = REDUCED) -> list[Scenario]:
    """Return those of the report; the first with *hosts*, the others with *reduced* and limits in proportion."""
    made = partial(Scenario, hosts=reduced, limits=limits_for(reduced))
    return [
        Scenario(name="fapilog", hosts=hosts, limits=limits_for(hosts)),
        made(name="fapilog, reduced"),
        made(name="naive", retry="naive"),
        made(name="without replay", retry="without replay"),
        made(name="a proxy asks for 30 s", retry_after=30.0),
        made(name="an hour is kept", max_elapsed=7200.0, most=7200),
        made(name="busy", events=10.0, limits=limits_for(reduced, RAISED)),
        made(name="71 % of the limit", limits=limits_for(reduced, 0.5)),
        made(name="worker as a label", labels=ALL_LABELS, outage=0, most=900),
        made(name="worker as a label, limit raised", labels=ALL_LABELS, outage=0, most=900, limits=_more_streams(reduced)),
    ]


def _more_streams(hosts: int) -> Limits:
    return Limits(streams=20_000).scaled(hosts / HOSTS)


@dataclass(frozen=True)
class Row:
    """
    A line of a table.

    Args:
        head: Of the column.
        value: Of an outcome.
    """

    head: str
    value: Callable[[Outcome], str]


def total(seconds: Sequence[Second], what: str) -> int:
    """Return the sum of *what* over *seconds*."""
    return sum(getattr(second, what) for second in seconds)


def scaled(outcome: Outcome, number: float) -> float:
    """Return *number* for a fleet of `HOSTS`."""
    return number * HOSTS / outcome.scenario.hosts


def requests_of(outcome: Outcome) -> float:
    """Return how many requests the outage cost: those during it, and those until everybody had caught up."""
    return scaled(outcome, total(outcome.during, "requests") + total(outcome.draining, "requests"))


def rate(seconds: Sequence[Second], what: str) -> float:
    """Return *what* a second."""
    return total(seconds, what) / len(seconds) if seconds else 0.0


def peak(seconds: Sequence[Second], what: str) -> int:
    """Return the most of *what* in a second."""
    return max((getattr(second, what) for second in seconds), default=0)


def _number(outcome: Outcome, number: float) -> str:
    return f"{scaled(outcome, number):,.0f}"


def _megabytes(outcome: Outcome, number: float) -> str:
    return f"{scaled(outcome, number) / 1e6:,.2f}"


def _time(seconds: float | None) -> str:
    return "not in the time" if seconds is None else f"{seconds:,.0f} s"


def _lost(outcome: Outcome) -> str:
    lost = {**outcome.dropped}
    return ", ".join(f"{_number(outcome, count)} {reason}" for reason, count in sorted(lost.items())) or "none"


ROWS = (
    Row("hosts simulated", lambda o: f"{o.scenario.hosts:,}"),
    Row("limit, MB/s", lambda o: _megabytes(o, o.scenario.limits.rate)),
    Row("streams", lambda o: _number(o, o.streams)),
    Row("steady: requests/s", lambda o: _number(o, rate(o.before, "requests"))),
    Row("steady: MB/s", lambda o: _megabytes(o, rate(o.before, "stored_bytes"))),
    Row("outage: requests", lambda o: _number(o, total(o.during, "requests"))),
    Row("waits at its end, MB", lambda o: _megabytes(o, o.backlog_bytes)),
    Row("after it: peak requests/s", lambda o: _number(o, peak(o.after, "requests"))),
    Row("after it: peak MB/s stored", lambda o: _megabytes(o, peak(o.after, "stored_bytes"))),
    Row("answers 429", lambda o: _number(o, total(o.seconds, "refused"))),
    Row("what had waited is delivered", lambda o: _time(o.drained)),
    Row("all have caught up", lambda o: _time(o.caught_up)),
    Row("requests until then, in all", lambda o: f"{requests_of(o):,.0f}"),
    Row("events offered", lambda o: _number(o, o.offered)),
    Row("delivered", lambda o: f"{_number(o, o.delivered)} ({100 * o.delivered / o.offered:.1f} %)"),
    Row("dropped", _lost),
)


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a table in Markdown, a column for each outcome."""
    lines = ["| | " + " | ".join(outcome.scenario.name for outcome in outcomes) + " |"]
    lines.append("|---|" + "---:|" * len(outcomes))
    lines += [f"| {row.head} | " + " | ".join(row.value(outcome) for outcome in outcomes) + " |" for row in ROWS]
    return "\n".join(lines)


def wire(count: int) -> tuple[int, int]:
    """Return the bytes of a push of *count* events, and those that it has on the wire; without HTTP's own headers."""
    identity = Identity("shop", "prod", "host-0500", 8, 12345, "b00tb00tb00tb00t")
    origins = Origins(identity, partial(origin_of, configured={}, names=NO_WORKER))
    text = '{{"timestamp":"{0}","level":"info","event":"request","method":"GET","path":"/items/{1}","status":200'
    text += ',"duration_ms":{1}.25,"request_id":"{2:032x}","client":"203.0.113.7"'
    lines = [
        text.format(timestamp(), seq % 97, seq * 7919**7 % 2**128).encode() + identity.tail() % seq for seq in range(1, count + 1)
    ]
    body = encode_push(origins, lines)
    return sum(map(len, lines)), len(gzip.compress(body, 1, mtime=0))


def problems(fapilog: Outcome, naive: Outcome) -> list[str]:
    """Return what of the promise does not hold: drained within the limits, in at most a tenth of the requests."""
    found = []
    if refused := total(fapilog.seconds, "refused"):
        found.append(f"{refused} requests were over a limit")
    if fapilog.caught_up is None:
        found.append("the fleet has not caught up")
    if fapilog.dropped.total() != fapilog.dropped["expired"]:
        found.append(f"events were dropped beside those that expired in the outage: {dict(fapilog.dropped)}")
    share = requests_of(fapilog) / requests_of(naive)
    if share > 0.1:
        found.append(f"it took {share:.1%} of the requests of naive retry")
    return found
