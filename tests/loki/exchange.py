"""One connection of the stand-in and the requests on it: HTTP/1.1, with the means that faults need."""

from __future__ import annotations

import base64
import contextlib
import socket
import ssl
import struct
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tests.loki.faults import HTML, ok
from tests.loki.query import query_range
from tests.loki.store import NOTHING, Failures
from tests.loki.wire import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.loki.standin import StandIn

PUSH_PATH = "/loki/api/v1/push"
QUERY_PATH = "/loki/api/v1/query_range"
_GONE = (ConnectionError, ssl.SSLError, TimeoutError)
_NO_LINGER = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Request:
    """
    A request as it came: a push, or what nothing answers (a redirect that was followed).

    Attributes:
        number: From 1.
        at, answered_at: On `time.monotonic`; None if no answer was sent.
        status: What was answered; None if nothing was, or no HTTP.
        size: Bytes of the body as sent (0 if it was not read).
        fault: The name of the scripted behaviour, "" without one.
    """

    number: int
    at: float
    method: str
    path: str
    headers: dict[str, str]
    peer_port: int
    fault: str = ""
    size: int = 0
    body: bytes = b""
    status: int | None = None
    answered_at: float | None = None

    def header(self, name: str) -> str | None:
        """Return the header, whatever the case of its name."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), None)


class Connection:
    """A connection and its thread; a fault may act on it before anything is read."""

    def __init__(self, standin: StandIn, sock: socket.socket, peer: tuple[str, int]) -> None:
        self.standin = standin
        self.socket = sock
        self.peer = peer
        self.busy = False
        self.released = standin.released
        self.thread = threading.Thread(target=self._run, name=f"loki-stand-in-{peer[1]}", daemon=True)

    def _run(self) -> None:
        try:
            self._serve()
        except ssl.SSLError as error:  # also of a client that will not have our certificate
            self.standin.tls_failures.append(str(error))
        except _GONE:
            pass
        except Exception as error:  # a fault of the stand-in itself: its stop() raises it
            if not isinstance(error, OSError) or self.socket.fileno() >= 0:  # and not closed under our hands, by its end
                self.standin.errors.append(error)
        finally:
            self.close()
            self.standin.forget(self)

    def _serve(self) -> None:
        fault = self.standin.next_fault("connection", self)
        if fault is not None and fault.connection is not None:
            fault.connection(self)
            return
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = self.standin.tls
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        Handler(self)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the stand-in is released or stopped, or was since the behaviour was reached."""
        self.released.wait(seconds)

    def reset(self) -> None:
        """Close it with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.socket.close()

    def close(self) -> None:
        """Close it for both sides, whoever reads on it."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)  # SSLSocket's own would pull the TLS state away from its thread
        self.socket.close()


class Handler(BaseHTTPRequestHandler):
    """Reads requests and leaves them to an `Exchange` each."""

    protocol_version = "HTTP/1.1"

    def __init__(self, connection: Connection) -> None:
        self.owner = connection
        super().__init__(connection.socket, connection.peer, connection.standin)  # type: ignore[arg-type]

    def handle_one_request(self) -> None:
        self.owner.standin.turn_to(self.owner, busy=False)
        super().handle_one_request()

    def end_headers(self, body: bytes = b"") -> None:
        """Send head and body in one write."""
        lines: list[bytes] = self.__dict__.pop("_headers_buffer")
        self.wfile.write(b"".join([*lines, b"\r\n", body]))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_POST(self) -> None:
        self.owner.standin.turn_to(self.owner, busy=True)
        if self.path.partition("?")[0] != self.owner.standin.push_path:
            self._elsewhere()
            return
        fault = self.owner.standin.next_fault("request", self.owner) or ok().named("")
        assert fault.request is not None
        fault.request(Exchange(self, fault.name))

    def do_GET(self) -> None:
        self.owner.standin.turn_to(self.owner, busy=True)
        url = urlsplit(self.path)
        if url.path == "/ready":
            self.respond(200, "ready")
        elif url.path == self.owner.standin.prefix + QUERY_PATH:
            self._query(url.query)
        else:
            self._elsewhere()

    def _query(self, query: str) -> None:
        standin = self.owner.standin
        categorize = "categorize-labels" in (self.headers.get("X-Loki-Response-Encoding-Flags") or "")
        try:
            standin.check(self.headers)
            tenant = standin.tenant_of(self.headers)
            text = query_range([entry for entry in standin.entries() if entry.tenant == tenant], query, categorize=categorize)
            self.respond(200, text, content_type="application/json; charset=UTF-8")
        except Refused as refused:
            self.respond(refused.status, refused.text)

    def _elsewhere(self) -> None:
        exchange = Exchange(self, "")
        exchange.read()
        if self.path == self.owner.standin.push_path:
            exchange.answer(405, "Method Not Allowed")
        else:
            exchange.answer(404, "404 page not found")

    def respond(
        self,
        status: int,
        text: str | bytes = "",
        headers: Mapping[str, str] | None = None,
        *,
        content_type: str = "text/plain; charset=utf-8",
    ) -> None:
        """Answer as Go's http.Error does: the text and a line end; or bytes as they are."""
        body = text if isinstance(text, bytes) else b"" if status == 204 or not text else text.encode() + b"\n"
        if self.owner.standin.closes_connections():
            self.close_connection = True
        self.send_response_only(status)
        self.send_header("Date", self.date_time_string())
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", content_type)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers(body)


