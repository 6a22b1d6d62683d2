"""
The context of a request: what is logged during it has its id, method, path, client and route, and nothing of another's.

What Python makes impossible is tested as such: it is in docs/processes.md under "The context of a request".
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import http.client
import socket
import threading
import types
import weakref
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import structlog

fastapi = pytest.importorskip("fastapi")
starlette_applications = pytest.importorskip("starlette.applications")

import fapilog  # noqa: E402
from fapilog.asgi import FapilogMiddleware  # noqa: E402
from fapilog.servers.uvicorn import LOG_CONFIG_FILE  # noqa: E402
from tests._support import caught_events, only_matrix, process_restored, scope_of  # noqa: E402
from tests.programs.running import only_life, wait_until  # noqa: E402
from tests.recording import RecordingSink  # noqa: E402
from tests.servers.harness import Uvicorn  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from pathlib import Path

CONTEXT = {"request_id", "method", "path", "client", "route"}
#: What the application logs for each path, beside what the middlewares log, and the status of its answer.
PLACES: dict[str, tuple[list[str], int]] = {
    "async": (["begun", "work"], 200),
    "plain": (["begun", "work"], 200),
    "depends": (["dependency", "plain dependency", "work"], 200),
    "background": (["work", "task", "plain task"], 200),
    "stream": (["work", *["part"] * 3], 200),
    "stream-plain": (["work", *["part"] * 3], 200),
    "missing": (["work"], 404),
    "fail": (["work"], 500),
}
FOREIGN = ["inner before", "inner after", "outer before", "outer after"]
LIMIT_S = 60.0


@pytest.fixture
def events():
    with caught_events() as found:
        yield found


# ---- 200 requests at once through a real server (O-CTX-1; what the issue shows as number 3)


def ask_at_once(port: int, count: int) -> dict[int, tuple[str, int, str]]:
    """Send *count* requests, all at once, each second one with an id; return the path, status and id of each."""
    places = list(PLACES)
    ready = threading.Barrier(count)

    def ask(n: int) -> tuple[str, int, str]:
        path = f"/{places[n % len(places)]}/{n}"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        connection.connect()
        ready.wait(LIMIT_S)
        connection.request("GET", path, headers={"X-Request-ID": f"mine-{n}"} if n % 2 else {})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return path, answer.status, answer.getheader("X-Request-ID", "")

    with ThreadPoolExecutor(count) as pool:
        return dict(enumerate(pool.map(ask, range(count))))


def listening(server: Uvicorn) -> None:
    """Wait until it takes connections, without an event."""

    def listens() -> bool:
        server.still_runs()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", server.port)) == 0

    wait_until(listens, "it listens")


@pytest.mark.parametrize("way", ["middleware", only_matrix("adapter")])
def test_two_hundred_requests_at_once(tmp_path: Path, way: str) -> None:
    """
    Each event has the id, method, path, client and route of its own request; one access event for each, with the right status;
    what others' middlewares have bound is there (O-CTX-1).
    """
    arguments = ["--log-config", str(LOG_CONFIG_FILE)] if way == "adapter" else []
    adapter = "1" if way == "adapter" else ""
    with Uvicorn(tmp_path, *arguments, app="context_app:api", FAPILOG_TEST_ADAPTER=adapter) as server:
        listening(server)
        answers = ask_at_once(server.port, 200)
        server.stop()

    life = only_life(tmp_path).whole()
    logged: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in life.lines:
        if "n" in line:
            logged[line["n"]].append(line)
    access = {int(line["path"].rpartition("/")[2]): line for line in life.named("request")}
    assert sorted(logged) == sorted(access) == list(range(200))
    assert len(life.named("request")) == 200

    for n, (path, status, returned) in answers.items():
        place = path.split("/")[1]
        expected, right_status = PLACES[place]
        assert Counter(line["event"] for line in logged[n]) == Counter([*expected, *FOREIGN])
        assert (status, access[n]["status"]) == (right_status, right_status)
        request_id = access[n]["request_id"]
        assert len(request_id) == 32 if n % 2 == 0 else request_id == f"mine-{n}"
        if place != "fail" or way == "adapter":  # the answer to a failure comes from outside of every middleware of Starlette's
            assert returned == request_id
        for line in [*logged[n], access[n]]:
            assert line["outer"] == n, "what the outer middleware has bound is everywhere"
            if way == "middleware" and line["event"] in {"outer before", "outer after"}:
                assert CONTEXT.isdisjoint(line)
                continue
            assert {name: line[name] for name in CONTEXT - {"route"}} == {
                "request_id": request_id,
                "method": "GET",
                "path": path,
                "client": "127.0.0.1",
            }
            if line["event"] not in {"outer before", "inner before"}:
                assert line["route"] == f"/{place}/{{n}}"
            if line["event"] not in {"outer before", "outer after"} and line["event"] != "request":
                assert line["inner"] == n
    assert len({access[n]["request_id"] for n in access}) == 200
    assert {line["in_pool"] for line in life.lines if line["event"] == "work" and line["path"].startswith("/plain/")} == {True}


# ---- the frameworks, in this process


START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
BODY: dict[str, Any] = {"type": "http.response.body", "body": b"ok"}


async def call(app: Any, path: str, **changes: Any) -> list[MutableMapping[str, Any]]:
    """Send one request to an application; return what the server was sent."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not sent:
            return {"type": "http.request", "body": b"", "more_body": False}
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        await asyncio.sleep(0)
        sent.append(message)

    await app(scope_of(path, **changes), receive, send)
    return sent


