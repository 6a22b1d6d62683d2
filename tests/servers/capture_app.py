"""
Applications that log through the standard library, one record a request: `api` (ASGI) and `wsgi`.

`FAPILOG_TEST_SETUP` says who sets logging up: ``app`` the application, with the middleware; ``plain`` the application, without
it; ``propagate`` as ``app``, after a `dictConfig()` that lets uvicorn's loggers propagate to a root without handlers.
"""

from __future__ import annotations

import logging
import logging.config
import os

from fastapi import FastAPI

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


def wsgi(environ, start_response):
    log.info("item %s", environ["PATH_INFO"].rpartition("/")[2])
    start_response("200 OK", [("Content-Length", "2")])
    return [b"{}"]
