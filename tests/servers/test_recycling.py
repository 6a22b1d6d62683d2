"""Workers are recycled, killed, aborted, reloaded: their numbers go on to their successors, and their events are all there."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import threading
import time
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests._support import only_matrix
from tests.programs.running import LIMIT_S, living, wait_until
from tests.servers.harness import ASGI_KINDS, OUR_CONF, UVICORN_WORKER, Gunicorn, ask, check_visits, wait_for_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.programs.running import Life

VISITS = 60
POST_FORK = "from fapilog.gunicorn_conf import post_fork\n"
PRELOAD = pytest.mark.parametrize("preload", [False, True], ids=["no_preload", "preload"])
PROC = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="looks into /proc")
#: What a worker says when it has served enough.
LEAVING = ("Autorestarting worker", "Maximum request limit")


def only_soak(*values: object):
    return pytest.param(*values, marks=pytest.mark.soak)


def in_master(server: Gunicorn, what: str) -> int:
    """Return how many entries ``task`` or ``fd`` of the master has."""
    return len(os.listdir(f"/proc/{server.pid}/{what}"))


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextlib.contextmanager
def watching(server: Gunicorn) -> Iterator[dict[int, float]]:
    """Note, all the time in the background, when each process of the server was last seen alive."""
    seen: dict[int, float] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            now = time.time()
            seen.update(dict.fromkeys(living(server.pid), now))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def times_of(life: Life) -> tuple[float, float]:
    """Return when a worker said that it has served enough, and when its hub was closed."""
    said = [line["timestamp"] for line in life.lines if line["event"].startswith(LEAVING)]
    closed = [line["timestamp"] for line in life.named("fapilog.closed")]
    begin, end = (datetime.fromisoformat(each[0]).timestamp() for each in (said, closed))
    return begin, end


@pytest.mark.matrix
@PROC
@pytest.mark.parametrize(("kind", "recycles"), [("sync", 40), only_soak("sync", 300), (UVICORN_WORKER, 60)])
def test_many_recycles_under_load(tmp_path, kind, recycles):
    """No event is lost, three workers never need more than four numbers, and the master grows neither threads nor descriptors."""
    with Gunicorn(tmp_path, *OUR_CONF, "--max-requests", "10", kind=kind, workers=3, preload=True) as server:
        visits = server.meet_workers()
        # The most of the first recycles: while a worker is being replaced, the master has less than it goes on with.
        held: list[tuple[int, int]] = []

        def thirteen() -> bool:
            held.append((in_master(server, "task"), in_master(server, "fd")))
            return len(visits.pids) >= 13

        visits.send(until=thirteen)
        threads, descriptors = (max(each) for each in zip(*held, strict=True))
        visits.send(until=lambda: len(visits.pids) >= 3 + recycles)
        wait_until(lambda: in_master(server, "fd") <= descriptors, "the master has no more descriptors than before")
        wait_until(lambda: in_master(server, "task") <= threads, "the master has no more threads than before")
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits)
        assert {life.worker for life in found.values()} <= {0, 1, 2, 3, 4}
        assert kind in ASGI_KINDS or not visits.broken


@PROC
@pytest.mark.parametrize(
    ("kind", "requests", "preload"),
    [
        ("sync", 400, False),
        only_matrix("sync", 400, True),
        *(only_matrix(UVICORN_WORKER, 400, preload) for preload in (False, True)),
        *(only_soak(kind, 2000, preload) for kind in ("sync", UVICORN_WORKER) for preload in (False, True)),
    ],
)
def test_workers_that_serve_20_requests_each(tmp_path, kind, requests, preload):
    """O-EXIT-3: one record for each request, each worker is gone in less than two seconds, and none has to be aborted."""
    with Gunicorn(tmp_path, *OUR_CONF, "--max-requests", "20", kind=kind, preload=preload) as server, watching(server) as seen:
        visits = server.meet_workers()
        met = len(visits.answers)
        visits.send(requests, "once")
        leavers = visits.pids - set(living(server.pid))
        slowness = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        code = server.stop()

    assert code == 0
    found = check_visits(tmp_path, visits)
    assert len(visits.answers) == met + requests
    times = {pid: times_of(found[pid]) for pid in leavers}
    assert len(leavers) >= (requests // 20 - 4 if kind == "sync" else 4)
    assert max(closed - said for said, closed in times.values()) < 2 * slowness
    # The rest is the interpreter's, and ten of them may be at it at once.
    assert median(seen[pid] - said for pid, (said, _) in times.items()) < 2 * slowness
    assert not any("WORKER TIMEOUT" in line["event"] for line in found[server.pid].lines)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["sync", UVICORN_WORKER, "asgi"])
def test_a_request_blocks_its_worker_until_the_timeout(tmp_path, kind):
    """O-EXIT-2: what it logged before is there, its worker drains before it is killed, the replacement has its number."""
    with Gunicorn(tmp_path, *OUR_CONF, "--timeout", "2", kind=kind, workers=2) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        first = visits.pids
        answer = ask(server.port, "/hang")
        wait_until(lambda: len(first & set(living(server.pid))) == 1, "the worker that hung is gone")
        (replacement,) = visits.meet(1, first)
        visits.send(VISITS)
        code = server.stop()

        assert code == 0
        assert answer is None or answer[0] == 500
        found = check_visits(tmp_path, visits)
        (hung,) = (life for life in found.values() if life.named("about to hang"))
        assert hung.pid in first
        assert found[replacement].path == hung.path


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["sync", UVICORN_WORKER, *map(only_matrix, ["gthread", "gevent", "asgi"])])
def test_the_number_of_workers_changes_under_load(tmp_path, kind):
    """Through two reloads, three workers more and three less, no two live processes share a number; freed ones are used again."""
    with Gunicorn(tmp_path, *OUR_CONF, kind=kind, workers=2, preload=True) as server:
        visits = server.meet_workers()
        with visits.steadily("hold"):
            for _ in range(2):
                old = set(living(server.pid)) - {server.pid}
                server.signal(signal.SIGHUP)
                server.gone(old)
            for workers in (3, 4, 5):
                server.signal(signal.SIGTTIN)
                server.has(workers)
            most = set(living(server.pid)) - {server.pid}
            wait_until(lambda: most <= visits.pids, "all five have answered")
            for workers in (4, 3, 2):
                server.signal(signal.SIGTTOU)
                server.has(workers)
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits)
        assert len({found[pid].worker for pid in most}) == 5
        assert max(life.worker for life in found.values()) <= 6


@PROC
@pytest.mark.parametrize("kind", ["sync", only_matrix(UVICORN_WORKER)])
def test_a_new_master_beside_the_old_one(tmp_path, kind):
    """SIGUSR2, then SIGTERM to the old master: both generations have all their events, under numbers of their own."""
    with Gunicorn(tmp_path, *OUR_CONF, kind=kind, workers=2, binds=True) as server:
        visits = server.meet_workers()
        with visits.steadily("hold"):
            first = visits.pids
            server.signal(signal.SIGUSR2)
            wait_until(lambda: len(visits.pids) == 4, "both generations answer")
            second = visits.pids - first
            (master,) = {parent_of(pid) for pid in second}
            server.signal(signal.SIGTERM)
            old_code = server.ended()
            server.gone(first)
            answered = visits.of(min(second))
            wait_until(lambda: visits.of(min(second)) > answered, "the second generation goes on answering")
        os.kill(master, signal.SIGTERM)
        server.nothing_left(LIMIT_S)

        assert old_code == 0
        found = check_visits(tmp_path, visits)
        assert {found[pid].worker for pid in first} == {1, 2}
        assert sorted(found[pid].worker for pid in [*second, master]) == [3, 4, 5]
        assert found[server.pid].worker == 0


def test_two_masters_of_one_service(tmp_path):
    """With one run directory, all their processes have numbers of their own, and what one frees the other uses."""
    with contextlib.ExitStack() as stack:
        one, other = (
            stack.enter_context(
                Gunicorn(tmp_path, *OUR_CONF, kind="sync", workers=2, preload=True, XDG_RUNTIME_DIR=str(tmp_path / name))
            )
            for name in ("one", "other")
        )
        here, there = one.meet_workers(), other.meet_workers(first=1_000_000)
        first = {one.pid, other.pid, *here.pids, *there.pids}
        with here.steadily("hold"), there.steadily("hold"):
            for server, visits in ((one, here), (other, there)):
                old = visits.pids
                server.signal(signal.SIGHUP)
                server.gone(old)
                visits.meet(2, old)
        codes = [one.stop(), other.stop()]

        assert codes == [0, 0]
        found = check_visits(tmp_path, here, there)
        assert sorted(found[pid].worker for pid in first) == list(range(6))
        assert max(life.worker for life in found.values()) <= 7


@pytest.mark.parametrize("logs", [only_matrix(False), True], ids=["silent", "logging"])
def test_a_worker_is_killed_while_a_child_of_its_lives_on(tmp_path, logs):
    """The child holds nothing of its parent's: the replacement has the number and the file at once."""
    with Gunicorn(tmp_path, *OUR_CONF, kind="sync", workers=2) as server:
        visits = server.meet_workers()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
        connection.request("GET", "/fork/log" if logs else "/fork")
        victim, child = map(int, connection.getresponse().read().split())
        connection.close()
        try:
            (other,) = visits.pids - {victim}
            wait_for_file(tmp_path, visits, victim)
            if logs:
                wait_until((tmp_path / "app.3.jsonl").exists, "the child has logged")
            os.kill(victim, signal.SIGKILL)
            (replacement,) = visits.meet(1, {victim, other})
            visits.send(VISITS)
            assert child in living(server.pid)
        finally:
            os.kill(child, signal.SIGTERM)
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits, killed=[victim])
        assert found[replacement].path == found[victim].path
        assert (
            [found[child].worker, *(line["event"] for line in found[child].lines)]
            == [
                *[3, "child", "fapilog.closed"],
            ]
            if logs
            else child not in found
        )


@pytest.mark.matrix
@PRELOAD
@pytest.mark.parametrize(("conf", "at_import"), [(None, "plain"), (POST_FORK, "")], ids=["at_import", "post_fork"])
def test_greenlets_and_native_threads_of_gevent_log(tmp_path, conf, at_import, preload):
    """O-GUN-4: 500 requests log from the greenlet and from gevent's pool of native threads: nothing hangs, nothing is lost."""
    with Gunicorn(tmp_path, kind="gevent", workers=2, preload=preload, conf=conf, FAPILOG_TEST_SETUP=at_import) as server:
        visits = server.meet_workers()
        visits.send(500, "pool")
        code = server.stop()

        assert code == 0
        check_visits(tmp_path, visits, requests=False)
