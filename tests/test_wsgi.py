"""wsgi.py: context, access event and request id for plain WSGI (PEP 3333), Flask and Django, in this process."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import threading
import weakref
import wsgiref.util
import wsgiref.validate
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import fapilog
from fapilog.wsgi import FapilogMiddleware
from tests._support import ACCESS_FIELDS, caught_events, check_access_event, process_restored, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD = {"timestamp", "level", "event", "logger"}
CONTEXT = {"request_id", "method", "path", "client"}


@pytest.fixture
def events():
    with caught_events() as found:
        yield found


def environ_of(path: str = "/p", **changes: Any) -> dict[str, Any]:
    environ: dict[str, Any] = {"PATH_INFO": path, "SCRIPT_NAME": "", "REMOTE_ADDR": "203.0.113.7", "QUERY_STRING": ""}
    wsgiref.util.setup_testing_defaults(environ)
    environ["wsgi.file_wrapper"] = wsgiref.util.FileWrapper
    return {**environ, **changes}


class Server:
    """What a WSGI server does with one request, and what it has got."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: list[tuple[str, str]] = []
        self.chunks: list[bytes] = []
        self.result: Any = None

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None and self.chunks:
            raise exc_info[1]
        self.status, self.headers = status, headers
        return self.chunks.append

    def serve(self, app: Any, environ: dict[str, Any] | None = None, *, chunks: int = 1000) -> Server:
        """Take as many *chunks* as a client waits for."""
        self.result = app(environ if environ is not None else environ_of(), self.start_response)
        try:
            for chunk, _ in zip(self.result, range(chunks), strict=False):
                self.chunks.append(chunk)
        finally:
            if hasattr(self.result, "close"):
                self.result.close()
        return self

    @property
    def request_id(self) -> str:
        (found,) = [value for name, value in self.headers if name.lower() == "x-request-id"]
        return found


def log(event: str = "work", **fields: Any) -> None:
    fapilog.get_logger("app").info(event, **fields)


def answering(*chunks: bytes, status: str = "200 OK", headers: Iterable[tuple[str, str]] = ()) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, [("Content-Type", "text/plain"), *headers])
        return list(chunks)

    return app


# ---- the access event


def test_a_request_through_the_middleware(events) -> None:
    """One event with everything that the environ tells."""
    environ = environ_of(
        "/caf\xc3\xa9",
        SCRIPT_NAME="/app",
        REQUEST_METHOD="POST",
        QUERY_STRING="a=1&password=x",
        HTTP_USER_AGENT="u\xc3\xa9",
        HTTP_REFERER="https://a:b@c/?token=1",
        HTTP_X_REQUEST_ID="mine",
    )
    server = Server().serve(FapilogMiddleware(answering(b"hel", b"lo")), environ)
    (event,) = events
    wanted = {
        "method": "POST",
        "path": "/app/café",
        "query": "a=1&password=***",
        "status": 200,
        "bytes": 5,
        "client": "203.0.113.7",
        "user_agent": "ué",
        "referer": "https://***@c/?token=***",
        "request_id": "mine",
    }
    check_access_event(event, wanted)
    assert (server.status, server.chunks, server.request_id) == ("200 OK", [b"hel", b"lo"], "mine")


def generating(*chunks: bytes, error: BaseException | None = None, before: bool = False) -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        if before:
            raise error or RuntimeError
        start_response("200 OK", [])
        yield from chunks
        if error is not None:
            raise error

    return app


def calling_write(*chunks: bytes, error: BaseException | None = None) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        for chunk in chunks:
            write(chunk)
        if error is not None:
            raise error
        return [b"end"]

    return app


@pytest.mark.parametrize("error", [RuntimeError("x"), OSError("x"), SystemExit(1), KeyboardInterrupt()])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(lambda error: generating(error=error, before=True), (500, 0, None), id="before the response"),
        pytest.param(lambda error: generating(error=error), (500, 0, None), id="before the first chunk"),
        pytest.param(lambda error: generating(b"abc", error=error), (200, 3, True), id="after a chunk"),
        pytest.param(lambda error: calling_write(error=error), (500, 0, None), id="before anything was written"),
        pytest.param(lambda error: calling_write(b"ab", error=error), (200, 2, True), id="after something was written"),
    ],
)
def test_an_application_that_raises(events, make, expected, error) -> None:
    """The error passes; one event, `aborted` with the status that was begun, else 500; nothing of the request stays behind."""
    with pytest.raises(type(error)) as caught:
        Server().serve(FapilogMiddleware(make(error)))
    assert caught.value is error
    assert [(event["status"], event["bytes"], event.get("aborted")) for event in events] == [expected]
    assert fapilog.get_contextvars() == {}


