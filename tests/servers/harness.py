"""
Servers for tests, as real processes: start, wait until every worker answers, load with exact counts, stop, count.

With kept connections, which belong to all workers in equal shares::

    with Gunicorn(tmp_path, "-c", "python:fapilog.gunicorn_conf", kind="uvicorn_worker.UvicornWorker") as server:
        load = server.wait_for_workers()
        load.send(400)
        server.stop()
    check_files(tmp_path, load)

With a connection for each request, for workers that come and go::

    with Uvicorn(tmp_path, workers=2) as server:
        visits = server.meet_workers()
        visits.send(100)
        server.stop()
    check_visits(tmp_path, visits)
"""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import socket
import sysconfig
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count, groupby, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tests.programs.running import LIMIT_S, Life, Running, environment, lives, living, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

HERE = Path(__file__).parent
STEPS = 5  # as in apps.py
CONNECTIONS_PER_WORKER = 2
CLIENTS = 4
STOP_LIMIT_S = 20.0
VISITS_LIMIT_S = 450.0  # each connection has a limit of its own
WRITTEN_LIMIT_S = 8.0  # 1.5 is promised; the machine may be slow and full
UVICORN_WORKER = "uvicorn_worker.UvicornWorker"
UVICORNS_OWN = "uvicorn.workers.UvicornWorker"
ASGI_KINDS = ("asgi", UVICORN_WORKER, UVICORNS_OWN)
#: What a connection that nobody refused may end in.
BROKEN = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
#: What a visit logs: events and their `step`.
WORK: list[tuple[str, int | None]] = [("work", step) for step in range(STEPS)]
EVENTS: dict[str, list[tuple[str, int | None]]] = {
    "work": WORK,
    "hold": WORK,
    "once": [("once", None)],
    "pool": [("green", None), ("native", None)],
}
GUNICORN = str(Path(sysconfig.get_path("scripts")) / "gunicorn")  # it starts itself anew on SIGUSR2, which `-m` would not survive
OUR_CONF = ("-c", "python:fapilog.gunicorn_conf")

#: Text of a module with applications that know nothing of us.
BARE = """
import os

async def api(scope, receive, send):
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})

def wsgi(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def app_for(kind: str) -> str:
    """Return the name of the application in `apps.py` that workers of *kind* serve."""
    return "api" if kind in ASGI_KINDS else "wsgi"


class Server(Running):
    """
    A server that listens on a port of its own.

    Args:
        command: Its command line, without the socket.
        folder: Working directory; the log files are made here.
        settings: More environment.
        workers: How many of its processes answer.
        listen: Makes the end of the command line from a descriptor, to be inherited, and the port that it is bound to.
        inherits: Whether it inherits the socket; otherwise it binds one of its own.
    """

    def __init__(
        self,
        command: list[str],
        folder: Path,
        settings: dict[str, str],
        workers: int,
        listen: Callable[[int, int], list[str]],
        *,
        inherits: bool = True,
    ) -> None:
        self.workers = workers
        # The load is flat out, on cores shared with other tests: with the default 1,000 a starved worker thread may rightly
        # refuse some. What overload does has its own tests, and `make demo` runs with the defaults.
        settings.setdefault("FAPILOG_QUEUE_SIZE", "20000")
        # Bound here and handed over: no other program can take the port in between.
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port = int(bound.getsockname()[1])
            command += listen(bound.fileno(), self.port)
            super().__init__(command, folder, environment(folder, **settings), [bound.fileno()] if inherits else [])

    def wait_for_workers(self) -> Load:
        """Wait until every worker has answered; return the connections, which belong to all of them."""
        load = Load(self.port, self.workers)

        def all_answer() -> bool:
            self.still_runs()
            return load.connect_more()

        wait_until(all_answer, f"{self.workers} workers answer")
        return load

    def meet_workers(self, first: int = 0) -> Visits:
        """Wait until every worker has answered visits, which are numbered from *first* on; return these."""
        visits = Visits(self, first)
        visits.meet(self.workers)
        return visits

    def still_runs(self) -> None:
        """Check that the process that was started has not ended."""
        assert self.process.poll() is None, f"it ended with exit code {self.process.returncode}"

    def gone(self, pids: Iterable[int], limit: float = LIMIT_S) -> None:
        """Wait until none of the processes runs any more."""
        wanted = set(pids)
        wait_until(lambda: not wanted & set(living(self.pid)), f"{sorted(wanted)} are gone", limit)

    def has(self, workers: int) -> None:
        """Wait until it has so many processes beside the one that was started."""
        wait_until(lambda: len(living(self.pid)) == 1 + workers, f"there are {workers} workers")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the master, wait for its end and check that no process is left; return the exit code."""
        self.signal(number)
        code = self.ended(STOP_LIMIT_S)
        self.nothing_left()
        return code


