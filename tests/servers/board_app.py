"""An application that logs in bursts, with a sink that stalls while the file `stall` is there; it serves the board's metrics."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import fapilog
from fapilog._internal.terms import Terms
from fapilog.metrics import make_wsgi_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

FOLDER = Path(os.environ.get("FAPILOG_TEST_STALLING", "/nowhere"))
LEVELS = ("debug", "info", "info", "info", "warning", "error")


class Stalling:
    """Takes what it gets, unless there is a file `stall`; counts in a file of its own."""

    name = "stalling"
    terms = Terms(None, 0.01, 0.05, backlog_bytes=100_000)

    async def open(self, identity: fapilog.Identity) -> None:
        self._path = FOLDER / f"stalling.{identity.boot}"

    async def write(self, events: Sequence[fapilog.Event]) -> None:
        while (FOLDER / "stall").exists():
            await asyncio.sleep(0.01)
        with self._path.open("ab") as file:
            file.writelines(event.line for event in events)

    async def close(self) -> None:
        pass


if os.environ.get("FAPILOG_TEST_STALLING"):
    fapilog.configure_logging(sinks=["file", Stalling()])

_log = fapilog.get_logger("board")
_metrics = make_wsgi_app()


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer ``/burst?n=..`` after as many events with the process id, and ``/metrics``."""
    path = environ["PATH_INFO"]
    if path == "/metrics":
        return _metrics(environ, start_response)
    count = int(parse_qs(environ.get("QUERY_STRING", "")).get("n", ["0"])[0])
    for number in range(count):
        getattr(_log, LEVELS[number % len(LEVELS)])("burst", number=number)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
