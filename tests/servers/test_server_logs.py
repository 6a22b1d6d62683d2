"""The servers' own logs and the access events, seen from outside: what is in the sinks, what is beside them, how often."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fapilog
from tests._support import ACCESS_FIELDS, read_lines, rest_in_matrix, strict
from tests.programs.running import FULL, LIMIT_S, Running, environment, lives, wait_until
from tests.servers import logs_app
from tests.servers.harness import HERE, OUR_CONF, UVICORN_WORKER, Gunicorn

WSGI = ["sync", "gthread", "gevent"]
ASGI = ["asgi", UVICORN_WORKER]
MANY = 2_000 if FULL else 400
PATIENT = {"FAPILOG_DRAIN_TIMEOUT": "10"}  # this machine may stand still for longer than the default


HUB = {"timestamp", "level", "event", "logger", "service", "env", "host", "worker", "pid", "boot", "seq"}


class Answer:
    """What a client saw: `status` is 0 and `headers` is empty where the server hung up without an answer."""

    def __init__(self, status: int = 0, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.status = status
        self.headers = headers or {}
        self.body = body


def connected(port: int) -> socket.socket:
    """Connect as soon as somebody listens."""

    def connection() -> socket.socket | None:
        with contextlib.suppress(ConnectionError):
            return socket.create_connection(("127.0.0.1", port), LIMIT_S)
        return None

    return wait_until(connection, f"port {port} listens")


def send(port: int, data: bytes, method: str = "GET") -> Answer:
    """Send bytes as they are over a connection of their own."""
    with connected(port) as connection:
        connection.sendall(data)
        response = http.client.HTTPResponse(connection, method=method)
        try:
            response.begin()
        except (http.client.RemoteDisconnected, ConnectionResetError):
            return Answer()
        try:
            body = response.read()
        except http.client.IncompleteRead as cut:
            body = cut.partial
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def ask(port: int, target: bytes | str, method: str = "GET", headers: tuple[tuple[str, bytes | str], ...] = ()) -> Answer:
    """Send one request, without a header that nobody asked for, and with bytes that http.client would refuse."""
    target = target if isinstance(target, bytes) else target.encode()
    lines = [b"%s %s HTTP/1.1" % (method.encode(), target), b"Host: here", b"Connection: close"]
    lines += [b"%s: %s" % (name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in headers]
    return send(port, b"\r\n".join([*lines, b"", b""]), method)


def ask_many(port: int, targets: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert {answer.status for answer in pool.map(lambda target: ask(port, target), targets)} <= {200}


def kinds(*always: str, full: list[str] | None = None) -> Any:
    """Parametrize with the worker classes that are always tested, all but one by `make matrix`, and those only in a full run."""
    more = [each for each in (full or []) if FULL and each not in always]
    return pytest.mark.parametrize("kind", [*rest_in_matrix(1, always), *more])


def app_for(kind: str) -> str:
    return "logs_app:wsgi" if kind in WSGI else "logs_app:asgi"


def served(folder: Path, *arguments: str, kind: str, workers: int = 1, **settings: Any) -> Gunicorn:
    return Gunicorn(folder, *arguments, app=app_for(kind), kind=kind, workers=workers, **{**PATIENT, **settings})


def printed(server: Running) -> list[dict[str, Any]]:
    """Return the lines on stdout, every one of which must be JSON."""
    return read_lines(server.out)


def filed(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of all files; no life may have a seq twice or miss one."""
    found = lives(folder)
    for life in found:
        assert life.seqs == list(range(1, len(life.lines) + 1))
    return [line for life in found for line in life.lines]


