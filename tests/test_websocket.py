"""Websockets through the ASGI middleware: one access event for each connection, and the context of what is logged during it."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

import fapilog
from fapilog.asgi import FapilogMiddleware
from tests._support import ACCESS_FIELDS, caught_events
from tests.programs.running import only_life, wait_until
from tests.servers.harness import Uvicorn

CONNECT = {"type": "websocket.connect"}
ACCEPT = {"type": "websocket.accept"}
DENIED = {"type": "websocket.http.response.start", "status": 401, "headers": []}
HEAD = {"timestamp", "level", "event", "logger"}


@pytest.fixture
def events():
    with caught_events() as found:
        yield found


def scope_of(**changes: Any) -> dict[str, Any]:
    return {
        "type": "websocket",
        "path": "/socket/1",
        "query_string": b"a=1",
        "root_path": "",
        "headers": [(b"x-request-id", b"mine"), (b"user-agent", b"browser")],
        "client": ("127.0.0.1", 5),
        **changes,
    }


def left(code: int = 1001) -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code}


def connect(app: Any, *incoming: dict[str, Any], scope: dict[str, Any] | None = None) -> list[Any]:
    """Return what the server was sent."""
    waiting = [CONNECT, *incoming]
    sent: list[Any] = []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(FapilogMiddleware(app)(scope or scope_of(), receive, send))
    return sent


def saying(*messages: dict[str, Any], error: type[BaseException] | None = None) -> Any:
    """Return an application that sends *messages*, where None stands for receiving one, and raises *error*."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in (None, *messages):
            if message is None:
                await receive()
            else:
                await send(message)
        if error is not None:
            raise error

    return app


def text(data: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": data}


WAIT: Any = None


@pytest.mark.parametrize(
    ("messages", "incoming", "expected"),
    [
        pytest.param([ACCEPT, {"type": "websocket.close", "code": 4000}], [], (101, 0, 4000), id="closed by the application"),
        pytest.param([ACCEPT, {"type": "websocket.close"}], [], (101, 0, 1000), id="closed without a code"),
        pytest.param([ACCEPT, WAIT], [left(1001)], (101, 0, 1001), id="closed by the client"),
        pytest.param([ACCEPT, text("é"), WAIT], [left(1005)], (101, 2, 1005), id="text"),
        pytest.param([ACCEPT, {"type": "websocket.send", "bytes": b"abc"}, WAIT], [left()], (101, 3, 1001), id="bytes"),
        pytest.param(
            [ACCEPT, {"type": "websocket.send", "bytes": None, "text": "abcd"}, WAIT], [left()], (101, 4, 1001), id="both keys"
        ),
        pytest.param([ACCEPT, WAIT, {"type": "websocket.close"}], [left(1006)], (101, 0, 1006), id="closed after it was left"),
        pytest.param([ACCEPT], [], (101, 0, 1006), id="ended without a close"),
        pytest.param([{"type": "websocket.close"}], [], (403, 0, None), id="refused"),
        pytest.param(
            [DENIED, {"type": "websocket.http.response.body", "body": b"no"}], [], (401, 2, None), id="refused with a response"
        ),
        pytest.param([WAIT], [left(1006)], (499, 0, None), id="left before it was accepted"),
        pytest.param([], [], (500, 0, None), id="ended without an answer"),
    ],
)
def test_the_access_event_of_a_websocket(events, messages, incoming, expected) -> None:
    """One, with 101 and the code of its close, or with the status that the client got instead; bytes are what was sent."""
    sent = connect(saying(*messages), *incoming)
    (event,) = events
    assert (event["event"], event["method"], event["path"], event["query"]) == ("request", "GET", "/socket/1", "a=1")
    assert (event["status"], event["bytes"], event.get("close_code")) == expected
    assert set(event) - HEAD - {"close_code"} == set(ACCESS_FIELDS)
    assert (event["request_id"], event["user_agent"], event["client"]) == ("mine", "browser", "127.0.0.1")
    for message in sent:
        if message["type"] in {"websocket.accept", "websocket.http.response.start"}:
            assert message["headers"] == [(b"x-request-id", b"mine")]
    assert ACCEPT == {"type": "websocket.accept"}


@pytest.mark.parametrize(
    ("messages", "status", "code"), [([], 500, None), ([ACCEPT], 101, 1006), ([ACCEPT, {"type": "websocket.close"}], 101, 1000)]
)
@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, SystemExit])
def test_an_application_of_a_websocket_that_raises(events, messages, status, code, error) -> None:
    """The error passes; one event."""
    with pytest.raises(error):
        connect(saying(*messages, error=error))
    none = 499 if error is asyncio.CancelledError else status
    assert [(event["status"], event.get("close_code")) for event in events] == [(status if messages else none, code)]
    assert "aborted" not in events[0]


