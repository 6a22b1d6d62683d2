"""asgi.py: the lifespan door of the drain, with Starlette, FastAPI and bare ASGI applications."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

fastapi = pytest.importorskip("fastapi")
testclient = pytest.importorskip("starlette.testclient")

import fapilog  # noqa: E402
from fapilog.asgi import FapilogMiddleware  # noqa: E402
from tests._support import process_restored, read_lines, scope_of  # noqa: E402


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


@pytest.fixture
def configure(tmp_path, path):
    with process_restored():

        def do(**overrides: Any) -> None:
            fapilog.configure_logging(
                **{"sinks": ["file"], "file_path": str(path), "run_dir": str(tmp_path / "run"), **overrides}
            )

        yield do


def make_app() -> Any:
    @contextlib.asynccontextmanager
    async def lifespan(_app: Any):
        fapilog.get_logger("app").info("starting")
        yield
        fapilog.get_logger("app").info("stopping")

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.get("/async/{number}")
    async def from_coroutine(number: int) -> int:
        fapilog.get_logger("app").info("async", n=number)
        return number

    @app.get("/plain/{number}")
    def from_pool(number: int) -> int:
        fapilog.get_logger("app").info("plain", n=number)
        return number

    return app


def named(path: Any) -> list[str]:
    return [line["event"] for line in read_lines(path)]


def test_the_shutdown_of_the_application(configure, path) -> None:
    """It drains: the file is complete, with the application's own last event, and fapilog.closed is the last line."""
    app = make_app()
    configure(app=app)
    with testclient.TestClient(app) as client:
        for number in range(20):
            assert client.get(f"/async/{number}").json() == number
            assert client.get(f"/plain/{number}").json() == number
    lines = read_lines(path)
    assert [line["event"] for line in lines] == [
        "starting",
        *["async", "request", "plain", "request"] * 20,
        "stopping",
        "fapilog.closed",
    ]
    assert [line["seq"] for line in lines] == list(range(1, 84))
    assert lines[-1]["last_seq"] == 83


def test_a_second_start_of_the_same_application(configure, path) -> None:
    """It opens the hub again, logs through the queue, and drains again."""
    app = make_app()
    configure(app=app)
    for number in range(3):
        with testclient.TestClient(app) as client:
            client.get(f"/async/{number}")
            assert fapilog.flush(10).complete
    assert named(path) == ["starting", "async", "request", "stopping", "fapilog.closed"] * 3
    lines = read_lines(path)
    assert [line["seq"] for line in lines] == list(range(1, 16))
    assert len({line["boot"] for line in lines}) == 1


def test_events_between_two_starts(configure, path) -> None:
    """They are written at once."""
    app = make_app()
    configure(app=app)
    with testclient.TestClient(app):
        pass
    fapilog.get_logger().info("between")
    assert named(path)[-1] == "between"
    with testclient.TestClient(app):
        pass
    assert named(path) == ["starting", "stopping", "fapilog.closed", "between", "starting", "stopping", "fapilog.closed"]


def test_configure_logging_twice_with_the_same_app(configure) -> None:
    """One middleware is added."""
    app = make_app()
    configure(app=app)
    configure(app=app, level="DEBUG")
    configure(app=app)
    assert [entry.cls for entry in app.user_middleware].count(FapilogMiddleware) == 1


def test_the_middleware_added_by_the_user(configure, path) -> None:
    """configure_logging(app=app) adds no second one."""
    app = make_app()
    app.add_middleware(FapilogMiddleware)
    configure(app=app)
    assert [entry.cls for entry in app.user_middleware] == [FapilogMiddleware]
    with testclient.TestClient(app):
        pass
    assert named(path)[-1] == "fapilog.closed"


def test_the_middleware_around_the_application(configure, path) -> None:
    """The class also wraps an application from outside."""
    configure()
    with testclient.TestClient(FapilogMiddleware(make_app())) as client:
        client.get("/plain/1")
    assert named(path) == ["starting", "plain", "request", "stopping", "fapilog.closed"]


def test_a_starlette_application(configure, path) -> None:
    """As with FastAPI."""
    from starlette.applications import Starlette

    app = Starlette()
    configure(app=app)
    with testclient.TestClient(app):
        fapilog.get_logger().info("x")
    assert named(path) == ["x", "fapilog.closed"]