def test_an_application_that_answers_an_error_after_all(events) -> None:
    """A second start_response() with exc_info reaches the server; its status is the event's."""
    import sys

    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        try:
            raise RuntimeError("half-way")
        except RuntimeError:
            start_response("503 Service Unavailable", [("X-Own", "1")], sys.exc_info())
        return [b"sorry"]

    server = Server().serve(FapilogMiddleware(app))
    assert (server.status, server.chunks, ("X-Own", "1") in server.headers) == ("503 Service Unavailable", [b"sorry"], True)
    assert [(event["status"], event["bytes"]) for event in events] == [(503, 5)]


def test_exc_info_after_the_headers_have_gone(events) -> None:
    """The server raises it anew, through the application; the event has the status that was begun."""
    import sys

    def app(environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"ab")
        try:
            raise RuntimeError("half-way")
        except RuntimeError:
            start_response("500 Oh", [], sys.exc_info())
        return []

    with pytest.raises(RuntimeError, match="half-way"):
        Server().serve(FapilogMiddleware(app))
    assert [(event["status"], event["bytes"], event["aborted"]) for event in events] == [(200, 2, True)]


def test_a_client_that_leaves(events) -> None:
    """The application's response is closed, and the event tells what was sent until then."""
    closed = []

    class Endless:
        def __iter__(self) -> Any:
            while True:
                yield b"x"

        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Endless()

    Server().serve(FapilogMiddleware(app), chunks=3)
    assert closed == [True]
    (event,) = events
    assert (event["status"], event["bytes"], event["aborted"]) == (200, 4, True)  # zip() takes one more, as a server does


@pytest.mark.parametrize(
    ("method", "length", "chunks", "aborted"),
    [
        ("GET", None, 2, True),  # the server has not asked for the end
        ("GET", None, 9, False),
        ("GET", "4", 9, False),
        ("GET", "3", 2, False),  # all that was announced: what is behind it is not for the client
        ("GET", "4", 2, True),
        ("GET", "5", 2, True),
        ("HEAD", None, 2, False),
        ("GET", None, 0, True),
    ],
)
def test_a_body_that_is_not_asked_for_to_its_end(events, method, length, chunks, aborted) -> None:
    """It was broken off, unless everything announced has gone, or nothing of it was wanted."""
    app = answering(*[b"x"] * 4, headers=[] if length is None else [("Content-Length", length)])
    Server().serve(FapilogMiddleware(app), environ_of(REQUEST_METHOD=method), chunks=chunks)
    assert [event.get("aborted", False) for event in events] == [aborted]


@pytest.mark.parametrize(("method", "count"), [("HEAD", 0), ("GET", 5)])
def test_a_body_in_answer_to_head(events, method, count) -> None:
    """It is not counted: the server does not send it."""
    Server().serve(FapilogMiddleware(answering(b"hello")), environ_of(REQUEST_METHOD=method))
    assert events[0]["bytes"] == count


def test_the_moment_of_the_event(events) -> None:
    """When the server closes the response; not before, and once, however often it is closed."""
    result = FapilogMiddleware(answering(b"x"))(environ_of(), Server().start_response)
    assert list(result) == [b"x"]
    assert events == []
    result.close()  # type: ignore[attr-defined]
    result.close()  # type: ignore[attr-defined]
    assert len(events) == 1


@pytest.mark.parametrize("status", ["", "OK", "20", "²⁰⁰ OK"])
def test_a_status_that_is_none(events, status) -> None:
    """It is the server's to refuse; the event is there."""
    Server().serve(FapilogMiddleware(answering(b"x", status=status)))
    assert len(events) == 1


@pytest.mark.parametrize("missing", ["REMOTE_ADDR", "QUERY_STRING", "REQUEST_METHOD", "PATH_INFO", "SCRIPT_NAME", "wsgi.input"])
def test_an_environ_without_something(events, missing) -> None:
    """There is an event all the same, with an empty text for it."""
    environ = environ_of()
    del environ[missing]
    Server().serve(FapilogMiddleware(answering(b"x")), environ)
    assert {name: type(events[0][name]) for name in ACCESS_FIELDS} == ACCESS_FIELDS