@pytest.mark.parametrize("incoming", [[], [left(1006)]])
def test_a_refusal_that_is_broken_off(events, incoming) -> None:
    """It is marked; of a connection that was open, the code of its close tells how it ended."""
    connect(saying({**DENIED, "headers": iter([(b"a", b"b")])}, *([WAIT] if incoming else [])), *incoming)
    assert [(event["status"], event["aborted"]) for event in events] == [(401, True)]


def test_what_is_logged_while_a_websocket_is_open(events) -> None:
    """It has the connection's context, and nothing afterwards has."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        fapilog.get_logger("app").info("work")
        await receive()
        fapilog.get_logger("app").info("cleaning up")

    connect(app, left())
    fapilog.get_logger("app").info("afterwards")
    work, request, cleaning, afterwards = events
    context = {"request_id": "mine", "method": "GET", "path": "/socket/1", "client": "127.0.0.1"}
    for event in (work, request, cleaning):
        assert {name: event[name] for name in context} == context
    assert set(afterwards) == HEAD


def test_the_event_of_a_websocket_that_is_closed(events) -> None:
    """It is logged then, not when the application has ended."""
    logged = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        logged.append(len(events))

    connect(app, left())
    assert (logged, len(events)) == ([1], 1)


def test_an_excluded_websocket(events) -> None:
    """It has no event."""
    app = FapilogMiddleware(saying(ACCEPT), exclude=["/socket/*"])
    connect(app)
    assert events == []


# ---- a real one


def exchange(port: int, n: int) -> tuple[dict[str, str], str, int]:
    """Echo one message; return the headers of the handshake, the message and the code of the close."""
    wsproto = pytest.importorskip("wsproto")
    from wsproto import events as told

    connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    headers: dict[str, str] = {}
    message = ""
    with socket.create_connection(("127.0.0.1", port), 30) as wire:
        wire.sendall(
            connection.send(
                told.Request(host="here", target=f"/socket/{n}", extra_headers=[(b"x-request-id", f"id-{n}".encode())])
            )
        )
        while True:
            connection.receive_data(wire.recv(65536))
            for event in connection.events():
                if isinstance(event, told.AcceptConnection):
                    headers = {name.decode(): value.decode() for name, value in event.extra_headers}
                    wire.sendall(connection.send(told.TextMessage(data="hello")))
                elif isinstance(event, told.TextMessage):
                    message = event.data
                elif isinstance(event, told.CloseConnection):
                    wire.sendall(connection.send(event.response()))
                    return headers, message, event.code


def test_websockets_of_a_real_server(tmp_path) -> None:
    """Each has its id in the handshake, its route, and its own context."""
    with Uvicorn(tmp_path, "--ws", "wsproto", app="context_app:api") as server:

        def listens() -> bool:
            server.still_runs()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", server.port)) == 0

        wait_until(listens, "it listens")
        for n in range(5):
            headers, message, code = exchange(server.port, n)
            assert (headers["x-request-id"], message, code) == (f"id-{n}", "hello", 4000)
        server.stop()
    life = only_life(tmp_path).whole()
    for event in ("work", "request"):
        assert [(line["request_id"], line["path"], line["route"]) for line in life.named(event)] == [
            (f"id-{n}", f"/socket/{n}", "/socket/{n}") for n in range(5)
        ]
    assert {(line["status"], line["close_code"], line["bytes"]) for line in life.named("request")} == {(101, 4000, 5)}
