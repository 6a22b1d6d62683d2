"""
granian: ASGI, WSGI and RSGI, one worker and several; whoever set up and where.

`make test` runs one cell of each row and column, `make matrix` all of them.
"""

from __future__ import annotations

import json
import os
import signal
from itertools import product
from typing import TYPE_CHECKING

import pytest

from fapilog.servers import granian
from tests._support import ran_well, run_script
from tests.programs.running import lives
from tests.servers.cells import marked
from tests.servers.harness import check_visits
from tests.servers.others import Granian, check_slow_sink

if TYPE_CHECKING:
    from pathlib import Path

VISITS = 60
OURS = ("--log-config", str(granian.LOG_CONFIG_FILE))
#: Where set-up happens, more of the command line, and whether there is an access event for each request (ASGI, WSGI).
SET_UPS: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "app": ("app", (), True),
    "plain": ("plain", (), False),
    "environment": ("", (), False),
    "log_config": ("", OURS, True),
    "log_config and app": ("app", OURS, True),
}
SIGNALS = {"TERM": signal.SIGTERM, "INT": signal.SIGINT}
WORKERS = (1, 4)
INTERFACES = ("asgi", "asginl", "wsgi")
REPRESENTATIVE = {("asgi", 1, "log_config", "TERM"), ("wsgi", 1, "environment", "TERM")}
CELLS = marked(
    [cell for cell in product(INTERFACES, WORKERS, SET_UPS, SIGNALS) if cell[0] == "asgi" or cell[3] == "TERM"],
    REPRESENTATIVE,
)
APPS = {"asgi": "apps:api", "asginl": "apps:api", "wsgi": "apps:wsgi"}


def test_the_file_and_the_dict() -> None:
    """They say the same."""
    assert json.loads(granian.LOG_CONFIG_FILE.read_text()) == granian.log_config()


@pytest.mark.parametrize(("interface", "workers", "set_up", "ending"), CELLS)
def test_servers_end_by_a_signal(tmp_path, interface, workers, set_up, ending):
    """Every event once, the exit code is granian's own, no process is left; the main process is worker 0, or not ours at all."""
    at_import, options, requests = SET_UPS[set_up]
    if interface == "wsgi" and not options:
        requests = False  # `apps:wsgi` has no middleware

    with Granian(
        tmp_path, *options, app=APPS[interface], interface=interface, workers=workers, FAPILOG_TEST_SETUP=at_import
    ) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        code = server.stop(SIGNALS[ending])

        assert code == 0
        found = check_visits(tmp_path, visits, requests=requests)
        assert sorted(found[pid].worker for pid in visits.pids) == list(range(1, workers + 1))
        others = {pid: life.worker for pid, life in found.items() if pid not in visits.pids}
        assert others == ({server.pid: 0} if options else {})


@pytest.mark.matrix
def test_a_slow_sink(tmp_path):
    """Each worker delivers all that its slow sink has to take."""
    settings = {"FAPILOG_TEST_SLOW": str(tmp_path), "FAPILOG_DRAIN_TIMEOUT": "30"}
    with Granian(tmp_path, app="slow_app:api", workers=4, **settings) as server:
        check_slow_sink(server, VISITS)


@pytest.mark.matrix
@pytest.mark.parametrize("set_up", ["app", "log_config"])
def test_workers_are_replaced_by_sighup(tmp_path, set_up):
    """Both generations have all their events; while both live, no two share a number."""
    at_import, options, _ = SET_UPS[set_up]
    with Granian(tmp_path, *options, "--respawn-interval", "0.2", FAPILOG_TEST_SETUP=at_import) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        first = visits.pids
        with visits.steadily():
            server.signal(signal.SIGHUP)
            server.gone(first)
        second = visits.meet(2, first)
        visits.send(VISITS)
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits)
        assert {found[pid].worker for pid in first} == {1, 2}
        assert len({found[pid].worker for pid in second}) == 2


@pytest.mark.matrix
@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
@pytest.mark.parametrize("set_up", ["environment", "log_config"])
def test_a_worker_is_killed(tmp_path, interface, set_up):
    """Its replacement has its number and its file; all that it had logged is there once."""
    _, options, requests = SET_UPS[set_up]
    with Granian(tmp_path, *options, "--respawn-failed-workers", app=APPS[interface], interface=interface) as server:
        visits = server.meet_workers()
        visits.send(VISITS)
        victim, other = sorted(visits.pids)
        os.kill(victim, signal.SIGKILL)
        (replacement,) = visits.meet(1, {victim, other})
        code = server.stop()

        assert code == 0
        found = check_visits(tmp_path, visits, requests=requests, killed=[victim])
        assert found[replacement].path == found[victim].path


@pytest.mark.matrix
def test_the_threads_of_the_main_process(tmp_path):
    """With our log config it has no more than without us, although it has logged."""

    def threads(folder: Path, *options: str) -> int:
        folder.mkdir()
        with Granian(folder, *options) as server:
            server.meet_workers().send(VISITS)
            found = len(os.listdir(f"/proc/{server.pid}/task"))
            server.signal(signal.SIGTERM)
            assert server.ended() == 0
        return found

    assert threads(tmp_path / "with", *OURS) == threads(tmp_path / "without")
    assert [life.whole().worker for life in lives(tmp_path / "with")] == [0, 1, 2]


def test_a_server_in_a_program_of_its_own(tmp_path):
    """`granian.server.embed` has no children: it is a worker, whose network sinks get what it logs."""
    code = """
    import asyncio, socket
    import fapilog, fapilog.servers.granian
    from granian.server.embed import Server
    class Taking:
        name = "taking"
        events = []
        async def open(self, identity): pass
        async def write(self, events): self.events += [(each["event"], each["worker"]) for each in events]
        async def close(self): pass
    fapilog.configure_logging(sinks=["file", Taking()], file_path="app.jsonl", run_dir="run")
    async def app(scope, receive, send): pass
    async def main():
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
        server = Server(app, port=port, interface="asgi", log_dictconfig=fapilog.servers.granian.log_config())
        serving = asyncio.create_task(server.serve())
        while not any(event.startswith("Started worker-1") for event, _ in Taking.events):
            await asyncio.sleep(0.01)
        server.stop()
        await serving
    asyncio.run(main())
    assert fapilog.flush(20).complete
    assert {worker for _, worker in Taking.events} == {1}, Taking.events
    """
    ran_well(run_script(code, tmp_path))