def requests(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the access events, each of which must have all the fields, of the right types, and no other but `aborted`."""
    found = [line for line in lines if line["event"] == "request"]
    for line in found:
        assert set(line) - {"aborted"} == HUB | set(ACCESS_FIELDS)
        assert line.get("aborted", True) is True
        assert {name: type(line[name]) for name in ACCESS_FIELDS} == ACCESS_FIELDS
        assert line["logger"] == "fapilog.access"
        assert line["level"] == "info"
        assert 0 <= line["duration_ms"] < 1000 * LIMIT_S
    return found


def said(lines: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    return [line for line in lines if text in line["event"]]


def count(lines: list[dict[str, Any]], *texts: str) -> dict[str, int]:
    return {text: len(said(lines, text)) for text in texts}


# ---- every line once, and nothing but JSON


@pytest.mark.matrix
@kinds(*WSGI, *ASGI)
def test_many_requests_with_the_debug_level(tmp_path, kind):
    """Each has one access event with all fields; each boot line is there once, and so is that of a worker's death by SIGKILL."""
    with served(tmp_path, *OUR_CONF, "--log-level", "debug", kind=kind, workers=2, FAPILOG_SINKS="stdout") as server:
        targets = [f"/n/{number}?n={number}" for number in range(MANY)]
        ask_many(server.port, targets)
        wait_until(lambda: server.stdout.count('"event":"request"') == MANY, "all access events are written")
        victim = min(int(line["pid"]) for line in requests(printed(server)))
        os.kill(victim, signal.SIGKILL)
        server.said("Booting worker with pid", 3)
        assert ask(server.port, "/after").status == 200
        assert server.stop() == 0

        lines = printed(server)
        events = requests(lines)
        assert Counter(f"{line['path']}?{line['query']}" for line in events if line["query"]) == Counter(targets)
        assert len(events) == MANY + 1
        assert {(line["method"], line["status"], line["bytes"], line["client"]) for line in events} == {
            ("GET", 200, len(logs_app.BODY), "127.0.0.1")
        }
        booted = said(lines, "Booting worker with pid")
        assert len({line["pid"] for line in booted}) == len(booted) == 3
        assert [line["event"] for line in booted] == [f"Booting worker with pid: {line['pid']}" for line in booted]
        assert {line["worker"] for line in booted} == {1, 2}
        assert {line["worker"] for line in events} <= {1, 2}  # which of the two is served more is the kernel's affair
        (death,) = said(lines, "was sent SIGKILL")
        assert (death["level"], death["worker"], str(victim) in death["event"]) == ("error", 0, True)
        once = ("Starting gunicorn", "Listening at:", "Using worker:", "Current configuration:", "Shutting down: Master")
        assert count(lines, *once) == dict.fromkeys(once, 1)
        assert all(strict(line) for line in server.stderr.splitlines())
        closed = said(lines, "fapilog.closed")
        assert sorted(line["pid"] for line in closed) == sorted({server.pid, *(line["pid"] for line in booted)} - {victim})


# ---- what the events say (O-GUN-3)

BASE = {"method": "GET", "query": "", "status": 200, "bytes": 5, "client": "127.0.0.1", "user_agent": "", "referer": ""}
NASTY = b'q" \\ caf\xc3\xa9 \xe6\x97\xa5 \xff\xfe'
NASTY_TEXT = 'q" \\ café 日 \ufffd\ufffd'
REQUESTS: dict[str, tuple[str | bytes, str, dict[str, bytes | str], dict[str, Any]]] = {
    "plain": ("/plain?a=1&b=2", "GET", {}, {"path": "/plain", "query": "a=1&b=2"}),
    "quotes": ('/a"b\\c?q="\\', "GET", {}, {"path": '/a"b\\c', "query": 'q="\\'}),
    "line-end": ('/a%0d%0ab?q=%0d%0a{"f":1}', "GET", {}, {"path": "/a\r\nb", "query": 'q=%0d%0a{"f":1}'}),
    "non-latin": ("/caf%c3%a9/%e6%97%a5?q=%e6%97%a5", "GET", {}, {"path": "/café/日", "query": "q=%e6%97%a5"}),
    "invalid-utf-8": ("/x%ff%fe?q=%ff", "GET", {}, {"path": "/x\ufffd\ufffd", "query": "q=%ff"}),
    "headers": ("/h", "GET", {"User-Agent": NASTY, "Referer": NASTY}, {"user_agent": NASTY_TEXT, "referer": NASTY_TEXT}),
    "head": ("/bodiless", "HEAD", {}, {"method": "HEAD", "bytes": 0}),
    "post": ("/plain", "POST", {"Content-Length": "0"}, {"method": "POST"}),
    "not-modified": ("/cached", "GET", {}, {"status": 304, "bytes": 0}),
    "not-found": ("/missing", "GET", {}, {"status": 404}),
    "raises": ("/boom", "GET", {}, {"status": 500, "bytes": 0}),
    "stream": ("/stream/7/1234", "GET", {}, {"bytes": 7 * 1234}),
    "secrets": (
        "/s?token=SECRET-1&a=1&password=SECRET-2&access_token=SECRET-3",
        "GET",
        {
            "Referer": "https://user:SECRET-4@here/p?token=SECRET-5&a=1",
            "Authorization": "Bearer SECRET-6",
            "Cookie": "session=SECRET-7",
            "X-Api-Key": "SECRET-8",
        },
        {
            "path": "/s",
            "query": "token=***&a=1&password=***&access_token=***",
            "referer": "https://***@here/p?token=***&a=1",
        },
    ),
}


@pytest.mark.matrix
@kinds("sync", "gevent", *ASGI, full=WSGI)
def test_odd_requests(tmp_path, kind):
    """O-GUN-3: each is one whole line with the same values under every worker class, with the request's id, and no secret."""
    with served(tmp_path, *OUR_CONF, "--log-level", "debug", kind=kind, FAPILOG_SINKS="stdout") as server:
        for name, (target, method, headers, expected) in REQUESTS.items():
            answer = ask(server.port, target, method, (("X-Request-ID", name), *headers.items()))
            assert answer.status == expected.get("status", 200)
            assert len(answer.body) == expected.get("bytes", 5) or answer.status == 500
            assert (
                answer.headers.get("x-request-id") == name or answer.status == 500
            )  # the server's answer, not the application's
        assert server.stop() == 0

        found = {line["request_id"]: line for line in requests(printed(server))}
        for name, (target, _, _, expected) in REQUESTS.items():
            wanted = {**BASE, "path": target, "request_id": name, **expected}
            assert {field: found[name][field] for field in wanted} == wanted
        assert len(requests(printed(server))) == len(REQUESTS)
        assert "SECRET" not in server.stdout + server.stderr
        assert server.stderr == ""


@kinds("sync", full=WSGI)
def test_a_warning_of_a_gunicorn_module_with_a_logger_of_its_own(tmp_path, kind):
    """It is JSON in our sink, and there is no plain text on stderr."""
    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        assert ask(server.port, "/plain", "HEAD").status == 200
        assert server.stop() == 0

        (event,) = requests(printed(server))
        assert (event["method"], event["bytes"]) == ("HEAD", 0)
        assert len(said(printed(server), "WSGI app sent body bytes on a no-body response")) == 1
        assert server.stderr == ""


@kinds("sync", full=WSGI)
def test_a_request_with_a_secret_in_its_query_fails(tmp_path, kind):
    """The secret is in no line, gunicorn's error line included."""
    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        assert ask(server.port, "/boom?token=SECRET").status == 500
        assert server.stop() == 0

        assert len(said(printed(server), "Error handling request")) == 1
        assert "SECRET" not in server.stdout


@kinds("sync", full=WSGI)
def test_a_request_with_a_secret_in_its_query_is_refused(tmp_path, kind):
    """The secret is in no line, gunicorn's warning included."""
    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        assert ask(server.port, b"/caf\xe9?token=SECRET").status == 400
        assert server.stop() == 0

        assert len(said(printed(server), "Invalid request from")) == 1
        assert "SECRET" not in server.stdout


@pytest.mark.matrix
@kinds("gthread", "gevent", UVICORN_WORKER, full=["sync", "asgi"])
def test_many_requests_at_once_with_ids_of_their_own(tmp_path, kind):
    """Each event has the id, the status and the bytes of its own request."""
    paths = [*(f"/stream/{number}/100" for number in range(40)), *["/missing", "/plain"] * 20]

    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda n: ask(server.port, paths[n], headers=(("X-Request-ID", f"{n}"),)), range(len(paths))))
        assert server.stop() == 0

        assert [answer.headers["x-request-id"] for answer in answers] == [str(n) for n in range(len(paths))]
        wanted = [(str(n), paths[n], answer.status, len(answer.body)) for n, answer in enumerate(answers)]
        found = [(line["request_id"], line["path"], line["status"], line["bytes"]) for line in requests(printed(server))]
        assert sorted(found) == sorted(wanted)


