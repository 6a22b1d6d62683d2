"""
Applications for server tests; every answer is the pid of the process that gave it.

::

    /who        logs one `who`, and keeps the process busy for a moment
    /work/<n>   logs `STEPS` times `work`
    /hold/<n>   the same, and keeps the process busy for a moment
    /once/<n>   logs one `once`
    /pool/<n>   logs one `green`, and one `native` from gevent's pool of native threads
    /hang       logs `about to hang` and blocks for a minute, an event loop too
    /fork       forks a child that lives until it is killed; the answer has its pid too
    /fork/log   the same, and the child logs one `child`

`api` is a FastAPI application, `wsgi` a WSGI one, which does not import FastAPI.

`FAPILOG_TEST_SETUP` says where set-up happens: ``app`` (`configure_logging(app=app)`) or ``plain`` (`configure_logging()`) at
import, ``lifespan`` (`configure_logging()` in the lifespan), or nowhere.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import Any

import fapilog

STEPS = 5
HOLD_S = 0.02  # long enough for another worker to take the next connection
SETUP = os.environ.get("FAPILOG_TEST_SETUP")

log = fapilog.get_logger("test.app")


def make_api() -> Any:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        if SETUP == "lifespan":
            fapilog.configure_logging()
        yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/{path:path}", response_class=PlainTextResponse)
    async def serve(path: str) -> str:
        return answer(f"/{path}")

    return app


def __getattr__(name: str) -> Any:
    if name != "api":
        raise AttributeError(name)
    return globals().setdefault("api", make_api())


if SETUP == "app":
    fapilog.configure_logging(app=globals().setdefault("api", make_api()))
elif SETUP == "plain":
    fapilog.configure_logging()
if os.environ.get("FAPILOG_TEST_LOG_AT_IMPORT"):
    log.info("imported", importer=os.getpid())


def answer(path: str) -> str:
    _, what, *rest = path.split("/")
    n = int(rest[0]) if rest and rest[0].isdigit() else 0
    if what == "who":
        log.info("who")
    elif what == "once":
        log.info("once", n=n)
    elif what == "pool":
        log_in_pool(n)
    elif what == "hang":
        log.info("about to hang")
        time.sleep(60)
    elif what == "fork":
        return f"{os.getpid()} {fork(logs='log' in rest)}"
    else:
        for step in range(STEPS):
            log.info("work", n=n, step=step)
    if what in {"who", "hold"}:
        time.sleep(HOLD_S)
    return str(os.getpid())


def log_in_pool(n: int) -> None:
    import gevent

    log.info("green", n=n)
    gevent.get_hub().threadpool.apply(log.info, ("native",), {"n": n})


def fork(*, logs: bool) -> int:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if logs:
            log.info("child")
        while True:
            time.sleep(60)
    return child


def wsgi(environ, start_response):
    body = answer(environ["PATH_INFO"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
