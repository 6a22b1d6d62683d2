"""
Servers for tests, as real processes: start, wait until every worker answers, load with exact counts, stop, count.

::

    with Gunicorn(tmp_path, "-c", "python:fapilog.gunicorn_conf", app="api", kind="uvicorn_worker.UvicornWorker") as server:
        load = server.wait_for_workers()
        load.send(400)
        server.stop()
    check_files(tmp_path, load)
"""

from __future__ import annotations

import http.client
import signal
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

from tests.programs.running import LIMIT_S, Life, Running, environment, lives, wait_until

HERE = Path(__file__).parent
STEPS = 5  # as in apps.py
CONNECTIONS_PER_WORKER = 2
STOP_LIMIT_S = 20.0


class Gunicorn(Running):
    """
    Gunicorn in a directory of its own.

    Args:
        folder: Working directory; the log files are made here.
        arguments: More of the command line.
        app: Name of the application in `apps.py`, or a whole ``module:name``.
        kind: Worker class.
        workers: How many.
        preload: Whether the master imports the application.
        conf: Text of a conf file of the user's, passed by ``-c``.
        settings: More environment.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        app: str = "api",
        kind: str = "sync",
        workers: int = 4,
        preload: bool = False,
        conf: str | None = None,
        **settings: str,
    ) -> None:
        self.workers = workers
        command = ["-m", "gunicorn", "-w", str(workers), "-k", kind, "--keep-alive", "60", "--graceful-timeout", "15"]
        command += ["--chdir", str(HERE), "--worker-tmp-dir", str(folder), *arguments]
        if kind == "gthread":
            command += ["--threads", "4"]
        if preload:
            command.append("--preload")
        if conf is not None:
            (folder / "user_conf.py").write_text(conf)
            command += ["-c", str(folder / "user_conf.py")]
        # Bound here and handed over: no other program can take the port in between.
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port = int(bound.getsockname()[1])
            command += ["-b", f"fd://{bound.fileno()}", app if ":" in app else f"apps:{app}"]
            # The load is flat out, on cores shared with other tests: with the default 1,000 a starved worker thread may rightly
            # refuse some. What overload does has its own tests, and `make demo` runs with the defaults.
            settings.setdefault("FAPILOG_QUEUE_SIZE", "20000")
            super().__init__(command, folder, environment(folder, **settings), [bound.fileno()])

    def wait_for_workers(self) -> Load:
        """Wait until every worker has answered; return the connections, which belong to all of them."""
        load = Load(self.port, self.workers)

        def all_answer() -> bool:
            assert self.process.poll() is None, f"gunicorn ended with exit code {self.process.returncode}"
            return load.connect_more()

        wait_until(all_answer, f"{self.workers} workers answer")
        return load

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the master, wait for its end and check that no process is left; return the exit code."""
        self.signal(number)
        code = self.ended(STOP_LIMIT_S)
        self.nothing_left()
        return code


class Load:
    """
    Keep-alive connections to all workers of a server, and the number of answers from each process.

    Args:
        port: On 127.0.0.1.
        workers: How many processes there are.
    """

    def __init__(self, port: int, workers: int) -> None:
        self.port = port
        self.workers = workers
        self.who: Counter[int] = Counter()
        self.work: Counter[int] = Counter()
        self.requests = 0
        self._held: dict[int, list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def connect_more(self) -> bool:
        """Open a handful of connections and keep those that are needed; return whether every worker has its share."""
        with ThreadPoolExecutor(self.workers * CONNECTIONS_PER_WORKER) as pool:
            made = list(pool.map(self._connect, range(self.workers * CONNECTIONS_PER_WORKER)))
        for pid, connection in filter(None, made):
            held = self._held.setdefault(pid, [])
            if len(held) < CONNECTIONS_PER_WORKER:
                held.append(connection)
            else:
                connection.close()
        assert len(self._held) <= self.workers, f"more processes than workers: {sorted(self._held)}"
        return len(self._held) == self.workers

    def _connect(self, _: int) -> tuple[int, http.client.HTTPConnection] | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)
        try:
            return self._get(connection, "/who", self.who), connection
        except ConnectionRefusedError:  # it does not listen yet
            connection.close()
            return None

    def _get(self, connection: http.client.HTTPConnection, path: str, count: Counter[int]) -> int:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        with self._lock:
            count[int(body)] += 1
        return int(body)

    def send(self, requests: int) -> None:
        """Send ``/work/<n>`` for the next *requests* numbers, each once, spread over all connections; then close these."""
        connections = [connection for held in self._held.values() for connection in held]
        first, self.requests = self.requests, self.requests + requests

        def share(index: int) -> None:
            for n in range(first + index, first + requests, len(connections)):
                self._get(connections[index], f"/work/{n}", self.work)

        with ThreadPoolExecutor(len(connections)) as pool:
            list(pool.map(share, range(len(connections))))

    def close(self) -> None:
        for held in self._held.values():
            for connection in held:
                connection.close()


def check_files(folder: Path, load: Load, *, closed: bool = True) -> list[Life]:
    """
    Check that every event of *load* is in the file of the process that answered, exactly once, and that nothing else is missing.

    Args:
        folder: Of the server.
        load: All that was sent.
        closed: Whether the workers had a chance to say that they end.

    Returns:
        The lives of the workers, by worker number.
    """
    found = [life for life in lives(folder) if life.worker != 0]
    assert [life.worker for life in sorted(found, key=lambda life: life.worker)] == list(range(1, load.workers + 1))
    seen = Counter((line["n"], line["step"]) for life in found for line in life.named("work"))
    assert seen == Counter(product(range(load.requests), range(STEPS)))
    assert {life.pid: len(life.named("who")) for life in found} == dict(load.who)
    assert {life.pid: len(life.named("work")) for life in found if life.named("work")} == {
        pid: STEPS * answers for pid, answers in load.work.items()
    }
    for life in found:
        life.whole(closed=closed)
    return sorted(found, key=lambda life: life.worker)