@kinds("sync", UVICORN_WORKER, full=[*WSGI, *ASGI])
def test_the_id_of_a_request(tmp_path, kind):
    """A well formed one is kept, any other is replaced, the application's own wins; the response and the event have the same."""
    given: list[bytes | str | None] = ["abc-1.2:3", "x" * 128, None, "", "with space", 'quo"te', b"\xc3\xa9", "x" * 129]
    kept = set(given[:2])

    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        returned = []
        for each in given:
            answer = ask(server.port, "/id", headers=() if each is None else (("X-Request-ID", each),))
            returned.append(answer.headers["x-request-id"])
        own = ask(server.port, "/own-id", headers=(("X-Request-ID", "theirs"),))
        assert server.stop() == 0

        assert [line["request_id"] for line in requests(printed(server))] == [*returned, logs_app.OWN_ID]
        assert own.headers["x-request-id"] == logs_app.OWN_ID
        assert set(returned[:2]) == kept
        assert all(len(each) == 32 and int(each, 16) >= 0 for each in returned[2:])
        assert len(set(returned)) == len(given)


@pytest.mark.matrix
@kinds("sync", "gevent", *ASGI, full=WSGI)
def test_a_client_that_leaves_in_mid_stream(tmp_path, kind):
    """The request has one event, with the status that was begun and the bytes that were sent so far."""
    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        with connected(server.port) as connection:
            connection.sendall(b"GET /endless HTTP/1.1\r\nHost: here\r\nX-Request-ID: left\r\n\r\n")
            got = 0
            while got < 3 * len(logs_app.CHUNK):
                got += len(connection.recv(65536))
        server.said('"event":"request"')
        assert ask(server.port, "/next").status == 200
        assert server.stop() == 0

        left, after = requests(printed(server))
        assert (left["path"], left["status"], left["request_id"], after["path"]) == ("/endless", 200, "left", "/next")
        assert (left.get("aborted"), "aborted" in after) == (True, False)
        assert left["bytes"] >= 2 * len(logs_app.CHUNK)
        assert left["bytes"] % len(logs_app.CHUNK) == 0
        assert server.stderr == ""