async def no_message() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def log(event: str = "work", **fields: Any) -> None:
    fapilog.get_logger("app").info(event, **fields)


def starlette_app() -> Any:
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def endpoint(request: Any) -> Any:
        n = request.path_params["n"]
        log(n=n)
        await asyncio.sleep(0)
        await run_in_threadpool(log, n=n)
        return PlainTextResponse("ok")

    app = starlette_applications.Starlette(routes=[Route("/items/{n:int}", endpoint)])
    app.add_middleware(FapilogMiddleware)
    return app


def fastapi_app() -> Any:
    app = fastapi.FastAPI()
    app.add_middleware(FapilogMiddleware)

    @app.get("/items/{n}")
    async def endpoint(n: int) -> int:
        log(n=n)
        await asyncio.sleep(0)
        await asyncio.to_thread(log, n=n)
        return n

    return app


def litestar_app() -> Any:
    litestar = pytest.importorskip("litestar")

    async def endpoint(request: Request) -> int:  # type: ignore[name-defined]  # noqa: F821 - Litestar is told what it is
        n = int(request.path_params["n"])
        log(n=n)
        await asyncio.sleep(0)
        await asyncio.to_thread(log, n=n)
        return n

    handler = litestar.get("/items/{n:int}", signature_namespace={"Request": litestar.Request})(endpoint)
    return FapilogMiddleware(litestar.Litestar([handler], openapi_config=None))


def plain_app() -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        n = int(scope["path"].rpartition("/")[2])
        log(n=n)
        await asyncio.sleep(0)
        await asyncio.to_thread(log, n=n)
        await send(START)
        await send(BODY)

    return FapilogMiddleware(app)


FRAMEWORKS = {
    "starlette": (starlette_app, "/items/{n}"),
    "fastapi": (fastapi_app, "/items/{n}"),
    "litestar": (litestar_app, "/items/{n}"),
    "plain": (plain_app, None),
}


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_requests_at_once_in_each_framework(events, framework: str) -> None:
    """Each event has the id, path and route of its own request; what is logged afterwards has nothing of any (O-CTX-1)."""
    make, route = FRAMEWORKS[framework]
    app = make()

    async def all_of_them() -> None:
        await asyncio.gather(*(call(app, f"/items/{n}", headers=[(b"x-request-id", b"id-%d" % n)]) for n in range(50)))
        log("afterwards")

    asyncio.run(all_of_them())
    afterwards = events.pop()
    assert CONTEXT.isdisjoint(afterwards)
    assert Counter(event["event"] for event in events) == {"work": 100, "request": 50}
    for event in events:
        n = int(event["path"].rpartition("/")[2])
        assert event["request_id"] == f"id-{n}"
        assert event.get("n", n) == n
        assert event.get("route") == route
        assert event.get("status", 200) == 200


