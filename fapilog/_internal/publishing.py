"""
The hand of a process on the board: its counters out, controls in.

Invariants:

1. Nothing raises, and a call with nothing new to say costs a few microseconds.
2. A control is obeyed from the next call on, and until its time is over: only by a process that calls here again and again.
3. Of two moments the later one is what stands there in the end, whichever threads and signal handlers publish.
4. What a process says that calls here again and again is never older than `BEAT_EVERY` and a call: others see that it runs.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from fapilog._internal import controls
from fapilog._internal.gates import gates
from fapilog._internal.notes import note
from fapilog._internal.records import shown, since
from fapilog._internal.snapshot import moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fapilog._internal.accounting import SinkBooks
    from fapilog._internal.board import Row
    from fapilog._internal.line_queue import LineQueue
    from fapilog._internal.records import Counts, Gauges

LOOK_EVERY = 0.25  # seconds
BEAT_EVERY = 5.0


class Publisher:
    """
    Publishes the books of this process and follows what is asked of it; see `Row` for who may call when.

    Args:
        row: Held by this process.
        queue: Of this process life.
        books: By sink name; also of sinks that are no longer used.
        active: The names of those that are.
        counted: What this process has counted in the rows that it held before.
    """

    def __init__(
        self,
        row: Row,
        queue: LineQueue,
        books: Mapping[str, SinkBooks],
        active: Iterable[str],
        counted: Counts | None = None,
    ) -> None:
        self._row = row
        assert row.record is not None
        self._record = row.record
        self._queue = queue
        self._books = books
        self._active = frozenset(active)
        self._counted = counted
        self._said: tuple[Counts, Gauges, bool] | None = None
        self._looked_at = self._put_at = float("-inf")
        self._busy = self._again = self._closed = self._beats = False
        self._controls: list[controls.Control] = []
        self._heard: bytes | None = None

    def publish(self, oldest_counted: int, *, closed: bool = False, obey: bool = True) -> None:
        """
        Let everybody see how things stand, if that has changed, and do what is asked for.

        Args:
            oldest_counted: As for `snapshot.moment()`.
            closed: Whether the hub has ended.
            obey: Whether this will be called again soon, so that what is asked for can be over in time.
        """
        self._closed, self._beats = closed, obey and not closed
        if self._busy:  # by another thread, or by what this signal handler has interrupted: it does it once more
            self._again = True
            return
        self._busy = True
        try:
            while True:
                self._again = False
                if time.monotonic() >= self._looked_at + LOOK_EVERY:
                    self._looked_at = time.monotonic()
                    self._row.look()
                self._publish(oldest_counted)
                if not self._again:
                    break
            self._obey(obey=obey)
        except Exception as error:  # what is wrong with the board is no reason to deliver nothing
            note("publish", f"the board cannot be kept up: {error!r}")
        finally:
            self._busy = False

    def _publish(self, oldest_counted: int) -> None:
        # The moment is taken by whoever is to write it: of two writers the later one would else show the earlier moment.
        closed, beats = self._closed, self._beats
        said = (*moment(self._queue, self._books, self._active, oldest_counted), closed)
        life, gauges, _ = said
        gauges.beats = beats
        now = time.monotonic()
        if said == self._said and not (beats and now >= self._put_at + BEAT_EVERY):
            return
        life = life if self._counted is None else since(life, self._counted)
        identity = self._queue.identity
        record = replace(self._record, life=life, gauges=gauges, closed=closed, updated=time.time())
        record.service, record.env = shown(identity.service), shown(identity.env)
        for _ in range(1 + closed):  # nobody mends the row of a process that is gone: both halves say it
            self._row.put(record)
        self._said, self._put_at = said, now

    def _obey(self, *, obey: bool) -> None:
        """Give the gates what is asked for now, until its time is over."""
        if not obey:
            gates.ask({})
            self._heard = None
            return
        text = self._row.asked()
        if text != self._heard:
            self._heard = text
            self._controls = controls.parse(text)
        me = self._record.worker
        self._controls = [each for each in self._controls if each.holds()]
        mine = sorted((each for each in self._controls if each.worker in {None, me}), key=lambda each: each.worker is not None)
        gates.ask({each.logger: each.level for each in mine})