@kinds("sync", UVICORN_WORKER, full=[*WSGI, *ASGI])
def test_a_request_that_the_server_refuses(tmp_path, kind):
    """It is answered with 400 and never an access event of its own twice; the WSGI classes say so in one warning each."""
    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        assert send(server.port, b"GARBAGE\r\n\r\n").status == 400
        assert send(server.port, b"GET / HTTP/1.1\r\nHost: here\r\nBad Header: x\r\n\r\n").status == 400
        assert ask(server.port, "/next").status == 200
        assert server.stop() == 0

        lines = printed(server)
        assert [line["path"] for line in requests(lines)] == ["/next"]
        if kind in WSGI:
            assert [line["level"] for line in said(lines, "Invalid request from ip=127.0.0.1")] == ["warning"] * 2
        assert server.stderr == ""


@kinds("sync", full=WSGI)
def test_a_body_that_gunicorn_refuses_while_the_application_reads_it(tmp_path, kind):
    """The one access event has gunicorn's 400, and the request's values."""
    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        head = b"POST /read/%20it?a=1 HTTP/1.1\r\nHost: here\r\nX-Request-ID: bad-body\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert send(server.port, head + b"not-a-size\r\n").status == 400
        assert server.stop() == 0

        (event,) = requests(printed(server))
        wanted = {"method": "POST", "path": "/read/ it", "query": "a=1", "status": 400, "request_id": "bad-body"}
        assert {name: event[name] for name in wanted} == wanted


# ---- applications that fail half-way

FAILURES = {"/boom": (500, 0), "/late": (500, 0), "/torn": (200, len(logs_app.CHUNK)), "/exit": (500, 0)}


@pytest.mark.matrix
@kinds(*WSGI)
def test_an_application_that_fails_half_way(tmp_path, kind):
    """Each request has one access event, with the status that the client got, and one error line."""
    paths = ["/boom", "/late", "/torn", *(["/exit"] if kind == "sync" else [])]

    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        answers = {path: ask(server.port, path, headers=(("X-Request-ID", path[1:]),)) for path in paths}
        assert ask(server.port, "/next").status == 200
        assert server.stop() == 0

        lines = printed(server)
        events = requests(lines)
        assert [line["path"] for line in events] == [*paths, "/next"]
        for line in events[:-1]:
            assert (line["status"], line["bytes"]) == FAILURES[line["path"]]
            assert line["status"] == answers[line["path"]].status
            assert line["request_id"] == line["path"][1:]
        assert [line["path"] for line in events if "aborted" in line] == ["/torn"]
        assert len(said(lines, "Error handling request")) == len(paths)
        assert server.stderr == ""


@kinds("gthread", "gevent")
def test_an_application_that_wants_to_exit(tmp_path, kind):
    """The client gets no answer; the request has one access event nevertheless."""
    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        assert ask(server.port, "/exit").status == 0
        wait_until(lambda: ask(server.port, "/next").status == 200, "the next worker answers")  # gthread's has ended
        assert server.stop() == 0

        assert len([line for line in requests(printed(server)) if line["path"] == "/exit"]) == 1


@kinds("sync", full=WSGI)
def test_an_application_that_raises_an_os_error(tmp_path, kind):
    """The client gets no answer; the request has one access event nevertheless."""
    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        assert ask(server.port, "/file").status == 0
        assert server.stop() == 0

        assert len(said(printed(server), "Socket error processing request")) == 1
        assert len(requests(printed(server))) == 1


@kinds("sync", full=WSGI)
def test_a_request_that_gunicorn_refuses_after_one_that_had_no_event(tmp_path, kind):
    """Its event has its own id and duration, and what its headers say, although the application never saw it."""
    headers = (("X-Request-ID", "second"), ("User-Agent", "mine"), ("SCRIPT_NAME", "/elsewhere"))

    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        assert ask(server.port, "/file", headers=(("X-Request-ID", "first"),)).status == 0
        assert ask(server.port, "/plain?a=1", headers=headers).status == 500
        assert server.stop() == 0

        event = next(line for line in requests(printed(server)) if line["path"] == "/plain")
        assert (event["status"], event["query"], event["request_id"], event["user_agent"]) == (500, "a=1", "second", "mine")


@kinds(*ASGI)
def test_an_asgi_application_that_fails_half_way(tmp_path, kind):
    """Each request has one access event, with the status that was begun, and one error line."""
    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout") as server:
        for path in ("/boom", "/late", "/torn"):
            ask(server.port, path)
        assert server.stop() == 0

        lines = printed(server)
        assert [(line["path"], line["status"], line["bytes"]) for line in requests(lines)] == [
            *[("/boom", 500, 0), ("/late", 200, 0)],
            ("/torn", 200, len(logs_app.CHUNK)),
        ]
        assert [line["path"] for line in requests(lines) if "aborted" in line] == ["/late", "/torn"]
        errors = [line["exception"]["message"] for line in lines if line["level"] == "error"]
        assert errors == ["before the response", "before the first chunk", "after the first chunk"]
        assert server.stderr == ""


