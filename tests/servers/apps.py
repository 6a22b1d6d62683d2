"""
Applications for server tests: ``GET /who`` logs one `who`, ``GET /work/<n>`` logs `STEPS` times `work`; both answer with the pid.

`FAPILOG_TEST_SETUP` says what they call at import: ``app`` (`configure_logging(app=app)`), ``plain`` (`configure_logging()`) or
nothing.
"""

from __future__ import annotations

import os
import time

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

import fapilog

STEPS = 5
HOLD_S = 0.02  # a worker that answers /who is busy that long, so that another one takes the next connection

api = FastAPI()
log = fapilog.get_logger("test.app")

if os.environ.get("FAPILOG_TEST_SETUP") == "app":
    fapilog.configure_logging(app=api)
elif os.environ.get("FAPILOG_TEST_SETUP") == "plain":
    fapilog.configure_logging()
if os.environ.get("FAPILOG_TEST_LOG_AT_IMPORT"):
    log.info("imported", importer=os.getpid())


def answer(path: str) -> str:
    if path == "/who":
        log.info("who")
        time.sleep(HOLD_S)
    else:
        for step in range(STEPS):
            log.info("work", n=int(path.removeprefix("/work/")), step=step)
    return str(os.getpid())


@api.get("/{path:path}")
async def serve(path: str) -> PlainTextResponse:
    return PlainTextResponse(answer(f"/{path}"))


def wsgi(environ, start_response):
    body = answer(environ["PATH_INFO"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
