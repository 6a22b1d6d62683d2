"""The lines of hypercorn and granian: where each goes, how often, and what an access event tells that they have made."""

from __future__ import annotations

import json
import signal
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fapilog.servers import granian, hypercorn
from tests._support import ACCESS_FIELDS
from tests.programs.running import wait_until
from tests.servers.others import Granian, Hypercorn
from tests.servers.test_capture import PATHS, REQUESTED, check
from tests.servers.test_server_logs import HUB, ask, ask_many, connected, filed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.harness import Server

#: What each server's access line tells. hypercorn's has a `request_id` too, if the request has brought one.
TOLD = {
    "hypercorn": set(ACCESS_FIELDS) - {"request_id"},
    "granian": {"method", "path", "query", "status", "duration_ms", "client"},
}
UP = {"hypercorn": "Running on", "granian": "Started worker-1"}
CONFIG = {"hypercorn": f"json:{hypercorn.LOG_CONFIG_FILE}", "granian": str(granian.LOG_CONFIG_FILE)}
LOGGERS = {"hypercorn": ["hypercorn.error", "hypercorn.access"], "granian": ["_granian", "granian.access"]}
ACCESS_LINES = {"hypercorn": ("--access-logfile", "-"), "granian": ("--access-log",)}


def written(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("*.jsonl"))


@dataclass
class Way:
    """
    A row of the table in docs/processes.md.

    Args:
        server: Its name.
        set_up: As `capture_app` has it.
        app: Of `capture_app`.
        config: ``ours``, ``propagate`` or empty.
        asks: Whether the server is asked for access lines.
        own: Whether the server's own lines are in our sink.
        text: Whether they are on its stdout or stderr, too.
        requests: ``all``: our middleware's access event; ``told``: what the server tells; empty: none.
        access_text: Whether the server's own access lines are on stdout.
        settings: More environment.
    """

    server: str
    set_up: str
    app: str = "api"
    config: str = ""
    asks: bool = False
    own: bool = True
    text: bool = False
    requests: str = ""
    access_text: bool = False
    settings: tuple[tuple[str, str], ...] = ()


WITHOUT = (("FAPILOG_ACCESS_LOG", "false"),)
RULE = (("FAPILOG_LEVEL", "INFO,granian.access=WARNING,hypercorn.access=WARNING"),)
WAYS = {
    "hypercorn, app": Way("hypercorn", "app", text=True, requests="all"),
    "hypercorn, app, access lines": Way("hypercorn", "app", asks=True, text=True, requests="all", access_text=True),
    "hypercorn, plain": Way("hypercorn", "plain", text=True),
    "hypercorn, plain, access lines": Way("hypercorn", "plain", asks=True, text=True, access_text=True),
    "hypercorn, ours": Way("hypercorn", "", config="ours", requests="told"),
    "hypercorn, ours, asked": Way("hypercorn", "", config="ours", asks=True, requests="told"),
    "hypercorn, ours, app": Way("hypercorn", "app", config="ours", requests="all"),
    "hypercorn, ours, WSGI": Way("hypercorn", "", app="wsgi", config="ours", requests="told"),
    "hypercorn, ours, without": Way("hypercorn", "", config="ours", settings=WITHOUT),
    "hypercorn, ours, a rule": Way("hypercorn", "plain", config="ours", settings=RULE),
    "hypercorn, propagate, app": Way("hypercorn", "app", config="propagate", asks=True, requests="all"),
    "hypercorn, propagate, plain": Way("hypercorn", "plain", config="propagate", asks=True, requests="told"),
    "granian, app": Way("granian", "app", own=False, text=True, requests="all"),
    "granian, app, access lines": Way("granian", "app", asks=True, own=False, text=True, requests="all", access_text=True),
    "granian, plain": Way("granian", "plain", own=False, text=True),
    "granian, ours": Way("granian", "", config="ours", requests="told"),
    "granian, ours, asked": Way("granian", "", config="ours", asks=True, requests="told"),
    "granian, ours, app": Way("granian", "app", config="ours", requests="all"),
    "granian, ours, WSGI": Way("granian", "", app="wsgi", config="ours", requests="told"),
    "granian, ours, RSGI": Way("granian", "", app="rsgi", config="ours", requests="told"),
    "granian, ours, without": Way("granian", "", config="ours", settings=WITHOUT),
    "granian, ours, a rule": Way("granian", "plain", config="ours", settings=RULE),
    "granian, propagate, app": Way("granian", "app", config="propagate", asks=True, requests="all"),
    "granian, propagate, plain": Way("granian", "plain", config="propagate", asks=True, requests="told"),
}


def started(folder: Path, way: Way) -> Server:
    arguments = list(ACCESS_LINES[way.server]) if way.asks else []
    if way.config == "ours":
        arguments += ["--log-config", CONFIG[way.server]]
    elif way.config:
        loggers = {name: {"level": "INFO", "handlers": [], "propagate": True} for name in LOGGERS[way.server]}
        path = folder / "log_config.json"
        path.write_text(
            json.dumps({"version": 1, "disable_existing_loggers": False, "formatters": {}, "handlers": {}, "loggers": loggers})
        )
        arguments += ["--log-config", f"json:{path}" if way.server == "hypercorn" else str(path)]
    settings: dict[str, Any] = {"FAPILOG_TEST_SETUP": way.set_up, **dict(way.settings)}
    if way.server == "hypercorn":
        app = f"wsgi:capture_app:{way.app}" if way.app == "wsgi" else f"capture_app:{way.app}"
        return Hypercorn(folder, *arguments, app=app, workers=1, **settings)
    interface = {"api": "asgi"}.get(way.app, way.app)
    return Granian(folder, *arguments, app=f"capture_app:{way.app}", interface=interface, workers=1, **settings)


