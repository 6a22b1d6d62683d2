"""
hypercorn: in its own process, one worker, several; whoever set up and where.

`make test` runs one cell of each row and column, `make matrix` all of them.
"""

from __future__ import annotations

import json
import os
import signal
from itertools import product

import pytest

from fapilog.servers import hypercorn
from tests.servers.cells import marked
from tests.servers.harness import BARE, check_visits
from tests.servers.others import Hypercorn, check_slow_sink

VISITS = 60
OURS = ("--log-config", f"json:{hypercorn.LOG_CONFIG_FILE}")
#: Where set-up happens, more of the command line, and whether there is an access event for each request.
SET_UPS: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "app": ("app", (), True),
    "plain": ("plain", (), False),
    "lifespan": ("lifespan", (), False),
    "environment": ("", (), False),
    "log_config": ("", OURS, True),
    "log_config and app": ("app", OURS, True),
}
SIGNALS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT}
WORKERS = (0, 1, 4)
REPRESENTATIVE = {(1, "log_config", "TERM"), (0, "app", "TERM")}
CELLS = marked(product(WORKERS, SET_UPS, SIGNALS), REPRESENTATIVE)


def test_the_file_and_the_dict() -> None:
    """They say the same."""
    assert json.loads(hypercorn.LOG_CONFIG_FILE.read_text()) == hypercorn.log_config()


@pytest.mark.matrix
@pytest.mark.parametrize(("workers", "ending"), list(product(WORKERS, SIGNALS)))
def test_exit_codes_without_us(tmp_path, workers, ending):
    """They are what the other tests take them for."""
    (tmp_path / "bare.py").write_text(BARE)

    with Hypercorn(tmp_path, app=f"{tmp_path}/bare:api", workers=workers) as server:
        server.meet_workers()

        assert server.stop(SIGNALS[ending]) == 0


@pytest.mark.parametrize(("workers", "set_up", "ending"), CELLS)
def test_servers_end_by_a_signal(tmp_path, workers, set_up, ending):
    """Every event once, although the parent terminates all workers when the first has ended; the exit code is hypercorn's own."""
    at_import, options, requests = SET_UPS[set_up]

    with Hypercorn(tmp_path, *options, workers=workers, FAPILOG_TEST_SETUP=at_import) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        code = server.stop(SIGNALS[ending])

        assert code == 0
        found = check_visits(tmp_path, visits, requests=requests)
        assert sorted(found[pid].worker for pid in visits.pids) == list(range(1, server.workers + 1))
        assert set(found) == visits.pids
        assert (server.pid in found) == (workers == 0)
        own = [line["event"] for life in found.values() for line in life.lines if line["logger"] == "hypercorn.error"]
        assert len(own) == (server.workers if at_import or options else len(own))
        assert all(event.startswith("Running on") for event in own)


@pytest.mark.matrix
def test_a_slow_sink(tmp_path):
    """The first worker to be done ends the others' patience, and yet each delivers all that its slow sink has to take."""
    with Hypercorn(
        tmp_path, app="slow_app:api", workers=4, FAPILOG_TEST_SLOW=str(tmp_path), FAPILOG_DRAIN_TIMEOUT="30"
    ) as server:
        check_slow_sink(server, VISITS)


@pytest.mark.matrix
@pytest.mark.parametrize("set_up", ["app", "log_config"])
def test_workers_are_replaced_by_sighup(tmp_path, set_up):
    """Both generations have all their events; the second takes the numbers of the first, which has ended."""
    at_import, options, _ = SET_UPS[set_up]
    with Hypercorn(tmp_path, *options, FAPILOG_TEST_SETUP=at_import) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        first = visits.pids
        server.signal(signal.SIGHUP)
        server.gone(first)
        second = visits.meet(2, first)
        visits.send(VISITS)
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits)
        assert {found[pid].worker for pid in first} == {found[pid].worker for pid in second} == {1, 2}


@pytest.mark.matrix
def test_workers_end_after_so_many_requests(tmp_path):
    """Every event once; replacements use the numbers again."""
    # hypercorn breaks off requests that come while a worker ends; what status they have is not the subject here.
    with Hypercorn(tmp_path, *OURS, "--max-requests", "20", FAPILOG_ACCESS_LOG="false") as server:
        visits = server.meet_workers()
        visits.send(until=lambda: len(visits.pids) >= 5)
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits, requests=False)
        assert {found[pid].worker for pid in visits.pids} == {1, 2}


@pytest.mark.matrix
@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_is_killed(tmp_path, workers):
    """hypercorn ends with it; the next start delivers what it had logged, and each event is there once."""
    with Hypercorn(tmp_path, *OURS, workers=workers) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        victim = min(visits.pids)
        os.kill(victim, signal.SIGKILL)
        server.ended()
        server.nothing_left()
    with Hypercorn(tmp_path, *OURS, workers=workers) as server:
        more = server.meet_workers(first=10_000)
        code = server.stop()

        assert code == 0
        check_visits(tmp_path, visits, more, killed=[victim])
