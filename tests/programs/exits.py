"""
Ways to leave a program. `python exits.py WAY [COUNT]` logs COUNT events `tick` with their number `n` and leaves by WAY.

What it learns on the way it prints as JSON lines: ``{"at": ..., ...}``.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import sys
import threading
import time

import fapilog

way = sys.argv[1]
count = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
log = fapilog.get_logger("test.exits")


def say(at: str, **what: object) -> None:
    # One write: two threads may print here at once.
    os.write(1, json.dumps({"at": at, "clock": time.monotonic(), **what}).encode() + b"\n")


def tick(first: int = 0, number: int = count) -> None:
    for n in range(first, first + number):
        log.info("tick", n=n)


def books() -> dict[str, object]:
    found = fapilog.statistics()
    (sink,) = found.sinks.values()
    return {
        "logged": found.logged,
        "accepted": found.accepted,
        "refused": sum(found.refused.values()),
        "sink_accepted": sink.accepted,
        "delivered": sink.delivered,
        "dropped": sink.dropped,
        "in_flight": sink.in_flight,
    }


def timed(name: str, call, *arguments: object) -> None:
    began = time.monotonic()
    result = call(*arguments)
    complete = result.complete if isinstance(result, fapilog.FlushResult) else None
    say(name, took=time.monotonic() - began, complete=complete)


# Plain endings.


def end() -> None:
    tick()


def sys_exit() -> None:
    tick()
    sys.exit(3)


def exception() -> None:
    tick()
    message = "nobody catches this"
    raise LookupError(message)


def wait_for_a_signal() -> None:
    tick()
    say("ready")
    while True:  # pause() would sleep through a signal that came just before it
        time.sleep(0.01)


def signal_itself() -> None:
    tick()
    os.kill(os.getpid(), signal.SIGTERM)


# Odd moments.


def first_in_atexit() -> None:
    atexit.register(tick)
    sys.exit(5)


def configured_then_first_in_atexit() -> None:
    fapilog.configure_logging()
    atexit.register(tick)
    sys.exit(5)


def atexit_before_ours() -> None:
    atexit.register(tick, 1000)
    tick()
    sys.exit(5)


def atexit_after_ours() -> None:
    tick()
    atexit.register(tick, 1000)
    sys.exit(5)


def outliving(first: int) -> None:
    threading.main_thread().join()
    tick(first)


def first_in_a_thread_that_outlives_main() -> None:
    threading.Thread(target=outliving, args=(0,)).start()
    sys.exit(5)


def thread_that_outlives_main() -> None:
    tick()
    threading.Thread(target=outliving, args=(1000,)).start()
    sys.exit(5)


# Stops.


def stalled_to_the_end() -> None:
    atexit.register(lambda: say("after", **books()))  # before ours: runs behind the drain
    tick()
    say("main ends")


def stop_twice_then_flush() -> None:
    tick()
    timed("stop", fapilog.shutdown_logging)
    timed("stop again", fapilog.shutdown_logging)
    timed("flush", fapilog.flush)
    timed("logging.shutdown", logging.shutdown)
    say("after", **books())


def two_threads_stop_at_once() -> None:
    tick()
    gate = threading.Barrier(2)

    def stop(name: str) -> None:
        gate.wait()
        timed(name, fapilog.shutdown_logging)

    threads = [threading.Thread(target=stop, args=(f"stop {number}",)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("after", **books())


def late() -> None:
    tick()
    fapilog.shutdown_logging()
    path = os.environ["FAPILOG_TEST_FILE"]
    with open(path, "rb") as file:
        say("closed", lines=len(file.readlines()))
    tick(1000, 5)
    with open(path, "rb") as file:
        say("late", lines=len(file.readlines()))
    say("after", **books())


def reopened() -> None:
    tick()
    fapilog.shutdown_logging()
    fapilog.configure_logging()
    tick(1000)


# Company: other handlers, threads and sinks.


def own_handler() -> None:
    def leave(number: int, _frame: object) -> None:
        # A warning has the reserve: on a busy machine the thousand before it may still fill the queue of a thousand.
        log.warning("tick", n=count)
        sys.exit(7)

    signal.signal(signal.SIGTERM, leave)
    wait_for_a_signal()


def ignored() -> None:
    """SIGTERM is ignored, so it ends nothing; the test ends it by SIGINT."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_for_a_signal()


def daemon_thread_logs_on() -> None:
    def busy() -> None:
        for n in range(10**9):
            log.info("busy", n=n)

    tick(number=500)
    threading.Thread(target=busy, daemon=True).start()
    tick(500, 500)
    say("main ends")
    sys.exit(5)


class HangingSink:
    """Takes the first batch and never comes back: from `write()`, or from `close()`."""

    name = "hanging"

    async def open(self, identity: fapilog.Identity) -> None:
        pass

    async def write(self, events: object) -> None:
        if way == "write_hangs":
            time.sleep(3600)

    async def close(self) -> None:
        time.sleep(3600)


def write_hangs() -> None:
    fapilog.configure_logging(sinks=["file", HangingSink()])
    tick()
    say("main ends")


close_hangs = write_hangs


def killed() -> None:
    """Writes what it flushed, and dies without a word."""
    tick()
    fapilog.flush()
    os.kill(os.getpid(), signal.SIGKILL)


globals()[way]()