def test_a_litestar_application(configure, path) -> None:
    """It gets the middleware once; its shutdown drains after its own hooks and lifespan managers; a second start opens again."""
    litestar = pytest.importorskip("litestar")

    @contextlib.asynccontextmanager
    async def manager(_app: Any):
        yield
        fapilog.get_logger("app").info("manager ends")

    def hook() -> None:
        fapilog.get_logger("app").info("hook")

    @litestar.get("/items/{n:int}", sync_to_thread=True)
    def item() -> str:
        fapilog.get_logger("app").info("plain")
        return "ok"

    app = litestar.Litestar([item], lifespan=[manager], on_shutdown=[hook], openapi_config=None)
    for _ in range(3):
        configure(app=app)

    async def one_life() -> None:
        incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        requested = asyncio.Event()

        async def receive() -> Any:
            if len(incoming) == 1:
                await requested.wait()
            return incoming.pop(0)

        async def send(message: Any) -> None:
            if message["type"] == "lifespan.startup.complete":
                await call(app, scope_of("/items/7"), [{"type": "http.request", "body": b"", "more_body": False}])
                requested.set()
            elif message["type"] == "lifespan.shutdown.complete":
                told.append(named(path)[-1])

        await app({"type": "lifespan"}, receive, send)

    told: list[str] = []
    for _ in range(2):
        asyncio.run(one_life())
    assert named(path) == ["plain", "request", "manager ends", "hook", "fapilog.closed"] * 2
    assert told == ["fapilog.closed"] * 2
    lines = read_lines(path)
    assert {line["route"] for line in lines if line["event"] in {"plain", "request"}} == {"/items/{n}"}


def test_a_plain_function_as_app(configure) -> None:
    """It is refused with a message that shows the other way, and nothing is configured with it half done."""

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(fapilog.ConfigurationError, match="FapilogMiddleware"):
        configure(app=app)
    with pytest.raises(fapilog.ConfigurationError):
        configure(app=5)


def test_an_app_that_has_started_already(configure, path) -> None:
    """configure_logging(app=app) inside of its lifespan is a ConfigurationError that says when to call it, or works."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Any):
        with contextlib.suppress(fapilog.ConfigurationError):
            configure(app=app)
        yield

    with testclient.TestClient(fastapi.FastAPI(lifespan=lifespan)):
        pass


async def call(app: Any, scope: dict[str, Any], incoming: list[dict[str, Any]]) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


def test_an_app_without_lifespan_support(configure, path) -> None:
    """Its refusal passes through to the server, and requests are served."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError("http only")
        fapilog.get_logger().info("served")
        await send({"type": "http.response.start", "status": 204, "headers": []})

    configure()
    wrapped = FapilogMiddleware(app)
    with pytest.raises(ValueError, match="http only"):
        asyncio.run(call(wrapped, {"type": "lifespan"}, [{"type": "lifespan.startup"}]))
    sent = asyncio.run(call(wrapped, {"type": "http"}, [{"type": "http.request"}]))
    assert [(message["type"], message["status"], [name for name, _ in message["headers"]]) for message in sent] == [
        ("http.response.start", 204, [b"x-request-id"])
    ]
    assert fapilog.flush(10).complete
    assert named(path) == ["served", "request"]


@pytest.mark.parametrize("kind", ["webtransport", "something new"])
def test_other_scopes(kind: str) -> None:
    """The very same objects are handed on."""
    seen: list[Any] = []

    async def app(*arguments: Any) -> None:
        seen.extend(arguments)

    arguments = ({"type": kind}, object(), object())
    asyncio.run(FapilogMiddleware(app, access=False)(*arguments))  # type: ignore[arg-type]
    assert [id(each) for each in seen] == [id(each) for each in arguments]


def by_hand(coroutine: Any) -> None:
    """Run a coroutine that waits for nothing, without any loop of asyncio's, as under trio."""
    with pytest.raises(StopIteration):
        coroutine.send(None)


@pytest.mark.parametrize("run", [asyncio.run, by_hand])
@pytest.mark.parametrize("outcome", ["lifespan.shutdown.complete", "lifespan.shutdown.failed"])
def test_the_moment_of_the_drain(configure, path, outcome: str, run: Any) -> None:
    """After the application's own shutdown and before the server hears of it, whichever way it went and whatever loop runs."""
    told: list[list[str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        fapilog.get_logger().info("last")
        await send({"type": outcome})

    async def main() -> None:
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            if message["type"] == outcome:
                told.append(named(path))

        await FapilogMiddleware(app)({"type": "lifespan"}, receive, send)

    configure()
    run(main())
    assert told == [["last", "fapilog.closed"]]


def test_the_application_s_loop_during_the_drain(configure) -> None:
    """It keeps running while a sink does not let go."""

    class Hanging:
        name = "hanging"

        async def open(self, identity: Any) -> None: ...

        async def write(self, events: Any) -> None:
            await asyncio.sleep(3600)

        async def close(self) -> None: ...

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.shutdown.complete"})

    async def main() -> int:
        beats = 0

        async def heart() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.005)
                beats += 1

        beating = asyncio.create_task(heart())
        fapilog.get_logger().info("x")
        await call(FapilogMiddleware(app), {"type": "lifespan"}, [])
        beating.cancel()
        return beats

    configure(sinks=[Hanging()], drain_timeout=0.5)
    assert asyncio.run(main()) > 30
