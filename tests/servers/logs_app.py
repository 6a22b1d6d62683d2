"""
Applications for the tests of the servers' own logs: `wsgi` and `asgi` answer the same requests in the same way.

::

    /<anything else>    200, with `BODY`
    /read/<anything>    200, after the request's body was read
    /bodiless           200, without a body if the method is HEAD, as it should be
    /log                200, and an event of the application's, `logged`
    /missing            404
    /cached             304, without a body
    /stream/<n>/<size>  200, in n chunks of size bytes
    /endless            200, until the client is gone
    /own-id             200, with an X-Request-ID of the application's
    /theirs             200, and a warning through the standard library's logger ``theirs``
    /boom               raises before the response has begun
    /late               raises after the response was started, before its first chunk
    /torn               raises after the first chunk of ten
    /file               raises FileNotFoundError, an OSError, before the response has begun
    /exit               raises SystemExit before the response has begun

`FAPILOG_TEST_IMPORT` says what happens at import, words separated by commas: ``error`` raises, ``dictconfig`` disables what
loggers there are, ``setup`` calls `configure_logging()`, ``basicconfig`` is the user's own root handler, into the file
`FAPILOG_TEST_ROOT`; they happen in the order given.
"""

from __future__ import annotations

import logging
import logging.config
import os
import sys
import time

BODY = b"hello"
OWN_ID = "made-by-the-application"
CHUNK = b"x" * 1000
PATIENCE_S = 30.0


def _basic_config() -> None:
    logging.basicConfig(
        handlers=[logging.FileHandler(os.environ["FAPILOG_TEST_ROOT"])], format="%(name)s|%(message)s", level=logging.INFO
    )


def _set_up() -> None:
    import fapilog

    fapilog.configure_logging()


for word in filter(None, os.environ.get("FAPILOG_TEST_IMPORT", "").split(",")):
    if word == "error":
        raise RuntimeError("this application cannot be imported")
    if word == "dictconfig":
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
    elif word == "basicconfig":
        _basic_config()
    elif word == "setup":
        _set_up()


class Failure(Exception):
    """Raised by the application."""


def _theirs() -> None:
    logging.getLogger("theirs").warning("a line of the user's")


def _log() -> None:
    import fapilog

    fapilog.get_logger("app").info("logged")


def _stream(path: str):
    _, _, count, size = path.split("/")
    for _ in range(int(count)):
        yield b"x" * int(size)


def _endless():
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        time.sleep(0.01)
        yield CHUNK


def _torn():
    yield CHUNK
    raise Failure("after the first chunk")


def wsgi(environ, start_response):
    path = environ["PATH_INFO"]
    text = [("Content-Type", "text/plain")]
    if path == "/boom":
        raise Failure("before the response")
    if path == "/file":
        raise FileNotFoundError(2, "No such file or directory", "a file of the application's")
    if path == "/exit":
        sys.exit("the application wants to end")
    if path == "/late":
        start_response("200 OK", text)
        raise Failure("before the first chunk")
    if path == "/torn":
        start_response("200 OK", [*text, ("Content-Length", str(10 * len(CHUNK)))])
        return _torn()
    if path == "/endless":
        start_response("200 OK", text)
        return _endless()
    if path == "/cached":
        start_response("304 Not Modified", [("ETag", '"1"')])
        return []
    if path.startswith("/stream/"):
        start_response("200 OK", text)
        return _stream(path)
    if path.startswith("/read/"):
        environ["wsgi.input"].read()
    headers = [*text, ("Content-Length", str(len(BODY)))]
    if path == "/own-id":
        headers.append(("X-Request-ID", OWN_ID))
    if path == "/theirs":
        _theirs()
    if path == "/log":
        _log()
    start_response("404 Not Found" if path == "/missing" else "200 OK", headers)
    return [] if path == "/bodiless" and environ["REQUEST_METHOD"] == "HEAD" else [BODY]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    path = scope["path"]
    text = [(b"content-type", b"text/plain")]

    async def start(status=200, headers=()):
        await send({"type": "http.response.start", "status": status, "headers": [*text, *headers]})

    async def chunk(body, more=True):
        await send({"type": "http.response.body", "body": body, "more_body": more})

    if path == "/boom":
        raise Failure("before the response")
    if path == "/late":
        await start()
        raise Failure("before the first chunk")
    if path == "/torn":
        await start(headers=[(b"content-length", b"%d" % (10 * len(CHUNK)))])
        await chunk(CHUNK)
        raise Failure("after the first chunk")
    if path == "/endless":
        import asyncio

        await start()
        gone = asyncio.ensure_future(_gone(receive))
        end = time.monotonic() + PATIENCE_S
        while not gone.done() and time.monotonic() < end:
            await chunk(CHUNK)
            await asyncio.sleep(0.01)
        gone.cancel()
        return
    if path == "/cached":
        await start(304, [(b"etag", b'"1"')])
        await chunk(b"", more=False)
        return
    if path.startswith("/stream/"):
        await start()
        for body in _stream(path):
            await chunk(body)
        await chunk(b"", more=False)
        return
    headers = [(b"content-length", b"%d" % len(BODY))]
    if path == "/own-id":
        headers.append((b"x-request-id", OWN_ID.encode()))
    if path == "/theirs":
        _theirs()
    if path == "/log":
        _log()
    await start(404 if path == "/missing" else 200, headers)
    await chunk(BODY, more=False)


async def _gone(receive):
    while (await receive())["type"] != "http.disconnect":
        pass
