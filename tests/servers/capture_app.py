"""
Applications that log through the standard library, one record a request: `api` (ASGI), `wsgi` and `rsgi`.

`FAPILOG_TEST_SETUP` says who sets logging up: ``app`` the application, with the middleware; ``plain`` the application, without
it; ``propagate`` as ``app``, after a `dictConfig()` that lets uvicorn's loggers propagate to a root without handlers.
"""

from __future__ import annotations

import asyncio
import logging
import logging.config
import os
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AT_WORK_S = 2.0  # long enough for a client to be seen to have gone

api = FastAPI()
log = logging.getLogger("shop.items")
how = os.environ.get("FAPILOG_TEST_SETUP", "")

if how == "propagate":
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "loggers": {
                name: {"level": "INFO", "handlers": [], "propagate": True}
                for name in ("uvicorn", "uvicorn.error", "uvicorn.access")
            },
        }
    )
if how:
    import fapilog

    fapilog.configure_logging(app=None if how == "plain" else api)


@api.get("/items/{n}")
async def item(n: int) -> dict[str, int]:
    log.info("item %d", n, extra={"n": n})
    return {"n": n}


@api.get("/late/{n}")
async def late(n: int) -> dict[str, int]:
    log.info("is at work")
    await asyncio.sleep(AT_WORK_S)
    log.info("is done")
    return {"n": n}


@api.get("/begun/{n}")
async def begun(n: int) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"x"
        log.info("is at work")
        await asyncio.sleep(AT_WORK_S)
        log.info("is done")
        yield b"y"

    return StreamingResponse(parts())


def wsgi(environ, start_response):
    log.info("item %s", environ["PATH_INFO"].rpartition("/")[2])
    start_response("200 OK", [("Content-Length", "2")])
    return [b"{}"]


class Rsgi:
    async def __rsgi__(self, scope, protocol):
        log.info("item %s", scope.path.rpartition("/")[2])
        protocol.response_str(200, [], "{}")


rsgi = Rsgi()
