"""
Requests a second of a FastAPI application under Gunicorn, without any logging and with five events a request.

One UvicornWorker, so that requests a second are what one core does, and no chance decides which worker gets the connections. The
load comes from a process of its own, over connections that are kept alive, so that it costs every contender the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.errors import BenchError
from benchmarks.event import MARK
from benchmarks.rounds import LIMIT, directory, environment, interleaved, progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.rounds import Rounds

WORKERS, CONNECTIONS, EVENTS = 1, 16, 5
WARMUP, TURNS = 400, 4
BARE, ORDERS = "bare", "orders"
ORDER = {
    "user": "u-1842", "currency": "EUR",
    "items": [{"sku": f"AB-{number}", "quantity": number + 1, "price": 9.5 + number} for number in range(10)],
}  # fmt: skip
NOTHING = ""
ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def served(name: str, place: Path) -> Iterator[socket.socket]:
    """Serve the application with a contender; give the socket's address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        env = {**environment(), "BENCH_LOGGER": name, "BENCH_DIRECTORY": str(place), "XDG_RUNTIME_DIR": str(place)}
        command = [
            sys.executable, "-m", "gunicorn", "-b", f"fd://{listener.fileno()}", "-w", str(WORKERS),
            "-k", "uvicorn_worker.UvicornWorker", "--log-level", "error", "benchmarks.web_app:app",
        ]  # fmt: skip
        with subprocess.Popen(command, cwd=ROOT, env=env, pass_fds=[listener.fileno()]) as server:
            try:
                yield listener
            finally:
                server.send_signal(signal.SIGTERM)
                try:
                    server.wait(30)
                except subprocess.TimeoutExpired:  # loguru's queue may keep a worker for ever
                    server.kill()


def request_of(endpoint: str) -> bytes:
    """Return the request, whole."""
    if endpoint == BARE:
        return b"GET /work/7 HTTP/1.1\r\nHost: bench\r\n\r\n"
    body = json.dumps(ORDER).encode()
    head = f"POST /orders HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _connection(port: int, request: bytes, requests: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(requests):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise BenchError(f"an answer that is none: {head!r}")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()


async def _load(port: int, endpoint: str, requests: int) -> float:
    start, each, request = time.monotonic(), requests // CONNECTIONS, request_of(endpoint)
    await asyncio.gather(*(_connection(port, request, each) for _ in range(CONNECTIONS)))
    return each * CONNECTIONS / (time.monotonic() - start)


def loaded(port: int, endpoint: str, requests: int) -> float:
    """Send so many requests from a process of its own; return how many were answered a second."""
    command = [sys.executable, "-m", "benchmarks.web", str(port), endpoint, str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=LIMIT, check=False)
    if done.returncode:
        raise BenchError(f"web, {endpoint}: {done.stderr}")
    return float(done.stdout)


def requests_a_second(name: str, endpoint: str, requests: int, base: Path) -> dict[str, Any]:
    """
    Measure a contender once; *name* is empty for none.

    Raises:
        BenchError: An answer was wrong, or fapilog lost an event.
    """
    with directory(base) as place:
        with served(name, place) as listener:
            port = listener.getsockname()[1]
            loaded(port, endpoint, WARMUP)
            rate = loaded(port, endpoint, requests)
        return {"rate": rate, "lost": _lost(name, place, requests)}


def _lost(name: str, place: Path, requests: int) -> int:
    """Return how many events of so many requests and those before them are not in the files."""
    count = sum(path.read_bytes().count(MARK) for path in place.glob("*/bench*.jsonl*")) if name else 0
    logged = (WARMUP + requests // CONNECTIONS * CONNECTIONS) * EVENTS if name else 0
    if name.startswith("fapilog") and count != logged:
        raise BenchError(f"{name}, web: {logged} events logged, {count} in the files")
    return logged - count


def in_turns(names: Sequence[str], endpoint: str, requests: int, rounds: int, base: Path) -> Rounds:
    """
    Measure each of *names* in each round, all served at once and loaded in turns: a machine slower for seconds is so for all.

    Raises:
        BenchError: An answer was wrong, or fapilog lost an event.
    """
    out: Rounds = {name: [] for name in names}
    for number in range(rounds):
        progress(f"web, {endpoint}, round {number + 1}/{rounds}")
        with contextlib.ExitStack() as places:
            place = {name: places.enter_context(directory(base)) for name in names}
            with contextlib.ExitStack() as servers:
                ports = {name: servers.enter_context(served(name, place[name])).getsockname()[1] for name in names}
                took = _took(ports, endpoint, requests)
            for name in names:
                out[name].append({"rate": requests / took[name], "lost": _lost(name, place[name], requests)})
    return out


def _took(ports: dict[str, int], endpoint: str, requests: int) -> dict[str, float]:
    """Return how many seconds so many requests took at each of *ports*, a few of them at a time: A, B, B, A, ..."""
    for port in ports.values():
        loaded(port, endpoint, WARMUP)
    took = dict.fromkeys(ports, 0.0)
    for turn in range(TURNS):
        for name in list(ports)[:: 1 if turn % 2 == 0 else -1]:
            took[name] += requests / TURNS / loaded(ports[name], endpoint, requests // TURNS)
    return took


def rounds_of(names: Sequence[str], endpoint: str, requests: int, rounds: int, base: Path) -> Rounds:
    """Measure each of *names*, `interleaved()`."""
    return interleaved(names, f"web, {endpoint}", rounds, lambda name: requests_a_second(name, endpoint, requests, base))


if __name__ == "__main__":
    print(asyncio.run(_load(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
