"""Four Gunicorn workers, 2,000 requests, 10,000 events, one SIGTERM: count what arrived in the files.

`make demo`, or `python examples/gunicorn/demo.py [--keep DIRECTORY]` where fapilog, gunicorn and fastapi are installed.
Exits 0 only if every event is in the files exactly once, Gunicorn's exit code is 0 and no process of it is left.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
WORKERS = 4
REQUESTS = 2_000
STEPS = 5
CONNECTIONS_PER_WORKER = 2

START_LIMIT_S = 30.0
REQUEST_LIMIT_S = 10.0
SPREAD_LIMIT_S = 5.0
STOP_LIMIT_S = 20.0


class DemoError(Exception):
    """The demo cannot go on; the text says why."""


class Server:
    """Gunicorn as a child process, in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "gunicorn.log"
        # Bound here and handed over, so no other program can take the port in between. It refuses connections until
        # Gunicorn listens.
        with socket.socket() as bound, self.output.open("wb") as output:
            bound.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            command = ["gunicorn", "-c", "fapilog.gunicorn_conf", "-b", f"fd://{bound.fileno()}", "app:app"]
            print(f"$ cd {os.path.relpath(HERE)} && {shlex.join(command)}")
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=HERE,
                env=environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[bound.fileno()],
                start_new_session=True,
            )

    def require_running(self) -> None:
        """Raise `DemoError` if Gunicorn has ended."""
        if self.process.poll() is not None:
            raise DemoError(f"Gunicorn ended by itself with exit code {self.process.returncode}")

    def stop(self) -> int:
        """Send SIGTERM to the master and return its exit code."""
        self.process.terminate()
        try:
            return self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"Gunicorn was still running {STOP_LIMIT_S:g} s after SIGTERM") from None

    def kill(self) -> None:
        """End what is left of Gunicorn's process group, which holds nothing else. Harmless if nothing is left."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def tail(self, lines: int = 30) -> str:
        """Return the end of what Gunicorn printed."""
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-lines:])


def environment(folder: Path) -> dict[str, str]:
    """Return the server's environment: fapilog's defaults, but for where the files go."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FAPILOG_", "GUNICORN_")) and k != "WEB_CONCURRENCY"}
    return env | {
        "FAPILOG_SERVICE": "demo",
        "FAPILOG_SINKS": "file",
        "FAPILOG_FILE_PATH": str(folder / "{service}.{worker}.jsonl"),
        "FAPILOG_RUN_DIR": str(folder / "run"),
        # Gunicorn puts its control socket there: not into the home of whoever runs this.
        "XDG_RUNTIME_DIR": str(folder),
    }


