"""
The access event: one a request, with the same names under every server.

Invariants:

1. Its fields are these, whatever the server: `method`, `path`, `query`, `status` (int), `bytes` of the body (int), `duration_ms`
   (float), `client`, `user_agent`, `referer`, `request_id`; and `route` where a framework has found one, `close_code` (int) of a
   websocket, `aborted` (true) of a response that began and did not come to its end.
2. No header is in it but those three; secrets in a query are masked as in every event (`redaction`).
3. Text from the network is decoded as UTF-8 with replacement characters; what it holds cannot break the line, which is JSON.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

from fapilog._internal.gates import gates
from fapilog._internal.route import route
from fapilog.logger import processors
from fapilog.pipeline import emit

LOGGER = "fapilog.access"
EVENT = "request"
INFO = 20
CLIENT_LEFT = 499  # nginx's number for a client that went away before any answer

_WELL_FORMED = re.compile(r"[A-Za-z0-9_.:@+=/-]{1,128}")


@dataclass(slots=True)
class Access:
    """
    What one request came to.

    Args:
        method: As sent.
        path: Decoded.
        query: As sent, without the question mark.
        client: The address of whoever asked, without the port; empty where there is none.
        user_agent: The header, or empty.
        referer: The header, or empty.
        request_id: From `request_id_from()`.
        status: Of the response.
        body_bytes: Of its body.
        seconds: How long it took.
        route: The template of the path, such as ``/items/{n}``; empty where there is none.
        close_code: Of a websocket that was open.
        aborted: Whether the response began and did not come to its end.
    """

    method: str
    path: str
    query: str
    client: str
    user_agent: str
    referer: str
    request_id: str
    status: int = 0
    body_bytes: int = 0
    seconds: float = 0.0
    route: str = ""
    close_code: int | None = None
    aborted: bool = False

    def log(self) -> None:
        """Log it; any thread, never raises an `Exception`."""
        try:
            if gates.of(LOGGER).level <= INFO:
                emit(INFO, "info", LOGGER, EVENT, {}, self._fields(), processors)
        except RecursionError:
            route.unplaced += 1

    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "status": self.status,
            "bytes": self.body_bytes,
            "duration_ms": round(self.seconds * 1000, 3),
            "client": self.client,
            "user_agent": self.user_agent,
            "referer": self.referer,
            "request_id": self.request_id,
        }
        if self.route:
            fields["route"] = self.route
        if self.close_code is not None:
            fields["close_code"] = self.close_code
        if self.aborted:
            fields["aborted"] = True
        return fields


def well_formed(request_id: str) -> bool:
    """Whether a request may choose this id: 1 to 128 of ``A-Za-z0-9_.:@+=/-``."""
    return _WELL_FORMED.fullmatch(request_id) is not None


def request_id_from(header: bytes | str | None) -> str:
    """Return the id that a request came with if it is well formed (1 to 128 of ``A-Za-z0-9_.:@+=/-``), else a new random one."""
    if header:
        given = text(header)
        if well_formed(given):
            return given
    return os.urandom(16).hex()


def text(value: bytes | str | None) -> str:
    """Return what a header or path says: bytes, or a str that holds one character for each byte as in WSGI (PEP 3333)."""
    if isinstance(value, str):
        if value.isascii():
            return value
        value = value.encode("latin-1", "replace")
    return value.decode("utf-8", "replace") if value else ""
