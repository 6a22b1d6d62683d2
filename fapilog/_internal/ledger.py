"""
The ledger of the dead: who died in which slot, of what, and what was lost with it; each death entered once.

Invariants:

1. A life is entered by whoever holds the lock of its slot: the next process in it (`take_row()`), or a server's master at its end
   (`bury()`). The row says `closed` from then on, so no one enters it again.
2. The row is written before the event is: after a crash between the two, a `fapilog.worker_died` may be missing, never doubled.
3. A death whose journal is there is told of by whoever delivers that (`recovery`), who knows what was lost, before the journal is
   removed: if he is killed in between, twice. On the board it counts once, and as if nothing was lost.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fapilog._internal import deaths, rundir
from fapilog._internal.board import Row, read_board
from fapilog._internal.journal import has_journal
from fapilog._internal.native import nap
from fapilog._internal.notes import note
from fapilog._internal.records import Counts, Gauges, Record, buried, successor
from fapilog.pipeline import own_head

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fapilog._internal.journal import Owner
    from fapilog._internal.rundir import Slot
    from fapilog.identity import Identity

ERROR, WARNING = 40, 30
NOTE_PATIENCE = 0.2  # seconds; a server may start the next process before it has seen that the last one ended
POLL = 0.005


@dataclass(frozen=True, slots=True)
class Dead:
    """
    A process that died.

    Args:
        last: What its row said at last.
        death: What is known of it.
        saved: Whether its journal is there.
    """

    last: Record
    death: deaths.Death
    saved: bool


def take_row(slot: Slot, identity: Identity, role: str) -> tuple[Row | None, list[Dead]]:
    """
    Return the row of *slot*, which this process holds, and the predecessor that died, to be told of as an event of our own.

    Never raises: without a usable board there is no row, and a note says why.
    """
    if slot.fd < 0:
        return None, []
    died: list[Dead] = []
    try:
        row = Row(slot)
        last = row.record
        if last is not None and last.boot == identity.boot:  # the same life, in a slot that it had let go of
            row.put(replace(last, earlier=last.totals, life=Counts(), closed=False, died=False))
            return row, []
        if last is not None and not last.closed:
            row.put(replace(last, gauges=Gauges(), died=True))  # so a note about it may still be left
            last, dead = _buried(slot.run_dir, last, NOTE_PATIENCE if role == "worker" else 0.0)
            died.append(dead)
        row.put(successor(last, identity, role, time.time()))
    except (OSError, ValueError) as error:
        note("board", f"the board in {slot.run_dir} cannot be used: {error}")
        return None, []
    return row, died


def started_head(row: Row) -> bytes:
    """Return the head of the event that says that a worker has begun."""
    assert row.record is not None
    return own_head("fapilog.worker_started", restarts=row.record.lives - 1)


def bury(run_dir: Path, tell: Callable[[int, bytes], object]) -> None:
    """Enter every life on the board in *run_dir* that has ended without closing its hub; tell of each. Never raises."""
    try:
        rows, _ = read_board(run_dir)
        for seen in rows:
            if not seen.alive and not seen.record.closed:
                _bury_one(run_dir, seen.record, tell)
    except (OSError, ValueError) as error:
        note("board", f"the board in {run_dir} cannot be used: {error}")


def _bury_one(run_dir: Path, seen: Record, tell: Callable[[int, bytes], object]) -> None:
    slot = rundir.take_this_slot(run_dir, seen.worker)
    if slot is None:  # its next process was quicker, and enters it
        return
    try:
        dead = bury_in(slot, seen.boot)
        if dead is not None:
            tell(*told_of(dead))
    finally:
        slot.release()


def bury_in(slot: Slot, boot: str) -> Dead | None:
    """Enter the death of the life *boot* in *slot*, which this process holds; return it, to be told of, unless it is entered."""
    row = Row(slot)
    if row.record is None or row.record.boot != boot or row.record.closed:
        return None
    record, dead = _buried(slot.run_dir, row.record)
    row.put(record)
    return dead


def unseen(run_dir: Path, owner: Owner) -> Dead:
    """Return what is known of the death of *owner*, of whom nothing but the journal is left."""
    identity = owner.identity
    last = Record(identity.worker, identity.pid, identity.boot, "", "", "", "", owner.started, owner.started)
    return Dead(last, deaths.take_note(run_dir, identity.boot), saved=True)


def _buried(run_dir: Path, last: Record, patience: float = 0.0) -> tuple[Record, Dead]:
    saved = has_journal(run_dir, last.boot)
    death = deaths.take_note(run_dir, last.boot)
    end = time.monotonic() + patience
    while not death.at and time.monotonic() < end:
        nap(POLL)
        death = deaths.take_note(run_dir, last.boot)
    return buried(last, death.cause, saved=saved), Dead(last, death, saved)


def leave_note(run_dir: Path, pid: int, status: int | None) -> None:
    """Leave a note about the process *pid*, which has ended with *status*, unless it had closed its hub. Never raises."""
    try:
        for seen in read_board(run_dir)[0]:
            record = seen.record
            if record.pid == pid and not record.closed and (record.died or not seen.alive):
                now = time.time()
                death = deaths.Death(at=now) if status is None else deaths.death_of(status, now)
                deaths.leave_note(run_dir, record.boot, death)
    except OSError as error:
        note("death note", f"no note could be left about process {pid}: {error}")


def told_of(dead: Dead, last_seq: int = 0, recovered: int = 0, lost: int | None = None) -> tuple[int, bytes]:
    """
    Return the level number and the head of the event that says that *dead* has died.

    Args:
        dead: The process.
        last_seq: The last one that its journal knows of.
        recovered: How many of its events were delivered after its death.
        lost: How many never will be; by default what was under way when it last said so.
    """
    last, death = dead.last, dead.death
    lost = last.lost if lost is None else lost
    level, name = (ERROR, "error") if lost or death.signal else (WARNING, "warning")
    fields: dict[str, Any] = {
        "dead_worker": last.worker,
        "dead_pid": last.pid,
        "dead_boot": last.boot,
        "signal": death.signal,
        "exit_code": death.exit_code,
        "uptime_seconds": round(max(0.0, (death.at or last.updated) - last.started), 3),
        "last_seq": max(last.life.logged, last_seq),
        "recovered": recovered,
        "lost": lost,
    }
    return level, own_head("fapilog.worker_died", name, **fields)


def recovered_head(owner: Owner, first_seq: int, last_seq: int, count: int) -> bytes:
    """Return the head of the event that says that *count* events of a dead process were delivered, of those between two seqs."""
    return own_head(
        "fapilog.recovered",
        "warning",
        dead_worker=owner.worker,
        dead_pid=owner.pid,
        dead_boot=owner.boot,
        first_seq=first_seq,
        last_seq=last_seq,
        count=count,
    )