@pytest.mark.parametrize("name", ["X-Request-ID", "x-request-id"])
def test_a_request_id_of_the_applications(events, name) -> None:
    """It wins, in the response and in the event, and there is one header."""
    app = answering(b"x", headers=[(name, "theirs")])
    server = Server().serve(FapilogMiddleware(app), environ_of(HTTP_X_REQUEST_ID="asked"))
    assert (server.request_id, events[0]["request_id"]) == ("theirs", "theirs")


def test_a_request_id_that_is_not_well_formed(events) -> None:
    """A new one is made."""
    server = Server().serve(FapilogMiddleware(answering(b"x")), environ_of(HTTP_X_REQUEST_ID="a\r\nb"))
    assert server.request_id == events[0]["request_id"]
    assert int(server.request_id, 16) >= 0


@pytest.mark.parametrize(
    ("outer", "inner", "logged"),
    [
        ({}, {}, 1),
        ({"access": False}, {}, 1),
        ({}, {"access": False}, 1),
        ({"access": False}, {"access": False}, 0),
        ({"exclude": ["/p"]}, {}, 0),
        ({}, {"exclude": ["/p"]}, 0),
        ({"exclude": ["/other"]}, {"exclude": ["/other/*"]}, 1),
    ],
)
def test_several_middlewares_around_one_another(events, outer, inner, logged) -> None:
    """One event if any wants it and none leaves the path out; one header."""
    server = Server().serve(FapilogMiddleware(FapilogMiddleware(answering(b"ab"), **inner), **outer))
    assert [event["bytes"] for event in events] == [2] * logged
    assert server.request_id


@pytest.mark.parametrize(
    ("setting", "argument", "logged"), [(True, None, 1), (False, None, 0), (False, True, 1), (True, False, 0)]
)
def test_who_decides_whether_there_are_access_events(tmp_path, setting, argument, logged) -> None:
    """FAPILOG_ACCESS_LOG, unless the middleware was told; context and id are there either way."""
    path = tmp_path / "x"
    with process_restored():
        fapilog.configure_logging(sinks=["file"], file_path=str(path), run_dir=str(tmp_path), access_log=setting)

        def app(environ: Any, start_response: Any) -> Any:
            log()
            return answering()(environ, start_response)

        server = Server().serve(FapilogMiddleware(app, access=argument))
        assert fapilog.flush(10).complete
        lines = read_lines(path)
    assert Counter(line["event"] for line in lines) == Counter(["work", *["request"] * logged])
    assert lines[0]["request_id"] == server.request_id


# ---- the body


def test_a_conforming_server_and_application(events) -> None:
    """wsgiref's validator, on both sides of the middleware, finds nothing."""
    app = wsgiref.validate.validator(FapilogMiddleware(wsgiref.validate.validator(answering(b"a", b"b"))))
    assert Server().serve(app).chunks == [b"a", b"b"]
    assert len(events) == 1


def test_a_generator(events) -> None:
    """It is not run ahead: each chunk is made when the server asks for it."""
    made = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        for number in range(3):
            made.append(number)
            yield b"x"

    result = iter(FapilogMiddleware(app)(environ_of(), Server().start_response))
    assert made == []
    for count in (1, 2, 3):
        next(result)
        assert len(made) == count


@pytest.mark.parametrize(("body", "length"), [([b"abc"], 1), ((b"a", b"b"), 2), (iter([b"a"]), None), ([], 0)])
def test_the_number_of_chunks(events, body, length) -> None:
    """It is known to the server where the application's body knows it: from one chunk it can make a Content-Length."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return body

    result: Any = FapilogMiddleware(app)(environ_of(), Server().start_response)
    assert hasattr(result, "__len__") == (length is not None)
    assert length is None or len(result) == length


@pytest.mark.parametrize(("method", "count"), [("GET", 7), ("HEAD", 0)])
def test_a_file_for_the_server_to_send(events, tmp_path, method, count) -> None:
    """The server gets the very wrapper of its own kind, which it may send as it likes; the event comes when it closes it."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    made: list[Any] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "7")])
        made.extend([path.open("rb")])
        made.append(environ["wsgi.file_wrapper"](made[0]))
        return made[1]

    result: Any = FapilogMiddleware(app)(environ_of(REQUEST_METHOD=method), Server().start_response)
    file, wrapper = made
    assert result is wrapper
    assert isinstance(result, wsgiref.util.FileWrapper)
    os.pread(result.filelike.fileno(), 7, 0)
    assert events == []
    result.close()
    assert file.closed
    assert [(event["status"], event["bytes"]) for event in events] == [(200, count)]


