"""The capture of the standard library's logging under real servers: the application's records and each request, once."""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

import pytest

from tests._support import only_matrix
from tests.programs.running import wait_until
from tests.servers.harness import HERE, OUR_CONF, UVICORN_WORKER, Gunicorn, Server
from tests.servers.test_server_logs import LOG_CONFIG, ask_many, count, filed, printed

REQUESTED = 20
PATHS = [f"/items/{number}" for number in range(REQUESTED)]
NO_LOG_CONFIG = """
import sys
import uvicorn
sys.path.insert(0, sys.argv[1])
uvicorn.run("capture_app:api", fd=int(sys.argv[-1]), log_config=None)
"""
PLAIN = ("-m", "uvicorn", "capture_app:api", "--app-dir", str(HERE))
#: How uvicorn is started, how the application sets logging up, what is in our sink of uvicorn's own, and of the requests.
WAYS: dict[str, tuple[tuple[str, ...], str, bool, bool]] = {
    "plain, app": (PLAIN, "app", False, True),
    "plain, without the middleware": (PLAIN, "plain", False, False),
    "loggers that propagate": (PLAIN, "propagate", True, True),
    "no log config, app": (("-c", NO_LOG_CONFIG, str(HERE)), "app", True, True),
    "no log config, without the middleware": (("-c", NO_LOG_CONFIG, str(HERE)), "plain", True, True),
    "our log config": ((*PLAIN, "--log-config", LOG_CONFIG), "", True, True),
    "our log config, app": ((*PLAIN, "--log-config", LOG_CONFIG), "app", True, True),
}


def check(lines: list[dict[str, Any]], *, requests: bool = True) -> None:
    """Check that each record and each request is there once, and that no line of a server's says a request again."""
    assert Counter(line["event"] for line in lines if line["logger"] == "shop.items") == Counter(
        f"item {number}" for number in range(REQUESTED)
    )
    assert Counter(line["path"] for line in lines if line["event"] == "request") == Counter(PATHS if requests else [])
    assert {line["logger"] for line in lines}.isdisjoint({"uvicorn.access", "gunicorn.access"})


@pytest.mark.matrix
@pytest.mark.parametrize("way", WAYS)
def test_uvicorn(tmp_path, way):
    """The application's records and each request are there once; uvicorn's own where it hands them on, and only there."""
    command, set_up, own, requests = WAYS[way]
    settings = {"FAPILOG_SINKS": "file", "FAPILOG_TEST_SETUP": set_up}
    with Server(list(command), tmp_path, settings, 1, lambda fd, _: ["--fd", str(fd)]) as server:
        ask_many(server.port, PATHS)
        server.stop(signal.SIGTERM)

    lines = filed(tmp_path)
    check(lines, requests=requests)
    started = count(lines, "Application startup complete")["Application startup complete"]
    assert started == own
    assert ("Application startup complete" in server.stderr) == (not own)
    assert server.stdout.count('"GET /items/') == (REQUESTED if not own else 0)


@pytest.mark.matrix
@pytest.mark.parametrize("kind", ["sync", "gthread", "asgi", UVICORN_WORKER])
def test_gunicorn_with_our_conf(tmp_path, kind):
    """The application's records, each request and each of gunicorn's own lines are there once."""
    app = "capture_app:api" if kind in {"asgi", UVICORN_WORKER} else "capture_app:wsgi"
    with Gunicorn(tmp_path, *OUR_CONF, app=app, kind=kind, workers=2, FAPILOG_SINKS="stdout", FAPILOG_TEST_SETUP="app") as server:
        wait_until(lambda: server.stdout.count("Booting worker") == 2, "both boot")
        ask_many(server.port, PATHS)
        assert server.stop() == 0

    lines = printed(server)
    check(lines)
    assert count(lines, "Starting gunicorn", "Listening at", "Shutting down: Master") == {
        "Starting gunicorn": 1,
        "Listening at": 1,
        "Shutting down: Master": 1,
    }
    assert server.stderr == ""


@pytest.mark.parametrize("kind", [UVICORN_WORKER, only_matrix("sync")])
def test_gunicorn_with_nothing_but_our_post_fork(tmp_path, kind):
    """The application's records are there once; gunicorn's own lines stay where they are without us."""
    app = "capture_app:api" if kind == UVICORN_WORKER else "capture_app:wsgi"
    conf = "from fapilog.gunicorn_conf import post_fork\naccesslog = '-'\n"
    with Gunicorn(tmp_path, app=app, kind=kind, workers=1, conf=conf, FAPILOG_SINKS="file", FAPILOG_TEST_SETUP="app") as server:
        ask_many(server.port, PATHS)
        assert server.stop() == 0

    lines = filed(tmp_path)
    check(lines, requests=kind == UVICORN_WORKER)
    assert count(lines, "Starting gunicorn", "Booting worker") == {"Starting gunicorn": 0, "Booting worker": 0}
    assert server.stderr.count("Booting worker") == 1
    assert (server.stdout + server.stderr).count("GET /items/") == REQUESTED