# ---- boot and error lines (O-GUN-2)

SINKS = pytest.mark.parametrize("sink", ["stdout", "file"])


def start_plainly(folder: Path, *arguments: str, **settings: str) -> Running:
    """Start gunicorn without a socket of the harness."""
    command = ["-m", "gunicorn", "--chdir", str(HERE), "--worker-tmp-dir", str(folder), *arguments]
    return Running(command, folder, environment(folder, **settings))


@pytest.mark.matrix
@SINKS
def test_a_port_that_is_taken(tmp_path, sink):
    """O-GUN-2: gunicorn's error lines are in the sink, as often as it says them; with a file sink they are on stderr as well."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with start_plainly(tmp_path, *OUR_CONF, "-b", f"127.0.0.1:{port}", "logs_app:wsgi", FAPILOG_SINKS=sink) as server:
            assert server.ended() == 1
            server.nothing_left()

            lines = printed(server) if sink == "stdout" else filed(tmp_path)
            assert count(lines, "Starting gunicorn", "Connection in use:", "Can't connect to", "Booting") == {
                "Starting gunicorn": 1,
                "Connection in use:": 5,
                "Can't connect to": 1,
                "Booting": 0,
            }
            beside = [strict(line) for line in server.stderr.splitlines()]
            errors = [line["event"] for line in lines if line["level"] == "error"]
            assert [line["event"] for line in beside] == ([] if sink == "stdout" else errors)


@pytest.mark.matrix
@SINKS
@pytest.mark.parametrize("mode", ["single", "workers"])
def test_a_port_that_is_taken_from_uvicorn(tmp_path, mode, sink):
    """The error line is in the sink once; with a file sink it is on stderr once as well."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ("--log-config", LOG_CONFIG, *MODES[mode], "--port", port)
        with Uvicorn(tmp_path, *arguments, FAPILOG_SINKS=sink) as server:
            assert server.ended() == 3
            server.nothing_left()

            lines = printed(server) if sink == "stdout" else filed(tmp_path)
            (error,) = (line for line in lines if line["level"] == "error")
            assert "already in use" in error["event"]
            beside = [strict(line)["event"] for line in server.stderr.splitlines()]
            assert beside == ([] if sink == "stdout" else [error["event"]])


@pytest.mark.matrix
@SINKS
@kinds("sync", UVICORN_WORKER)
def test_an_application_that_cannot_be_imported(tmp_path, kind, sink):
    """The worker's error line and the master's reason are in the sink once each; with a file sink they are on stderr as well."""
    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS=sink, FAPILOG_TEST_IMPORT="error") as server:
        assert server.ended() == 3
        server.nothing_left()

        lines = printed(server) if sink == "stdout" else filed(tmp_path)
        texts = (
            "Booting worker",
            "Exception in worker process",
            "exited with code 3",
            "Reason: Worker failed to boot",
            "Shutting",
        )
        assert count(lines, *texts) == dict.fromkeys(texts, 1)
        (error,) = said(lines, "Exception in worker process")
        assert error["exception"]["message"] == "this application cannot be imported"
        beside = [strict(line) for line in server.stderr.splitlines() if line.startswith("{")]
        plain = [line for line in server.stderr.splitlines() if not line.startswith("{")]
        assert plain == ["this application cannot be imported"]  # gunicorn prints that itself
        if sink == "stdout":
            assert beside == []
        else:
            assert Counter(line["event"] for line in beside) == Counter(
                line["event"] for line in lines if line["level"] == "error"
            )
            assert any("this application cannot be imported" in line.get("exception", "") for line in beside)


@SINKS
def test_a_preloaded_application_that_cannot_be_imported(tmp_path, sink):
    """Gunicorn ends with 1, as without us, and the reason is on stderr."""
    with served(tmp_path, *OUR_CONF, kind="sync", preload=True, FAPILOG_SINKS=sink, FAPILOG_TEST_IMPORT="error") as server:
        assert server.ended() == 1
        server.nothing_left()

        assert server.stderr.count("this application cannot be imported") == 1
        assert "Booting" not in server.stdout


