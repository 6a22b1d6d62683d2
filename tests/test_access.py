"""The access event: its fields, what is masked, the request's id, and when the ASGI middleware logs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

import fapilog
from fapilog._internal.access import Access, request_id_from, text
from fapilog._internal.access_records import is_access_record, log_access_record
from fapilog._internal.gates import gates
from fapilog.asgi import FapilogMiddleware
from fapilog.wsgi import FapilogMiddleware as WsgiMiddleware
from tests._support import ACCESS_FIELDS, caught_events, check_access_event, process_restored, scope_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

HEAD = {"timestamp", "level", "event", "logger"}


@pytest.fixture
def events():
    with caught_events() as found:
        yield found


# ---- parts


def test_the_event(events) -> None:
    """It has these fields and types, whatever is empty."""
    Access("GET", "/", "", "", "", "", "id").log()
    (event,) = events
    assert set(event) == HEAD | set(ACCESS_FIELDS)
    assert {name: type(event[name]) for name in ACCESS_FIELDS} == ACCESS_FIELDS
    assert (event["event"], event["logger"], event["level"]) == ("request", "fapilog.access", "info")


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, 0.0), (0.0012345, 1.234), (2.0, 2000.0), (1e-9, 0.0)])
def test_the_duration(events, seconds, shown) -> None:
    """Milliseconds, to the microsecond."""
    Access("GET", "/", "", "", "", "", "id", seconds=seconds).log()
    assert events[0]["duration_ms"] == pytest.approx(shown, abs=0.0011)
    assert isinstance(events[0]["duration_ms"], float)


@pytest.mark.parametrize(
    ("rules", "logged"), [((20, {}), 1), ((30, {}), 0), ((20, {"fapilog.access": 30}), 0), ((40, {"fapilog": 20}), 1)]
)
def test_the_level_of_access_events(events, rules, logged) -> None:
    """They are of the level INFO, and FAPILOG_LEVEL decides."""
    gates.set(*rules)
    Access("GET", "/", "", "", "", "", "id").log()
    log_access_record(record_of("uvicorn.access", ("", "GET", "/", "1.1", 200)))
    assert len(events) == 2 * logged


def record_of(name: str, args: Any) -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, "", 0, "%s", (args,) if isinstance(args, dict) else args, None)


def hypercorns(**atoms: str) -> dict[str, str]:
    """Return the arguments of hypercorn's access line, which hold more than anybody asked for."""
    known = {"m": "GET", "U": "/café%41", "q": "token=abc&a=1", "s": "200", "L": "0.001500", "h": "127.0.0.1:4711", "B": "-"}
    known |= {"{user-agent}i": "curl/7", "{cookie}i": "session=secret", "{aws_secret_access_key}e": "secret"}
    return known | atoms


def granians(**told: Any) -> dict[str, Any]:
    known = {"addr": "127.0.0.1", "time": "now", "dt_ms": 1.5, "status": 200, "path": "/café%41", "query_string": "token=abc&a=1"}
    return known | {"method": "GET", "scheme": "http", "protocol": "HTTP/1.1"} | told


