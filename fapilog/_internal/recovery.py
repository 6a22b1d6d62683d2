"""
What becomes of the journals that dead processes left: their events are delivered, once into files, at least once elsewhere.

Invariants:

1. A journal is taken care of by whoever holds its lock, and its slot's: no successor begins in the same files meanwhile.
   It is removed when every sink has what it lacked and the events about it are accepted; until then whoever is killed
   half-way has done nothing that cannot be done once more.
2. Lines are written as they are: own time, pid, boot and seq.
3. What is no journal of this version is moved aside, never deleted; one of another service is left alone.
4. Nothing here is done in a log call, and nothing on the worker's loop that needs a file of a sink's: a file system that hangs
   holds up the thread `fapilog-recovery` and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fapilog._internal import remains, rundir
from fapilog._internal.accounting import Reason
from fapilog._internal.aside import put_aside
from fapilog._internal.executor import SinkExecutor
from fapilog._internal.filelock import FileLock
from fapilog._internal.journal import LIVE_AT, WORD, Words, crowded, has_journal
from fapilog._internal.ledger import bury_in, recovered_head, told_of, unseen
from fapilog._internal.native import close_fd, nap, new_lock
from fapilog._internal.notes import note
from fapilog._internal.notices import dropped_head
from fapilog._internal.scan import Scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from fapilog._internal.accounting import OfDead
    from fapilog._internal.delivery import Delivery
    from fapilog._internal.ledger import Dead
    from fapilog._internal.remains import Remains
    from fapilog.identity import Identity

FIRST_PATIENCE, LAST_PATIENCE = 2.0, 1.0
POLL = 0.005
WARNING = 30


@dataclass(slots=True, eq=False)
class Adoption:
    """
    A journal that this process has taken care of.

    Args:
        lock: On it.
        left: What it holds.
        waits: By the name of the sink, lines that are still to be handed to it.
        handed: By the name of the sink, the position up to which they are in its backlog.
        slot: Of the dead process; None for the one that this process has.
    """

    lock: FileLock
    left: Remains
    waits: dict[str, list[bytes]] = field(default_factory=dict)
    handed: dict[str, int] = field(default_factory=dict)
    slot: rundir.Slot | None = None


class Recovery:
    """
    Finds and delivers what dead processes of the service left, for one hub.

    Args:
        run_dir: Where they left it.
        identity: Of this process.
        targets: A digest of where its sinks write.
        sinks: Its sinks.
        tell: ``tell(levelno, head)``: logs an event of the hub's own; any thread. What was told is not lost any more.
        of_dead: Where to count.
        awaited: Deaths that are to be told of when their journals have been read.
        first: Whether to take care of every slot's journals at the beginning, and not of the own slot's alone: no server is there
            that would start successors.
        last: Whether to do so at the end.
    """

    def __init__(
        self,
        run_dir: Path,
        identity: Identity,
        targets: str,
        sinks: Sequence[Any],
        tell: Callable[[int, bytes], object],
        of_dead: OfDead,
        awaited: Iterable[Dead] = (),
        *,
        first: bool = True,
        last: bool = True,
    ) -> None:
        self._run_dir = run_dir
        self._identity = identity
        self._targets = targets
        self._sinks = {sink.name: sink for sink in sinks}
        self._tell = tell
        self._awaited = {dead.last.boot: dead for dead in awaited}
        self._adoptions: list[Adoption] = []
        self._busy = new_lock()
        self._thread = SinkExecutor("fapilog-recovery")
        self.prepare = self._thread.start
        self._scan = Scan(run_dir, identity)
        self._first, self._last = first, last
        self._ending = False
        self._of_dead = of_dead
        self.deliveries: Sequence[Delivery] = ()

    async def first(self, over: Callable[[], bool]) -> None:
        """Take care of what is there before anything of this process is delivered; wait for that, but not when it is *over*."""
        self._scan.everything = self._first
        await self._swept(FIRST_PATIENCE, over)
        self._scan.everything = False

    async def last(self, until: float) -> None:
        """Do the same before this process's hub ends, which is to be at *until* on the monotonic clock."""
        patience = min(LAST_PATIENCE, (until - time.monotonic()) / 2)
        self._scan.everything = self._last
        await self._swept(patience)
        self._ending = True  # what is under way comes to its end, and nothing new is begun
        await self._swept(patience)

    async def _swept(self, patience: float, over: Callable[[], bool] = lambda: False) -> None:
        begun = self._ending or self._begin()
        end = time.monotonic() + patience
        # What is under way was chosen before: what has died since then is found when it has come to its end.
        while (self._busy.locked() or not begun) and time.monotonic() < end and not over():
            await asyncio.sleep(POLL)
            begun = begun or self._begin()
        self.look()

    def now(self, patience: float) -> None:
        """Take care of what is there while the caller waits, for at most *patience* seconds; before the hub has started."""
        end = time.monotonic() + patience
        self._begin()
        while self._busy.locked() and time.monotonic() < end:
            nap(POLL)
        self.settle()

    def look(self) -> None:
        """Go on with what is under way, and look for more now and then; on the worker's loop."""
        if self._scan.is_due():
            self._begin()
        self.settle(hand_over=True)

    def settle(self, *, hand_over: bool = False) -> None:
        """Give sinks what they lack (*hand_over*), and be done with what all sinks have."""
        for each in list(self._adoptions):  # the thread adds to them
            if hand_over:
                self._hand_over(each)
            if self._is_done(each):
                self._adoptions.remove(each)
                each.lock.release()

    def _begin(self) -> bool:
        """Give the thread something to do, if there is anything; return False if it has something to do already."""
        if not self._busy.acquire(blocking=False):
            return False
        names = self._scan.chosen({os.path.basename(each.lock.path) for each in self._adoptions})
        if names or self._awaited:
            with contextlib.suppress(RuntimeError):  # the interpreter is ending (3.12): somebody else will find it
                self._thread.submit(self._sweep, names)
                return True
        self._busy.release()
        return True

    def _sweep(self, names: list[str]) -> None:
        try:
            self._take_care_of(names)
        finally:
            self._busy.release()

    def _take_care_of(self, names: list[str]) -> None:
        """Take care of those journals that nobody holds; on the thread, which may wait for files. Never raises."""
        for name in names:
            if self._ending:
                return
            try:
                self._adopt(name)
            except FileNotFoundError:  # somebody else was quicker
                continue
            except Exception as error:
                note(f"recover {name}", f"{self._run_dir / name} cannot be recovered now: {error}")
        for boot in list(self._awaited):
            if not has_journal(self._run_dir, boot):  # if there is one, it cannot be had now
                dead = self._awaited.pop(boot)
                self._of_dead.lost += dead.last.lost
                self._tell(*told_of(dead))

    def _adopt(self, name: str) -> None:
        fd = rundir.open_file(self._run_dir, name, os.O_RDONLY)
        lock = None
        try:
            state = os.fstat(fd)
            if state.st_nlink == 1 and state.st_uid == os.stat(self._run_dir).st_uid:
                lock = FileLock.take(str(self._run_dir / name))
        finally:
            close_fd(fd)
        if lock is None:
            return
        adoption = None
        try:
            adoption = self._read(lock, name)
            if adoption is not None:
                self._scan.found_dead()
                self._deliver(adoption)
        except BaseException:
            if adoption is not None and adoption.slot is not None:
                adoption.slot.release()
            raise
        finally:
            if adoption not in self._adoptions:
                lock.leave()

    def _read(self, lock: FileLock, name: str) -> Adoption | None:
        """Return what is to be done about the journal *name*, which nobody else can have now."""
        fd = rundir.open_file(self._run_dir, name, os.O_RDONLY)
        try:
            left = remains.read(fd)
            begun = left is not None or os.pread(fd, 1, 0) not in {b"", b"\0"}
        finally:
            close_fd(fd)
        if left is not None and left.owner.service != self._identity.service:
            return None
        if left is not None and left.owner.boot == self._identity.boot:  # a write of an earlier hub's may still be under way
            return None
        if left is None or left.owner.targets != self._targets or not name.startswith(f"journal-1.{left.owner.boot}."):
            if begun:
                put_aside(self._run_dir, name)
            else:  # its process died before there was anything in it
                lock.release()
            return None
        slot = None
        if left.owner.worker != self._identity.worker:
            slot = rundir.take_this_slot(self._run_dir, left.owner.worker)
            if slot is None:  # whoever has it now does it
                return None
        return Adoption(lock, left, slot=slot)

    def _deliver(self, adoption: Adoption) -> None:
        left = adoption.left
        count = 0
        down = self._down()
        for name, cursor in left.cursors.items():
            sink, lines = self._sinks.get(name), left.after(cursor)
            put_back = getattr(sink, "put_back", None)
            done = put_back(left.owner.identity, lines, left.owner.started) if put_back is not None else None
            if done is None and lines and name in down and crowded(self._run_dir):  # not for ever
                self._of_dead.lost += len(lines)
                self._settle(adoption, name, max(lines))
            elif done is None and lines:
                adoption.waits[name] = list(lines.values())
                done = len(lines)
            elif lines:
                self._settle(adoption, name, max(lines))
            count = max(count, done or 0)
        if not left.told:
            for each in self._news(adoption, count):
                self._tell(*each)
            self._put(adoption, Words.TOLD, 1)
        self._awaited.pop(left.owner.boot, None)
        if adoption.slot is not None:
            adoption.slot.release()
        if adoption.waits:
            self._adoptions.append(adoption)
        else:
            adoption.lock.release()

    def _news(self, adoption: Adoption, count: int) -> Iterator[tuple[int, bytes]]:
        """Return what tells of what was recovered, of what the dead process had not announced, and of its death."""
        left, boot = adoption.left, adoption.left.owner.boot
        lost = max(left.lost.values(), default=0)
        self._of_dead.recovered += count
        self._of_dead.lost += lost
        if count:
            yield WARNING, recovered_head(left.owner, min(left.lines), max(left.lines), count)
        for each in left.unannounced:
            window = (each.count, each.first_seq, each.last_seq, each.first_ns, each.last_ns)
            yield WARNING, dropped_head(each.scope, each.reason, *window, dead_boot=boot)
        dead = self._awaited.pop(boot, None) or (bury_in(adoption.slot, boot) if adoption.slot is not None else None)
        if dead is None and not left.closed:  # whoever took its slot was killed before he could tell of it
            dead = unseen(self._run_dir, left.owner)
        # A call that has taken a seq and has not come as far as the journal may be known from the board.
        last_seq = max(left.last_seq, dead.last.life.logged if dead is not None else 0)
        interrupted = left.interrupted + last_seq - left.last_seq
        if interrupted:
            now = time.time_ns()
            window = (interrupted, left.marked + 1, last_seq, now, now)
            yield WARNING, dropped_head("queue", Reason.INTERRUPTED, *window, dead_boot=boot)
        if dead is not None:
            yield told_of(dead, last_seq, count, lost)

    def _settle(self, adoption: Adoption, name: str, seq: int) -> None:
        """Let the journal say that the sink *name* has everything up to *seq*."""
        self._put(adoption, Words.of_sink(adoption.left.owner.sinks.index(name)) + Words.CURSOR, seq)

    def _put(self, adoption: Adoption, at: int, word: int) -> None:
        fd = rundir.open_file(self._run_dir, os.path.basename(adoption.lock.path), os.O_WRONLY)
        try:
            os.pwrite(fd, struct.pack("=Q", word), LIVE_AT + at * WORD)
        finally:
            close_fd(fd)

    def _hand_over(self, adoption: Adoption) -> None:
        """Give the sinks without files what they lack, as far as they have room."""
        by_name = {delivery.books.name: delivery for delivery in self.deliveries}
        for name in list(adoption.waits):
            delivery, lines = by_name.get(name), adoption.waits[name]
            size = sum(map(len, lines))
            if delivery is not None and delivery.has_room(size):
                del adoption.waits[name]
                delivery.offer(lines, size)
                adoption.handed[name] = delivery.position

    def _is_done(self, adoption: Adoption) -> bool:
        """Put down which sinks have everything; return whether all have."""
        by_name = {delivery.books.name: delivery for delivery in self.deliveries}
        for name, position in list(adoption.handed.items()):
            if by_name[name].settled(position):
                del adoption.handed[name]
                self._settle(adoption, name, adoption.left.last_seq)
        return not adoption.waits and not adoption.handed

    def close(self) -> None:
        """Leave what is not done to whoever comes next, but give up what there is too much of for sinks that take nothing."""
        down = self._down()
        self._adoptions.sort(key=lambda each: each.left.owner.started, reverse=True)
        while self._adoptions:
            oldest = self._adoptions.pop()
            owed = {*oldest.waits, *oldest.handed}
            if owed and owed <= down and crowded(self._run_dir):
                self._of_dead.lost += max(len(oldest.left.after(oldest.left.cursors[name])) for name in owed)
                oldest.lock.release()
            else:
                oldest.lock.leave()
        self._thread.shutdown()

    def _down(self) -> set[str]:
        """Return the names of the sinks whose last try failed."""
        return {each.books.name for each in self.deliveries if not each.books.up}