class Gunicorn(Server):
    """
    Gunicorn in a directory of its own.

    Args:
        folder: Working directory; the log files are made here.
        arguments: More of the command line.
        app: Name of the application in `apps.py`, or a whole ``module:name``; by default the one for the worker class.
        kind: Worker class.
        workers: How many.
        preload: Whether the master imports the application.
        conf: Text of a conf file of the user's, passed by ``-c``.
        binds: Whether it binds its socket itself: it cannot hand over to a new master what it has inherited.
        settings: More environment.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        app: str | None = None,
        kind: str = "sync",
        workers: int = 4,
        preload: bool = False,
        conf: str | None = None,
        binds: bool = False,
        **settings: str,
    ) -> None:
        app = app or app_for(kind)
        command = [GUNICORN, "-w", str(workers), "-k", kind, "--keep-alive", "60", "--graceful-timeout", "15"]
        command += ["--chdir", str(HERE), "--worker-tmp-dir", str(folder), *arguments]
        if kind == "gthread":
            command += ["--threads", "4"]
        if preload:
            command.append("--preload")
        if conf is not None:
            (folder / "user_conf.py").write_text(conf)
            command += ["-c", str(folder / "user_conf.py")]
        command.append(app if ":" in app else f"apps:{app}")

        def listen(fd: int, port: int) -> list[str]:
            return ["-b", f"127.0.0.1:{port}" if binds else f"fd://{fd}"]

        super().__init__(command, folder, settings, workers, listen, inherits=not binds)


class Uvicorn(Server):
    """
    uvicorn without Gunicorn, in a directory of its own.

    Args:
        folder: Working directory; the log files are made here, and with *reload* the Python files in it are watched.
        arguments: More of the command line.
        app: ``module:name`` of the application.
        workers: How many; 1 is the server itself.
        reload: Whether it restarts when a file changes; then a child serves.
        settings: More environment.
    """

    def __init__(
        self, folder: Path, *arguments: str, app: str = "apps:api", workers: int = 1, reload: bool = False, **settings: str
    ) -> None:
        command = ["-m", "uvicorn", "--app-dir", str(HERE), "--timeout-graceful-shutdown", "15", *arguments, app]
        if workers > 1:
            command += ["--workers", str(workers)]
        if reload:
            command += ["--reload", "--reload-dir", str(folder)]
        super().__init__(command, folder, settings, workers, lambda fd, _: ["--fd", str(fd)])


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
            connection.connect()
        except ConnectionError:  # it does not listen, yet or any more: nobody has seen a request
            connection.close()
            return None
        return self._get(connection, "/who", self.who), connection

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


class Visits:
    """
    Numbered requests, each on a connection of its own, and the process that answered each.

    Args:
        server: Whom to visit.
        first: The first number.
    """

    def __init__(self, server: Server, first: int = 0) -> None:
        self.server = server
        self.answers: dict[int, int] = {}
        self.asked: dict[int, str] = {}
        self._numbers = count(first)

    @property
    def pids(self) -> set[int]:
        """The processes that have answered."""
        return set(self.answers.copy().values())

    @property
    def broken(self) -> set[int]:
        """The visits whose connection broke before there was an answer."""
        return self.asked.keys() - self.answers.keys()

    def of(self, pid: int) -> int:
        """Return how many visits the process answered."""
        return list(self.answers.copy().values()).count(pid)

    def meet(self, workers: int, besides: Collection[int] = ()) -> set[int]:
        """Visit until that many processes have answered, not counting *besides*; return them."""

        def met() -> bool:
            self.send(2 * workers, "hold")
            return len(self.pids - set(besides)) >= workers

        wait_until(met, f"{workers} processes answer")
        return self.pids - set(besides)

    def send(
        self,
        requests: int = 0,
        what: str = "work",
        *,
        until: Callable[[], bool] = lambda: False,
        to_the_end: bool = False,
    ) -> None:
        """
        Visit in the manner of *what*, with `CLIENTS` at once.

        Args:
            requests: Until so many more were answered; 0 for no limit.
            what: A key of `EVENTS`.
            until: Until it says so.
            to_the_end: Whether the server may end meanwhile.
        """
        tickets = iter(range(requests or 1 << 30))
        end = time.monotonic() + VISITS_LIMIT_S

        def client(_: int) -> None:
            while not until() and next(tickets, None) is not None:
                while not self._one(what, next(self._numbers)):
                    if until():
                        return
                    if not living(self.server.pid):
                        assert to_the_end, "the server has ended"
                        return
                assert time.monotonic() < end, f"only {len(self.answers)} answers"

        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(client, range(CLIENTS)))

    def _one(self, what: str, number: int) -> bool:
        self.asked[number] = what
        try:
            answer = ask(self.server.port, f"/{what}/{number}")
        except ConnectionRefusedError:  # it does not listen: nobody has seen the request
            del self.asked[number]
            time.sleep(0.01)
            return False
        if answer is None:
            return False
        status, body = answer
        assert status == 200, body
        self.answers[number] = int(body)
        return True

    @contextlib.contextmanager
    def steadily(self, what: str = "work") -> Iterator[None]:
        """Visit all the time in the background, until the server has ended at the most."""
        over = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            going = pool.submit(self.send, what=what, until=over.is_set, to_the_end=True)
            try:
                yield
            finally:
                over.set()
            going.result()


def ask(port: int, path: str) -> tuple[int, bytes] | None:
    """
    Return status and body of an answer, read until the server has closed the connection; None if it broke before.

    It may break as early as while connecting: the kernel resets what waits in the backlog of a listener that closes.

    Raises:
        ConnectionRefusedError: Nobody listens.
    """
    answer = bytearray()
    with contextlib.suppress(*BROKEN), socket.create_connection(("127.0.0.1", port), LIMIT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
        while chunk := connection.recv(65536):
            answer += chunk
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    length = re.search(rb"(?i)^content-length: (\d+)", head, re.MULTILINE)
    return (int(head.split()[1]), body) if length is not None and len(body) == int(length[1]) else None


def check_files(folder: Path, load: Load, *, closed: bool | None = True) -> list[Life]:
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


def check_visits(folder: Path, *visits: Visits, requests: bool = True, killed: Collection[int] = ()) -> dict[int, Life]:
    """
    Check that every event of every visit is there once, from the process that answered, and that no life has a gap or a double.

    A visit whose connection broke may have left its events, each once. The lives in one file must follow one another, so that no
    worker number ever belonged to two processes at once.

    Args:
        folder: Of the servers.
        visits: All that there were; no number twice.
        requests: Whether there is an access event for each visit; otherwise there is none at all.
        killed: The processes that had no chance to say that they end.

    Returns:
        All lives, by pid.
    """
    found = lives(folder)
    assert len({life.pid for life in found}) == len(found), "a process has two lives"
    names = {name for events in EVENTS.values() for name, _ in events}
    seen = Counter(
        (line["n"], line["event"], line.get("step"), life.pid) for life in found for line in life.lines if line["event"] in names
    )
    seen += Counter((*visit, life.pid) for life in found for visit in map(visit_of, life.named("request")) if visit)
    expected: Counter[tuple[int, str, int | None, int]] = Counter()
    for visit in visits:
        for n, pid in visit.answers.items():
            access = [("request", None)] if requests else []
            expected += Counter((n, *event, pid) for event in [*EVENTS[visit.asked[n]], *access])
    assert not expected - seen, "lost"
    broken = {n for visit in visits for n in visit.broken}
    more = Counter(key[:3] for key in seen - expected)
    assert all(n in broken for n, *_ in more), "doubled, or from another process"
    assert not more or max(more.values()) == 1, "doubled"
    for life in found:
        life.whole(closed=life.pid not in killed)
    check_turns(folder)
    return {life.pid: life for life in found}


def wait_for_file(folder: Path, visits: Visits, pid: int, limit: float = WRITTEN_LIMIT_S) -> None:
    """Wait until all that a process logged for its visits, which were ``work`` and ``hold``, is in its file."""
    wanted = STEPS * visits.of(pid)

    def written() -> bool:
        lines = [line for path in folder.glob("*.jsonl") for line in path.read_bytes().splitlines()]
        return sum(b'"event":"work"' in line and b'"pid":%d,' % pid in line for line in lines) == wanted

    wait_until(written, f"{wanted} events of process {pid} are in its file", limit)


def visit_of(line: dict[str, Any]) -> tuple[int, str, None] | None:
    """Return which visit an access event is about, if it is about one."""
    _, what, *number = line["path"].split("/")
    if what not in EVENTS:
        return None
    assert line["status"] == 200
    return int(number[0]), "request", None


def check_turns(folder: Path) -> None:
    """Check that the lives in each file follow one another: a worker number never belonged to two processes at once."""
    for path in folder.glob("*.jsonl"):
        boots = [boot for boot, _ in groupby(orjson.loads(line)["boot"] for line in path.read_bytes().splitlines())]
        assert len(boots) == len(set(boots)), f"{path}: the lines of two processes alternate"
