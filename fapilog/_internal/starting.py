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

from fapilog._internal.accounting import Reason
from fapilog._internal.event_queue import EventQueue
from fapilog._internal.gates import gates
from fapilog._internal.hub import ProcessHub
from fapilog._internal.notes import note
from fapilog._internal.route import redact, route
from fapilog._internal.rundir import take_slot
from fapilog._internal.sampling import Sampler, sampler_of
from fapilog.identity import Identity
from fapilog.logger import processors
from fapilog.results import FlushResult, SinkResult
from fapilog.settings import parse_levels

if TYPE_CHECKING:
    from fapilog._internal.state import ProcessState, Spec


def new_hub(state: ProcessState, spec: Spec) -> ProcessHub:
    """Return a hub for the process of *state*, not yet started."""
    # Once the main thread has ended, a new daemon thread would not live to deliver: the exit doors may have been passed.
    ending = not threading.main_thread().is_alive()
    synchronous = not spec.settings.queue_enabled or state.role == "master" or ending or _no_gil()
    sinks = [sink.fresh() for sink in spec.sinks]  # type: ignore[attr-defined]
    return ProcessHub(spec.settings, _queue_of(state, spec), state.books, sinks, synchronous=synchronous)


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


def _queue_of(state: ProcessState, spec: Spec) -> EventQueue:
    """Return the queue of this process life, with the slot, the identity and the limits of *spec*."""
    settings = spec.settings
    run_dir = spec.run_dir()
    if state.slot is None or state.slot.run_dir != run_dir:
        held, state.slot = state.slot, take_slot(run_dir, 0 if state.role == "master" else 1)
        if held is not None:
            held.release()
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
    return queue


def _no_gil() -> bool:
    """Whether this build or interpreter lacks what the queue's atomic runs rely on; said once."""
    enabled = getattr(sys, "_is_gil_enabled", None)
    if enabled is None or enabled():
        return False
    note("gil", "free-threaded Python: events are written synchronously")
    return True
