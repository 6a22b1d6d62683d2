"""
A sink of the user's own that sleeps in each write, and at-fork hooks that log: `python hooks.py CHILDREN`.

The hooks are registered before and after fapilog is imported, whose own ones run between them.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SLEEP_S = 0.2
AT_ONCE = 8


def register(where: str, log: list[Callable[[str], object]]) -> None:
    os.register_at_fork(
        before=lambda: log[0](f"{where} before"),
        after_in_parent=lambda: log[0](f"{where} parent"),
        after_in_child=lambda: log[0](f"{where} child"),
    )


class SleepingSink:
    name = "sleeping"

    async def open(self, identity: Any) -> None:
        path = os.environ["FAPILOG_FILE_PATH"].format(service=identity.service, worker=identity.worker)
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def write(self, events: Sequence[Any]) -> None:
        time.sleep(SLEEP_S)
        os.write(self.fd, b"".join(event.line for event in events))

    async def close(self) -> None:
        os.close(self.fd)


def main() -> None:
    log: list[Callable[[str], object]] = []
    register("early", log)
    import telling  # type: ignore[import-not-found]

    import fapilog

    register("late", log)
    fapilog.configure_logging(sinks=[SleepingSink()])
    log.append(lambda role: telling.tick(role, 1))
    stop = threading.Event()
    counts = [0, 0]

    def busy(index: int) -> None:
        while not stop.is_set():
            telling.tick(f"thread {index}", 1, first=counts[index])
            counts[index] += 1
            time.sleep(0.002)

    threads = [threading.Thread(target=busy, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    living: list[int] = []
    for number in range(int(sys.argv[1])):
        living.append(telling.forked(lambda number=number: telling.tick(f"child {number}", 3)))
        if len(living) == AT_ONCE:
            telling.joined(living.pop(0))
    for pid in living:
        telling.joined(pid)
    stop.set()
    for thread in threads:
        thread.join()
    telling.say("threads", counts=counts)


if __name__ == "__main__":
    main()
