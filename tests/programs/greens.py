"""
Under gevent: `python greens.py WAY ORDER`, where ORDER says whether gevent patches before or after fapilog is imported.

What the programs measure they measure by clocks of the operating system's threads, which gevent does not patch.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import gevent
import gevent.monkey

if sys.argv[2] == "before":
    gevent.monkey.patch_all()

import telling  # type: ignore[import-not-found]

import fapilog

if sys.argv[2] == "after":
    gevent.monkey.patch_all()

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GREENLETS = 10
EACH = 100
say, tick = telling.say, telling.tick
real_thread: Callable[[], int] = gevent.monkey.get_original("_thread", "get_ident")
real_sleep: Callable[[float], None] = gevent.monkey.get_original("time", "sleep")


class Sink:
    """Writes to its file; `before` is awaited first."""

    name = "own"

    def __init__(self, before: Callable[[], Any] | None = None) -> None:
        self.before = before
        self.threads: set[int] = set()
        self.written = 0
        self.fd = -1

    async def open(self, identity: fapilog.Identity) -> None:
        self.fd = os.open(f"app.{identity.worker}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def write(self, events: Sequence[fapilog.Event]) -> None:
        self.threads.add(real_thread())
        if self.before is not None:
            found = self.before()
            if found is not None:
                await found
        os.write(self.fd, b"".join(event.line for event in events))
        self.written += len(events)

    async def close(self) -> None:
        os.close(self.fd)


def log_in_greenlets() -> None:
    def work(number: int) -> None:
        for n in range(EACH):
            tick(f"greenlet {number}", 1, first=n)
            gevent.sleep(0)

    pool = gevent.get_hub().threadpool
    greenlets = [gevent.spawn(work, number) for number in range(GREENLETS)]
    threads = [pool.spawn(tick, f"thread {number}", EACH) for number in range(GREENLETS)]
    gevent.joinall([*greenlets, *threads], timeout=telling.LIMIT_S, raise_error=True)


def end() -> None:
    """Log from greenlets and from gevent's own threads, and end."""
    log_in_greenlets()


def flushed() -> None:
    """The same, and leave with nothing but a flush."""
    log_in_greenlets()
    assert fapilog.flush().complete
    os._exit(0)


def own_sinks() -> None:
    """Sinks that wait in their way, which gevent has patched or not."""
    slow = Sink(lambda: time.sleep(0.01))
    fapilog.configure_logging(sinks=[slow])
    log_in_greenlets()
    assert fapilog.flush().complete
    say("threads", own=real_thread() not in slow.threads, number=len(slow.threads))


def own_async_sinks() -> None:
    slow = Sink(lambda: asyncio.sleep(0.01))
    fapilog.configure_logging(sinks=[slow])
    log_in_greenlets()


def flush_lets_others_run() -> None:
    """A greenlet opens the gate for which a flush on another one waits."""
    gate: list[bool] = []

    def wait() -> None:
        while not gate:
            real_sleep(0.002)

    fapilog.configure_logging(sinks=[Sink(wait)])
    tick("main", 10)
    flush = gevent.spawn(fapilog.flush, telling.LIMIT_S)
    gevent.sleep(0.05)
    said_before = flush.ready()
    gate.append(True)
    flush.join(telling.LIMIT_S)
    say("flush", early=said_before, complete=flush.value.complete)


def the_workers_loop() -> None:
    """The application's greenlets see nothing of the worker's event loop, and run their own."""
    tick("main", 10)
    assert fapilog.flush().complete
    try:
        asyncio.get_running_loop()
        seen = True
    except RuntimeError:
        seen = False

    async def own() -> str:
        await asyncio.sleep(0.01)
        tick("loop", 10)
        return "ran"

    gevent.sleep(0)  # the main thread has its hub now
    # Making one imports modules, under locks that gevent has patched and that belong to greenlets of another thread.
    hubs = sum(isinstance(one, gevent.hub.Hub) for one in gc.get_objects())
    say("loop", seen=seen, hubs=hubs, own=gevent.spawn(lambda: asyncio.run(own())).get(timeout=telling.LIMIT_S))


def busy_greenlet() -> None:
    """A greenlet computes, and lets no other run, until the worker has written what it logged."""
    sink = Sink()
    fapilog.configure_logging(sinks=[sink])
    tick("main", 1)
    assert fapilog.flush().complete
    tick("main", 1, first=1)
    end = time.monotonic() + telling.LIMIT_S
    while sink.written < 2 and time.monotonic() < end:
        sum(range(100))
    say("busy", written=sink.written)


def blocked_greenlet(where: str) -> None:
    """The queue is full; a call waits for room, in a greenlet, or in gevent's hub, where nothing may wait."""
    gate: list[bool] = []

    def wait() -> None:
        while not gate:
            real_sleep(0.002)

    fapilog.configure_logging(sinks=[Sink(wait)])
    tick("main", 1)
    telling.until(lambda: fapilog.statistics().queue_depth == 0)

    over: list[bool] = []

    def fill() -> None:
        tick("filler", 300)
        over.append(True)

    if where == "greenlet":
        gevent.spawn(fill)
        gevent.sleep(0.05)
        gate.append(True)
    else:
        gate.append(True)
        gevent.get_hub().loop.run_callback(fill)
    telling.until(lambda: over)
    say("books", **telling.books())


def in_the_hub() -> None:
    """A callback of gevent's hub logs, and a signal handler that runs in it."""
    over: list[bool] = []

    def handler(*_: object) -> None:
        tick("handler", 3)
        over.append(gevent.getcurrent() is gevent.get_hub())

    def callback() -> None:
        tick("callback", 3)
        over.append(gevent.getcurrent() is gevent.get_hub())

    signal.signal(signal.SIGUSR1, handler)
    gevent.get_hub().loop.run_callback(callback)
    telling.until(lambda: over)
    gevent.get_hub().threadpool.spawn(os.kill, os.getpid(), signal.SIGUSR1)
    gevent.sleep(0.05)
    telling.until(lambda: len(over) == 2)
    say("hub", inside=over)


def leaves_open() -> None:
    """The first event of a program whose main thread has a hub, which does not run meanwhile."""
    gevent.sleep(0)
    tick("main", 1)
    inside = os.path.realpath(os.environ["FAPILOG_RUN_DIR"])
    end = time.monotonic() + 5
    while (found := directories(inside)) and time.monotonic() < end:
        real_sleep(0.01)  # the worker's thread lists one now and then
    say("open", directories=found)


def directories(inside: str) -> list[str]:
    """Return the directories within *inside* that the process has open."""
    there = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return [path for path in there if path.startswith(inside) and os.path.isdir(path)]


def waits_for_a_signal(first: str) -> None:
    if first == "main":
        tick("first", 1)
    else:
        gevent.spawn(tick, "first", 1).join()
    log_in_greenlets()
    say("ready")
    gevent.sleep(3600)


def misses_a_signal() -> None:
    """Another thread takes SIGTERM, so that it does not end the main thread's wait: as when it comes just before that begins."""

    def take_the_signal() -> None:
        real_sleep(0.2)
        signal.pthread_kill(real_thread(), signal.SIGTERM)

    tick("first", 1)
    log_in_greenlets()
    gevent.monkey.get_original("_thread", "start_new_thread")(take_the_signal, ())
    gevent.sleep(3600)


def forks() -> None:
    """A child forked by gevent's own `os.fork()` logs in its greenlets."""
    tick("main", 10)
    telling.joined(telling.forked(log_in_greenlets))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[3:])