def test_a_file_wrapper_that_takes_no_attribute(events) -> None:
    """The event comes at once: nobody will tell when it is closed."""

    class Sealed:
        __slots__ = ("filelike",)

        def __init__(self, filelike: Any) -> None:
            self.filelike = filelike

        def __iter__(self) -> Any:
            return iter(self.filelike)

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-length", "3")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"abc"))

    server = Server().serve(FapilogMiddleware(app), {**environ_of(), "wsgi.file_wrapper": Sealed})
    assert server.chunks == [b"abc"]
    assert [(event["status"], event["bytes"]) for event in events] == [(200, 3)]


# ---- the context


def test_what_is_logged_during_a_request(events) -> None:
    """It has the request's context: in the application, its body, its close(); the access event has what it bound, too."""

    class Body:
        def __iter__(self) -> Any:
            for part in range(2):
                log("part", part=part)
                yield b"x"

        def close(self) -> None:
            log("close")

    def app(environ: Any, start_response: Any) -> Any:
        fapilog.bind_contextvars(user="ann")
        log()
        start_response("200 OK", [])
        return Body()

    server = Server().serve(FapilogMiddleware(app), environ_of("/items/1"))
    log("afterwards")
    *during, afterwards = events
    assert [event["event"] for event in during] == ["work", "part", "part", "close", "request"]
    for event in during:
        assert {name: event[name] for name in (*CONTEXT, "user")} == {
            "request_id": server.request_id,
            "method": "GET",
            "path": "/items/1",
            "client": "203.0.113.7",
            "user": "ann",
        }
    assert set(afterwards) == HEAD


def failing(environ: Any, start_response: Any) -> Any:
    fapilog.bind_contextvars(user="ann")
    raise RuntimeError("the application fails")


def leaving(environ: Any, start_response: Any) -> Any:
    fapilog.bind_contextvars(user="ann")
    start_response("200 OK", [])
    return [b"x"]


def leaving_late(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [])
    fapilog.bind_contextvars(user="ann")
    yield b"x"


@pytest.mark.parametrize("app", [failing, leaving, leaving_late])
def test_a_thread_that_serves_one_request_after_another(events, app) -> None:
    """The second has nothing of what the first has bound and never unbound (O-CTX-2)."""

    def second(environ: Any, start_response: Any) -> Any:
        log("second")
        return answering()(environ, start_response)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(Server().serve, FapilogMiddleware(app), environ_of("/first")).exception(10)
        pool.submit(Server().serve, FapilogMiddleware(second), environ_of("/second")).result(10)
        pool.submit(log, "afterwards").result(10)
    assert [(event["event"], event.get("path"), event.get("user")) for event in events] == [
        ("request", "/first", "ann"),
        ("second", "/second", None),
        ("request", "/second", None),
        ("afterwards", None, None),
    ]


def test_requests_in_many_threads(events) -> None:
    """Each event has the id of its own request (O-CTX-1 for WSGI)."""
    together = threading.Barrier(8)

    def app(environ: Any, start_response: Any) -> Any:
        n = int(environ["PATH_INFO"][1:])
        log(n=n)
        together.wait(30)
        start_response("200 OK", [])
        for _ in range(3):
            log("part", n=n)
            yield b"x"

    middleware = FapilogMiddleware(app)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: Server().serve(middleware, environ_of(f"/{n}", HTTP_X_REQUEST_ID=f"id-{n}")), range(80)))
    assert Counter(event["event"] for event in events) == {"work": 80, "part": 240, "request": 80}
    for event in events:
        n = event["path"][1:]
        assert event["request_id"] == f"id-{n}"
        assert event.get("n", int(n)) == int(n)


