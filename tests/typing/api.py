"""
Code as users write it, for type checkers: `make lint` checks it with mypy, strictly, and with pyright in its strict mode.

It is not run. `assert_type()` pins what users' own variables become.
"""

from __future__ import annotations

import logging
import multiprocessing
from typing import TYPE_CHECKING, Any, assert_type

import structlog
from fastapi import FastAPI
from starlette.applications import Starlette

import fapilog
import fapilog.asgi
import fapilog.metrics
import fapilog.servers.granian
import fapilog.servers.gunicorn
import fapilog.servers.hypercorn
import fapilog.servers.uvicorn
import fapilog.wsgi
from fapilog.sinks import FileSink, LokiSink, OtlpSink, StreamSink
from fapilog.stdlib import HubHandler
from fapilog.testing import CapturedEvents, FailingSink, FakeClock, RecordingSink, StalledSink, capture_events, logging_restored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping, Sequence
    from pathlib import Path


# Set-up


def set_up(folder: Path) -> None:
    hub = fapilog.configure_logging()
    assert_type(hub, fapilog.LoggingHub)
    fapilog.configure_logging(service="shop", level="DEBUG", sinks=["file", "stdout"], queue_size=5_000)
    settings = fapilog.FapilogSettings({"FAPILOG_LEVEL": "DEBUG"}, queue_overflow="block")
    assert_type(settings.queue_size, int)
    assert_type(settings.service, str)
    assert_type(settings.sinks, tuple[str, ...])
    assert_type(settings.redact, bool)
    fapilog.configure_logging(settings)
    own_sinks: list[fapilog.Sink] = [AlertSink(), ListSink(), LineSink(), SyncSink(), FileSink(folder / "own.jsonl", keep=3)]
    fapilog.configure_logging(sinks=own_sinks)
    fapilog.configure_logging(sinks=["stderr", AlertSink()])
    fapilog.configure_logging(sinks=[StreamSink("stdout"), LokiSink("http://loki:3100", labels={"team": "core"})])
    fapilog.configure_logging(sinks=[OtlpSink("http://collector:4318", headers={"api-key": "k"}, resource={"n": 1})])
    fapilog.configure_logging(processors=[without_health_checks, structlog.processors.CallsiteParameterAdder()])
    try:
        fapilog.configure_logging(queue_size=0)
    except fapilog.ConfigurationError as error:
        assert_type(str(error), str)
    fapilog.set_level("DEBUG")
    fapilog.set_level(logging.WARNING, "sqlalchemy")


def without_health_checks(_logger: object, _name: str, event_dict: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if event_dict.get("path") == "/health":
        raise structlog.DropEvent
    return event_dict


def own_chain() -> None:
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, fapilog.queue_sink])


# Logging


class Own(fapilog.FapilogLogger):
    def sold(self, what: str) -> None:
        self.info("sold", what=what)


def log_calls() -> None:
    log = fapilog.get_logger("shop", team="core")
    assert_type(log, fapilog.FapilogLogger)
    log.debug("detail")
    log.info("sold", what="towel", price=19.9, colours=["red"])
    log.warning("%d left", 3)
    log.critical("out of everything", stack_info=True)
    log.log(25, "noticed")
    try:
        raise ValueError("no such towel")
    except ValueError as error:
        log.exception("sale_failed")
        log.warning("sale_failed", exc_info=error)
        log.warning("sale_failed", exc_info=True)
    bound = log.bind(order=17)
    assert_type(bound, fapilog.FapilogLogger)
    assert_type(bound.unbind("order").try_unbind("x").new(a=1), fapilog.FapilogLogger)
    assert_type(log.isEnabledFor(logging.DEBUG), bool)
    fapilog.bind_contextvars(customer=4711)
    with fapilog.bound_contextvars(customer=4712):
        log.info("inside")
    assert_type(fapilog.get_contextvars(), dict[str, Any])
    fapilog.unbind_contextvars("customer")
    fapilog.clear_contextvars()


async def asynchronous() -> None:
    log = fapilog.get_logger(__name__)
    await log.ainfo("sold", what="soap")
    await log.aexception("sale_failed")
    result = await fapilog.aflush(timeout=2.0)
    assert_type(result, fapilog.FlushResult)


# The end, and the books


def books() -> str:
    result = fapilog.flush(2.0)
    assert_type(result.complete, bool)
    assert_type(result.waited, float)
    assert_type(result.per_sink["file"], fapilog.SinkResult)
    assert_type(result.per_sink["file"].delivered, int)
    own = fapilog.statistics()
    assert_type(own, fapilog.HubStatistics)
    assert_type(own.refused.get("queue_full", 0), int)
    assert_type(own.sinks["file"].dropped.get("rejected", 0), int)
    assert_type(own.identity, fapilog.Identity)
    for worker in fapilog.service_statistics().workers:
        assert_type(worker, fapilog.WorkerStatistics)
        assert_type(worker.alive, bool)
        assert_type(worker.sinks["file"], fapilog.SinkTotals)
    assert_type(fapilog.shutdown_logging(timeout=1), fapilog.FlushResult)
    assert_type(fapilog.configure_logging().flush(), fapilog.FlushResult)
    return f"{own.identity.service} {own.identity.worker} {fapilog.__version__}"