class Exchange:
    """A push request; its number is taken as its head has been read."""

    def __init__(self, handler: Handler, fault: str) -> None:
        self.handler = handler
        self.connection = handler.owner
        self.standin = handler.owner.standin
        self._body: bytes | None = None
        self.request = self.standin.record(
            lambda number: Request(
                number,
                time.monotonic(),
                handler.command,
                handler.path,
                dict(handler.headers.items()),
                handler.client_address[1],
                fault,
            )
        )

    def read(self) -> bytes:
        """Return the body as it was sent; it is read once."""
        if self._body is None:
            self._body = self._read()
            self.request.size = len(self._body)
            self.request.body = self._body if self.standin.keep_bodies else b""
        return self._body

    def _read(self) -> bytes:
        stream, headers = self.handler.rfile, self.handler.headers
        if "chunked" not in (headers.get("Transfer-Encoding") or ""):
            wanted = int(headers.get("Content-Length") or 0)
            body = stream.read(wanted)
            if len(body) < wanted:
                raise ConnectionResetError("the client went away in its body")
            return body
        body = b""
        while size := int(stream.readline().split(b";")[0], 16):
            body += stream.read(size)
            stream.readline()
        while stream.readline().strip():
            pass
        return body

    def store(self, failures: Failures = NOTHING) -> tuple[int, str | bytes]:
        """Check the request, store what is valid; return the answer that is due."""
        body, headers, standin = self.read(), self.handler.headers, self.standin
        limits = standin.limits
        try:
            standin.check(headers)
            if limits.proxy_max_size is not None and len(body) > limits.proxy_max_size:
                raise Refused(413, HTML.format("413 Request Entity Too Large"))
            return standin.take(self, body, failures)
        except Refused as refused:
            return refused.status, refused.text
        finally:
            standin.changed()

    def handle(self, failures: Failures = NOTHING) -> None:
        """Do as Loki does."""
        self.answer(*self.store(failures))

    def answer(
        self, status: int, text: str | bytes = "", headers: Mapping[str, str] | None = None, *, content_type: str = ""
    ) -> None:
        """Answer; the record says so before the client can know."""
        self._answered(status)
        if isinstance(text, bytes):
            kind = content_type or "application/x-protobuf"
        else:
            kind = content_type or ("text/html" if text.startswith("<html>") else "text/plain; charset=utf-8")
        self.handler.respond(status, text, headers, content_type=kind)

    def drip(self, status: int, parts: Iterable[bytes], interval: float) -> None:
        """Send an answer in parts, then close the connection; ends early when released or stopped."""
        self._answered(status)
        for part in parts:
            self.send(part)
            if self.connection.released.wait(interval):
                break
        self.close()

    def _answered(self, status: int) -> None:
        self.request.status = status
        self.request.answered_at = time.monotonic()
        self.standin.changed()

    def send(self, data: bytes) -> None:
        self.connection.send(data)

    def wait(self, seconds: float | None = None) -> None:
        self.connection.wait(seconds)

    def close(self, *, reset: bool = False) -> None:
        """Close the connection."""
        self.handler.close_connection = True
        if reset:
            self.connection.reset()
        else:
            self.connection.close()


def basic(user: str, password: str) -> str:
    """Return the Authorization header of these credentials."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
