"""
What a process writes on the board about itself, and how it is read back. Values, no I/O.

Invariants:

1. `parse()` never raises and never returns a record of another shape, whatever it is given.
2. Counters of a record only grow from one to the next of the same slot, over all the lives of the slot: `successor()` adds the
   last life to the earlier ones.
3. The books of a life that died balance too: what was under way is counted `lost`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

import orjson
from pydantic import Field, TypeAdapter, ValidationError

from fapilog.results import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fapilog.identity import Identity

Count = Annotated[int, Field(ge=0, lt=1 << 62, strict=True)]
Moment = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]  # seconds since the epoch
Text = Annotated[str, Field(max_length=1024)]
MAX_NAME = 100  # characters
OTHERS = "(others)"  # the name of sinks that have no room of their own


@dataclass(slots=True)
class SinkCounts:
    """
    One sink's counters.

    Args:
        accepted: Events meant for it.
        delivered: Events that it took.
        dropped: Events given up, by reason.
        lost: Events that were under way when a process died.
        retries: Failed tries that were followed by another.
        took: How many batches took how long from the worker's hands to the sink's, by bucket.
        took_seconds: All of them together.
        unprotected: Events that the journal had no room for any more before they were delivered.
    """

    accepted: Count = 0
    delivered: Count = 0
    dropped: dict[Text, Count] = field(default_factory=dict)
    lost: Count = 0
    retries: Count = 0
    took: list[Count] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    took_seconds: Moment = 0.0
    unprotected: Count = 0

    @property
    def under_way(self) -> int:
        """How many events have met no fate: in flight while their process lives, lost when it has died."""
        return max(0, self.accepted - self.delivered - sum(self.dropped.values()) - self.lost)


@dataclass(slots=True)
class Counts:
    """
    The counters of one process life, or of several.

    Args:
        logged: Log calls that passed their level, and the hub's own events.
        accepted: Those that were taken.
        refused: Those that were not, by reason.
        filtered: Events that the user's processors dropped.
        levels: Accepted events that a worker has taken, by level.
        lost: Events that were under way when a process died, to at least one sink.
        recovered: Events of dead processes that were delivered after all.
        deaths: How many processes died, by signal, `exit` for an exit code, and `unknown`.
        sinks: By name.
    """

    logged: Count = 0
    accepted: Count = 0
    refused: dict[Text, Count] = field(default_factory=dict)
    filtered: Count = 0
    levels: dict[Text, Count] = field(default_factory=dict)
    lost: Count = 0
    recovered: Count = 0
    deaths: dict[Text, Count] = field(default_factory=dict)
    sinks: dict[Text, SinkCounts] = field(default_factory=dict)


@dataclass(slots=True)
class Gauges:
    """
    The state of a process at a moment.

    Args:
        depth: Events in the queue.
        capacity: Events below WARNING that the queue holds.
        peak: The most that ever waited at once.
        backlog_bytes: What waits, by sink.
        up: Whether the last try succeeded, by sink.
        backlog_capacity: The most that may wait, by sink.
        journal_bytes: The size of the journal's ring; 0 if there is no journal.
        beats: Whether this is written anew again and again, changed or not.
    """

    depth: Count = 0
    capacity: Count = 0
    peak: Count = 0
    backlog_bytes: dict[Text, Count] = field(default_factory=dict)
    up: dict[Text, bool] = field(default_factory=dict)
    backlog_capacity: dict[Text, Count] = field(default_factory=dict)
    journal_bytes: Count = 0
    beats: bool = False


@dataclass(slots=True)
class Record:
    """
    What is on the board about one worker slot.

    Args:
        worker: The slot.
        pid: Of the process that holds it, or held it last; so with all that follows.
        boot: Of its life.
        service: Of its lines.
        env: Of its lines.
        host: Of its lines.
        role: ``master``, ``worker``, ``child`` or empty.
        started: When the life began.
        updated: When this was written.
        closed: Whether the end of the life is entered: there is no more to say about it.
        died: Whether that was a death and not a drain.
        lives: How many there were, this one included.
        earlier: Counters of the earlier lives.
        life: Counters of this one.
        gauges: Of this one.
    """

    worker: Count
    pid: Count
    boot: Text
    service: Text
    env: Text
    host: Text
    role: Text
    started: Moment
    updated: Moment
    closed: bool = False
    died: bool = False
    lives: Count = 1
    earlier: Counts = field(default_factory=Counts)
    life: Counts = field(default_factory=Counts)
    gauges: Gauges = field(default_factory=Gauges)

    @property
    def totals(self) -> Counts:
        """The counters of all lives."""
        return added([self.earlier, self.life])

    @property
    def lost(self) -> int:
        """How many events were under way when this was written: lost, if nothing more will be."""
        return max((books.under_way for books in self.life.sinks.values()), default=0)


_ADAPTER = TypeAdapter(Record)


def parse(text: bytes) -> Record | None:
    """Return the record that *text* is, if it is one."""
    try:
        record = _ADAPTER.validate_json(text)
    except (ValidationError, RecursionError):
        return None
    wide = len(BUCKETS) + 1
    sinks = [*record.earlier.sinks.values(), *record.life.sinks.values()]
    return record if all(len(books.took) == wide for books in sinks) else None


def encode(record: Record) -> bytes:
    """Return *record* as `parse()` takes it."""
    return orjson.dumps(record)


def successor(last: Record | None, identity: Identity, role: str, now: float) -> Record:
    """Return the first record of a new life in the slot of *last*; a death is entered by `buried()` before."""
    boot, service, env, host = map(shown, (identity.boot, identity.service, identity.env, identity.host))
    record = Record(identity.worker, identity.pid, boot, service, env, host, role, now, now)
    if last is not None:
        record.lives = last.lives + 1
        record.earlier = last.totals
        for books in record.earlier.sinks.values():  # what is left in the journal of a life that has closed
            books.delivered += books.under_way
    return record


def shown(text: str) -> str:
    """Return a name as it can stand in a record: a text and no subclass of one, of a bounded length, in UTF-8."""
    return str.__str__(text)[:MAX_NAME].encode("utf-8", "replace").decode()


def slimmer(record: Record) -> Record:
    """Return *record* without what takes most room: sinks of earlier lives only are one, and no sink says how long it took."""
    none = [0] * (len(BUCKETS) + 1)
    life = added([record.life])
    earlier = added([record.earlier])
    gone = SinkCounts()
    for name in list(earlier.sinks):
        if name not in life.sinks:
            gone = _with(gone, earlier.sinks.pop(name))
    earlier.sinks[OTHERS] = gone
    for books in (*life.sinks.values(), *earlier.sinks.values()):
        books.took, books.took_seconds = none, 0.0
    return replace(record, life=life, earlier=earlier)


def buried(record: Record, cause: str, *, saved: bool = False) -> Record:
    """
    Return *record* of a process that died of *cause*: closed, and with what was under way as `lost`.

    Where that is *saved*, in its journal, it counts as delivered, which it will be.
    """
    life = added([record.life])
    for books in life.sinks.values():
        if saved:
            books.delivered += books.under_way
        else:
            books.lost += books.under_way
    life.lost += 0 if saved else record.lost
    life.deaths = _sum(({cause: 1}, life.deaths))
    return replace(record, life=life, gauges=Gauges(), closed=True, died=True)


def added(all_counts: Iterable[Counts]) -> Counts:
    """Return the sum of counters, as a copy."""
    total = Counts()
    for counts in all_counts:
        total.logged += counts.logged
        total.accepted += counts.accepted
        total.refused = _sum((total.refused, counts.refused))
        total.filtered += counts.filtered
        total.levels = _sum((total.levels, counts.levels))
        total.lost += counts.lost
        total.recovered += counts.recovered
        total.deaths = _sum((total.deaths, counts.deaths))
        for name, books in counts.sinks.items():
            total.sinks[name] = _with(total.sinks.get(name, SinkCounts()), books)
    return total


def since(now: Counts, base: Counts) -> Counts:
    """Return what counters have grown by since they were *base*, as a copy."""
    grown = Counts(
        logged=now.logged - base.logged,
        accepted=now.accepted - base.accepted,
        refused=_difference(now.refused, base.refused),
        filtered=now.filtered - base.filtered,
        levels=_difference(now.levels, base.levels),
        lost=now.lost - base.lost,
        recovered=now.recovered - base.recovered,
    )
    for name, books in now.sinks.items():
        before = base.sinks.get(name, SinkCounts())
        grown.sinks[name] = SinkCounts(
            accepted=books.accepted - before.accepted,
            delivered=books.delivered - before.delivered,
            dropped=_difference(books.dropped, before.dropped),
            retries=books.retries - before.retries,
            took=[count - less for count, less in zip(books.took, before.took, strict=True)],
            took_seconds=max(0.0, books.took_seconds - before.took_seconds),
            unprotected=books.unprotected - before.unprotected,
        )
    return grown


def _difference(now: dict[str, int], base: dict[str, int]) -> dict[str, int]:
    return {key: count - base.get(key, 0) for key, count in now.items()}


def _with(total: SinkCounts, books: SinkCounts) -> SinkCounts:
    return SinkCounts(
        accepted=total.accepted + books.accepted,
        delivered=total.delivered + books.delivered,
        dropped=_sum((total.dropped, books.dropped)),
        lost=total.lost + books.lost,
        retries=total.retries + books.retries,
        took=[sum(pair) for pair in zip(total.took, books.took, strict=True)],
        took_seconds=total.took_seconds + books.took_seconds,
        unprotected=total.unprotected + books.unprotected,
    )


def _sum(counters: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in counters:
        total.update(each)
    return dict(total)
