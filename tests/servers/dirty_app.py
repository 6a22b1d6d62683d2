"""
A dirty application of Gunicorn's and a WSGI one, `wsgi`, that asks it.

::

    /dirty/<n>   `App` logs `STEPS` times `work` in a dirty worker, whose pid is the answer
    /log/<n>     the HTTP worker logs one `asked`; its pid is the answer
    /hold/<n>    `App` logs one `holding` and holds on for a minute

`FAPILOG_TEST_LAZY`: fapilog is not imported before the first action of a dirty worker.
"""

from __future__ import annotations

import os
import time
from typing import Any

from gunicorn.dirty import get_dirty_client
from gunicorn.dirty.app import DirtyApp

STEPS = 5
HOLD_S = 0.02  # long enough for another worker to take the next request
LAZY = bool(os.environ.get("FAPILOG_TEST_LAZY"))
FAILS = bool(os.environ.get("FAPILOG_TEST_FAILS"))

if not LAZY:
    import fapilog

    log = fapilog.get_logger("test.dirty")
    fapilog.configure_logging()


def get_log() -> Any:
    import fapilog

    return fapilog.get_logger("test.dirty")


class App(DirtyApp):
    def init(self) -> None:
        if not LAZY:
            log.info("init")
        if FAILS:
            raise RuntimeError("the application does not start")

    def work(self, n: int) -> int:
        for step in range(STEPS):
            get_log().info("work", n=n, step=step)
        time.sleep(HOLD_S)
        return os.getpid()

    def hold(self, n: int) -> int:
        get_log().info("holding", n=n)
        time.sleep(60)
        return os.getpid()

    def close(self) -> None:
        get_log().info("close")


def wsgi(environ, start_response):
    _, what, n = environ["PATH_INFO"].split("/")
    if what == "log":
        get_log().info("asked", n=int(n))
        answer = os.getpid()
    else:
        answer = get_dirty_client().execute("dirty_app:App", "work" if what == "dirty" else "hold", int(n))
    body = str(answer).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
