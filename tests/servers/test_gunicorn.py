"""Gunicorn, started as users start it: nothing is lost, nothing doubled, whatever the worker class and the ending."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest

from tests._support import rest_in_matrix
from tests.programs.running import FULL, lives, wait_until
from tests.servers.harness import OUR_CONF, UVICORN_WORKER, Gunicorn, check_files

KINDS = [UVICORN_WORKER, "sync", "gthread"]
PRELOAD = pytest.mark.parametrize("preload", [False, True], ids=["no-preload", "preload"])
FEW, ALL = 400, 2_000

ONLY_POST_FORK = "from fapilog.gunicorn_conf import post_fork\n"

USER_HOOKS = """
import os
from pathlib import Path
from fapilog import get_logger, gunicorn_conf

def mark(hook, worker=None):
    with open(Path(os.environ["FAPILOG_TEST_MARKS"]), "ab", buffering=0) as file:
        file.write(f"{hook} {os.getpid()} {worker.pid if worker else 0}\\n".encode())

def post_fork(server, worker):
    gunicorn_conf.post_fork(server, worker)
    mark("post_fork", worker)
    get_logger("conf").info("worker_started")

def worker_exit(server, worker):
    mark("worker_exit", worker)
    get_logger("conf").info("worker_leaving")
    gunicorn_conf.worker_exit(server, worker)

def on_exit(server):
    mark("on_exit")
    gunicorn_conf.on_exit(server)
"""


def app_for(kind: str) -> str:
    return "api" if kind == UVICORN_WORKER else "wsgi"


@pytest.mark.parametrize(
    ("kind", "preload"),
    rest_in_matrix(
        1,
        [(UVICORN_WORKER, False), ("sync", True), ("gthread", False), (UVICORN_WORKER, True), ("sync", False), ("gthread", True)],
    ),
)
def test_four_workers_end_by_sigterm_under_our_conf(tmp_path, kind, preload):
    """Each event is in its worker's file exactly once, one file for each of the workers 1 to 4, and gunicorn ends with 0."""
    requests = ALL if FULL or (kind == UVICORN_WORKER and not preload) else FEW

    with Gunicorn(tmp_path, *OUR_CONF, app=app_for(kind), kind=kind, preload=preload, FAPILOG_TEST_SETUP="app") as server:
        load = server.wait_for_workers()
        load.send(requests)
        time.sleep(0.1)  # the situation: SIGTERM 0.1 s after the last answer
        code = server.stop()
        load.close()

        assert code == 0
        check_files(tmp_path, load)


@pytest.mark.matrix
@PRELOAD
@pytest.mark.parametrize("kind", KINDS)
def test_four_workers_end_by_sigterm_under_a_conf_with_nothing_but_our_post_fork(tmp_path, kind, preload):
    """The `post_fork` hook alone arms every door, for an application that never set anything up: each event arrives once."""
    requests = ALL if FULL or (kind == "gthread" and preload) else FEW

    with Gunicorn(tmp_path, app=app_for(kind), kind=kind, preload=preload, conf=ONLY_POST_FORK) as server:
        load = server.wait_for_workers()
        load.send(requests)
        time.sleep(0.1)
        code = server.stop()
        load.close()

        assert code == 0
        check_files(tmp_path, load)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", KINDS)
def test_sigterm_right_after_the_last_answer(tmp_path, kind):
    """What is still queued in the workers is delivered before they end."""
    with Gunicorn(tmp_path, app=app_for(kind), kind=kind, conf=ONLY_POST_FORK) as server:
        load = server.wait_for_workers()
        load.send(FEW)
        code = server.stop()
        load.close()

        assert code == 0
        check_files(tmp_path, load)


@pytest.mark.parametrize(
    ("kind", "ours"), rest_in_matrix(2, [(UVICORN_WORKER, True), ("sync", False), (UVICORN_WORKER, False), ("sync", True)])
)
def test_a_setting_with_a_bad_value(tmp_path, kind, ours):
    """Gunicorn ends before any worker is forked, with a nonzero code and one line that names the variable and the value."""
    arguments = OUR_CONF if ours else ()
    conf = None if ours else ONLY_POST_FORK

    with Gunicorn(tmp_path, *arguments, app=app_for(kind), kind=kind, conf=conf, FAPILOG_QUEUE_SIZE="abc") as server:
        code = server.ended()
        server.nothing_left()

        assert code not in (0, None)
        assert "Booting worker" not in server.stderr
        assert "Traceback" not in server.stderr
        (line,) = (line for line in server.stderr.splitlines() if "FAPILOG_QUEUE_SIZE" in line)
        assert "abc" in line
        assert lives(tmp_path) == []


