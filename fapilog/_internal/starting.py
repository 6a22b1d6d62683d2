"""
From what was asked for to the hub of one process: its slot, its identity, its queue, its sinks.

Invariants:

1. The queue and its identity belong to the process life: a second hub of the same life goes on with the same boot and seqs.
2. A process whose threads would not live long enough to deliver, or must not exist, gets a hub that writes synchronously.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from fapilog._internal import kin
from fapilog._internal.accounting import OfDead, Reason
from fapilog._internal.event_queue import EventQueue
from fapilog._internal.gates import gates
from fapilog._internal.hub import ProcessHub
from fapilog._internal.insurance import Insurance
from fapilog._internal.journal import Journal, journals
from fapilog._internal.ledger import Dead, started_head, take_row, told_of
from fapilog._internal.notes import note
from fapilog._internal.recovery import Recovery
from fapilog._internal.route import redact, route
from fapilog._internal.rundir import take_slot
from fapilog._internal.sampling import Sampler, sampler_of
from fapilog._internal.scan import MOST_WAITING
from fapilog._internal.snapshot import moment
from fapilog.identity import Identity
from fapilog.logger import processors
from fapilog.results import FlushResult, SinkResult
from fapilog.settings import parse_levels

if TYPE_CHECKING:
    from collections.abc import Callable

    from fapilog._internal.state import ProcessState, Spec
    from fapilog.settings import FapilogSettings

INFO = 20
CROWD_PATIENCE = 1.0
SERVERS = ("uvicorn.server", "hypercorn.config")  # what is loaded where one of these serves; others are known by their processes
MOST_IDENTITY = 32_768  # bytes that the hub adds to an event, at most


def new_hub(state: ProcessState, spec: Spec) -> ProcessHub:
    """Return a hub for the process of *state*, not yet started."""
    # Once the main thread has ended, a new daemon thread would not live to deliver: the exit doors may have been passed.
    ending = not threading.main_thread().is_alive()
    synchronous = not spec.settings.queue_enabled or state.role == "master" or ending or _no_gil()
    sinks = [sink.fresh() for sink in spec.sinks]  # type: ignore[attr-defined]
    queue, opening, died = _queue_of(state, spec)
    awaited = [each for each in died if each.saved and not synchronous]
    opening = [*(told_of(each) for each in died if each not in awaited), *opening]
    hub = ProcessHub(
        spec.settings,
        queue,
        state.books,
        sinks,
        synchronous=synchronous,
        row=state.row,
        counted=state.counted,
        opening=opening,
    )
    if not synchronous and state.slot is not None and state.slot.fd >= 0:
        hub.worker.insurance = _insurance_of(state, spec, hub, awaited)
    return hub


def _insurance_of(state: ProcessState, spec: Spec, hub: ProcessHub, awaited: list[Dead]) -> Insurance:
    assert state.slot is not None
    child = bool(state.role) or state.generation > 0
    recovery = Recovery(
        state.slot.run_dir,
        hub.queue.identity,
        spec.digest,
        hub.sinks,
        # Past the limits: a full queue must not leave a life without its end.
        lambda levelno, head: hub.queue.admit(head, closed=False) or hub.accept(levelno, head),
        hub.queue.of_dead,
        awaited,
        first=not child and not kin.several(),
        last=not child and not kin.is_child(),
    )
    # Of processes that die faster than others can look. Not under a server, whose next workers are to find their slots free.
    crowded = not state.role and len(journals(state.slot.run_dir)) > MOST_WAITING
    journal = _journal_of(state, spec, [sink.name for sink in hub.sinks])
    return Insurance(journal, recovery, patience=CROWD_PATIENCE if crowded else 0.0)


def _journal_of(state: ProcessState, spec: Spec, names: list[str]) -> Journal | None:
    """Return a journal for a hub of this process, where one is wanted and can be made."""
    settings, slot, queue = spec.settings, state.slot, state.queue
    assert slot is not None
    assert queue is not None
    auto = bool(state.role) or state.generation > 0 or kin.several() or any(name in sys.modules for name in SERVERS)
    if not names or settings.journal == "off" or (settings.journal == "auto" and not auto):
        return None
    try:
        return Journal.make(slot.run_dir, queue.identity, names, spec.digest, ring_bytes(settings))
    except (OSError, ValueError) as error:
        note("journal", f"no journal can be made in {slot.run_dir}, so a kill may lose what is under way: {error}")
        return None


def ring_bytes(settings: FapilogSettings) -> int:
    """Return the size of the ring of a journal: what is asked for, and room for two events of the greatest size in any case."""
    return max(settings.journal_bytes, 2 * (settings.max_event_bytes + MOST_IDENTITY))


def recover_all(spec: Spec, tell: Callable[[int, bytes], object], patience: float = CROWD_PATIENCE) -> OfDead:
    """
    Deliver into files what dead processes of *spec* left, for at most *patience* seconds; what else they owe stays in place.

    Return how much that was.
    """
    identity = Identity.of_this_process(spec.settings.service, spec.settings.env)
    sinks = [sink.fresh() for sink in spec.sinks]  # type: ignore[attr-defined]
    of_dead = OfDead()
    recovery = Recovery(spec.run_dir(), identity, spec.digest, sinks, tell, of_dead)
    recovery.now(patience)
    recovery.close()
    return of_dead


def follow(spec: Spec) -> None:
    """Let the caller's side do what *spec* says: levels, the user's processors, redaction, sizes."""
    settings = spec.settings
    gates.set(*parse_levels(settings.level))
    processors[:] = spec.processors
    redact(enabled=settings.redact, keys=settings.redact_keys, patterns=settings.redact_patterns)
    route.max_bytes = settings.max_event_bytes
    route.exception_locals = settings.exception_locals
    # Last but one: until there are rules, or none, every log call waits for `configured`.
    route.sampler = sampler_of(settings.sampling, route.sampler if isinstance(route.sampler, Sampler) else None)
    route.configured = True


def give_up(state: ProcessState, error: Exception) -> None:
    """Refuse every event from now on: the hub cannot start."""
    note("start", f"the hub cannot start, events are refused: {error!r}")
    queue = state.queue = state.queue or EventQueue()
    route.accept = lambda _levelno, _head: queue.refuse(Reason.AFTER_CLOSE)
    while state.pending:
        _, head = state.pending.popleft()
        queue.refuse(Reason.AFTER_CLOSE if head else Reason.SAMPLED)


def empty_pending(state: ProcessState, hub: ProcessHub) -> None:
    """Give *hub* what came before it, in order; any thread."""
    until = time.monotonic() + hub.queue.block_timeout  # one time limit for all of them: this is somebody's log call
    while True:
        try:
            levelno, head = state.pending.popleft()
        except IndexError:
            return
        if head:
            hub.accept(levelno, head, until)
        else:
            hub.queue.refuse(Reason.SAMPLED)


def result_without_hub(state: ProcessState, spec: Spec | None) -> FlushResult:
    """Return what has become of everything so far, while no hub is running."""
    sinks = spec.sinks if spec is not None else ()
    per_sink = {sink.name: SinkResult(0, 0, 0) for sink in sinks}  # type: ignore[attr-defined]
    for name, books in state.books.items():
        per_sink[name] = SinkResult(books.delivered, books.dropped_total(), books.in_flight)
    complete = not state.pending and not any(result.dropped or result.in_flight for result in per_sink.values())
    return FlushResult(complete, per_sink, 0.0)


def _queue_of(state: ProcessState, spec: Spec) -> tuple[EventQueue, list[tuple[int, bytes]], list[Dead]]:
    """
    Return the queue of this process life, with the slot, the identity and the limits of *spec*.

    And the events that a life in this slot begins with, and who died in it before.
    """
    settings = spec.settings
    run_dir = spec.run_dir()
    moved = state.slot is None or state.slot.run_dir != run_dir
    if moved:
        held, state.slot = state.slot, take_slot(run_dir, 0 if state.role == "master" else 1)
        if held is not None:
            held.release()
            if state.queue is not None:
                state.counted, _ = moment(state.queue, state.books, (), 0)
    assert state.slot is not None
    queue = state.queue = state.queue or EventQueue()
    boot = queue.identity.boot
    queue.set_identity(Identity.of_this_process(settings.service, settings.env, state.slot.number, boot))
    queue.set_limits(
        settings.queue_size,
        settings.queue_max_bytes,
        settings.queue_overflow,
        settings.queue_sample_rate,
        settings.queue_block_timeout,
        settings.queue_reserve,
    )
    opening: list[tuple[int, bytes]] = []
    died: list[Dead] = []
    if moved:
        state.row, died = take_row(state.slot, queue.identity, state.role)
        if state.row is None:
            gates.ask({})  # what a parent was asked for would stay for ever in a process that cannot hear that it is over
        if state.role == "worker" and state.row is not None:
            opening.append((INFO, started_head(state.row)))
    return queue, opening, died


def _no_gil() -> bool:
    """Whether this build or interpreter lacks what the queue's atomic runs rely on; said once."""
    enabled = getattr(sys, "_is_gil_enabled", None)
    if enabled is None or enabled():
        return False
    note("gil", "free-threaded Python: events are written synchronously")
    return True
