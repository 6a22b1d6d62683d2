"""An application that writes down, beside fapilog, which of its log calls have returned: a kill takes nothing from that."""

from __future__ import annotations

import os
import random
import zlib
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import fapilog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

FOLDER = os.environ["FAPILOG_TEST_FOLDER"]
_log = fapilog.get_logger("chaos")
_random = random.Random()
_returned: dict[int, int] = {}  # descriptors by pid, for those who are forked from here


def burst(count: int) -> None:
    """Log *count* events; each has a payload with its checksum, and its number in `returned.PID` once the call is over."""
    pid = os.getpid()
    if pid not in _returned:
        _returned[pid] = os.open(f"{FOLDER}/returned.{pid}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for _ in range(count):
        number = _random.getrandbits(60)
        payload = "é" * _random.randrange(40) + "x" * _random.randrange(300)
        _log.info("chaos", number=number, payload=payload, crc=zlib.crc32(payload.encode()))
        os.write(_returned[pid], b"%d\n" % number)


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """Answer ``/burst?n=..`` after as many events with the process id."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    burst(int(parse_qs(scope["query_string"].decode()).get("n", ["0"])[0]))
    body = str(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