@pytest.mark.matrix
@pytest.mark.parametrize("kind", KINDS)
def test_a_preloaded_application_logs_at_import(tmp_path, kind):
    """The master writes the event itself, once, as worker 0; the workers' files are complete beside it."""
    with Gunicorn(
        tmp_path,
        "-c",
        "python:fapilog.gunicorn_conf",
        app=app_for(kind),
        kind=kind,
        preload=True,
        FAPILOG_TEST_SETUP="app",
        FAPILOG_TEST_LOG_AT_IMPORT="1",
    ) as server:
        load = server.wait_for_workers()
        load.send(FEW)
        code = server.stop()
        load.close()

        assert code == 0
        check_files(tmp_path, load)
        (event,) = (line for life in lives(tmp_path) for line in life.named("imported"))
        assert (event["worker"], event["pid"], event["importer"]) == (0, server.pid, server.pid)
        (master,) = (life for life in lives(tmp_path) if life.worker == 0)
        master.whole()


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["sync", "gthread", UVICORN_WORKER])
def test_a_conf_with_hooks_of_the_users_own_that_call_ours(tmp_path, kind):
    """Every hook runs once per worker (UvicornWorker: no worker_exit after SIGTERM); what hooks log arrives once."""
    marks = tmp_path / "marks"

    with Gunicorn(
        tmp_path, app=app_for(kind), kind=kind, conf=USER_HOOKS, FAPILOG_TEST_MARKS=str(marks), FAPILOG_TEST_SETUP="plain"
    ) as server:
        load = server.wait_for_workers()
        load.send(FEW)
        code = server.stop()
        load.close()

        assert code == 0
        workers = check_files(tmp_path, load)
        pids = sorted(life.pid for life in workers)
        left = pids if kind != UVICORN_WORKER else []
        ran = Counter(tuple(row.split()) for row in marks.read_text().splitlines())
        assert sorted(int(worker) for (hook, _, worker), _ in ran.items() if hook == "post_fork") == pids
        assert sorted(int(worker) for (hook, _, worker), _ in ran.items() if hook == "worker_exit") == left
        assert [int(pid) for (hook, pid, _), _ in ran.items() if hook == "on_exit"] == [server.pid]
        assert set(ran.values()) == {1}
        assert [len(life.named("worker_started")) for life in workers] == [1] * 4
        assert sorted(life.pid for life in workers if life.named("worker_leaving")) == left


@pytest.mark.matrix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["SIGINT", "SIGQUIT"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_master_gets_a_quick_shutdown(tmp_path, kind, number):
    """Nothing is lost, also where the worker hears nothing of it and is killed (UvicornWorker after the graceful timeout)."""
    with Gunicorn(tmp_path, "--graceful-timeout", "3", app=app_for(kind), kind=kind, workers=2, conf=ONLY_POST_FORK) as server:
        load = server.wait_for_workers()
        load.send(FEW // 2)
        code = server.stop(number)
        load.close()

        assert code == 0
        check_files(tmp_path, load, closed=kind != UVICORN_WORKER)


@pytest.mark.parametrize("kind", rest_in_matrix(1, KINDS))
def test_ctrl_c_in_a_terminal(tmp_path, kind):
    """
    The terminal sends SIGINT to the master and to all workers: nothing is lost and gunicorn ends with 0.

    A gthread worker that gets the master's SIGQUIT on top may hang in gunicorn's own handler (it shuts its pool down inside
    itself, which is no re-entrant call), until gunicorn kills it: then `fapilog.closed` is missing, and nothing else.
    """
    with Gunicorn(tmp_path, app=app_for(kind), kind=kind, workers=2, conf=ONLY_POST_FORK) as server:
        load = server.wait_for_workers()
        load.send(FEW // 2)
        os.killpg(server.pid, signal.SIGINT)
        code = server.ended()
        server.nothing_left()
        load.close()

        assert code == 0
        hung = kind == "gthread" and "was sent SIGKILL" in server.stderr
        check_files(tmp_path, load, closed=None if hung else True)


@pytest.mark.matrix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_worker_is_ended_by_a_signal_of_its_own(tmp_path, kind, number):
    """Its events are there, and its replacement takes over its number and its file."""
    with Gunicorn(tmp_path, app=app_for(kind), kind=kind, workers=2, conf=ONLY_POST_FORK) as server:
        before = server.wait_for_workers()
        before.send(FEW // 2)
        ended = min(before.who)
        os.kill(ended, number)
        wait_until(lambda: not os.path.exists(f"/proc/{ended}"), f"worker {ended} is gone")
        after = server.wait_for_workers()
        code = server.stop()
        before.close()
        after.close()

        assert code == 0
        found = {life.pid: life for life in lives(tmp_path)}
        assert set(found) == set(before.who) | set(after.who)
        who = before.who + after.who
        assert {pid: len(life.whole().named("who")) for pid, life in found.items()} == dict(who)
        assert sum(len(life.named("work")) for life in found.values()) == FEW // 2 * 5
        (replacement,) = set(after.who) - set(before.who)
        assert found[replacement].worker == found[ended].worker
        assert {life.worker for life in found.values()} == {1, 2}


@pytest.mark.matrix
@PRELOAD
@pytest.mark.parametrize("kind", KINDS)
def test_the_master_reloads_by_sighup(tmp_path, kind, preload):
    """Both generations of workers have all their events, each life in one file, and no two live workers share a number."""
    with Gunicorn(tmp_path, *OUR_CONF, app=app_for(kind), kind=kind, workers=2, preload=preload) as server:
        before = server.wait_for_workers()
        before.send(FEW // 2)
        before.close()
        server.signal(signal.SIGHUP)
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in before.who), "the old workers are gone")
        after = server.wait_for_workers()
        after.send(FEW // 2)
        code = server.stop()
        after.close()

        assert code == 0
        found = {life.pid: life for life in lives(tmp_path) if life.worker}
        assert set(found) == set(before.who) | set(after.who)
        assert not set(before.who) & set(after.who)
        assert {pid: len(life.whole().named("who")) for pid, life in found.items()} == dict(before.who + after.who)
        assert sum(len(life.named("work")) for life in found.values()) == 2 * (FEW // 2) * 5
        assert {found[pid].worker for pid in before.who} == {1, 2}
        assert len({found[pid].worker for pid in after.who}) == 2