TOLD = {"method": "GET", "path": "/café%41", "query": "token=***&a=1", "status": 200, "client": "127.0.0.1"}
OF_HYPERCORN = {**TOLD, "duration_ms": 1.5, "user_agent": "curl/7", "referer": ""}
OF_GRANIAN = {**TOLD, "duration_ms": 1.5}
LINES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "uvicorn": ("uvicorn.access", ("127.0.0.1:1", "GET", "/caf%C3%A9%2541?token=abc&a=1", "1.1", 200), TOLD),
    "hypercorn": ("hypercorn.access", hypercorns(), OF_HYPERCORN),
    "a length": ("hypercorn.access", hypercorns(**{"{content-length}o": "17"}), {**OF_HYPERCORN, "bytes": 17}),
    "no length": ("hypercorn.access", hypercorns(**{"{content-length}o": "-1"}), OF_HYPERCORN),
    "HEAD": (
        "hypercorn.access",
        hypercorns(m="HEAD", **{"{content-length}o": "17"}),
        {**OF_HYPERCORN, "method": "HEAD", "bytes": 0},
    ),
    "an id": ("hypercorn.access", hypercorns(**{"{x-request-id}i": "id-1"}), {**OF_HYPERCORN, "request_id": "id-1"}),
    "no id": ("hypercorn.access", hypercorns(**{"{x-request-id}i": "an id"}), OF_HYPERCORN),
    "the client left": ("hypercorn.access", hypercorns(s="-"), {**OF_HYPERCORN, "status": 499}),
    "IPv6": ("hypercorn.access", hypercorns(h="::1:4711"), {**OF_HYPERCORN, "client": "::1"}),
    "a Unix socket": ("hypercorn.access", hypercorns(h="/run/app.sock"), {**OF_HYPERCORN, "client": "/run/app.sock"}),
    "a referer": ("hypercorn.access", hypercorns(**{"{referer}i": "caf\xc3\xa9"}), {**OF_HYPERCORN, "referer": "café"}),
    "granian": ("granian.access", granians(), OF_GRANIAN),
    "WSGI under granian": ("granian.access", granians(path="/caf\xc3\xa9%41"), OF_GRANIAN),
}


@pytest.mark.parametrize("line", LINES)
def test_a_servers_own_access_line(events, line) -> None:
    """What it tells is under the same names; of what else is in its arguments there is nothing."""
    name, args, told = LINES[line]
    record = record_of(name, args)
    assert is_access_record(record)
    log_access_record(record)
    (event,) = events
    assert {name: value for name, value in event.items() if name not in HEAD} == told
    assert {name: type(value) for name, value in told.items()}.items() <= ACCESS_FIELDS.items()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("uvicorn.access", ("127.0.0.1:1", "GET")),
        ("uvicorn.error", ("127.0.0.1:1", "GET", "/", "1.1", 200)),
        ("hypercorn.access", {"m": "GET"}),
        ("hypercorn.access", ("GET",)),
        ("hypercorn.error", hypercorns()),
        ("granian.access", {"method": "GET"}),
        ("_granian", granians()),
        ("app", granians()),
    ],
)
def test_a_line_that_is_no_access_line(name, args) -> None:
    """The logger and the form of the arguments decide together."""
    assert not is_access_record(record_of(name, args))


@pytest.mark.parametrize("given", ["a", "abc-1.2:3@x+y=z/w_", "A" * 128, b"bytes-1"])
def test_a_well_formed_request_id(given) -> None:
    """It is kept."""
    assert request_id_from(given) == (given if isinstance(given, str) else given.decode())


@pytest.mark.parametrize(
    "given", [None, "", b"", "a b", "a\n", "a\r\nb", 'a"b', "é", b"\xff", "A" * 129, "a,b", "a;b", "\x00", "{a}"]
)
def test_a_request_id_that_is_not_well_formed(given) -> None:
    """A new one is made, of 32 hexadecimal digits, another each time."""
    made = {request_id_from(given) for _ in range(3)}
    assert len(made) == 3
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in made)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, ""),
        ("", ""),
        (b"", ""),
        ("plain", "plain"),
        (b"caf\xc3\xa9", "café"),
        ("caf\xc3\xa9", "café"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("\xff", "\ufffd"),
        ("日", "?"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
        ("a\r\nb", "a\r\nb"),
    ],
)
def test_text_from_the_network(given, shown) -> None:
    """Bytes, or a str with a character for each byte, are UTF-8 with replacement characters."""
    assert text(given) == shown


# ---- the middleware


START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


