"""Flask and Django under gunicorn's sync and gthread workers: context, ids and exactly one access event for each request."""

from __future__ import annotations

import contextlib
import http.client
import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("flask")
pytest.importorskip("django")

from fapilog.servers.uvicorn import LOG_CONFIG_FILE
from tests._support import ACCESS_FIELDS
from tests.programs.running import lives, wait_until
from tests.servers.cells import marked
from tests.servers.harness import HERE, OUR_CONF, Gunicorn, Server, Uvicorn

if TYPE_CHECKING:
    from pathlib import Path

WORKERS = 2
REQUESTS = 100
LIMIT_S = 30.0
PLACES = {"items": 200, "stream": 200, "file": 200, "fail": 500, "health": 200, "nothing": 404}
LOGGED = {"stream": ["work", *["part"] * 3], "nothing": []}
#: Where our middleware is, and more of the command line.
WAYS: dict[str, tuple[str, ...]] = {"middleware": (), "both": OUR_CONF, "adapter": OUR_CONF}
REPRESENTATIVE = {
    ("sync", "app", "both"),
    ("gthread", "app", "both"),
    ("gthread", "django", "both"),
    ("sync", "app", "middleware"),
}
REPRESENTATIVE |= {("gthread", "app", "adapter"), ("sync", "django", "middleware")}
CELLS = marked(product(("sync", "gthread"), ("app", "django"), WAYS), REPRESENTATIVE)


def answers_of(server: Gunicorn) -> dict[int, tuple[str, int, str, int]]:
    """Send all requests, 8 at once; return path, status, id and length of the body of each."""
    places = list(PLACES)

    def ask(n: int) -> tuple[str, int, str, int]:
        path = f"/{places[n % len(places)]}/{n}"
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
        connection.request("GET", path, headers={"X-Request-ID": f"mine-{n}"} if n % 2 else {})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return path, answer.status, answer.getheader("X-Request-ID", ""), len(body)

    with ThreadPoolExecutor(8) as pool:
        return dict(enumerate(pool.map(ask, range(REQUESTS))))


def ended(port: int, path: str) -> int:
    """Send one request and wait for the end of the connection; return the status, 0 if there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        with contextlib.suppress(http.client.IncompleteRead):
            answer.read()
    except ConnectionError:
        return 0
    finally:
        connection.close()
    return answer.status


def up(server: Server) -> None:
    """Wait until it answers, with requests that are no part of the counts."""

    def answers() -> bool:
        server.still_runs()
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
        try:
            connection.request("GET", "/warm")
            return connection.getresponse().status in {200, 404}
        except ConnectionError:
            return False
        finally:
            connection.close()

    wait_until(answers, "it answers")


@pytest.mark.matrix
@pytest.mark.parametrize(("kind", "app", "way"), CELLS)
def test_requests_under_gunicorn(tmp_path: Path, kind: str, app: str, way: str) -> None:
    """
    Every event has the id, path, client and (Flask) route of its own request, and nothing that was bound for another; one
    access event a request, none for an excluded path; exit code 0 and no process left (O-CTX-1, O-CTX-2).
    """
    with Gunicorn(tmp_path, *WAYS[way], app=f"web_app:{app}", kind=kind, workers=WORKERS, FAPILOG_TEST_WAY=way) as server:
        up(server)
        answers = answers_of(server)
        assert server.stop() == 0

    found = lives(tmp_path)
    for life in found:
        life.whole(closed=None)
    lines = [line for life in found for line in life.lines if line.get("path", "/warm") != "/warm"]
    mine: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in lines:
        if line["logger"] in {"app", "fapilog.access"}:
            mine[int(line["path"].rpartition("/")[2])].append(line)
    assert sorted(mine) == list(range(REQUESTS))

    for n, (path, status, returned, length) in answers.items():
        place = path.split("/")[1]
        assert status == PLACES[place]
        excluded = place == "health" and way != "adapter"
        expected = Counter([*LOGGED.get(place, ["work"]), *["request"] * (not excluded)])
        assert Counter(line["event"] for line in mine[n]) == expected
        for line in mine[n]:
            assert (line["path"], line["method"], line["client"]) == (path, "GET", "127.0.0.1")
            assert line["request_id"] == returned
            assert line.get("n", n) == n
            assert line.get("user") == (n if place in {"items", "fail"} else None)
            if app == "app":
                assert line.get("route") == (f"/{place}/<int:n>" if place != "nothing" else None)
            if line["event"] == "request":
                assert set(line) >= set(ACCESS_FIELDS)
                assert (line["status"], line["bytes"]) == (status, length)
        assert returned == f"mine-{n}" if n % 2 else len(returned) == 32
    assert len({returned for _, _, returned, _ in answers.values()}) == REQUESTS


@pytest.mark.parametrize("kind", ["sync", pytest.param("gthread", marks=pytest.mark.matrix)])
def test_an_application_that_fails_half_way_under_gunicorn(tmp_path: Path, kind: str) -> None:
    """One access event, the middleware's, with what the client got; gunicorn's own requests have the adapter's."""
    failures = {"/boom": 500, "/late": 500, "/torn": 200, "/file": 0, "/stream/3/10": 200, "/missing": 404, "/cached": 304}

    with Gunicorn(tmp_path, *OUR_CONF, app="web_app:logs", kind=kind, workers=1, FAPILOG_TEST_WAY="both") as server:
        up(server)
        assert {path: ended(server.port, path) for path in failures} == failures
        assert ended(server.port, "/%ff") in {200, 404}
        assert server.stop() == 0

    found = [life for life in lives(tmp_path) if life.worker != 0]
    requests: dict[str, list[Any]] = {path: [] for path in failures}
    for line in (line for life in found for line in life.whole().named("request")):
        requests.get(line["path"], []).append((line["status"], line["bytes"]))
    assert requests == {
        "/boom": [(500, 0)],
        "/late": [(500, 0)],
        "/torn": [(200, 1000)],
        "/file": [(500, 0)],
        "/stream/3/10": [(200, 30)],
        "/missing": [(404, 5)],
        "/cached": [(304, 0)],
    }


@pytest.mark.parametrize("bridge", ["a2wsgi", pytest.param("uvicorn's own", marks=pytest.mark.matrix)])
def test_a_wsgi_application_under_uvicorn(tmp_path: Path, bridge: str) -> None:
    """With our log_config and our middleware in the application there is one access event for each request, with one id."""
    if bridge != "a2wsgi":
        (tmp_path / "a2wsgi.py").write_text("raise ModuleNotFoundError")
    arguments = ("--interface", "wsgi", "--log-config", str(LOG_CONFIG_FILE))
    path = os.pathsep.join([str(tmp_path), str(HERE), os.environ.get("PYTHONPATH", "")])

    with Uvicorn(tmp_path, *arguments, app="web_app:app", FAPILOG_TEST_WAY="both", PYTHONPATH=path) as server:
        up(server)
        answers = {f"/items/{n}": ended(server.port, f"/items/{n}") for n in range(10)}
        server.stop()

    assert set(answers.values()) == {200}
    (life,) = lives(tmp_path)
    for event in ("work", "request"):
        assert sorted(line["path"] for line in life.whole().named(event) if line["path"] in answers) == sorted(answers)
    ids = {line["path"]: line["request_id"] for line in life.named("work")}
    assert all(ids[line["path"]] == line["request_id"] for line in life.named("request") if line["path"] in ids)