class Progress:
    """A bar on a terminal, a line every 10 % elsewhere."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self.began = time.monotonic()
        self._shown = -1
        self._lock = threading.Lock()

    def advance(self) -> None:
        """Count one request; callable from any thread."""
        with self._lock:
            self.done += 1
            percent = 100 * self.done // self.total
            if percent == self._shown or ((percent % 10 or not percent) and not sys.stdout.isatty()):
                return
            self._shown = percent
            rate = self.done / max(time.monotonic() - self.began, 1e-6)
            if sys.stdout.isatty():
                bar = ("#" * (percent * 40 // 100)).ljust(40)
                end = "\n" if self.done == self.total else ""
                print(f"\r  [{bar}] {percent:3d} %  {self.done} requests, {rate:,.0f}/s ", end=end, flush=True)
            else:
                print(f"  {percent:3d} %  {self.done} requests, {rate:,.0f}/s", flush=True)


def connect(url: str) -> tuple[int, httpx.Client]:
    """Open one keep-alive connection and return it with the pid of the worker that holds it."""
    client = httpx.Client(base_url=url, timeout=REQUEST_LIMIT_S, trust_env=False, limits=httpx.Limits(max_connections=1))
    try:
        return int(client.get("/").raise_for_status().json()["pid"]), client
    except BaseException:
        client.close()
        raise


def connections(server: Server) -> tuple[list[httpx.Client], set[int]]:
    """Wait until all workers answer, and return open connections, the same number to each, and the workers' pids.

    The kernel decides which worker accepts a connection, and a kept one stays with its worker. So open them a handful
    at a time and keep what a worker still needs.
    """
    held: dict[int, list[httpx.Client]] = {}
    deadline = time.monotonic() + START_LIMIT_S
    spread_until = None
    with ThreadPoolExecutor(WORKERS * CONNECTIONS_PER_WORKER) as pool:
        while True:
            server.require_running()
            surplus: list[httpx.Client] = []
            attempts = [pool.submit(connect, server.url) for _ in range(WORKERS * CONNECTIONS_PER_WORKER)]
            for attempt in attempts:
                try:
                    pid, client = attempt.result()
                except httpx.TransportError:
                    continue
                kept = held.setdefault(pid, [])
                (kept if len(kept) < CONNECTIONS_PER_WORKER else surplus).append(client)
            for client in surplus:
                client.close()
            now = time.monotonic()
            if len(held) >= WORKERS:
                spread_until = spread_until or now + SPREAD_LIMIT_S
                if all(len(kept) == CONNECTIONS_PER_WORKER for kept in held.values()) or now > spread_until:
                    break
            if now > deadline:
                raise DemoError(f"only {len(held)} of {WORKERS} workers answered within {START_LIMIT_S:g} s")
            time.sleep(0.05)
    clients = list(itertools.chain.from_iterable(held.values()))
    # The server may close a connection that was idle for 2 s. A request here reopens it, before anything is counted.
    for client in clients:
        with contextlib.suppress(httpx.TransportError):
            client.get("/")
    return clients, set(held)


def send(clients: list[httpx.Client]) -> None:
    """Send each request 0..`REQUESTS`-1 once, one at a time on each connection, never a second time."""
    progress = Progress(REQUESTS)
    share = len(clients)
    stop = threading.Event()

    def one(index: int, client: httpx.Client) -> None:
        for n in range(index, REQUESTS, share):
            if stop.is_set():
                return
            client.get(f"/work/{n}").raise_for_status()
            progress.advance()

    with ThreadPoolExecutor(share) as pool:
        futures = [pool.submit(one, index, client) for index, client in enumerate(clients)]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
        for future in done:
            try:
                future.result()
            except httpx.HTTPError as error:
                raise DemoError(f"a request failed after {progress.done} answers: {error!r}") from error


@dataclass
class Life:
    """What one process wrote into its file."""

    events: int = 0
    first: int | None = None
    last: int | None = None
    dropped: int = 0

    def add(self, line: dict[str, Any]) -> None:
        """Count one line."""
        seq = int(line["seq"])
        self.first = seq if self.first is None else min(self.first, seq)
        self.last = seq if self.last is None else max(self.last, seq)
        if line["event"] == "fapilog.dropped":
            self.dropped += int(line["count"])


@dataclass
class Books:
    """What all files hold together."""

    lives: dict[tuple[int, int], Life] = field(default_factory=dict)
    seen: Counter[tuple[int, int]] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    sample: str = ""

    @property
    def expected(self) -> set[tuple[int, int]]:
        """Every (n, step) that the requests have logged."""
        return set(itertools.product(range(REQUESTS), range(STEPS)))

    def problems(self) -> Iterator[str]:
        """Say in what the files differ from what was logged."""
        if strange := len(self.seen.keys() - self.expected):
            yield f"{strange} events that no request has logged"
        if self.broken:
            yield f"{len(self.broken)} lines are not what a log line is, the first: {self.broken[0]}"
        if (with_events := {worker for (worker, _), life in self.lives.items() if life.events}) != set(range(1, WORKERS + 1)):
            yield f"events came from workers {sorted(with_events)} instead of 1 to {WORKERS}"

    def summary(self) -> tuple[str, bool]:
        """Return the closing line and whether every event is there exactly once."""
        expected = self.expected
        lost = sum(1 for pair in expected if not self.seen[pair])
        duplicated = sum(count - 1 for count in self.seen.values() if count > 1)
        text = f"{len(expected) - lost} of {len(expected)} events delivered, {lost} lost, {duplicated} duplicated"
        return text, not lost and not duplicated


def read_books(folder: Path) -> Books:
    """Read every file of the service."""
    books = Books()
    for path in sorted(folder.glob("demo.*.jsonl")):
        number = path.name.split(".")[1]
        with path.open("rb") as file:
            for index, raw in enumerate(file, 1):
                try:
                    if not raw.endswith(b"\n"):
                        raise ValueError("cut off")
                    line = json.loads(raw)
                    life = books.lives.setdefault((int(line["worker"]), int(line["pid"])), Life())
                    life.add(line)
                    if str(line["worker"]) != number:
                        raise ValueError(f"a line of worker {line['worker']}")
                    if line["event"] == "work_step":
                        life.events += 1
                        books.seen[line["n"], line["step"]] += 1
                        books.sample = books.sample or raw.decode().rstrip()
                except (ValueError, KeyError, TypeError) as error:
                    books.broken.append(f"{path.name}:{index}: {error!r}")
    return books


def print_table(books: Books) -> None:
    """Print one row per process."""
    print(f"\n{'worker':>6}  {'pid':>8}  {'events':>7}  {'first seq':>9}  {'last seq':>8}  {'dropped':>7}")
    for (worker, pid), life in sorted(books.lives.items()):
        print(f"{worker:>6}  {pid:>8}  {life.events:>7}  {life.first!s:>9}  {life.last!s:>8}  {life.dropped:>7}")
    print()


def alive(pid: int) -> bool:
    """Tell whether *pid* runs. A dead process that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        pass
    if os.path.isdir("/proc/self"):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def left_over(pids: set[int]) -> list[int]:
    """Return which of *pids* still run, after giving the last of them a second to go."""
    deadline = time.monotonic() + 1
    while left := sorted(pid for pid in pids if alive(pid)):
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return left