def body(data: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def app_sending(*messages: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


async def no_message() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def serve(app: Any, scope: dict[str, Any] | None = None, *, wrap: bool = True) -> list[dict[str, Any]]:
    """Return what the server was sent."""
    sent: list[Any] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    middleware = FapilogMiddleware(app) if wrap else app
    asyncio.run(middleware(scope if scope is not None else scope_of(), no_message, send))
    return sent


def test_a_request_through_the_middleware(events) -> None:
    """One event with everything that the scope tells."""
    headers = [
        (b"user-agent", b"u\xc3\xa9"),
        (b"referer", b"https://a:b@c/?token=1"),
        (b"x-request-id", b"mine"),
        (b"cookie", b"c"),
    ]
    serve(app_sending(START, body(b"hello")), scope_of(headers=headers, path="/é", query_string=b"password=x"))
    (event,) = events
    wanted = {
        "method": "GET",
        "path": "/é",
        "query": "password=***",
        "status": 200,
        "bytes": 5,
        "client": "127.0.0.1",
        "user_agent": "ué",
        "referer": "https://***@c/?token=***",
        "request_id": "mine",
    }
    check_access_event(event, wanted)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([START, body()], (200, 0, None)),
        ([START, body(b"ab", more=True), body(b"cd", more=True), body(b"e")], (200, 5, None)),
        ([START, {"type": "http.response.body"}], (200, 0, None)),
        ([START, body(b"ab", more=True)], (200, 2, True)),
        ([START], (200, 0, True)),
        ([{"type": "http.response.start", "status": 304}, body()], (304, 0, None)),
        ([], (500, 0, None)),
        ([START, body(b"ab"), body(b"late")], (200, 2, None)),
    ],
)
def test_what_the_application_sends(events, messages, expected) -> None:
    """Status, all bytes of the body, whether its end is missing; an application that sends nothing made the server answer 500."""
    serve(app_sending(*messages))
    assert [(event["status"], event["bytes"], event.get("aborted")) for event in events] == [expected]


def test_a_body_in_answer_to_head(events) -> None:
    """It is not counted: the server does not send it."""
    serve(app_sending(START, body(b"hello")), scope_of(method="HEAD"))
    assert [(event["method"], event["bytes"]) for event in events] == [("HEAD", 0)]


def test_what_passes_through(events) -> None:
    """Every message as it is and at once; only the first gets the request's id, and the application's dict stays as it was."""
    start = {**START, "headers": list(START["headers"])}
    messages = [start, body(b"a", more=True), {"type": "http.response.trailers", "headers": []}, body(b"b")]
    sent = serve(app_sending(*messages))
    assert sent[1:] == messages[1:]
    assert all(one is other for one, other in zip(sent[1:], messages[1:], strict=True))
    assert sent[0] == {**start, "headers": [*START["headers"], (b"x-request-id", events[0]["request_id"].encode())]}
    assert start == START


@pytest.mark.parametrize("name", [b"x-request-id", b"X-Request-ID"])
def test_a_request_id_of_the_applications(events, name) -> None:
    """It wins, in the response and in the event, and there is one header."""
    own = {**START, "headers": ((name, b"theirs \xc3\xa9"),)}
    sent = serve(app_sending(own, body()), scope_of(headers=[(b"x-request-id", b"asked")]))
    assert sent[0] is own
    assert events[0]["request_id"] == "theirs é"


@pytest.mark.parametrize("own", [[], [(b"x-request-id", b"theirs")]])
def test_headers_that_can_be_iterated_once(events, own) -> None:
    """The specification allows an iterator, in the scope as in the response: the application and the server get every header."""
    asked = [(b"a", b"b"), (b"user-agent", b"browser")]
    given = [(b"content-length", b"7"), *own]
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend(scope["headers"])
        await send({**START, "headers": (header for header in given)})
        await send(PATH)

    (start, _) = serve(app, scope_of(headers=iter(asked)))
    assert seen == asked
    (event,) = events
    assert (event["user_agent"], event["bytes"]) == ("browser", 7)
    assert list(start["headers"]) == [*given, *([] if own else [(b"x-request-id", event["request_id"].encode())])]


