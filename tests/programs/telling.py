"""What several programs need: events that are numbered, lines for the test to read, children with a watchdog."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import fapilog

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S = 30.0
CHILD_LIMIT_S = 10.0
log = fapilog.get_logger("test.telling")


def say(at: str, **what: object) -> None:
    # One write: several processes print here.
    os.write(1, json.dumps({"at": at, "pid": os.getpid(), **what}).encode() + b"\n")


def tick(role: str, number: int, first: int = 0) -> None:
    for n in range(first, first + number):
        log.info("tick", role=role, n=n)


def until(condition: Callable[[], object], seconds: float = LIMIT_S) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def forked(child: Callable[[], object]) -> int:
    """Fork a child that calls *child*, flushes and leaves by `os._exit()`; return its pid."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            child()
            code = 0 if fapilog.flush().complete else 2
        finally:
            os._exit(code)
    return pid


def joined(pid: int, seconds: float = CHILD_LIMIT_S) -> None:
    """Wait for a child; let one that hangs show its stacks, and fail."""
    end = time.monotonic() + seconds
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGVTALRM)
            time.sleep(0.5)
            os.kill(pid, signal.SIGKILL)
            message = f"child {pid} hangs"
            raise AssertionError(message)
        time.sleep(0.001)
    assert os.waitstatus_to_exitcode(found[1]) == 0


def books() -> dict[str, object]:
    """Return the statistics of this process as JSON."""
    found = fapilog.statistics()
    (sink,) = found.sinks.values()
    return {
        "worker": found.identity.worker,
        "boot": found.identity.boot,
        "logged": found.logged,
        "accepted": found.accepted,
        "refused": found.refused,
        "offered": sink.accepted,
        "dropped": sink.dropped,
    }


def run(functions: dict[str, object]) -> None:
    """Call the function that the command line names, with the rest of it."""
    function = functions[sys.argv[1]]
    assert callable(function)
    function(*sys.argv[2:])
