"""
One coordinator per program: owns the hub of this process and gives every forked child a cold start.

Invariants:

1. `after_in_child` starts no thread, takes no lock and does no I/O but closing the inherited slot lock. It swaps the state for a
   cold one and keeps the old one alive for ever: closing, cancelling or even collecting an inherited event loop reaches into
   the parent.
2. The child drops what it inherited; the parent's worker writes it. No event is lost by a fork and none is written twice.
3. A process starts its hub at its first event, or when a server's hook asks. Log calls of other threads wait then, for at most
   `START_PATIENCE`: a call that returned is to be protected by the journal. Events of those that cannot wait (signal handlers
   that interrupt the start, the hub's own threads) wait in `pending` and come out in order; whoever appends looks for a finished
   hub *after* appending, and the starter empties `pending` *after* publishing the hub, so one of the two finds every event.
4. A fork waits, for at most `FORK_PATIENCE` seconds, while another thread is inside set-up: reading the settings takes locks (of
   imports, and inside pydantic's compiled core), and a child that inherits one held would hang in its own first log call.
5. Before a fork the parent flushes, so that a program that forks and then leaves by `os._exit` (a daemon's double fork) loses
   nothing: for at most `FORK_FLUSH` seconds, at most every `FORK_FLUSH_EVERY`, and not at all while a sink fails or nothing
   waits.
6. A worker of gunicorn holds its first events until it runs as its final user, so that no file of its belongs to root.
7. Every door looks whether the state is this process's own, for forks that ran no hooks.
8. Starting is claimed, see `claim`; a signal that would end the process in the middle of a start waits for the end of that. The
   end of the stack cannot cut one short: a log call begins none without frames enough, and is counted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from fapilog._internal import arbiter, dirty, filelock, lifecycle, native, notes, owner
from fapilog._internal.accounting import Reason
from fapilog._internal.forking import ForkWindow
from fapilog._internal.gates import gates
from fapilog._internal.route import has_frames, route
from fapilog._internal.starting import empty_pending, follow, give_up, new_hub, result_without_hub
from fapilog._internal.state import ProcessState, Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fapilog._internal.hub import ProcessHub
    from fapilog.results import FlushResult

MAX_FAILED_STARTS = 3
FORK_PATIENCE = 0.4
FORK_FLUSH = 0.1
FORK_FLUSH_EVERY = 1.0
START_PATIENCE = 2.0
LEAST_DRAIN = 0.2  # of the time that a hub has for its drain, when its flush has taken all of that
HOLD_LIMIT = 5.0
MAX_PENDING = 100_000


class Coordinator:
    """
    Fork, start, drain. There is one, `coordinator`.

    `autoconfigure` is set by `bootstrap`: it configures from the environment when an event comes before `configure_logging()`.
    """

    def __init__(self) -> None:
        self.spec: Spec | None = None
        self.state = ProcessState()
        self.autoconfigure: Callable[[], None] | None = None
        self._parked: list[ProcessState] = []
        self._setting_up: list[int] = []
        route.accept = self._accept_cold
        route.refuse = self._refuse
        self._window = ForkWindow(lambda: self.state.pid, self._after_in_child)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before_fork, after_in_parent=self._window.close, after_in_child=self._after_in_child)

    @contextlib.contextmanager
    def setting_up(self) -> Iterator[None]:
        """Mark that the calling thread is inside set-up, which a fork on another thread had better not cut in two."""
        self._setting_up.append(threading.get_ident())
        try:
            yield
        finally:
            self._setting_up.remove(threading.get_ident())

    def configure(self, spec: Spec) -> None:
        """
        Use *spec* from now on. What was accepted under an earlier one is delivered first, within the drain timeout.

        The old hub takes events until it has delivered what it can; others come to the new one, started here.
        """
        state = self.state
        state.claim.wait(START_PATIENCE)
        hub = state.hub
        if self.spec is not None and self.spec.key == spec.key and (hub is None or not hub.closed):
            return
        end = time.monotonic() + (hub.drain_timeout if hub is not None else 0.0)
        if hub is not None:
            hub.flush()  # most of the time passes here, while the journal still protects what comes
            if state.hub is not hub or not state.claim.make(anew=True):  # another thread was quicker
                self.configure(spec)
                return
        try:
            if hub is not None:
                self._withdraw(state)
                hub.drain(max(LEAST_DRAIN, end - time.monotonic()))
                hub.release()
                lifecycle.stop_telling()
            self.spec = spec
            follow(spec)
            self._guard()
            self.arm_exits()  # here, because the first event may come in an exit callback, when it is too late to register one
        except BaseException:  # of a signal handler
            if hub is not None:
                state.claim.end(started=False)
            raise
        if hub is not None:
            self._start_claimed(state)

    def open(self) -> None:
        """Open a hub that was drained; a hub that never was stays as it is."""
        if self.state.hub is not None and self.state.hub.closed:
            self._cool()

    def _cool(self) -> None:
        state, hub = self.state, self.state.hub
        self._withdraw(state)
        if hub is not None:
            hub.release()
        state.claim.end(started=False)

    def _withdraw(self, state: ProcessState) -> None:
        state.hub = None
        route.accept = self._accept_cold

    def start(self) -> None:
        """Start the hub now instead of at the first event; for hooks that run where time does not matter."""
        state = self.state
        state.held_until = 0.0
        self._claim_and_start(state)

    def become_master(self, uid: int | None = None, gid: int | None = None) -> None:
        """
        Say that this process is a server's master: it takes slot 0 and writes synchronously, without a thread to fork.

        Args:
            uid: The user that its workers run as, whose files it then makes if it is root.
            gid: Their group.
        """
        state = self.state
        if state.hub is not None and state.role != "master" and not state.hub.synchronous:
            # The program has logged before it became a server: that life is closed, its threads and its slot are given back.
            self.drain()
            native.wait_for_own_threads(START_PATIENCE)
            self._cool()
            if state.slot is not None:
                state.slot.release()
            self.state = state = ProcessState(generation=state.generation)
        if state.hub is None:
            state.role = "master"
            if uid is not None and gid is not None:
                owner.work_for(uid, gid)

    def become_worker(self) -> None:
        """Say that this process is no master, whatever was thought before; only before its first event."""
        if self.state.hub is None:
            self.state.role = "worker"

    def hold(self) -> None:
        """Let events wait without starting the hub, until `let_go()`, a door, or `HOLD_LIMIT` seconds."""
        if self.state.hub is None:
            self.state.held_until = time.monotonic() + HOLD_LIMIT

    def let_go(self) -> None:
        """End a `hold()`."""
        self.state.held_until = 0.0
        self._start_if_waiting(self.state)

    def hasten(self) -> None:
        """Let every drain from now on take half a second at the most: somebody will kill this process soon."""
        self.state.hurry = lifecycle.ABORT_LIMIT

    def reopen(self) -> None:
        """Reopen the files of this process; any thread or signal handler."""
        hub = self._own_state().hub
        if hub is not None:
            hub.reopen()

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Flush the hub of this process, if it has one."""
        hub = self._hub_for_a_door()
        return hub.flush(timeout) if hub is not None else result_without_hub(self.state, self.spec)

    def drain(self, timeout: float | None = None) -> FlushResult:
        """Drain the hub of this process, if it has one."""
        hub = self._hub_for_a_door()
        lifecycle.stop_telling()
        return hub.drain(self._hurried(timeout)) if hub is not None else result_without_hub(self.state, self.spec)

    async def adrain(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - public contract
        """Drain without blocking the running loop."""
        hub = self._own_state().hub
        return await hub.adrain(self._hurried(timeout)) if hub is not None else result_without_hub(self.state, self.spec)

    async def aflush(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - public contract
        """Flush without blocking the running loop."""
        hub = self._own_state().hub
        return await hub.aflush(timeout) if hub is not None else self.flush(timeout)

    def _hub_for_a_door(self) -> ProcessHub | None:
        state = self._own_state()
        state.claim.wait(START_PATIENCE)
        state.held_until = 0.0
        self._start_if_waiting(state)
        return state.hub

    def _start_if_waiting(self, state: ProcessState) -> None:
        if (state.pending or route.unplaced) and state.hub is None:
            self.start()

    def _hurried(self, timeout: float | None) -> float | None:
        hurry = self.state.hurry
        return timeout if hurry is None else min(hurry, hurry if timeout is None else timeout)

    def _own_state(self) -> ProcessState:
        if self.state.pid != os.getpid():  # forked by something that runs no at-fork hooks
            self._after_in_child()
        return self.state

    def postpone(self, number: int) -> bool:
        """Whether the signal *number*, whose handler calls this, has to wait for the start that it interrupts."""
        return self.state.claim.postpone(number)

    def arm_exits(self) -> None:
        """Arm the interpreter's exit doors; done at the start of a hub too."""
        lifecycle.arm_exit(self.flush, self.drain)

    def _guard(self) -> None:
        lifecycle.guard_signals((signal.SIGTERM,), self)

    def _accept_cold(self, levelno: int, head: bytes) -> bool:
        state = self.state
        if not has_frames():
            raise RecursionError  # the log call counts that
        if state.claim.by and not native.on_own_thread():
            state.claim.wait(START_PATIENCE, native.pause)
        if state.queue is not None and len(state.pending) >= MAX_PENDING:
            return state.queue.refuse(Reason.QUEUE_FULL)
        state.pending.append((levelno, head))
        hub = state.hub
        if hub is not None:
            self._publish(state, hub)
        elif not state.held_until or time.monotonic() > state.held_until:
            self._claim_and_start(state)
        return True

    def _refuse(self, reason: Reason) -> bool:
        queue = self._own_state().queue
        return queue.refuse(reason) if queue is not None else self._accept_cold(0, b"")  # waits, to be refused in its turn

    def _publish(self, state: ProcessState, hub: ProcessHub) -> None:
        empty_pending(state, hub)  # before too, so that later events of a thread do not overtake all of these
        route.accept = hub.accept
        if state.hub is not hub:  # withdrawn meanwhile: its successor publishes itself
            route.accept = self._accept_cold
        empty_pending(state, hub)

    def _claim_and_start(self, state: ProcessState) -> None:
        if state.hub is None and state.claim.make():
            self._start_claimed(state)

    def _start_claimed(self, state: ProcessState) -> None:
        started = True
        try:
            with self.setting_up():
                hub = self._start(state)
            self._publish(state, hub)  # outside: it may wait for room in the queue, which a fork must not wait for
        except Exception as error:  # a log call must not raise; it may be a signal handler's, so the next event tries again
            state.failed_starts += not isinstance(error, RecursionError)
            started = state.failed_starts >= MAX_FAILED_STARTS
            if started:
                give_up(state, error)
        except BaseException:
            started = False
            raise
        finally:
            state.claim.end(started=started)

    def _start(self, state: ProcessState) -> ProcessHub:
        if self.spec is None and self.autoconfigure is not None:
            self.autoconfigure()
        assert self.spec is not None
        found = None if state.role else arbiter.master()
        if found is not None:
            self.become_master(found.cfg.uid, found.cfg.gid)
            if getattr(found, "log", None) is not None:
                arbiter.follow_reopening(found.log, self)
        hub = state.unfinished  # perhaps one that an earlier try started before a signal handler's exception ended it
        if hub is None:
            hub = state.unfinished = new_hub(state, self.spec)
        hub.start()
        self.arm_exits()
        if not hub.synchronous:
            self._guard()
            lifecycle.join_uvicorn(self.adrain)
            dirty.join_worker(self)
            told = lifecycle.tell_of_signals()
            if told is not None:
                hub.heed(told)
        state.hub = hub
        state.unfinished = None
        return hub

    def _before_fork(self) -> None:
        me = threading.get_ident()
        end = time.monotonic() + FORK_PATIENCE
        while any(thread != me for thread in self._setting_up) and time.monotonic() < end:
            native.nap(0.001)
        state, hub = self.state, self.state.hub
        if hub is not None and time.monotonic() >= state.next_fork_flush and hub.is_behind():
            state.next_fork_flush = time.monotonic() + FORK_FLUSH_EVERY
            hub.flush(FORK_FLUSH, margin=0.0, wait=native.nap)
        self._window.open()

    def _after_in_child(self) -> None:
        old = self.state
        if old.pid == os.getpid():  # done already, see `ForkWindow`
            return
        self._setting_up = []
        self._parked.append(old)
        self.state = ProcessState(generation=old.generation + 1)
        route.accept = self._accept_cold
        route.renew()
        owner.work_for_oneself()
        notes.forget()
        native.forget_threads()
        gates.forget()
        lifecycle.forget_signals()
        if old.slot is not None:
            old.slot.release()
        filelock.close_inherited()
        if old.role == "master" or arbiter.arbiter_above():
            self.state.role = "child"
        arbiter.arm_newborn(self)
        dirty.arm_newborn(self)


coordinator = Coordinator()