def test_a_thread_of_values_bound_before(events) -> None:
    """They are on the events of a request, and are as before afterwards."""
    fapilog.bind_contextvars(tenant="acme", path="outer")
    Server().serve(FapilogMiddleware(leaving))
    assert (events[0]["tenant"], events[0]["path"]) == ("acme", "/p")
    assert fapilog.get_contextvars() == {"tenant": "acme", "path": "outer"}


@pytest.mark.parametrize("app", [leaving, leaving_late, failing])
def test_what_a_request_leaves_in_memory(events, app) -> None:
    """Nothing of it, by reference counting alone."""

    class Input(io.BytesIO):
        pass

    gc.collect()
    gc.disable()
    try:
        data = Input()
        reference = weakref.ref(data)
        with contextlib.suppress(RuntimeError):
            Server().serve(FapilogMiddleware(app), {**environ_of(), "wsgi.input": data})
        del data
        assert reference() is None
    finally:
        gc.enable()


# ---- frameworks


def flask_app() -> Any:
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)

    @app.get("/items/<int:n>")
    def item(n: int) -> str:
        fapilog.bind_contextvars(user=n)
        log(n=n)
        return "ok"

    @app.get("/stream/<int:n>")
    def stream(n: int) -> Any:
        def body() -> Any:
            for part in range(2):
                log("part", n=flask.request.view_args["n"], part=part)
                yield b"x"

        return flask.Response(flask.stream_with_context(body()))

    @app.get("/fail/<int:n>")
    def fail(n: int) -> str:
        raise RuntimeError("the application fails")

    @app.get("/file/<int:n>")
    def file(n: int) -> Any:
        return flask.send_file(__file__)

    @app.teardown_request
    def teardown(_error: Any) -> None:
        log("teardown")

    return app


@pytest.mark.parametrize(
    ("path", "route", "status", "logged"),
    [
        ("/items/7", "/items/<int:n>", 200, ["work", "teardown"]),
        ("/stream/7", "/stream/<int:n>", 200, ["part", "part", "teardown", "teardown"]),  # Flask pops its context twice
        ("/fail/7", "/fail/<int:n>", 500, ["teardown"]),
        ("/file/7", "/file/<int:n>", 200, ["teardown"]),
        ("/nothing", None, 404, ["teardown"]),
    ],
)
def test_flask(events, path, route, status, logged) -> None:
    """Every event of a request has its context and, once routed, its route; one access event each."""
    app = flask_app()
    app.logger.disabled = True
    app.wsgi_app = FapilogMiddleware(app.wsgi_app)
    for n in range(2):
        answer = app.test_client().get(path, headers={"X-Request-ID": f"id-{n}"})
        assert (answer.status_code, answer.headers["X-Request-ID"]) == (status, f"id-{n}")
        data = answer.data
        answer.close()
        assert Counter(event["event"] for event in events) == Counter([*logged, "request"])
        for event in events:
            assert (event["request_id"], event["path"], event.get("route")) == (f"id-{n}", path, route)
        request = next(event for event in events if event["event"] == "request")
        assert (request["status"], request["bytes"], request.get("user")) == (status, len(data), 7 if "items" in path else None)
        events.clear()


def test_the_context_of_a_flask_test_client(events) -> None:
    """Flask's own context variables work across the middleware's context, also where its test client keeps them."""
    flask = pytest.importorskip("flask")
    app = flask_app()
    app.wsgi_app = FapilogMiddleware(app.wsgi_app)
    with app.test_client() as client:
        client.get("/items/7")
        assert flask.request.path == "/items/7"
    assert not flask.has_request_context()


def test_configure_logging_with_a_flask_app(tmp_path) -> None:
    """It adds the middleware once, also beneath one of the user's that wraps it."""
    from werkzeug.middleware.proxy_fix import ProxyFix

    app = flask_app()
    path = tmp_path / "x"
    with process_restored():
        for _ in range(3):
            fapilog.configure_logging(sinks=["file"], file_path=str(path), run_dir=str(tmp_path), app=app)
            if not isinstance(app.wsgi_app, ProxyFix):
                assert isinstance(app.wsgi_app, FapilogMiddleware)
                app.wsgi_app = ProxyFix(app.wsgi_app)
        app.test_client().get("/items/7").close()
        assert fapilog.flush(10).complete
        assert [line["event"] for line in read_lines(path)] == ["work", "teardown", "request"]
    assert isinstance(app.wsgi_app.app, FapilogMiddleware)
    assert not isinstance(app.wsgi_app.app.app, FapilogMiddleware)