@pytest.mark.matrix
@pytest.mark.parametrize("imports", ["setup", "dictconfig", "setup,dictconfig"] if FULL else ["setup,dictconfig"])
@pytest.mark.parametrize("preload", [False, True], ids=["no-preload", "preload"])
@kinds("sync", UVICORN_WORKER)
def test_an_application_whose_import_sets_logging_up(tmp_path, kind, preload, imports):
    """Boot, error, end and access lines are there once each, also where it disables the loggers that exist."""
    with served(
        tmp_path, *OUR_CONF, kind=kind, workers=2, preload=preload, FAPILOG_SINKS="file", FAPILOG_TEST_IMPORT=imports
    ) as server:
        wait_until(lambda: len(said(filed(tmp_path), "Booting worker")) == 2, "both workers boot")
        ask_many(server.port, [f"/{number}" for number in range(10)])
        assert ask(server.port, "/boom").status == 500
        assert server.stop() == 0

        lines = filed(tmp_path)
        assert Counter(line["path"] for line in requests(lines)) == Counter(["/boom", *(f"/{number}" for number in range(10))])
        texts = ["Starting gunicorn", "Listening at", "Handling signal: term", "Shutting down: Master"]
        texts += ["Error handling request /boom" if kind == UVICORN_WORKER else "Error handling request GET /boom"]
        if kind == UVICORN_WORKER:
            texts[-1] = "Exception in ASGI application"
        assert count(lines, *texts) == dict.fromkeys(texts, 1)
        per_worker = (
            ["Booting worker", "Finished server process", "Application startup complete"]
            if kind == UVICORN_WORKER
            else [
                "Booting worker",
                "Worker exiting",
            ]
        )
        assert count(lines, *per_worker) == dict.fromkeys(per_worker, 2)
        assert server.stdout == ""
        assert server.stderr == ""


# ---- nothing twice (O-DUP-2)

REQUESTED = 20


class Uvicorn(Running):
    """
    uvicorn in a directory of its own, on a port that the system chooses.

    Args:
        folder: Working directory.
        arguments: More of the command line.
        command: Instead of ``-m uvicorn`` with all its arguments.
        settings: More environment.
    """

    def __init__(self, folder: Path, *arguments: str, command: tuple[str, ...] = (), **settings: str) -> None:
        command = command or ("-m", "uvicorn", "logs_app:asgi", "--app-dir", str(HERE), "--port", "0", *arguments)
        settings.setdefault("FAPILOG_SINKS", "stdout")
        super().__init__(command, folder, environment(folder, **{**PATIENT, **settings}))

    def listens(self) -> int:
        """Wait until it says its port."""

        def port() -> int:
            assert self.process.poll() is None, f"ended with {self.process.returncode}"
            _, found, rest = (self.stdout + self.stderr).partition("Uvicorn running on http://127.0.0.1:")
            return int(rest.split()[0]) if found and " " in rest else 0

        return wait_until(port, "uvicorn says its port")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.signal(number)
        code = self.ended()
        self.nothing_left()
        return code


LOG_CONFIG = str(Path(fapilog.__file__).parent / "servers" / "uvicorn_log_config.json")
RUN = """
import sys
import uvicorn
import fapilog.servers.uvicorn
sys.path.insert(0, sys.argv[1])
uvicorn.run("logs_app:asgi", port=0, log_config=fapilog.servers.uvicorn.log_config())
"""


def test_the_log_config_file():
    """Its path is printed by the module, and it says the same as log_config()."""
    from fapilog.servers import uvicorn

    run = subprocess.run(
        [sys.executable, "-m", "fapilog.servers.uvicorn"], capture_output=True, text=True, check=True, timeout=LIMIT_S
    )

    assert run.stdout == f"{LOG_CONFIG}\n"
    assert run.stderr == ""
    assert json.loads(Path(LOG_CONFIG).read_text()) == uvicorn.log_config()


@pytest.mark.matrix
@pytest.mark.parametrize(
    "imports", ["basicconfig,setup", "setup,basicconfig", *(["basicconfig,setup,dictconfig"] if FULL else [])]
)
@pytest.mark.parametrize("way", ["gunicorn", "log-config-file", "uvicorn.run"])
def test_a_root_handler_of_the_users(tmp_path, way, imports):
    """O-DUP-2: each access, start and error line is once in our sink; a record of the user's own once in the user's handler."""
    root = tmp_path / "root.log"
    settings = {"FAPILOG_SINKS": "stdout", "FAPILOG_TEST_IMPORT": imports, "FAPILOG_TEST_ROOT": str(root)}
    if way == "gunicorn":
        server: Any = served(tmp_path, *OUR_CONF, kind=UVICORN_WORKER, **settings)
    elif way == "log-config-file":
        server = Uvicorn(tmp_path, "--log-config", LOG_CONFIG, **settings)
    else:
        server = Uvicorn(tmp_path, command=("-c", RUN, str(HERE)), **settings)

    with server:
        port = server.port if way == "gunicorn" else server.listens()
        ask_many(port, [f"/{number}" for number in range(REQUESTED)])
        assert ask(port, "/theirs").status == 200
        assert ask(port, "/boom").status == 500
        assert server.stop() == (0 if way == "gunicorn" else -signal.SIGTERM)

        lines = printed(server)
        paths = [*(f"/{number}" for number in range(REQUESTED)), "/theirs", "/boom"]
        assert Counter(line["path"] for line in requests(lines)) == Counter(paths)
        texts = ("Started server process", "Application startup complete", "Exception in ASGI application", "Finished server")
        assert count(lines, *texts) == dict.fromkeys(texts, 1)
        assert server.stderr == ""
        assert root.read_text() == "theirs|a line of the user's\n"


