"""Forks at bad moments. `python storm.py WAY [ARGUMENTS]`."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import telling  # type: ignore[import-not-found]

import fapilog
from fapilog._internal.hub import ProcessHub
from fapilog.coordinator import coordinator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

say, tick, until, forked, joined, log = (
    telling.say,
    telling.tick,
    telling.until,
    telling.forked,
    telling.joined,
    telling.log,
)


@contextlib.contextmanager
def busy_threads(number: int):
    """Let *number* threads log all the time; say afterwards how much."""
    stop = threading.Event()
    counts = [0] * number

    def busy(index: int) -> None:
        while not stop.is_set():
            tick(f"thread {index}", 1, first=counts[index])
            counts[index] += 1
            if not counts[index] % 10:  # bursts, so that a slow machine does not make millions of them
                time.sleep(0.01)

    threads = [threading.Thread(target=busy, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
    for thread in threads:
        thread.join()
    say("threads", counts=counts)


def threads(children: str) -> None:
    """Eight threads log while the main thread forks; two children at a time, one in ten leaves as a program that ends."""
    living: list[int] = []
    with busy_threads(8):
        for number in range(int(children)):
            if number % 10:
                living.append(forked(lambda number=number: tick(f"child {number}", 3)))
            elif not (pid := os.fork()):
                tick(f"child {number}", 3)
                sys.exit(0)
            else:
                living.append(pid)
            if len(living) == 2:
                joined(living.pop(0))
        for pid in living:
            joined(pid)


def full_queue(forks: str, hub: str) -> None:
    """Four threads wait for room in a queue that nobody empties, while a fifth forks; one of the four starts the hub, or none."""
    if hub == "started":
        fapilog.statistics()
    start_hub = ProcessHub.start

    def slow_start(hub: ProcessHub) -> None:
        time.sleep(0.05)  # so that more events come meanwhile than the queue has room for
        start_hub(hub)

    ProcessHub.start = slow_start  # type: ignore[assignment, method-assign]
    for index in range(4):
        threading.Thread(target=lambda index=index: tick(f"thread {index}", 10**9), daemon=True).start()
    until(lambda: coordinator.state.hub is not None and coordinator.state.hub.queue.full())
    took = []

    def fork() -> None:
        for number in range(int(forks)):
            began = time.monotonic()
            pid = os.fork()
            if not pid:
                if not number % 20:
                    tick(f"child {number}", 3)
                    fapilog.flush()
                os._exit(0)
            took.append(time.monotonic() - began)
            joined(pid)

    fifth = threading.Thread(target=fork)
    fifth.start()
    fifth.join()
    say("forks", took=took)
    os._exit(0)


def in_a_loop(kind: str) -> None:
    """A running loop forks in two of its 1,000 callbacks; the child logs without and within a loop of its own."""
    children = []

    async def in_the_child(number: int) -> None:
        await asyncio.sleep(0)
        tick(f"child {number}", 1, first=1)

    def child(number: int) -> None:
        tick(f"child {number}", 1)
        asyncio.run(in_the_child(number))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        over = loop.create_future()

        def served(n: int) -> None:
            tick("parent", 1, first=n)
            if n in {300, 600}:
                children.append(forked(lambda: child(n)))
            if n == 999:
                over.set_result(None)
            else:
                loop.call_later(0.0005, served, n + 1)

        loop.call_soon(served, 0)
        await over
        await fapilog.aflush()

    if kind == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
    else:
        asyncio.run(main())
    for pid in children:
        joined(pid)


def stalled(where: str) -> None:
    """100 events wait for a FIFO when four children are forked, each of which logs one."""
    tick("parent", 100)
    if where == "backlog":
        until(lambda: fapilog.statistics().queue_depth == 0)

    def child(number: int) -> None:
        tick(f"child {number}", 1)
        say("child", **telling.books())

    for pid in [forked(lambda number=number: child(number)) for number in range(4)]:
        joined(pid)
    say("children gone")


def generations() -> None:
    """A parent that has logged 10 forks four children that log one each, and each of these one more."""
    tick("parent", 10)

    def grandchild(number: int) -> None:
        tick(f"grandchild {number}", 1)
        say("books", generation=coordinator.state.generation, **telling.books())

    def child(number: int) -> None:
        tick(f"child {number}", 1)
        say("books", generation=coordinator.state.generation, **telling.books())
        joined(forked(lambda: grandchild(number)))
        say("generation", generation=coordinator.state.generation)

    for pid in [forked(lambda number=number: child(number)) for number in range(4)]:
        joined(pid)
    say("books", generation=coordinator.state.generation, **telling.books())


# The flush before a fork.


def daemon(events: str, pause: str) -> None:
    """A daemon's double fork, in the test's session: both parents leave by `os._exit()`, which runs nothing."""
    tick("parent", int(events))
    time.sleep(float(pause))
    if os.fork():
        os._exit(0)
    if os.fork():
        os._exit(0)
    tick("daemon", 100)


def daemon_at_once() -> None:
    """The same while the worker, whose thread runs already, has not come to the end of its start."""
    run = ProcessHub._main

    async def slow_start(hub: ProcessHub) -> None:
        time.sleep(0.03)
        await run(hub)

    ProcessHub._main = slow_start  # type: ignore[assignment, method-assign]
    daemon("100", "0")


class Sink:
    """A sink whose `write()` is told in the constructor."""

    name = "own"

    def __init__(self, write: Callable[[], object]) -> None:
        self.writes = 0
        self._write = write

    async def open(self, identity: fapilog.Identity) -> None:
        pass

    async def write(self, events: Sequence[fapilog.Event]) -> None:
        self.writes += 1
        self._write()

    async def close(self) -> None:
        pass


def fork_took() -> float:
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        os._exit(0)
    took = time.monotonic() - began
    joined(pid)
    return took


def is_behind() -> bool:
    hub = coordinator.state.hub
    return hub is not None and hub.is_behind()


def failing_sink() -> None:
    """A fork does not wait for a sink that takes nothing anyway."""

    def fail() -> None:
        raise fapilog.SinkUnavailable("down")

    fapilog.configure_logging(sinks=[Sink(fail)])
    tick("parent", 10)
    until(lambda: not fapilog.statistics().sinks["own"].up)
    tick("parent", 10)
    say("fork", took=fork_took(), behind=is_behind(), next_flush=coordinator.state.next_fork_flush)
    os._exit(0)


def hanging_sink() -> None:
    """Forks follow each other until two of them have waited."""
    gate = threading.Event()
    sink = Sink(gate.wait)
    fapilog.configure_logging(sinks=[sink])
    tick("parent", 10)
    until(lambda: sink.writes)
    waited = 0
    while waited < 2:
        planned, began = coordinator.state.next_fork_flush, time.monotonic()
        took = fork_took()
        flushed = coordinator.state.next_fork_flush != planned
        waited += flushed
        say("fork", took=took, flushed=flushed, planned=planned, began=began, ended=time.monotonic())
        time.sleep(0.02)
    gate.set()


def idle_hub() -> None:
    """Nothing waits, so no fork waits."""
    tick("parent", 10)
    assert fapilog.flush().complete
    say("fork", took=fork_took(), behind=is_behind(), next_flush=coordinator.state.next_fork_flush)


def forking_sink() -> None:
    """A sink forks inside its `write()`, which a flush would wait for."""
    took: list[float] = []
    sink = Sink(lambda: took.append(fork_took()))
    fapilog.configure_logging(sinks=[sink])
    tick("parent", 10)
    until(lambda: took)
    say("fork", took=took[0], next_flush=coordinator.state.next_fork_flush)


# Last moments.


class LateSink(Sink):
    """Can write at once, too."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.lines: list[bytes] = []

    async def write(self, events: Sequence[fapilog.Event]) -> None:
        self.write_now([event.line for event in events])

    def write_now(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            os.write(1, line)


def last_moment(moment: str, sink: str) -> None:
    """The program's first event comes while the interpreter ends."""
    chosen: Any = {"file": "file", "own": Sink(lambda: None), "late": LateSink()}[sink]
    fapilog.configure_logging(sinks=[chosen])

    def first() -> None:
        tick("parent", 3)
        say("books", **telling.books())

    if moment == "atexit":
        atexit.register(first)
    elif moment == "thread callback":
        threading._register_atexit(first)  # type: ignore[attr-defined]
    elif moment == "thread":
        threading.Thread(target=outliving, args=(first,)).start()
    elif moment == "finaliser":
        Doomed.last_words = staticmethod(first)
        sys.modules["a module that dies"] = Doomed()  # type: ignore[assignment]
    sys.exit(5)


def outliving(last_words: Callable[[], object]) -> None:
    threading.main_thread().join()
    last_words()


class Doomed:
    """Logs when the interpreter takes its modules apart."""

    last_words: Callable[[], object]

    def __del__(self) -> None:
        self.last_words()


def inherited_exit_callback() -> None:
    """A forked child, whose first event is logged by an exit callback that its parent had registered."""
    maker = os.getpid()
    atexit.register(lambda: tick("parent" if os.getpid() == maker else "child", 3))
    tick("parent", 10, first=10)
    pid = os.fork()
    if pid:
        joined(pid)
    sys.exit(0)


if __name__ == "__main__":
    telling.run(globals())
