"""Visits to a server whose workers come and go."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.programs.running import LIMIT_S, living, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.servers.harness import Gunicorn


def get(server: Gunicorn, path: str) -> bytes:
    """Return the body of an answer; what is refused (by a server that starts) or broken (by a kill) is tried again."""
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        server.still_runs()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=30) as answer:
                return bytes(answer.read())
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
    raise AssertionError(f"no answer to {path} in {LIMIT_S} s")


def meet(server: Gunicorn, workers: int) -> set[int]:
    """Visit until every worker has answered; return their pids."""
    pids: set[int] = set()

    def met() -> bool:
        with ThreadPoolExecutor(2 * workers) as pool:
            pids.update(int(body) for body in pool.map(lambda _: get(server, "/burst?n=1"), range(2 * workers)))
        return len(pids & set(living(server.pid))) >= workers

    wait_until(met, f"{workers} workers answer")
    return pids


@contextmanager
def under_load(server: Gunicorn, path: str, clients: int) -> Iterator[None]:
    """Visit all the time, with so many *clients*."""
    over = threading.Event()

    def visit() -> None:
        while not over.is_set():
            get(server, path)

    with ThreadPoolExecutor(clients) as pool:
        going = [pool.submit(visit) for _ in range(clients)]
        try:
            yield
        finally:
            over.set()
        for each in going:
            each.result()