MODES = {"single": [], "workers": ["--workers", "2"], "reload": ["--reload"]}


@pytest.mark.matrix
@pytest.mark.parametrize("number", [signal.SIGTERM, *([signal.SIGINT] if FULL else [])], ids=lambda number: number.name)
@pytest.mark.parametrize("mode", MODES)
def test_uvicorn_with_our_log_config(tmp_path, mode, number):
    """A supervisor is worker 0, its children count from 1; each line is there once; the exit code is the one without us."""
    with Uvicorn(tmp_path, *MODES[mode], "--log-config", LOG_CONFIG) as server:
        port = server.listens()
        wait_until(lambda: server.stdout.count("Application startup complete") == 1 + (mode == "workers"), "all have started")
        ask_many(port, [f"/{each}" for each in range(REQUESTED)])
        code = server.stop(number)

    lines = printed(server)
    assert Counter(line["path"] for line in requests(lines)) == Counter(f"/{each}" for each in range(REQUESTED))
    workers = {line["pid"]: line["worker"] for line in lines}
    children = {line["pid"] for line in said(lines, "Started server process")}
    if mode == "single":
        assert workers == {server.pid: 1}
    else:
        assert workers[server.pid] == 0
        assert sorted(workers[pid] for pid in children) == list(range(1, len(children) + 1))
        assert set(workers) == {server.pid} | children
    assert {line["pid"] for line in requests(lines)} <= children
    for pid in workers:
        seqs = [line["seq"] for line in lines if line["pid"] == pid]
        assert sorted(seqs) == list(range(1, len(seqs) + 1))
    assert sorted(line["pid"] for line in said(lines, "fapilog.closed")) == sorted(workers)
    texts = ("Started server process", "Application startup complete", "Finished server process")
    assert count(lines, *texts) == dict.fromkeys(texts, len(children))
    assert server.stderr == ""

    with Uvicorn(tmp_path, *MODES[mode]) as plain:
        ask(plain.listens(), "/")
        assert plain.stop(number) == code


# ---- what the user has set up for these lines beside ours


@kinds("sync", "asgi", UVICORN_WORKER)
def test_log_files_of_the_users(tmp_path, kind):
    """They get gunicorn's text lines as without us, each once; our sink has its lines too."""
    access, error = tmp_path / "access.log", tmp_path / "error.log"

    with served(
        tmp_path, *OUR_CONF, "--access-logfile", str(access), "--error-logfile", str(error), kind=kind, FAPILOG_SINKS="stdout"
    ) as server:
        ask_many(server.port, [f"/{number}" for number in range(REQUESTED)])
        assert server.stop() == 0

        assert Counter(line["path"] for line in requests(printed(server))) == Counter(f"/{n}" for n in range(REQUESTED))
        rows = access.read_text().splitlines()
        assert Counter(row.split("GET ")[1].split()[0] for row in rows) == Counter(f"/{n}" for n in range(REQUESTED))
        for text in ("Starting gunicorn", "Booting worker", "Shutting down: Master"):
            assert error.read_text().count(text) == 1
            assert len(said(printed(server), text)) == 1
        assert server.stderr == ""


@kinds("sync", UVICORN_WORKER, full=["asgi"])
def test_access_events_are_switched_off(tmp_path, kind):
    """There is none, and no text line in their place; the server's other lines are there."""
    with served(tmp_path, *OUR_CONF, kind=kind, FAPILOG_SINKS="stdout", FAPILOG_ACCESS_LOG="false") as server:
        ask_many(server.port, ["/"] * 5)
        assert server.stop() == 0

        lines = printed(server)
        assert [line for line in lines if line["logger"] in {"fapilog.access", "gunicorn.access", "uvicorn.access"}] == []
        assert count(lines, "Booting worker", "request", "Shutting down: Master") == {
            "Booting worker": 1,
            "request": 0,
            "Shutting down: Master": 1,
        }
        assert server.stderr == ""


LOG_DICT = """
from fapilog.gunicorn_conf import logger_class
logconfig_dict = {{
    "version": 1, "disable_existing_loggers": False,
    "formatters": {{"plain": {{"format": "%(name)s|%(message)s"}}}},
    "handlers": {{"mine": {{"class": "logging.FileHandler", "filename": {path!r}, "formatter": "plain"}}}},
    "root": {{"level": "INFO", "handlers": []}},
    "loggers": {{
        "gunicorn.error": {{"level": "INFO", "handlers": ["mine"], "propagate": False}},
        "gunicorn.access": {{"level": "INFO", "handlers": ["mine"], "propagate": False}},
    }},
}}
"""


