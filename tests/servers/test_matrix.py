"""
Gunicorn: every worker class, every ending, every set-up, preloaded or not. What a visitor was answered is logged exactly once.

`make matrix` runs every pair of these, `make soak` all cells: see `tests.servers.cells`.
"""

from __future__ import annotations

import signal
from itertools import product

import pytest

from tests.programs.running import living, wait_until
from tests.servers.cells import marked
from tests.servers.harness import (
    ASGI_KINDS,
    BARE,
    OUR_CONF,
    UVICORN_WORKER,
    UVICORNS_OWN,
    Gunicorn,
    Visits,
    app_for,
    check_visits,
)

KINDS = ["sync", "gthread", "gevent", "asgi", UVICORN_WORKER]
SIGNALS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT, "QUIT": signal.SIGQUIT}
ENDINGS = [*SIGNALS, "TERM_under_load", "HUP", "max_requests", "TTOU"]
VISITS = 60
MAX_REQUESTS = 20
GRACE_S = "3"  # twice what an event waits at most, for workers that do not hear SIGQUIT and are killed

REPRESENTATIVE_ENDINGS = {
    ("sync", False, "max_requests"),
    ("sync", True, "INT"),
    ("gthread", True, "TERM_under_load"),
    ("gthread", False, "HUP"),
    ("gevent", False, "QUIT"),
    ("gevent", True, "TERM"),
    ("asgi", False, "INT"),
    ("asgi", True, "max_requests"),
    (UVICORN_WORKER, False, "TTOU"),
    (UVICORN_WORKER, True, "QUIT"),
    (UVICORNS_OWN, False, "TERM"),
}

#: How fapilog comes into the application: the text of a conf file, and what the application does at import.
SET_UPS: dict[str, tuple[str | None, str]] = {
    "post_fork": ("from fapilog.gunicorn_conf import post_fork\n", ""),
    "plain": (None, "plain"),
    "app": (None, "app"),
    "environment": (None, ""),
}
REPRESENTATIVE_SET_UPS = {
    ("sync", True, "plain"),
    ("sync", False, "environment"),
    ("gthread", True, "post_fork"),
    ("gevent", True, "plain"),
    ("asgi", False, "plain"),
    (UVICORN_WORKER, True, "app"),
    (UVICORN_WORKER, False, "environment"),
}


def cells(names, *, representative):
    """Return the cells by class, preload and *names*."""
    found = [
        (kind, preload, name)
        for kind, preload, name in product([*KINDS, UVICORNS_OWN], [False, True], names)
        if kind != UVICORNS_OWN or name in {"TERM", "TERM_under_load", "max_requests", "app"}
    ]
    return marked(found, representative, name_of)


def name_of(cell):
    kind, preload, name = cell
    return f"{kind.removesuffix('.UvicornWorker')}-{'preload' if preload else 'no_preload'}-{name}"


def end(server: Gunicorn, visits: Visits, ending: str) -> int:
    """Let the workers end in that way, with visits before and, where the server goes on, after it; return the exit code."""
    first = visits.pids
    if ending == "max_requests":
        visits.send(until=lambda: len(visits.pids) >= 2 + server.workers)
        return server.stop()
    if ending == "TERM_under_load":
        with visits.steadily():
            wait_until(lambda: len(visits.answers) > VISITS, "the load is on")
            return server.stop()
    visits.send(VISITS)
    if ending in SIGNALS:
        return server.stop(SIGNALS[ending])
    if ending == "HUP":
        server.signal(signal.SIGHUP)
        server.gone(first)
        second = visits.meet(server.workers, first)
    else:
        server.signal(signal.SIGTTOU)
        server.has(1)
        second = first & set(living(server.pid))
    answered = set(visits.answers)
    visits.send(VISITS)
    assert {visits.answers[n] for n in set(visits.answers) - answered} <= second
    return server.stop()


@pytest.mark.matrix
@pytest.mark.parametrize("ending", SIGNALS)
@pytest.mark.parametrize("kind", KINDS)
def test_exit_codes_without_us(tmp_path, kind, ending):
    """They are what the other tests take them for."""
    (tmp_path / "bare.py").write_text(BARE)
    app = f"bare:{app_for(kind)}"

    with Gunicorn(
        tmp_path, "--pythonpath", str(tmp_path), "--graceful-timeout", GRACE_S, app=app, kind=kind, workers=2
    ) as server:
        server.meet_workers()
        code = server.stop(SIGNALS[ending])

        assert code == 0


@pytest.mark.matrix
@pytest.mark.parametrize(("kind", "preload", "ending"), cells(ENDINGS, representative=REPRESENTATIVE_ENDINGS))
def test_workers_end_under_our_conf(tmp_path, kind, preload, ending):
    """Nothing is lost, nothing doubled, each visit has one access event, the exit code is gunicorn's own, no process is left."""
    options = ["--max-requests", str(MAX_REQUESTS)] if ending == "max_requests" else ["--graceful-timeout", GRACE_S]

    with Gunicorn(tmp_path, *OUR_CONF, *options, kind=kind, workers=2, preload=preload) as server:
        visits = server.meet_workers()
        first = visits.pids
        code = end(server, visits, ending)

        assert code == 0
        deaf = kind == UVICORN_WORKER and ending in {"INT", "QUIT"}
        found = check_visits(tmp_path, visits, killed=visits.pids if deaf else ())
        assert found[server.pid].worker == 0
        assert {life.worker for pid, life in found.items() if pid != server.pid} <= set(range(1, 5))
        assert {found[pid].worker for pid in first} == {1, 2}


@pytest.mark.matrix
@pytest.mark.parametrize(("kind", "preload", "set_up"), cells(SET_UPS, representative=REPRESENTATIVE_SET_UPS))
def test_workers_end_by_sigterm_under_another_set_up(tmp_path, kind, preload, set_up):
    """Nothing is lost or doubled, whoever set up and where; access events come with our middleware only."""
    conf, at_import = SET_UPS[set_up]

    with Gunicorn(tmp_path, kind=kind, workers=2, preload=preload, conf=conf, FAPILOG_TEST_SETUP=at_import) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits, requests=at_import == "app" and kind in ASGI_KINDS)
        assert found.keys() == visits.pids
        assert sorted(life.worker for life in found.values()) == [1, 2]


@pytest.mark.parametrize("kind", [UVICORN_WORKER, pytest.param("sync", marks=pytest.mark.matrix)])
def test_an_event_of_the_master_before_the_fork_with_nothing_of_ours_in_the_configuration(tmp_path, kind):
    """O-FORK-3: preloaded and set up at import, the master's event is there once, as worker 0, the workers' events are theirs."""
    with Gunicorn(
        tmp_path, kind=kind, workers=4, preload=True, FAPILOG_TEST_SETUP="plain", FAPILOG_TEST_LOG_AT_IMPORT="1"
    ) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits, requests=False)
        (event,) = (line for life in found.values() for line in life.named("imported"))
        assert (event["worker"], event["pid"], event["importer"]) == (0, server.pid, server.pid)
        assert sorted(life.worker for life in found.values()) == [0, 1, 2, 3, 4]
