"""What `configure_logging()` asked for, and what belongs to one process life. Values, no behaviour."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fapilog._internal.claim import Claim
from fapilog._internal.rundir import default_run_dir

if TYPE_CHECKING:
    from pathlib import Path

    from fapilog._internal.accounting import SinkBooks
    from fapilog._internal.board import Row
    from fapilog._internal.event_queue import EventQueue
    from fapilog._internal.hub import ProcessHub
    from fapilog._internal.records import Counts
    from fapilog._internal.rundir import Slot
    from fapilog.settings import FapilogSettings


@dataclass(frozen=True, slots=True, eq=False)
class Spec:
    """
    What `configure_logging()` asked for; the same in every process of the program.

    Args:
        settings: Validated.
        sinks: Prototypes; each process uses `fresh()` copies.
        processors: The user's own structlog processors.
        chosen_run_dir: `FAPILOG_RUN_DIR`; *None* for the default, which depends on the user of the process.
        targets: Where the sinks write, in words; part of the default run directory's name.
        key: Equal for two specs that ask for the same.
        explicit: Whether the program asked for it by arguments, not by the environment alone.
    """

    settings: FapilogSettings
    sinks: tuple[object, ...]
    processors: tuple[object, ...]
    chosen_run_dir: Path | None
    targets: tuple[str, ...]
    key: tuple[object, ...]
    explicit: bool

    @property
    def digest(self) -> str:
        """Where the sinks write, in short."""
        return hashlib.sha256("\0".join(self.targets).encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def run_dir(self) -> Path:
        """Return where the processes of the service meet."""
        return self.chosen_run_dir or default_run_dir(self.settings.service, self.targets)


@dataclass(slots=True)
class ProcessState:
    """
    All that belongs to one process life; replaced, not cleaned, in a forked child.

    Args:
        pid: Whose life it is.
        generation: How many forks lie between the program's first process and this one.
        role: ``master`` and ``worker`` of a server, ``child`` for what a master forked otherwise; empty where nobody has said.
        slot: Held by this process.
        row: On the board, where there is one; goes with the slot.
        counted: What this life has counted in rows that it held before.
        queue: With the counts of this life; outlives a drain and a re-configuration.
        books: By sink name; outlive them too.
        hub: The running or drained one.
        claim: Of whoever starts the hub.
        failed_starts: How many starts have ended in an error.
        unfinished: A hub whose start was cut short.
        held_until: Until when events wait in `pending` although nobody is starting the hub, on the monotonic clock; 0 for not.
        hurry: An upper limit for every drain from now on, in seconds.
        next_fork_flush: When a fork may wait for a flush again, on the monotonic clock.
        pending: Events that came before the hub; one with an empty head was sampled out.
    """

    pid: int = field(default_factory=os.getpid)
    generation: int = 0
    role: str = ""
    slot: Slot | None = None
    row: Row | None = None
    counted: Counts | None = None
    queue: EventQueue | None = None
    books: dict[str, SinkBooks] = field(default_factory=dict)
    hub: ProcessHub | None = None
    claim: Claim = field(default_factory=Claim)
    failed_starts: int = 0
    unfinished: ProcessHub | None = None
    held_until: float = 0.0
    hurry: float | None = None
    next_fork_flush: float = 0.0
    pending: deque[tuple[int, bytes]] = field(default_factory=deque)