def test_a_logging_configuration_of_the_users(tmp_path):
    """Its handlers get the text lines, each once, beside the events in our sink."""
    path = tmp_path / "mine.log"

    with served(tmp_path, kind="sync", conf=LOG_DICT.format(path=str(path)), FAPILOG_SINKS="stdout") as server:
        ask_many(server.port, [f"/{number}" for number in range(REQUESTED)])
        assert server.stop() == 0

        lines, text = printed(server), path.read_text()
        assert len(requests(lines)) == REQUESTED
        assert text.count("gunicorn.access|") == REQUESTED
        for said_once in ("Starting gunicorn", "Booting worker", "Shutting down: Master"):
            assert (text.count(said_once), len(said(lines, said_once))) == (1, 1)
        assert server.stderr == ""


# ---- files that somebody else rotates

MASTER_LOGS = """
from fapilog import get_logger
def when_ready(server):
    get_logger("conf").info("ready")
def child_exit(server, worker):
    get_logger("conf").info("child_exit")
"""
ONLY_POST_FORK = "from fapilog.gunicorn_conf import post_fork\n"


def rotate(server: Gunicorn, folder: Path, answered: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rename all files, send SIGUSR1, go on asking until both workers write again, end; return old lines and new lines."""
    old = folder / "old"
    old.mkdir()
    for path in folder.glob("app.*.jsonl"):
        path.rename(old / path.name)
    server.signal(signal.SIGUSR1)

    def both_write() -> bool:
        answered()
        return all((folder / f"app.{worker}.jsonl").exists() for worker in (1, 2))

    wait_until(both_write, "both workers write new files")
    assert server.stop() == 0
    before, after = lives(old), lives(folder)
    return [line for life in before for line in life.lines], [line for life in after for line in life.lines]


@pytest.mark.matrix
@pytest.mark.parametrize("conf", [None, ONLY_POST_FORK], ids=["our-conf", "only-post-fork"])
@kinds("sync", UVICORN_WORKER, full=["gthread", "gevent", "asgi"])
def test_the_files_are_renamed_and_the_master_gets_sigusr1(tmp_path, kind, conf):
    """Every worker and the master go on in new files; over both, no event is lost or doubled."""
    asked: list[str] = []

    with served(
        tmp_path, *(OUR_CONF if conf is None else ()), kind=kind, workers=2, conf=conf, FAPILOG_TEST_IMPORT="setup"
    ) as server:

        def answered() -> None:
            asked.append(f"n={len(asked)}")
            assert ask(server.port, f"/log?{asked[-1]}").status == 200

        def all_write() -> bool:
            answered()
            return all((tmp_path / f"app.{worker}.jsonl").exists() for worker in (1, 2))

        wait_until(all_write, "both workers have files")
        before, after = rotate(server, tmp_path, answered)

        masters = {0} if conf is None else set()
        assert {line["worker"] for line in before} == {1, 2} | masters
        assert {line["worker"] for line in after} == {1, 2} | masters
        seqs: dict[str, list[int]] = {}
        for line in before + after:
            seqs.setdefault(line["boot"], []).append(line["seq"])
        assert len(seqs) == 2 + len(masters)
        assert all(sorted(found) == list(range(1, len(found) + 1)) for found in seqs.values())
        assert len(said(before + after, "fapilog.closed")) == len(said(after, "fapilog.closed")) == len(seqs)
        assert len(said(before + after, "logged")) == len(asked)
        if conf is None:
            assert Counter(line["query"] for line in requests(before + after)) == Counter(asked)


def test_sigusr1_to_a_master_that_logs_under_a_conf_with_nothing_but_our_post_fork(tmp_path):
    """The master, too, goes on in a new file."""
    with served(tmp_path, kind="sync", workers=2, conf=ONLY_POST_FORK + MASTER_LOGS, FAPILOG_TEST_IMPORT="setup") as server:
        wait_until((tmp_path / "app.0.jsonl").exists, "the master has a file")
        before, after = rotate(server, tmp_path, lambda: ask(server.port, "/log"))

        assert len(said(before, "ready")) == 1
        assert len(said(after, "child_exit")) == 2


# ---- metrics


@kinds("sync", "asgi", full=ASGI)
def test_gunicorns_metrics(tmp_path, kind):
    """They go on being sent, one of each a request (UvicornWorker never sent any), beside the access events."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as metrics:
        metrics.bind(("127.0.0.1", 0))
        metrics.setblocking(False)
        address = f"127.0.0.1:{metrics.getsockname()[1]}"
        with served(
            tmp_path, *OUR_CONF, "--statsd-host", address, "--statsd-prefix", "here", kind=kind, FAPILOG_SINKS="stdout"
        ) as server:
            ask_many(server.port, [f"/{number}" for number in range(REQUESTED)])
            assert server.stop() == 0

            names: Counter[str] = Counter()
            with contextlib.suppress(BlockingIOError):
                while True:
                    names[metrics.recv(65536).decode().partition(":")[0]] += 1
            expected = 0 if kind == UVICORN_WORKER else REQUESTED
            assert names["here.gunicorn.requests"] == expected
            assert names["here.gunicorn.request.duration"] == expected
            assert names["here.gunicorn.request.status.200"] == expected
            assert len(requests(printed(server))) == REQUESTED
            assert server.stderr == ""