@pytest.mark.matrix
@pytest.mark.parametrize("name", WAYS)
def test_where_each_line_goes(tmp_path, name):
    """As the table in docs/processes.md has it; nothing is there twice."""
    way = WAYS[name]
    with started(tmp_path, way) as server:
        ask_many(server.port, PATHS)
        assert server.stop(signal.SIGTERM) == 0

    lines = filed(tmp_path)
    check(lines, requests=bool(way.requests))
    assert {line["logger"] for line in lines}.isdisjoint(LOGGERS[way.server][1:])
    output = server.stdout + server.stderr
    assert sum(line["event"].startswith(UP[way.server]) for line in lines) == way.own * (2 if way.app == "rsgi" else 1)
    assert output.count(UP[way.server]) == way.text
    assert output.count("GET /items/") == (REQUESTED if way.access_text else 0)
    fields = set(ACCESS_FIELDS) | {"route"} if way.requests == "all" else TOLD[way.server]
    for line in lines:
        if line["event"] == "request":
            # Under WSGI a client that has read all hangs up before the application's end, and hypercorn tells no length.
            assert fields - set(line) <= ({"bytes"} if name == "hypercorn, ours, WSGI" else set())
            assert set(line) - HUB <= fields
            assert (line["logger"], line["status"], line["client"]) == ("fapilog.access", 200, "127.0.0.1")
            assert {field: type(line[field]) for field in set(line) - HUB - {"route"}}.items() <= ACCESS_FIELDS.items()


REQUESTS = [("/caf%C3%A9%2541?token=abc&a=1", "GET"), ("/items/no", "GET"), ("/items/7", "HEAD")]


@pytest.mark.matrix
@pytest.mark.parametrize("way", ["hypercorn, ours", "hypercorn, ours, WSGI", "granian, ours", "granian, ours, WSGI"])
def test_what_an_access_line_tells(tmp_path, way):
    """Method, status as the client got it, the path decoded once, and secrets of the query masked."""
    with started(tmp_path, WAYS[way]) as server:
        answers = [ask(server.port, target, method) for target, method in REQUESTS]
        assert server.stop(signal.SIGTERM) == 0

    told = Counter((line["method"], line["path"], line["query"], line["status"]) for line in filed(tmp_path) if "path" in line)
    assert told == Counter(
        [
            ("GET", "/café%41", "token=***&a=1", answers[0].status),
            ("GET", "/items/no", "", answers[1].status),
            ("HEAD", "/items/7", "", answers[2].status),
        ]
    )
    assert (way.endswith("WSGI")) == ([answer.status for answer in answers] == [200, 200, 200])


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["hypercorn, ours", "granian, ours"])
def test_a_setting_that_is_wrong(tmp_path, name):
    """The server does not start, and one line says which it is."""
    way = WAYS[name]
    way = Way(way.server, way.set_up, config=way.config, settings=(("FAPILOG_LEVEL", "LOUD"),))
    with started(tmp_path, way) as server:
        assert server.ended() == (1 if way.server == "granian" else 0)  # hypercorn's own code for a worker that does not start
        server.nothing_left()

    assert server.stderr.splitlines().count("fapilog: fapilog cannot be set up:") == 1
    assert "FAPILOG_LEVEL" in server.stderr


@pytest.mark.matrix
def test_errors_of_granians_main_process(tmp_path):
    """They are in our file and, as somebody may be waiting there, on stderr; the exit code is granian's own."""
    arguments = ["--log-config", CONFIG["granian"]]
    with Granian(tmp_path, *arguments, app="no_such_module:app", workers=1) as server:
        assert server.ended() == 1
        server.nothing_left()

    said = [line for line in filed(tmp_path) if line["event"] == "Unexpected exit from worker-1"]
    assert [line["worker"] for line in said] == [0]
    echoed = [json.loads(line) for line in server.stderr.splitlines() if line.startswith("{")]
    assert [line["event"] for line in echoed] == ["Unexpected exit from worker-1"]


@pytest.mark.matrix
@pytest.mark.parametrize(("path", "status"), [("/late/1", 499), ("/begun/2", 200)])
def test_a_client_hangs_up_under_hypercorn(tmp_path, path, status):
    """There is one access event, although hypercorn logs two lines once the application has come to its end."""
    way = WAYS["hypercorn, ours"]
    with started(tmp_path, way) as server:
        with connected(server.port) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
            if status != 499:
                assert connection.recv(12) == b"HTTP/1.1 200"
            wait_until(lambda: b"is at work" in written(tmp_path), "it is at work")
        wait_until(lambda: b'"request"' in written(tmp_path), "hypercorn has logged it")
        wait_until(lambda: status == 200 or b"is done" in written(tmp_path), "the application has come to its end")
        assert server.stop(signal.SIGTERM) == 0

    assert [line["status"] for line in filed(tmp_path) if line["event"] == "request"] == [status]
