"""Programs that write to files which rotate, fill up, vanish or belong to somebody. `python rotating.py WAY [ARGUMENT...]`."""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import fapilog
from fapilog.coordinator import coordinator
from fapilog.identity import Identity
from fapilog.sinks import FileSink

NOBODY = 65534


def say(**values: object) -> None:
    os.write(1, json.dumps(values).encode() + b"\n")


def wait_for(name: str) -> None:
    end = time.monotonic() + 40
    while not Path(name).exists():
        assert time.monotonic() < end, name
        time.sleep(0.005)


def numbered(first: int, count: int, size: int = 60) -> None:
    log = fapilog.get_logger("rotating")
    for n in range(first, first + count):
        log.info("numbered", n=n, pad="x" * size)


def books() -> dict[str, Any]:
    of = fapilog.statistics().sinks["file"]
    return {"accepted": of.accepted, "delivered": of.delivered, "dropped": of.dropped, "in_flight": of.in_flight}


def fork(workers: str, events: str) -> None:
    """Set up, then fork workers, each of which logs its share of the numbers."""
    fapilog.configure_logging(queue_overflow="block", queue_block_timeout=60, drain_timeout=60)
    context = multiprocessing.get_context("fork")
    share = int(events) // int(workers)
    children = [context.Process(target=numbered, args=(w * share, share)) for w in range(int(workers))]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0


def acks(first: str, count: str, call: str = "", number: str = "0", when: str = "") -> None:
    """Write single lines and say each number that is written; die at a given system call."""
    if call:
        dies_at(call, int(number), before=when == "before")
    me = Identity("app", "", "host", 1, os.getpid(), os.urandom(8).hex())

    async def main() -> None:
        sink = FileSink("app.1.jsonl", max_bytes=1000, keep=1000, compress="gzip")
        await sink.open(me)
        for n in range(int(first), int(first) + int(count)):
            seq = n - int(first) + 1
            line = {"n": n, "pad": "x" * 100, "worker": 1, "pid": me.pid, "boot": me.boot, "seq": seq}
            await sink.write_lines([json.dumps(line).encode() + b"\n"])
            say(n=n)
        if call:  # on another thread, perhaps
            await asyncio.sleep(30)
        await sink.close()

    asyncio.run(main())


def dies_at(call: str, number: int, *, before: bool) -> None:
    real = getattr(os, call)
    left = [number]

    def dying(*arguments: Any, **keywords: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            if not before:
                real(*arguments, **keywords)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **keywords)

    setattr(os, call, dying)


def live(first: str, count: str, stop: str) -> None:
    """Log numbers, say so when they are written, live until there is a file *stop*; then log one more."""
    fapilog.configure_logging(queue_size=100_000)
    numbered(int(first), int(count))
    assert fapilog.flush(30).complete
    say(boot=fapilog.statistics().identity.boot, worker=fapilog.statistics().identity.worker)
    wait_for(stop)
    numbered(int(first) + int(count), 1)


def survived() -> None:
    """Fork a child that does nothing but live on."""
    numbered(0, 10)
    assert fapilog.flush(30).complete
    if os.fork() == 0:
        say(child=os.getpid())
        wait_for("stop")
        os._exit(0)
    say(parent=os.getpid())
    wait_for("stop")


def limited() -> None:
    """Log 5,000 events against a limit of a megabyte for any file, lift it, log 100 more (O-IO-1)."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    fapilog.configure_logging(queue_size=100_000, queue_retry_delay=0.01, drain_timeout=20)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    numbered(0, 5000, 300)
    began = time.monotonic()
    while not books()["in_flight"] or time.monotonic() < began + 0.5:
        time.sleep(0.01)
    say(**books(), size=os.stat("app.1.jsonl").st_size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    numbered(5000, 100)
    complete = fapilog.flush(20).complete
    say(**books(), complete=complete)


def filled() -> None:
    """Log 5,000 events to a full disk, say so, wait until somebody has made room, log 100 more (O-IO-1)."""
    fapilog.configure_logging(queue_size=100_000, queue_retry_delay=0.01, drain_timeout=20)
    numbered(0, 5000, 300)
    fapilog.flush(1.0)
    say(**books())
    wait_for("freed")
    numbered(5000, 100)
    complete = fapilog.flush(20).complete
    say(**books(), complete=complete)


def nobody() -> None:
    """Log as a user without rights in the directory, until somebody has granted them (O-IO-2)."""
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    fapilog.configure_logging(queue_retry_delay=0.01, drain_timeout=20)
    numbered(0, 5)
    fapilog.flush(0.5)
    say(**books())
    wait_for("granted")
    numbered(5, 5)
    complete = fapilog.flush(20).complete
    say(**books(), complete=complete)


def strict_nobody() -> None:
    """Set up strictly as a user without rights."""
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    fapilog.configure_logging(file_strict=True)


def removed() -> None:
    """Log, let somebody remove the directory, log on (O-IO-2)."""
    fapilog.configure_logging(queue_retry_delay=0.01)
    numbered(0, 5)
    assert fapilog.flush(10).complete
    say(first=True)
    wait_for("removed")
    numbered(5, 5)
    say(complete=fapilog.flush(20).complete)


def master() -> None:
    """Be a root master whose workers run as nobody, and write so much that the files rotate; fork one of them (O-IO-2)."""
    coordinator.become_master(NOBODY, NOBODY)
    fapilog.configure_logging()
    numbered(0, 40)
    pid = os.fork()
    if pid == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        coordinator.become_worker()
        numbered(100, 40)
        fapilog.shutdown_logging()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    say(uids=os.getresuid())


def fifo(stretches: str = "4") -> None:
    """
    An event loop that answers while its log goes into a FIFO whose reader has stopped (O-LOOP-2).

    It says, for each of a few stretches, the longest lag of the loop and the 99th percentile of the log calls' durations.
    """
    fapilog.configure_logging(queue_retry_delay=0.01)
    log = fapilog.get_logger("rotating")
    numbers = itertools.count()

    async def stretch() -> tuple[float, float]:
        lags, calls = [], []
        for _ in range(150):
            began = time.perf_counter()
            log.info("numbered", n=next(numbers), pad="x" * 2000)
            logged = time.perf_counter()
            await asyncio.sleep(0.005)
            calls.append(logged - began)
            lags.append(time.perf_counter() - logged - 0.005)
        return max(lags), sorted(calls)[int(len(calls) * 0.99)]

    async def main() -> None:
        lags, calls = zip(*[await stretch() for _ in range(int(stretches))], strict=True)
        say(lags=lags, calls=calls, **books())

    asyncio.run(main())
    wait_for("reads")
    say(complete=fapilog.flush(20).complete, events=next(numbers))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