LENGTH: dict[str, Any] = {**START, "headers": [(b"Content-Length", b"7")]}
TRAILED: dict[str, Any] = {**START, "trailers": True}


def trailers(*, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.trailers", "headers": [], "more_trailers": more}


def zero_copy(**changes: Any) -> dict[str, Any]:
    return {"type": "http.response.zerocopysend", "file": 0, **changes}


PATH = {"type": "http.response.pathsend", "path": "/some/file"}


@pytest.mark.parametrize(
    ("messages", "count"),
    [
        pytest.param([LENGTH, PATH], 7, id="a path"),
        pytest.param([START, PATH], 0, id="a path of nobody knows what length"),
        pytest.param([{**START, "headers": [(b"content-length", b"many")]}, PATH], 0, id="a length that is none"),
        pytest.param([LENGTH, zero_copy()], 7, id="a whole file"),
        pytest.param([START, zero_copy(count=3, more_body=True), zero_copy(count=4)], 7, id="parts of files"),
        pytest.param([START, zero_copy(count=3, more_body=True), body(b"abcd")], 7, id="a part of a file and more"),
        pytest.param([TRAILED, body(b"abc", more=True), body(b"abcd"), trailers()], 7, id="trailers"),
        pytest.param([TRAILED, body(b"abcdefg"), trailers(more=True), trailers()], 7, id="trailers in parts"),
        pytest.param([{**START, "status": 103}, START, body(b"abcdefg")], 7, id="an informational response before"),
        pytest.param([{"type": "http.response.early_hint", "links": []}, START, body(b"abcdefg")], 7, id="early hints before"),
        pytest.param(
            [{"type": "http.response.push", "path": "/", "headers": []}, START, body(b"abcdefg")], 7, id="a push before"
        ),
    ],
)
def test_extensions_of_the_protocol(events, messages, count) -> None:
    """They pass as they are; bytes are counted where anybody says how many; the event comes with the last message, not before."""
    logged = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            logged.append(len(events))
            await send(message)
        logged.append(len(events))

    sent = serve(app)
    assert [(event["status"], event["bytes"]) for event in events] == [(200, count)]
    assert logged == [0] * len(messages) + [1]
    starts = [message for message in sent if message["type"] == "http.response.start" and message["status"] == 200]
    assert [one is other for one, other in zip(sent, messages, strict=True)].count(False) == len(starts) == 1


@pytest.mark.parametrize(
    ("before", "status"), [([], 499), ([START], 200), ([START, body(b"ab", more=True)], 200), ([START, body(b"ab")], 200)]
)
@pytest.mark.parametrize("fails", [True, False])
def test_a_client_that_has_left(events, before, status, fails) -> None:
    """The application that hears of it may end as it likes: 499 if it had not begun to answer, else the status that was begun."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in before:
            await send(message)
        assert (await receive())["type"] == "http.disconnect"
        if fails:
            raise RuntimeError("client is gone")
        if not before:
            await send({**START, "status": 204})
            await send(body())

    with contextlib.suppress(RuntimeError):
        serve(app)
    assert [(event["status"], event["bytes"]) for event in events] == [(status, 2 if len(before) == 2 else 0)]
    assert [event.get("aborted") for event in events] == [True if before and body(b"ab") not in before else None]


def test_a_client_that_leaves_an_application_that_goes_on(events) -> None:
    """The response is marked as broken off, though the application sends it to its end."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"ab", more=True))
        await receive()
        await send(body(b"cd"))

    serve(app)
    assert [(event["status"], event["aborted"]) for event in events] == [(200, True)]


@pytest.mark.parametrize("last", [body(b"ab"), {"type": "http.response.pathsend", "path": "/some/file"}])
def test_a_disconnect_that_comes_with_the_end(events, last) -> None:
    """A response whose last message the server is taking is not broken off."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(last)

    middleware = FapilogMiddleware(app)
    scope = scope_of()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] != START["type"]:
            assert (await scope["fapilog.exchange"].receive())["type"] == "http.disconnect"

    asyncio.run(middleware(scope, no_message, send))
    assert [(event["status"], "aborted" in event) for event in events] == [(200, False)]


@pytest.mark.parametrize("before", [[], [START], [START, body(b"ab", more=True)], [START, body(b"ab")]])
@pytest.mark.parametrize("error", [RuntimeError, asyncio.CancelledError, SystemExit])
def test_an_application_that_raises(events, before, error) -> None:
    """The error passes; one event, with the status that was begun, else 500, or 499 where the request was cancelled."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in before:
            await send(message)
        raise error

    with pytest.raises(error):
        serve(app)
    none = 499 if error is asyncio.CancelledError else 500
    (event,) = events
    assert (event["status"], event["bytes"]) == (200 if before else none, 2 if len(before) == 2 else 0)
    assert event.get("aborted") == (True if before and body(b"ab") not in before else None)


def test_a_client_that_is_gone_while_the_application_sends(events) -> None:
    """What the server's send raises passes, and there is one event."""

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            raise OSError("client is gone")

    with pytest.raises(OSError, match="gone"):
        asyncio.run(FapilogMiddleware(app_sending(START, body(b"ab")))(scope_of(), no_message, send))
    assert [(event["status"], event["aborted"]) for event in events] == [(200, True)]


def test_a_start_of_the_response_that_the_server_refuses(events) -> None:
    """Its status is not what the client got, so it is not the event's."""

    async def send(message: MutableMapping[str, Any]) -> None:
        raise RuntimeError("invalid header")

    with pytest.raises(RuntimeError):
        asyncio.run(FapilogMiddleware(app_sending(START, body(b"ab")))(scope_of(), no_message, send))
    assert [(event["status"], event["bytes"]) for event in events] == [(500, 0)]


def test_several_middlewares_around_one_another(events) -> None:
    """The outermost logs the one event, and there is one header."""
    sent = serve(FapilogMiddleware(FapilogMiddleware(app_sending(START, body(b"ab")))))
    assert len(events) == 1
    assert [name for name, _ in sent[0]["headers"]].count(b"x-request-id") == 1


def test_an_outer_middleware_that_logs_no_access(events) -> None:
    """The inner one logs it."""
    serve(FapilogMiddleware(FapilogMiddleware(app_sending(START, body())), access=False), wrap=False)
    assert len(events) == 1


@pytest.mark.parametrize(
    ("setting", "argument", "logged"),
    [(True, None, 1), (False, None, 0), (False, True, 1), (True, False, 0)],
)
def test_who_decides_whether_there_are_access_events(tmp_path, setting, argument, logged) -> None:
    """FAPILOG_ACCESS_LOG, unless the middleware was told; the response has an id either way."""
    from fapilog._internal.route import route

    found: list[bytes] = []
    with process_restored():
        fapilog.configure_logging(sinks=["file"], file_path=str(tmp_path / "x"), run_dir=str(tmp_path), access_log=setting)
        route.accept = lambda _levelno, head: found.append(head) is None  # type: ignore[func-returns-value]
        sent = serve(FapilogMiddleware(app_sending(START, body()), access=argument), wrap=False)
    assert len(found) == logged
    assert [name for name, _ in sent[0]["headers"]].count(b"x-request-id") == 1


@pytest.mark.parametrize("kind", ["lifespan", "something-else"])
def test_other_scopes(events, kind) -> None:
    """They pass without an event."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        await send({"type": f"{kind}.x"})

    assert serve(app, {"type": kind}) == [{"type": f"{kind}.x"}]
    assert seen == [kind]
    assert events == []


# ---- paths without access events


@pytest.mark.parametrize(
    ("exclude", "path", "logged"),
    [
        (["/health"], "/health", False),
        (["/health"], "/health/", True),
        (["/health"], "/healthy", True),
        (["/other", "/health"], "/health", False),
        (["/static/*"], "/static/a/b.css", False),
        (["/static/*"], "/static/", False),
        (["/static/*"], "/static", True),
        (["/h*"], "/health", False),
        (["/h*"], "/x", True),
        (["*"], "/anything", False),
        ([], "/health", True),
        (["/caf\u00e9"], "/caf\u00e9", False),
        (["/a.c"], "/abc", True),
        (["/[a]"], "/a", True),
    ],
)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside of an adapter's"])
def test_an_excluded_path(events, exclude, path, logged, inside) -> None:
    """A path as it is, or everything that begins with what stands before the star; it has its id and context nevertheless."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fapilog.get_logger("app").info("work")
        await send(START)
        await send(body())

    middleware = FapilogMiddleware(app, exclude=exclude)
    sent = serve(middleware, scope_of(path=path, headers=[(b"x-request-id", b"mine")]), wrap=inside)
    assert [event["event"] for event in events] == ["work", *["request"] * logged]
    assert (events[0]["request_id"], events[0]["path"]) == ("mine", path)
    assert (b"x-request-id", b"mine") in sent[0]["headers"]


@pytest.mark.parametrize(
    ("exclude", "error"),
    [
        ("/health", TypeError),
        ([b"/health"], TypeError),
        ([None], TypeError),
        (["health"], ValueError),
        ([""], ValueError),
        (["/a/*/b"], ValueError),
        (["/**"], ValueError),
        (["*/b"], ValueError),
    ],
)
@pytest.mark.parametrize("middleware", [FapilogMiddleware, WsgiMiddleware])
def test_what_can_be_no_path(middleware, exclude, error) -> None:
    """It is refused when the middleware is made, by name."""
    with pytest.raises(error, match="exclude"):
        middleware(app_sending(), exclude=exclude)


@pytest.mark.parametrize("missing", ["client", "headers", "query_string", "method", "path"])
def test_a_scope_without_something(events, missing) -> None:
    """There is an event all the same, with an empty text for it."""
    scope = scope_of()
    del scope[missing]
    serve(app_sending(START, body()), scope)
    assert {name: type(events[0][name]) for name in ACCESS_FIELDS} == ACCESS_FIELDS


@pytest.mark.parametrize("client", [None, ("::1", 5), ["10.0.0.1", 5], ("/run/socket", None)])
def test_the_client(events, client) -> None:
    """The address without the port; nothing where there is none."""
    serve(app_sending(START, body()), scope_of(client=client))
    assert events[0]["client"] == (client[0] if client else "")


def test_many_requests_at_once(events) -> None:
    """Each has its own event, with its own id, status and bytes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = int(scope["path"][1:])
        await asyncio.sleep(0)
        await send({**START, "status": 200 + number})
        for _ in range(number):
            await asyncio.sleep(0)
            await send(body(b"x", more=True))
        await send(body())

    async def all_of_them() -> None:
        middleware = FapilogMiddleware(app)

        async def send(message: MutableMapping[str, Any]) -> None:
            await asyncio.sleep(0)

        scopes = [scope_of(path=f"/{n}", headers=[(b"x-request-id", b"id-%d" % n)]) for n in range(50)]
        await asyncio.gather(*(middleware(scope, no_message, send) for scope in scopes))

    asyncio.run(all_of_them())
    assert sorted((event["status"] - 200, event["bytes"], event["request_id"]) for event in events) == [
        (number, number, f"id-{number}") for number in range(50)
    ]


def test_the_event_of_a_response_that_is_complete(events) -> None:
    """It is logged then, and not when the application has ended, which may be much later."""
    logged = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"ab"))
        logged.append(len(events))

    serve(app)
    assert logged == [1]
    assert len(events) == 1