# Sinks of one's own


class AlertSink:
    name = "alerts"

    async def open(self, identity: fapilog.Identity) -> None:
        self.source = f"{identity.host}, worker {identity.worker}"

    async def write(self, events: Sequence[fapilog.Event]) -> None:
        for event in events:
            if event.levelno >= logging.ERROR:
                assert_type(event["event"], Any)
                assert_type(event.line, bytes)
                assert_type(event.seq, int)
                raise fapilog.SinkUnavailable("not now", retry_after=5, delivered=1)

    async def close(self) -> None:
        pass


class ListSink(AlertSink):
    """One that takes more than it is given."""

    name = "list"

    async def write(self, events: Iterable[dict[str, Any]]) -> None:
        raise fapilog.SinkRejected(len(list(events)))


class LineSink(AlertSink):
    name = "lines"

    async def write_lines(self, lines: Sequence[bytes]) -> None:
        print(b"".join(lines))

    async def reopen(self) -> None:
        pass


class SyncSink(AlertSink):
    name = "synchronous"

    def write_now(self, lines: Sequence[bytes]) -> None:
        print(len(lines))


def by_hand() -> fapilog.EventQueue:
    return fapilog.EventQueue(100)


# Applications and servers


def asgi_application() -> FastAPI:
    app = FastAPI()
    fapilog.configure_logging(app=app)
    app.add_middleware(fapilog.asgi.FapilogMiddleware, exclude=["/health", "/static/*"])
    app.mount("/metrics", fapilog.metrics.make_asgi_app())
    return app


def wrapped_asgi_application() -> fapilog.asgi.FapilogMiddleware:
    return fapilog.asgi.FapilogMiddleware(Starlette(), access=False)


def wsgi_application(app: Callable[..., Iterable[bytes]]) -> fapilog.wsgi.FapilogMiddleware:
    return fapilog.wsgi.FapilogMiddleware(app, exclude=["/health"])


def gunicorn_conf(namespace: dict[str, Any]) -> MutableMapping[str, Any]:
    @fapilog.servers.gunicorn.wrap_post_fork
    def post_fork(server: Any, worker: Any) -> None:
        fapilog.get_logger("conf").info("worker_started", age=worker.age)

    namespace["post_fork"] = post_fork
    return fapilog.servers.gunicorn.wrap(namespace)


def log_configs() -> list[dict[str, Any]]:
    servers = fapilog.servers
    return [servers.uvicorn.log_config(), servers.hypercorn.log_config(), servers.granian.log_config()]


def handler() -> logging.Handler:
    return HubHandler()


def collector() -> Iterable[object]:
    return fapilog.metrics.FapilogCollector().collect()


def child() -> multiprocessing.Process:
    return multiprocessing.Process(target=fapilog.configure_logging, args=(fapilog.FapilogSettings(),))


# Tests


def test_with_the_fixture(fapilog_events: CapturedEvents) -> None:
    fapilog.get_logger("shop").info("sold", what="towel")
    assert_type(fapilog_events.one("sold", what="towel"), fapilog.Event)
    assert_type(fapilog_events.names(), list[Any])
    assert_type(fapilog_events.named(level="error"), list[fapilog.Event])
    assert_type(fapilog_events[0], fapilog.Event)
    assert_type(fapilog_events.wait_for("sold", 10), fapilog.Event)


def test_with_sinks() -> None:
    failing = FailingSink(times=2, error=lambda events: fapilog.SinkRejected(len(events)))
    with logging_restored():
        fapilog.configure_logging(sinks=[failing, RecordingSink(), StalledSink()])
        failing.wait_for_attempts(3)
    assert_type(failing.events, list[fapilog.Event])


def test_by_hand() -> None:
    with capture_events(level="DEBUG") as events, FakeClock() as clock:
        clock.advance(1.5)
        fapilog.get_logger("shop").debug("detail")
    assert_type(events, CapturedEvents)


# What a type checker refuses. An ignore that is not needed is an error, of both.


class NoSink:
    name = "none"

    async def open(self, identity: fapilog.Identity) -> None: ...
    async def write(self, events: Sequence[str]) -> None: ...
    async def close(self) -> None: ...


def refused() -> None:
    fapilog.configure_logging(sinks=[3])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    fapilog.configure_logging(sinks=[NoSink()])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    fapilog.flush("soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    fapilog.get_logger("shop").bind(17)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    fapilog.set_level(None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    fapilog.statistics().logged = 3  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    fapilog.asgi.FapilogMiddleware(FastAPI(), without=[])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