def test_configure_logging_with_a_plain_wsgi_application(tmp_path) -> None:
    """It is refused with the line that wraps it."""
    with process_restored(), pytest.raises(fapilog.ConfigurationError, match=r"app = fapilog\.wsgi\.FapilogMiddleware\(app\)"):
        fapilog.configure_logging(app=answering())


@pytest.fixture(scope="module")
def django_app() -> Any:
    django = pytest.importorskip("django")
    from django.conf import settings
    from django.http import FileResponse, HttpResponse, StreamingHttpResponse
    from django.urls import path

    def item(request: Any, n: int) -> Any:
        log(n=n)
        return HttpResponse("ok")

    def stream(request: Any, n: int) -> Any:
        def body() -> Any:
            for part in range(2):
                log("part", n=n, part=part)
                yield b"x"

        return StreamingHttpResponse(body())

    def fail(request: Any, n: int) -> Any:
        raise RuntimeError("the application fails")

    def file(request: Any, n: int) -> Any:
        return FileResponse(open(__file__, "rb"))

    class Urls:
        urlpatterns = (
            path("items/<int:n>", item),
            path("stream/<int:n>", stream),
            path("fail/<int:n>", fail),
            path("file/<int:n>", file),
        )

    class Route:
        """As in the documentation."""

        def __init__(self, get_response: Any) -> None:
            self.get_response = get_response

        def __call__(self, request: Any) -> Any:
            return self.get_response(request)

        def process_view(self, request: Any, *_: Any) -> None:
            fapilog.bind_contextvars(route=request.resolver_match.route)

    import sys
    import types

    module = types.ModuleType("fapilog_test_django")
    module.Route = Route  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    settings.configure(
        ROOT_URLCONF=Urls, ALLOWED_HOSTS=["*"], SECRET_KEY="x", MIDDLEWARE=["fapilog_test_django.Route"], LOGGING_CONFIG=None
    )
    django.setup()
    from django.core.wsgi import get_wsgi_application

    yield get_wsgi_application()
    del sys.modules[module.__name__]


@pytest.mark.parametrize(
    ("path", "route", "status", "logged"),
    [
        ("/items/7", "items/<int:n>", 200, ["work"]),
        ("/stream/7", "stream/<int:n>", 200, ["part", "part"]),
        ("/fail/7", "fail/<int:n>", 500, []),
        ("/file/7", "file/<int:n>", 200, []),
        ("/nothing", None, 404, []),
    ],
)
def test_django(events, django_app, path, route, status, logged) -> None:
    """Every event of a request has its context, and the route that a Django middleware binds; one access event each."""
    import logging

    app = FapilogMiddleware(django_app)
    logging.getLogger("django").addHandler(logging.NullHandler())
    for n in range(2):
        server = Server().serve(app, environ_of(path, HTTP_X_REQUEST_ID=f"id-{n}"))
        assert (int(server.status[:3]), server.request_id) == (status, f"id-{n}")
        assert Counter(event["event"] for event in events) == Counter([*logged, "request"])
        for event in events:
            assert (event["request_id"], event["path"], event.get("route")) == (f"id-{n}", path, route)
        assert [(event["status"], event["bytes"]) for event in events if event["event"] == "request"] == [
            (status, sum(map(len, server.chunks)))
        ]
        events.clear()


def test_a_wsgi_application_inside_of_an_asgi_one(events) -> None:
    """Under a2wsgi, which copies the context, there is one access event, the outermost middleware's, and one id."""
    import asyncio

    a2wsgi = pytest.importorskip("a2wsgi")
    from fapilog.asgi import FapilogMiddleware as AsgiMiddleware

    def app(environ: Any, start_response: Any) -> Any:
        log()
        return answering(b"hello")(environ, start_response)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/p",
        "query_string": b"",
        "headers": [(b"x-request-id", b"mine")],
        "http_version": "1.1",
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(AsgiMiddleware(a2wsgi.WSGIMiddleware(FapilogMiddleware(app)))(scope, receive, send))
    assert [(event["event"], event["request_id"]) for event in events] == [("work", "mine"), ("request", "mine")]
    assert [name for name, _ in sent[0]["headers"]].count(b"x-request-id") == 1
