"""
One of several processes that share a stdout pipe: ``python -m tests.programs.shared_pipe NAME COUNT SIZES [KIND]``.

Logs COUNT events named NAME, of the sizes in turn. KIND ``tree`` shares the work among processes of every origin: forked, spawned
and executed ones. KIND ``ever`` logs until it is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from itertools import count, cycle
from typing import Any

import fapilog

ROOM: dict[str, Any] = {
    "queue_overflow": "block",
    "queue_block_timeout": 30,
    "queue_size": 200,
    "max_event_bytes": "4MiB",
    "drain_timeout": 30,
}


def work(name: str, number: int, sizes: list[int]) -> None:
    """Log the events."""
    fapilog.configure_logging(sinks=["stdout"], format="json", **ROOM)
    log = fapilog.get_logger()
    numbers = count() if number < 0 else range(number)
    for n, size in zip(numbers, cycle(sizes), strict=False):
        log.info("pad", name=name, n=n, x="x" * size)


def tree(name: str, number: int, sizes: list[int]) -> None:
    """Let a forked, a spawned and an executed process and this one log at once."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        spawned = pool.apply_async(work, (f"{name}-spawned", number, sizes))
        command = [sys.executable, "-m", "tests.programs.shared_pipe", f"{name}-executed", str(number), ",".join(map(str, sizes))]
        executed = subprocess.Popen(command)
        work(name, 1, sizes)  # so that the child inherits a sink that has had its turn
        forked = os.fork()
        if not forked:
            work(f"{name}-forked", number, sizes)
            sys.exit()
        work(name, number, sizes)
        spawned.get(60)
        pool.close()
        pool.join()
        assert executed.wait(60) == 0
        assert os.waitpid(forked, 0)[1] == 0


if __name__ == "__main__":
    kind = sys.argv[4] if len(sys.argv) > 4 else "plain"
    arguments = sys.argv[1], -1 if kind == "ever" else int(sys.argv[2]), [int(size) for size in sys.argv[3].split(",")]
    (tree if kind == "tree" else work)(*arguments)
