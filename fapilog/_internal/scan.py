"""
Which journals in a run directory a process is to try to take care of now; those that somebody holds are found out by trying.

Invariants:

1. A slot is left to the successor of its dead process, which a server starts at once: others try its journal when they have
   known it for `RIPE_AFTER` seconds, so that no successor finds its slot taken by them. With more than `MOST_WAITING` journals
   nobody waits for that.
2. What was held by somebody is not tried again for as long, unless it is of the own slot. A journal's head is read once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fapilog._internal.journal import journals, owner_of

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from fapilog.identity import Identity

LOOK_EVERY = 1.0
RIPE_AFTER = 5.0
MOST_WAITING = 16  # journals, live ones included, that are left to the successors in their slots


@dataclass(slots=True)
class _Known:
    worker: int | None
    since: float
    tried: bool = False


class Scan:
    """
    What one process knows of the journals in *run_dir*; one thread at a time.

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

    def is_due(self) -> bool:
        """Whether it is time to look again."""
        now = time.monotonic()
        if now < self._looked_at + LOOK_EVERY:
            return False
        self._looked_at = now
        return True

    def chosen(self, mine: Collection[str]) -> list[str]:
        """Return the names of the journals to try now; *mine* are those that the process has adopted."""
        now = time.monotonic()
        names = [name for name in journals(self._run_dir) if name not in mine and not name.startswith(self._own)]
        self._known = {name: self._known.get(name) or _Known(self._worker_of(name), now) for name in names}
        crowd = len(names) > MOST_WAITING
        chosen = [name for name in names if self.everything or self._is_due(self._known[name], now, crowd=crowd)]
        for name in chosen:
            self._known[name] = _Known(self._known[name].worker or self._worker_of(name), now, tried=True)
        return chosen

    def _is_due(self, known: _Known, now: float, *, crowd: bool) -> bool:
        return known.worker == self._worker or now >= known.since + RIPE_AFTER or (crowd and not known.tried)

    def _worker_of(self, name: str) -> int | None:
        return getattr(owner_of(self._run_dir, name), "worker", None)