# ---- the route


def routed_app() -> Any:
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    def endpoint(request: Any) -> Any:
        log()
        return PlainTextResponse("ok")

    app = fastapi.FastAPI()
    router = fastapi.APIRouter(prefix="/v1")
    inner = fastapi.APIRouter(prefix="/{tenant}")

    @router.get("/things/{n:int}")
    def thing(n: int) -> int:
        log()
        return n

    @inner.get("/deep/{n}")
    def deep(n: int) -> int:
        log()
        return n

    router.include_router(inner)
    app.include_router(router, prefix="/api")
    sub = fastapi.FastAPI()
    sub.add_api_route("/x/{y}", thing_of_sub)
    app.mount("/sub", sub)
    app.router.routes.append(Mount("/mounted/{a}", routes=[Route("/r/{n:int}", endpoint)]))
    return FapilogMiddleware(app)


def thing_of_sub(y: int) -> int:
    log()
    return y


@pytest.mark.parametrize(
    ("path", "root", "route", "status"),
    [
        ("/api/v1/things/7", "", "/api/v1/things/{n}", 200),
        ("/api/v1/acme/deep/7", "", "/api/v1/{tenant}/deep/{n}", 200),
        ("/sub/x/7", "", "/sub/x/{y}", 200),
        ("/mounted/1/r/7", "", "/mounted/1/r/{n}", 200),
        ("/api/v1/things/7", "/behind", "/api/v1/things/{n}", 200),
        ("/behind/sub/x/7", "/behind", "/sub/x/{y}", 200),
        ("/nothing", "", None, 404),
        ("/sub/nothing", "", "/sub", 404),
        ("/mounted/1/nothing", "", "/mounted/1", 404),
    ],
)
def test_the_route(events, path: str, root: str, route: str | None, status: int) -> None:
    """It is the whole template, with the prefixes of routers and mounts, on the access event and on what the endpoint logs."""
    asyncio.run(call(routed_app(), path, root_path=root))
    assert [event.get("route") for event in events] == [route] * len(events)
    assert (events[-1]["event"], events[-1]["status"], len(events)) == ("request", status, 1 + (status == 200))


@pytest.mark.parametrize("found", [None, object(), 5, "text"])
def test_a_route_that_is_something_else(events, found: Any) -> None:
    """It is left out."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = found
        log()
        await send(START)
        await send(BODY)

    asyncio.run(call(FapilogMiddleware(app), "/"))
    assert [(event["event"], "route" in event) for event in events] == [("work", False), ("request", False)]


def test_a_route_that_the_application_binds(events) -> None:
    """It is the one on its own events; the access event says what the framework found, or else the same."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fapilog.bind_contextvars(route="mine")
        if scope["path"] == "/found":
            scope["path_template"] = "/theirs"
        log()
        await send(START)
        await send(BODY)

    asyncio.run(call(FapilogMiddleware(app), "/found"))
    asyncio.run(call(FapilogMiddleware(app), "/other"))
    assert [event["route"] for event in events] == ["mine", "/theirs", "mine", "mine"]


# ---- the bindings of others


def test_values_that_an_async_endpoint_binds(events) -> None:
    """They are on what it logs and on the access event, and not on the next request's (O-CTX-1)."""
    app = fastapi.FastAPI()
    app.add_middleware(FapilogMiddleware)

    @app.get("/{name}")
    async def endpoint(name: str) -> str:
        if name != "nobody":
            fapilog.bind_contextvars(user=name, status="theirs")
        log()
        return name

    for name in ("ann", "nobody", "bob"):
        asyncio.run(call(app, f"/{name}"))
    assert [event.get("user") for event in events] == ["ann", "ann", None, None, "bob", "bob"]
    assert [event["status"] for event in events if event["event"] == "request"] == [200] * 3


