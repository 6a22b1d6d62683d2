"""
A FastAPI application, `api`, that logs in every place where a request can log; our middleware stands between two of others'.

::

    /async/<n>         from a coroutine
    /plain/<n>         from a function, in the thread pool
    /depends/<n>       from a dependency of each kind as well
    /background/<n>    from background tasks of both kinds as well
    /stream/<n>        from a response body that a coroutine makes as well
    /stream-plain/<n>  from one that a function makes
    /missing/<n>       HTTPException 404
    /fail/<n>          raises
    /socket/<n>        a websocket that echoes one message and closes with 4000

Each event has `n`. `FAPILOG_TEST_ADAPTER` leaves our middleware to the server's adapter.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware

import fapilog

HOLD_S = 0.02  # requests that are under way at once get mixed up if they can
MAIN = threading.get_ident()

log = fapilog.get_logger("app")


def number_of(request: Request) -> int:
    return int(request.url.path.rpartition("/")[2])


def foreign(name: str) -> Any:
    before, after = f"{name} before", f"{name} after"

    async def dispatch(request: Request, call_next: Any) -> Any:
        n = number_of(request)
        fapilog.bind_contextvars(**{name: n})
        log.info(before, n=n)
        try:
            return await call_next(request)
        finally:
            log.info(after, n=n)

    return dispatch


async def in_loop(n: int) -> int:
    log.info("dependency", n=n)
    await asyncio.sleep(HOLD_S)
    return n


def in_pool(n: int) -> int:
    time.sleep(HOLD_S)
    log.info("plain dependency", n=n)
    return n


api = FastAPI()
api.add_middleware(BaseHTTPMiddleware, dispatch=foreign("inner"))
if not os.environ.get("FAPILOG_TEST_ADAPTER"):
    fapilog.configure_logging(app=api)
api.add_middleware(BaseHTTPMiddleware, dispatch=foreign("outer"))


@api.get("/async/{n}")
async def from_coroutine(n: int) -> int:
    log.info("begun", n=n)
    await asyncio.sleep(HOLD_S)
    log.info("work", n=n, in_pool=threading.get_ident() != MAIN)
    return n


@api.get("/plain/{n}")
def from_pool(n: int) -> int:
    log.info("begun", n=n)
    time.sleep(HOLD_S)
    log.info("work", n=n, in_pool=threading.get_ident() != MAIN)
    return n


@api.get("/depends/{n}")
async def depends(n: int, one: Annotated[int, Depends(in_loop)], other: Annotated[int, Depends(in_pool)]) -> int:
    log.info("work", n=n)
    return one + other


async def later(n: int) -> None:
    await asyncio.sleep(HOLD_S)
    log.info("task", n=n)


def later_in_pool(n: int) -> None:
    time.sleep(HOLD_S)
    log.info("plain task", n=n)


@api.get("/background/{n}")
async def background(n: int, tasks: BackgroundTasks) -> int:
    tasks.add_task(later, n)
    tasks.add_task(later_in_pool, n)
    log.info("work", n=n)
    return n


@api.get("/stream/{n}")
async def stream(n: int) -> StreamingResponse:
    async def body():
        for part in range(3):
            await asyncio.sleep(HOLD_S)
            log.info("part", n=n, part=part)
            yield b"x"

    log.info("work", n=n)
    return StreamingResponse(body())


@api.get("/stream-plain/{n}")
def stream_plain(n: int) -> StreamingResponse:
    def body():
        for part in range(3):
            time.sleep(HOLD_S)
            log.info("part", n=n, part=part)
            yield b"x"

    log.info("work", n=n)
    return StreamingResponse(body())


@api.get("/missing/{n}")
async def missing(n: int) -> None:
    log.info("work", n=n)
    raise HTTPException(404)


@api.get("/fail/{n}")
async def fail(n: int) -> None:
    log.info("work", n=n)
    raise RuntimeError("the application fails")


@api.websocket("/socket/{n}")
async def socket(websocket: WebSocket, n: int) -> None:
    await websocket.accept()
    log.info("work", n=n)
    await websocket.send_text(await websocket.receive_text())
    await websocket.close(4000)
