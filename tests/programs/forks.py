"""
Programs of several processes. `python forks.py WAY [ARGUMENT]`; every process logs events `tick` with its `role` and numbers `n`.

What the test must know is printed as JSON lines; an exit code other than 0 of a child ends the parent with an error.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import fapilog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = fapilog.get_logger("test.forks")
argument = sys.argv[2] if len(sys.argv) > 2 else ""
LIMIT_S = 30.0


def say(at: str, **what: object) -> None:
    # One write: several processes print here.
    os.write(1, json.dumps({"at": at, **what}).encode() + b"\n")


def tick(role: str, number: int, first: int = 0) -> None:
    for n in range(first, first + number):
        log.info("tick", role=role, n=n)


def forked(child: Callable[[], object]) -> int:
    """Fork a child that calls *child* and leaves as a program does that comes to its end; return its pid."""
    pid = os.fork()
    if not pid:
        child()
        sys.exit(0)
    return pid


def joined(pid: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def wait_for_a_signal() -> None:
    while True:  # pause() would sleep through a signal that came just before it
        time.sleep(0.01)


def stalled() -> None:
    """100 events wait for a FIFO when the process forks: still in the queue, or behind it in the sink's backlog."""
    tick("parent", 100)
    if argument == "backlog":
        until(lambda: fapilog.statistics().queue_depth == 0)
    joined(forked(lambda: tick("child", 10)))
    say("child gone", pid=os.getpid())


class GatedSink:
    """Writes to a file of its process, in the parent only once the gate opens."""

    name = "gated"

    def __init__(self) -> None:
        self.gate: int | None
        self.gate, self.key = os.pipe()
        self.inside = threading.Event()
        self.maker = os.getpid()
        self.fd = -1

    async def open(self, identity: fapilog.Identity) -> None:
        path = os.environ["FAPILOG_FILE_PATH"].format(service=identity.service, worker=identity.worker)
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        if os.getpid() != self.maker:
            self.gate = None

    async def write(self, events: Sequence[fapilog.Event]) -> None:
        if self.gate is not None:
            self.inside.set()
            os.read(self.gate, 1)
            self.gate = None
        os.write(self.fd, b"".join(event.line for event in events))

    async def close(self) -> None:
        os.close(self.fd)


def gated() -> None:
    """The same with a sink of the user's own that is inside its `write()` when the process forks."""
    sink = GatedSink()
    fapilog.configure_logging(sinks=[sink])
    tick("parent", 100)
    assert sink.inside.wait(LIMIT_S)
    joined(forked(lambda: tick("child", 10)))
    os.write(sink.key, b"x")


def from_a_thread() -> None:
    """A thread forks; nothing runs at the end of such a child but what it calls itself."""

    def child() -> None:
        tick("child", 20)
        say("child", complete=fapilog.shutdown_logging().complete)
        os._exit(0)

    tick("parent", 50)
    thread = threading.Thread(target=lambda: joined(forked(child)))
    thread.start()
    thread.join()
    tick("parent", 50, first=50)


def deep() -> None:
    def child() -> None:
        tick("child", 30)
        joined(forked(lambda: tick("grandchild", 30)))
        tick("child", 30, first=30)

    tick("parent", 30)
    joined(forked(child))
    tick("parent", 30, first=30)


def one_after_another() -> None:
    tick("parent", 10)
    for number in range(3):
        joined(forked(lambda number=number: tick(f"child {number}", 10)))  # type: ignore[misc]


def while_threads_log() -> None:
    """Children are forked at any moment of three threads' log calls."""
    stop = threading.Event()
    counts = [0, 0, 0]

    def busy(index: int) -> None:
        while not stop.is_set():
            tick(f"thread {index}", 1, first=counts[index])
            counts[index] += 1
            if not counts[index] % 10:  # bursts, so that a slow machine does not make millions of them
                time.sleep(0.002)

    threads = [threading.Thread(target=busy, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for number in range(int(argument)):
        joined(forked(lambda number=number: tick(f"child {number}", 20)))  # type: ignore[misc]
    stop.set()
    for thread in threads:
        thread.join()
    say("threads", counts=counts)


def orphan() -> None:
    """The child outlives its parent, which the test kills; it has logged before (`warm`) or not, and logs when it may end."""

    def child() -> None:
        if argument == "warm":
            tick("child", 10)
            fapilog.flush()
        say("child ready", pid=os.getpid())
        until(lambda: os.path.exists("go"))
        tick("child", 10, first=10)

    tick("parent", 10)
    fapilog.flush()
    forked(child)
    wait_for_a_signal()


def unlogged_child() -> None:
    """A child that never logs is ended in its own way; the parent's events are the parent's."""
    tick("parent", 100)
    pid = os.fork()
    if not pid:
        if argument == "_exit":
            os._exit(0)
        if argument == "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        sys.exit(0)
    say("code", code=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def mp_child(number: int) -> None:
    tick(f"child {number}", 50)


def mp_child_that_waits(number: int) -> None:
    tick(f"child {number}", 50)
    say("waiting")
    wait_for_a_signal()


def with_multiprocessing() -> None:
    context: Any = multiprocessing.get_context(argument)
    tick("parent", 50)
    children = [context.Process(target=mp_child, args=(number,)) for number in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    tick("parent", 50, first=50)


def terminated() -> None:
    context: Any = multiprocessing.get_context(argument)
    tick("parent", 50)
    children = [context.Process(target=mp_child_that_waits, args=(number,)) for number in range(2)]
    for child in children:
        child.start()
    path = os.readlink("/proc/self/fd/1") if os.path.exists("/proc/self/fd/1") else os.environ["FAPILOG_TEST_OUT"]

    def all_wait() -> bool:
        with open(path, "rb") as file:
            return file.read().count(b"waiting") == len(children)

    until(all_wait)
    for child in children:
        child.terminate()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [-signal.SIGTERM] * 2


def pool_task(number: int) -> int:
    tick(f"task {number}", 10)
    return os.getpid()


def pool() -> None:
    context: Any = multiprocessing.get_context(argument)
    with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as executor:
        pids = set(executor.map(pool_task, range(20)))
    say("pool", pids=sorted(pids))


def wait_to_be_told() -> None:
    tick("process", 10)
    fapilog.flush()
    say("ready", worker=fapilog.statistics().identity.worker)
    until(lambda: os.path.exists("go"))


def imports() -> None:
    """Whatever is imported after set-up may be half imported in a child of a fork that comes at that moment."""
    fapilog.configure_logging(sinks=["file", "stdout", "stderr"])
    before = set(sys.modules)
    tick("parent", 10)
    try:
        log.error("failed", reason=1 / 0)
    except ZeroDivisionError:
        log.exception("failed")
    fapilog.flush()
    fapilog.statistics()
    fapilog.shutdown_logging()
    tick("parent", 1, first=10)
    say("imported", names=sorted(set(sys.modules) - before))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
