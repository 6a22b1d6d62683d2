"""
Which journals in a run directory a process is to try to take care of now; those that somebody holds are found out by trying.

Invariants:

1. A slot is left to the successor of its dead process, which a server starts at once: others try its journal when they have
   known it for `RIPE_AFTER` seconds, so that no successor finds its slot taken by them. With more than `MOST_WAITING` journals
   nobody waits for that. The own slot's are tried at each look.
2. Each other's journal is tried every `RIPE_AFTER` seconds. In a crowd the tries of all processes together stay few, and each
   journal is tried about that often by somebody: of N journals each process tries each one every `RIPE_AFTER` x
   (N / `MOST_WAITING`)^2 seconds on average (at most N x `RIPE_AFTER`), at moments spread over twice that, so that those who
   began together do not all wait for the same moment. A look where nothing has changed costs one `stat`.
3. Death comes in crowds: who has found one dead tries all the others at the next look.
4. A journal's head is read once. The directory is listed when it has changed, once more at the look after that, because two
   changes within a tick of the file system's clock look like one, and once a minute for file systems without such a time.
"""

from __future__ import annotations

import math
import os
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fapilog._internal.journal import journals, owner_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from fapilog.identity import Identity

LOOK_EVERY = 1.0
LIST_EVERY = 60  # looks, changed or not
RIPE_AFTER = 5.0
MOST_WAITING = 16  # journals, live ones included, that are left to the successors in their slots


@dataclass(slots=True)
class _Known:
    worker: int | None
    ripe: float
    due: float
    tried: bool = False


class Scan:
    """
    What one process knows of the journals in *run_dir*; one thread at a time, but for `found_dead()`.

    Args:
        run_dir: Where they are.
        identity: Of the process; its own journals are none of these.

    Attributes:
        everything: Whether the process is to try those of all slots at once.
    """

    def __init__(self, run_dir: Path, identity: Identity) -> None:
        self.everything = True
        self._run_dir = run_dir
        self._worker = identity.worker
        self._own = f"journal-1.{identity.boot}."
        self._known: dict[str, _Known] = {}
        self._looked_at = time.monotonic()
        self._changed_ns = -1
        self._looks = 0
        self._next = 0.0
        self._alarmed = False
        # Not the random of the application, which may have seeded it alike in all processes.
        self._rng = random.Random(int.from_bytes(os.urandom(8)))

    def is_due(self) -> bool:
        """Whether it is time to look again."""
        now = time.monotonic()
        if now < self._looked_at + LOOK_EVERY:
            return False
        self._looked_at = now
        return True

    def found_dead(self) -> None:
        """Say that a journal was there to be had; any thread."""
        self._alarmed = True

    def chosen(self, mine: Collection[str]) -> list[str]:
        """Return the names of the journals to try now; *mine* are those that the process has adopted."""
        now = time.monotonic()
        if self._has_changed():
            self._list(now)
        if self._alarmed:
            self._alarmed = False
            self._hurry()
        if now < self._next and not self.everything:
            return []
        chosen = [name for name, known in self._known.items() if (self.everything or now >= known.due) and name not in mine]
        for name in chosen:
            self._tried(name, now)
        self._next = min((known.due for known in self._known.values()), default=math.inf)
        return chosen

    def _has_changed(self) -> bool:
        """Whether the directory may hold others than at the last listing; seen before it is listed, so that nothing slips by."""
        try:
            changed_ns = os.stat(self._run_dir).st_mtime_ns
        except OSError:
            changed_ns = -1
        changed = changed_ns != self._changed_ns
        self._changed_ns = changed_ns
        self._looks = 0 if changed else self._looks + 1
        return self.everything or changed or self._looks % LIST_EVERY == 1

    def _list(self, now: float) -> None:
        names = [name for name in journals(self._run_dir) if not name.startswith(self._own)]
        self._known = {name: self._known.get(name) or self._met(name, now) for name in names}
        if len(names) > MOST_WAITING:
            for known in self._known.values():
                known.due = known.due if known.tried else now
        self._next = 0.0

    def _met(self, name: str, now: float) -> _Known:
        worker, ripe = self._worker_of(name), now + RIPE_AFTER
        return _Known(worker, ripe, now if worker == self._worker else ripe)

    def _tried(self, name: str, now: float) -> None:
        known = self._known[name]
        known.tried = True
        if known.worker is None:  # its process had not come as far as the head
            known.worker = self._worker_of(name)
        known.due = now if known.worker == self._worker else now + self._interval()

    def _interval(self) -> float:
        """Return in how many seconds to try another's journal once more, see invariant 2."""
        number = len(self._known)
        if number <= MOST_WAITING:
            return RIPE_AFTER
        return RIPE_AFTER * min((number / MOST_WAITING) ** 2, number) * self._rng.uniform(0.0, 2.0)

    def _worker_of(self, name: str) -> int | None:
        return getattr(owner_of(self._run_dir, name), "worker", None)

    def _hurry(self) -> None:
        for known in self._known.values():
            known.due = min(known.due, known.ripe)
        self._next = 0.0