def test_values_that_a_plain_endpoint_binds(events) -> None:
    """They are on what it logs; the access event cannot have them: a thread of the pool works on a copy of the context."""
    app = fastapi.FastAPI()
    app.add_middleware(FapilogMiddleware)

    @app.get("/{name}")
    def endpoint(name: str) -> str:
        if name != "nobody":
            fapilog.bind_contextvars(user=name)
        log()
        return name

    async def in_one_loop() -> None:
        for name in ("ann", "nobody"):
            await call(app, f"/{name}")

    asyncio.run(in_one_loop())
    assert [event.get("user") for event in events] == ["ann", None, None, None]


@pytest.mark.parametrize("inside", [True, False])
def test_values_bound_beyond_a_base_http_middleware(events, inside: bool) -> None:
    """One inside of ours runs the endpoint in a task of its own, so the access event lacks them; one outside does no harm."""
    from starlette.middleware.base import BaseHTTPMiddleware

    async def dispatch(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app = fastapi.FastAPI()

    @app.get("/")
    async def endpoint() -> None:
        fapilog.bind_contextvars(user="ann")
        log()

    if inside:
        app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    app.add_middleware(FapilogMiddleware)
    if not inside:
        app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    asyncio.run(call(app, "/"))
    assert [event.get("user") for event in events] == ["ann", None if inside else "ann"]


def test_values_that_were_bound_before(events) -> None:
    """They are on every event of the request, and afterwards as they were, also those under the names of ours."""
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(fapilog.get_contextvars())
        fapilog.bind_contextvars(inner=1)
        await send(START)
        await send(BODY)

    async def main() -> dict[str, Any]:
        fapilog.bind_contextvars(tenant="acme", client="their client", request_id="outer")
        await call(FapilogMiddleware(app), "/p", headers=[(b"x-request-id", b"mine")])
        return fapilog.get_contextvars()

    after = asyncio.run(main())
    request = {"request_id": "mine", "method": "GET", "path": "/p", "client": "127.0.0.1"}
    assert seen == [{"tenant": "acme", **request}]
    assert {name: events[0][name] for name in ("tenant", "inner", *request)} == {"tenant": "acme", "inner": 1, **request}
    assert after == {"tenant": "acme", "client": "their client", "request_id": "outer", "inner": 1}


def test_an_application_that_clears_the_context(events) -> None:
    """What it clears is gone from its events, as it wishes; the access event is whole, and what was before comes back."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fapilog.clear_contextvars()
        fapilog.bind_contextvars(path="theirs")
        log()
        await send(START)
        await send(BODY)

    async def main() -> dict[str, Any]:
        fapilog.bind_contextvars(path="outer")
        await call(FapilogMiddleware(app), "/p")
        return fapilog.get_contextvars()

    assert asyncio.run(main()) == {"path": "outer"}
    work, request = events
    assert (work["path"], "request_id" in work) == ("theirs", False)
    assert (request["path"], request["method"]) == ("/p", "GET")


def test_a_chain_of_the_users_own(events) -> None:
    """structlog's merge_contextvars sees the request as well."""
    merged: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        merged.append(structlog.contextvars.merge_contextvars(None, "info", {"event": "x"}))
        await send(START)
        await send(BODY)

    asyncio.run(call(FapilogMiddleware(app), "/p"))
    assert {"method": "GET", "path": "/p", "client": "127.0.0.1"}.items() <= merged[0].items()


def test_a_task_that_outlives_its_request(events) -> None:
    """What it logs still has the request's context; the request itself, with all that hangs on it, is let go."""

    class Big:
        pass

    class Wire:
        async def __call__(self, message: MutableMapping[str, Any]) -> None:
            pass

    released: list[bool] = []
    kept: list[Any] = []

    async def late(over: asyncio.Event) -> None:
        await over.wait()
        log("late")

    async def main() -> None:
        over = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scope["path_template"] = "/items/{n}"
            kept.append(asyncio.create_task(late(over)))
            await send(START)
            await send(BODY)

        big = Big()
        send = Wire()
        gone: list[weakref.ref[Any]] = [weakref.ref(big), weakref.ref(send)]
        await FapilogMiddleware(app)(scope_of("/items/1", state=big), no_message, send)
        del big, send
        released.extend(reference() is None for reference in gone)  # by reference counting alone: no cycle holds them
        over.set()
        await kept[0]

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()
    assert released == [True, True]
    assert [(event["event"], event["path"], event["route"]) for event in events] == [
        (name, "/items/1", "/items/{n}") for name in ("request", "late")
    ]


def test_a_request_that_is_closed_from_another_context(events) -> None:
    """Nothing is raised: a loop that is closed, or the garbage collector, ends a coroutine wherever it happens to be."""

    @types.coroutine
    def suspended() -> Any:
        yield

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await suspended()

    request = call(FapilogMiddleware(app), "/p")
    contextvars.copy_context().run(request.send, None)
    request.close()
    assert [(event["status"], event["path"]) for event in events] == [(500, "/p")]
    assert fapilog.get_contextvars() == {}


def test_a_request_made_inside_of_another(events) -> None:
    """Each event has the context of the innermost; the outer one's is there again afterwards."""
    inner = plain_app()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        log("before")
        await call(inner, "/inner/1")
        log("after")
        await send(START)
        await send(BODY)

    asyncio.run(call(FapilogMiddleware(app), "/outer"))
    assert [(event["event"], event["path"]) for event in events] == [
        ("before", "/outer"),
        *[("work", "/inner/1")] * 2,
        ("request", "/inner/1"),
        ("after", "/outer"),
        ("request", "/outer"),
    ]
    assert len({event["request_id"] for event in events}) == 2


# ---- the context of a record is that of the call (O-CTX-2)


def test_a_context_that_is_cleared_while_the_sink_stands_still(tmp_path: Path) -> None:
    """An event has the values that were bound when it was logged (O-CTX-2)."""
    entered, gate = threading.Event(), threading.Event()

    class StalledSink(RecordingSink):
        async def write(self, batch: Any) -> None:
            entered.set()
            while not gate.is_set():
                await asyncio.sleep(0.01)
            await super().write(batch)

    sink = StalledSink()
    with process_restored():
        fapilog.configure_logging(sinks=[sink], run_dir=str(tmp_path), queue_batch_timeout=0.01)
        log("stalls")
        assert entered.wait(10)
        values = {"request_id": "first", "list": [1]}
        fapilog.bind_contextvars(**values)
        log("bound")
        fapilog.clear_contextvars()
        values["list"].append(2)  # type: ignore[attr-defined]
        fapilog.bind_contextvars(request_id="second")
        log("after")
        gate.set()
        assert fapilog.flush(10).complete
    found = [(event["event"], event.get("request_id"), event.get("list")) for event in sink.own()]
    assert found == [("stalls", None, None), ("bound", "first", [1]), ("after", "second", None)]


def failing_job(**values: Any) -> None:
    fapilog.bind_contextvars(**values)
    log("a")
    raise RuntimeError("job a fails")


def with_bound_contextvars(pool: ThreadPoolExecutor) -> None:
    def job() -> None:
        with fapilog.bound_contextvars(job="a"):
            log("a")
            raise RuntimeError("job a fails")

    pool.submit(job).exception(10)


def in_a_copy(pool: ThreadPoolExecutor) -> None:
    pool.submit(contextvars.copy_context().run, failing_job, job="a").exception(10)


def to_thread(pool: ThreadPoolExecutor) -> None:
    async def main() -> None:
        asyncio.get_running_loop().set_default_executor(pool)
        with pytest.raises(RuntimeError):
            await asyncio.to_thread(failing_job, job="a")
        await asyncio.to_thread(log, "b")

    asyncio.run(main())


@pytest.mark.parametrize("way", [with_bound_contextvars, in_a_copy, to_thread])
def test_a_pool_thread_whose_first_job_fails(events, way: Any) -> None:
    """The second job's event has nothing of the first (O-CTX-2): these ways are the documented ones."""
    with ThreadPoolExecutor(1) as pool:
        way(pool)
        if way is not to_thread:
            pool.submit(log, "b").result(10)
    assert [(event["event"], event.get("job")) for event in events] == [("a", "a"), ("b", None)]
