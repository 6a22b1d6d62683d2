"""
uvicorn without Gunicorn: one process, several, or one that is reloaded; whoever set up and where.

`make test` runs a few cells, `make matrix` those that complete all pairs, `make soak` the rest.
"""

from __future__ import annotations

import os
import signal
from itertools import count, product
from typing import Any

import pytest

from fapilog.servers.uvicorn import LOG_CONFIG_FILE
from tests.programs.running import living, wait_until
from tests.servers.cells import marked
from tests.servers.harness import BARE, Uvicorn, check_visits, wait_for_file

VISITS = 60
MODES: dict[str, dict[str, Any]] = {"single": {}, "workers": {"workers": 2}, "reload": {"reload": True}}
OURS = ("--log-config", str(LOG_CONFIG_FILE))
#: What the application does, and more of the command line.
SET_UPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "app": ("app", ()),
    "plain": ("plain", ()),
    "lifespan": ("lifespan", ()),
    "environment": ("", ()),
    "log_config": ("", OURS),
}
SIGNALS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT}

REPRESENTATIVE = {("single", "log_config", "INT"), ("workers", "lifespan", "TERM")}
CELLS = marked(product(MODES, SET_UPS, SIGNALS), REPRESENTATIVE)


def own_code(mode: str, ending: str) -> int:
    """Return the exit code of a uvicorn without fapilog."""
    return -signal.SIGTERM if (mode, ending) == ("single", "TERM") else 0


@pytest.mark.matrix
@pytest.mark.parametrize(("mode", "ending"), list(product(MODES, SIGNALS)))
def test_exit_codes_without_us(tmp_path, mode, ending):
    """They are what the other tests take them for."""
    (tmp_path / "bare.py").write_text(BARE)

    with Uvicorn(tmp_path, "--app-dir", str(tmp_path), app="bare:api", **MODES[mode]) as server:
        server.meet_workers()
        code = server.stop(SIGNALS[ending])

        assert code == own_code(mode, ending)


@pytest.mark.parametrize(("mode", "set_up", "ending"), CELLS)
def test_servers_end_by_a_signal(tmp_path, mode, set_up, ending):
    """Nothing is lost, nothing doubled, the exit code is uvicorn's own, no process is left; a supervisor is worker 0."""
    at_import, options = SET_UPS[set_up]

    with Uvicorn(tmp_path, *options, FAPILOG_TEST_SETUP=at_import, **MODES[mode]) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        code = server.stop(SIGNALS[ending])

        assert code == own_code(mode, ending)
        found = check_visits(tmp_path, visits, requests=set_up in {"app", "log_config"})
        assert sorted(found[pid].worker for pid in visits.pids) == list(range(1, server.workers + 1))
        supervisor = {server.pid: 0} if set_up == "log_config" and mode != "single" else {}
        assert {pid: life.worker for pid, life in found.items() if pid not in visits.pids} == supervisor


@pytest.mark.matrix
@pytest.mark.parametrize("options", [OURS, pytest.param((), marks=pytest.mark.matrix)], ids=["log_config", "environment"])
def test_workers_are_replaced_by_sighup(tmp_path, options):
    """Both generations have all their events; while both live, no two share a number."""
    with Uvicorn(tmp_path, *options, workers=2) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        first = visits.pids
        server.signal(signal.SIGHUP)
        server.gone(first)
        second = visits.meet(2, first)
        visits.send(VISITS)
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits, requests=bool(options))
        assert {found[pid].worker for pid in first} == {1, 2}
        assert len({found[pid].worker for pid in second}) == 2


@pytest.mark.parametrize("options", [OURS, pytest.param((), marks=pytest.mark.matrix)], ids=["log_config", "environment"])
def test_a_worker_is_killed(tmp_path, options):
    """Its replacement has its number and its file; what it had logged two seconds before is there."""
    with Uvicorn(tmp_path, *options, workers=2) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        victim, other = sorted(visits.pids)
        wait_for_file(tmp_path, visits, victim)
        os.kill(victim, signal.SIGKILL)
        (replacement,) = visits.meet(1, {victim, other})
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits, requests=bool(options), killed=[victim])
        assert found[replacement].path == found[victim].path


@pytest.mark.parametrize("mode", ["single", pytest.param("workers", marks=pytest.mark.matrix)])
@pytest.mark.parametrize("options", [OURS, pytest.param((), marks=pytest.mark.matrix)], ids=["log_config", "environment"])
def test_a_server_ends_after_so_many_requests(tmp_path, mode, options):
    """Nothing is lost; a single server ends with 0, a worker is replaced and its number used again."""
    with Uvicorn(tmp_path, "--limit-max-requests", "20", *options, **MODES[mode]) as server:
        visits = server.meet_workers()
        if mode == "single":
            visits.send(to_the_end=True)
            code = server.ended()
            server.nothing_left()
        else:
            visits.send(until=lambda: len(visits.pids) >= 5)
            code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits, requests=bool(options))
        assert {found[pid].worker for pid in visits.pids} == set(range(1, server.workers + 1))


def test_a_file_changes_under_reload(tmp_path):
    """The process before and the one after the reload have all their events, in one file after the other."""
    watched = tmp_path / "watched.py"
    watched.write_text("")
    times = count(watched.stat().st_mtime + 1)

    with Uvicorn(tmp_path, *OURS, reload=True) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        (first,) = visits.pids

        def reloaded() -> bool:
            os.utime(watched, (later := next(times), later))
            return first not in living(server.pid)

        wait_until(reloaded, "the first process is gone")
        (second,) = visits.meet(1, {first})
        visits.send(VISITS)
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits)
        assert [found[pid].worker for pid in (server.pid, first, second)] == [0, 1, 1]
