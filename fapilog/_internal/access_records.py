"""
The access lines that servers log through the standard library's logging: recognised, and logged as access events.

Invariants:

1. A record is recognised by the name of its logger and the form of its arguments together; any other is a line as others are.
2. Of the arguments only what belongs to the access event is read: hypercorn's hold the whole environment of the process and every
   header.
3. hypercorn logs two lines of a request whose client has hung up before the application came to its end: one without status and
   length, and one with them when the application has. The first is the access event, with the status that was begun, if one was.
4. A field has the name, the type and the meaning that it has in every access event (`access`); what a server does not tell is not
   there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from fapilog._internal.access import CLIENT_LEFT, EVENT, INFO, LOGGER, text, well_formed
from fapilog._internal.frames import frames, module_of
from fapilog._internal.gates import gates
from fapilog.logger import processors
from fapilog.pipeline import emit

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

UVICORN = "uvicorn.access"
HYPERCORN = "hypercorn.access"
GRANIAN = "granian.access"
_ABSENT = "-"
_LOGGED = "fapilog_logged"


def is_access_record(record: logging.LogRecord) -> bool:
    """Whether *record* is an access line of a server's whose arguments are known."""
    args = record.args
    if record.name == UVICORN:
        return isinstance(args, tuple) and len(args) == 5
    wanted = _WANTED.get(record.name)
    return wanted is not None and isinstance(args, dict) and wanted <= args.keys()


def log_access_record(record: logging.LogRecord) -> None:
    """Log *record*, which `is_access_record()`, by the names of the access event as far as it tells them; once a request."""
    if gates.of(LOGGER).level <= INFO:
        fields = _READERS[record.name](record.args)
        if fields is not None:
            emit(INFO, "info", LOGGER, EVENT, {}, fields, processors)


def _of_uvicorn(args: Any) -> dict[str, Any]:
    client, method, target, _, status = args
    path, _, query = str(target).partition("?")
    address = str(client).rpartition(":")[0]
    return {"method": str(method), "path": unquote(path), "query": query, "status": status, "client": address}


def _of_hypercorn(atoms: Any) -> dict[str, Any] | None:
    stream = _hypercorns_stream()
    if hasattr(stream, _LOGGED):
        return None
    if stream is not None:
        setattr(stream, _LOGGED, True)
    response = getattr(stream, "response", None) or {"status": CLIENT_LEFT}
    fields = {
        "method": atoms["m"],
        "path": atoms["U"],
        "query": atoms["q"],
        "status": int(response["status"] if atoms["s"] == _ABSENT else atoms["s"]),
        "duration_ms": round(float(atoms["L"]) * 1000, 3),
        "client": _without_port(atoms["h"] or ""),
        "user_agent": text(dict.get(atoms, "{user-agent}i")),
        "referer": text(dict.get(atoms, "{referer}i")),
    }
    length = dict.get(atoms, "{content-length}o", "")
    if length.isascii() and length.isdigit():
        fields["bytes"] = 0 if atoms["m"] == "HEAD" else int(length)
    request_id = text(dict.get(atoms, "{x-request-id}i"))
    if well_formed(request_id):
        fields["request_id"] = request_id
    return fields


def _hypercorns_stream() -> Any:
    """Return the object that stands for the request whose access line hypercorn is logging up the stack."""
    return next((frame.f_locals.get("self") for frame in frames() if module_of(frame).startswith("hypercorn.protocol.")), None)


def _of_granian(told: Any) -> dict[str, Any]:
    return {
        "method": told["method"],
        "path": _decoded(told["path"]),
        "query": told["query_string"],
        "status": told["status"],
        "duration_ms": round(told["dt_ms"], 3),
        "client": told["addr"],
    }


_READERS: dict[str, Callable[[Any], dict[str, Any] | None]] = {
    UVICORN: _of_uvicorn,
    HYPERCORN: _of_hypercorn,
    GRANIAN: _of_granian,
}
_WANTED: dict[str, set[str]] = {
    HYPERCORN: {"m", "U", "q", "s", "L", "h"},
    GRANIAN: {"method", "path", "query_string", "status", "dt_ms", "addr"},
}


def _without_port(address: str) -> str:
    host, colon, port = address.rpartition(":")
    return host if colon and port.isdigit() else address


def _decoded(path: str) -> str:
    """Return a path that is decoded (ASGI, RSGI), or holds a character for each byte of UTF-8 (WSGI), as its text."""
    try:
        return path.encode("latin-1").decode("utf-8")
    except UnicodeError:  # it was text already
        return path