def run(folder: Path) -> list[str]:
    """Run the whole demonstration and return what was wrong."""
    server = Server(folder)
    try:
        clients, pids = connections(server)
        try:
            print(f"{len(pids)} workers answer; {REQUESTS:,} requests of {STEPS} events over {len(clients)} connections")
            send(clients)
            time.sleep(0.1)
            began = time.monotonic()
            code = server.stop()
        finally:
            for client in clients:
                client.close()
        print(f"SIGTERM 0.1 s after the last answer; Gunicorn ended {time.monotonic() - began:.1f} s later, exit code {code}")
        books = read_books(folder)
        left = left_over(pids | {pid for _, pid in books.lives})
        print_table(books)
        if books.sample:
            print(f"one line: {books.sample}\n")
        problems = list(books.problems())
        if code:
            problems.append(f"Gunicorn's exit code is {code}")
        if left:
            problems.append(f"processes left: {left}")
        text, balanced = books.summary()
        print(text, flush=True)
        if not balanced:
            problems.append("the books do not balance")
    except (DemoError, httpx.HTTPError, OSError) as error:
        problems = [str(error) if isinstance(error, DemoError) else repr(error)]
    finally:
        server.kill()
    if problems:
        print(f"\nthe end of Gunicorn's output:\n{server.tail()}", file=sys.stderr)
    return problems


def main() -> int:
    """Run the demo in a directory of its own and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="leave the log files in this new directory")
    keep = parser.parse_args().keep
    # A SIGTERM to the demo must not leave its server behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if keep:
        keep.mkdir(parents=True)
    folder = keep.resolve() if keep else Path(tempfile.mkdtemp(prefix="fapilog-demo-"))
    problems = ["interrupted"]
    try:
        problems = run(folder)
    finally:
        if not keep and not problems:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(f"the files are in {folder}", file=sys.stderr if problems else sys.stdout)
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
