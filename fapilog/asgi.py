"""
Pure ASGI middleware: the context of a request, the access event, the request id, the lifespan door of the drain.

Invariants:

1. The hub is drained after the application has finished its own shutdown and before the server hears that it is complete; where
   several applications live in one process, it is flushed, and the last one drains.
2. A second start of the same application opens the hub again.
3. Each request, and each connection of a websocket, has one access event, logged when the response is complete, when the
   connection is over, or when the application ends without either; of several middlewares the outermost logs it.
4. Everything logged in the course of a request has its id, method, path, client and, once known, route (`_internal/exchange.py`).
5. Nothing is held back: messages pass as they come, bodies are counted and not kept. Exceptions pass.
6. Other scopes pass through untouched.

Protocol: ASGI 3.0, HTTP 2.x with all its extensions, websocket 2.x, lifespan 2.0.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from fapilog._internal.access import CLIENT_LEFT, request_id_from, text
from fapilog._internal.exchange import SERVER_ERROR, Exchange, Middleware
from fapilog.coordinator import coordinator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

MARK = "fapilog.exchange"
_SHUTDOWN = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")
_ID = b"x-request-id"
_FINAL = frozenset(("http.response.pathsend", "http.response.zerocopysend", "http.response.trailers"))
_TOLD = frozenset((b"user-agent", b"referer"))
FORBIDDEN = 403  # what a server answers when a websocket is closed before it was accepted
SWITCHING_PROTOCOLS = 101
NO_CLOSE_SEEN = 1006  # RFC 6455: the connection ended without a close frame
_alive: list[object] = []  # the lifespans under way in this process: the last one to end drains


class FapilogMiddleware(Middleware):
    """
    Binds each request to the context of what is logged during it, logs its access event, returns its id as `X-Request-ID`, and
    drains the hub when the application shuts down.

    Arguments: an ASGI application (FastAPI and Starlette take the class in `add_middleware()`, which is what
    `configure_logging(app=app)` does), and ``access=`` and ``exclude=`` as `Middleware` has them.
    """

    def __init__(self, app: App, *, access: bool | None = None, exclude: Iterable[str] = ()) -> None:
        super().__init__(app, access=access, exclude=exclude)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        kind = scope["type"]
        if kind in {"http", "websocket"}:
            exchange = scope.get(MARK)
            if exchange is None:
                await self._serve((_Response if kind == "http" else _Connection)(scope, receive, send), scope)
            else:
                exchange.join(self._access, self._exclude)
                await self.app(scope, receive, send)
        elif kind == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _serve(self, exchange: _Exchange, scope: Scope) -> None:
        scope[MARK] = exchange
        exchange.join(self._access, self._exclude)
        exchange.bind()
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            exchange.over(CLIENT_LEFT)
            raise
        finally:
            exchange.over(SERVER_ERROR)
            exchange.unbind()
            exchange.let_go()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def opening() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                opened(scope)
            return message

        async def draining(message: Message) -> None:
            if message["type"] in _SHUTDOWN:
                await drained(scope)
            await send(message)

        await self.app(scope, opening, draining)


def opened(lifespan: object) -> None:
    """Open the hub for an application that starts; *lifespan* tells it from others in this process."""
    _alive.append(lifespan)
    coordinator.open()


async def drained(lifespan: object) -> None:
    """Drain the hub for an application that has ended, or flush it if others in this process have not."""
    if lifespan in _alive:
        _alive.remove(lifespan)
    if _on_asyncio():
        await (coordinator.aflush() if _alive else coordinator.adrain())
    elif _alive:  # trio's loop, say: nothing else is to be served when an application shuts down
        coordinator.flush()
    else:
        coordinator.drain()


def _on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Exchange(Exchange):
    """
    What HTTP and websockets have in common.

    Args:
        scope: Of the request.
        receive: The server's; `receive()` takes its place.
        send: The server's; `send()` takes its place.
    """

    __slots__ = ("_receive", "_send")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = None
        headers = scope.get("headers", ())
        if not isinstance(headers, list | tuple):  # an iterator would be empty for the application
            headers = scope["headers"] = list(headers)
        for name, value in headers:
            if name == _ID:
                given = value
        client = scope.get("client")
        super().__init__(
            scope.get("method", ""),
            scope.get("path", ""),
            str(client[0]) if client else "",
            request_id_from(given),
            _found_route,
            (scope, scope.get("root_path", "")),
        )
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        """Hand on a message from the client, and take note of it."""
        raise NotImplementedError

    async def send(self, message: Message) -> None:
        """Hand on a message to the client, with the request's id where the response begins; take note of what the server took."""
        raise NotImplementedError

    def over(self, status: int = 0) -> None:
        if status and self.status and self.close_code is None:
            self.aborted = True
        super().over(status)

    def _with_id(self, message: Message) -> Message:
        headers = message.get("headers", ())
        if not isinstance(headers, list | tuple):  # an iterator would be empty for the server
            headers = list(headers)
            message = {**message, "headers": headers}
        for name, value in headers:
            if len(name) == len(_ID) and name.lower() == _ID:
                self.request_id = text(value)
                return message
        return {**message, "headers": [*headers, (_ID, self.request_id.encode())]}

    def _told(self, source: tuple[Scope, str]) -> tuple[str, str, str]:
        scope, _ = source
        headers = {name: value for name, value in scope.get("headers", ()) if name in _TOLD}
        return text(scope.get("query_string")), text(headers.get(b"user-agent")), text(headers.get(b"referer"))


def _found_route(source: tuple[Scope, str]) -> str:
    """Return the template of the path from a scope and the root path that it began with."""
    scope, root = source
    found = scope.get("path_template")  # Litestar
    if found is not None:
        return str(found)
    route = scope.get("route")  # FastAPI, Starlette
    mounted = scope.get("root_path", "").removeprefix(root)
    if route is None or hasattr(route, "routes"):  # what is mounted has no route of its own, or not yet
        return str(mounted)
    included = scope.get("fastapi", {}).get("effective_route_context")  # a route of a router that was included with a prefix
    if included is not None and included.original_route is route:
        route = included
    return f"{mounted}{route.path_format}"


class _Response(_Exchange):
    """One HTTP request and its response."""

    __slots__ = ("_headers", "_last", "_trailers")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self._headers: Any = ()
        self._last = False
        self._trailers = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            if not self.status:
                self.over(CLIENT_LEFT)
            elif not self._last:  # some servers say so of a response that is complete, before `send()` has come back
                self.aborted = True
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            self._last = not message.get("more_body", False)
            await self._send(message)
            self._body(len(message.get("body", b"")), more=not self._last)
        elif kind == "http.response.start" and not 100 <= message.get("status", 0) < 200:  # not an informational one
            message = self._with_id(message)
            await self._send(message)
            self.status = message["status"]
            self._headers = message["headers"]
            self._trailers = message.get("trailers", False)
        else:
            self._last = kind in _FINAL and not (message.get("more_body", False) or message.get("more_trailers", False))
            await self._send(message)
            self._extended(kind, message)

    def _extended(self, kind: str, message: Message) -> None:
        if kind == "http.response.pathsend":
            self._body(self._announced(), more=False)
        elif kind == "http.response.zerocopysend":
            self._body(message.get("count") or self._announced(), more=message.get("more_body", False))
        elif kind == "http.response.trailers" and self._trailers and not message.get("more_trailers", False):
            self.over()

    def _body(self, size: int, *, more: bool) -> None:
        if self.method != "HEAD":
            self.body_bytes += size
        if not more and not self._trailers:
            self.over()

    def _announced(self) -> int:
        """Return what the response's headers say of its body, which the server reads by itself."""
        lengths = [value for name, value in self._headers if name.lower() == b"content-length"]
        return int(lengths[0]) if lengths and lengths[0].isdigit() else 0


class _Connection(_Exchange):
    """One websocket, from the handshake to its close; its body is what was sent over it."""

    __slots__ = ()

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope, receive, send)
        self.method = scope.get("method", "GET")  # a handshake is one

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed(message, CLIENT_LEFT)
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        begins = kind in {"websocket.accept", "websocket.http.response.start"}
        await self._send(self._with_id(message) if begins else message)
        if kind == "websocket.send":
            data = message.get("bytes")
            self.body_bytes += len(data) if data is not None else _size(message.get("text") or "")
        elif kind == "websocket.accept":
            self.status = SWITCHING_PROTOCOLS
        elif kind == "websocket.close":
            self._closed(message, FORBIDDEN)
        elif kind == "websocket.http.response.start":
            self.status = message["status"]
        elif kind == "websocket.http.response.body":
            self.body_bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.over()

    def _closed(self, message: Message, unopened: int) -> None:
        if self.status == SWITCHING_PROTOCOLS and self.close_code is None:
            self.close_code = message.get("code", 1000)
        self.over(unopened)

    def over(self, status: int = 0) -> None:
        if self.status == SWITCHING_PROTOCOLS and self.close_code is None:
            self.close_code = NO_CLOSE_SEEN
        super().over(status)


def _size(data: str) -> int:
    return len(data) if data.isascii() else len(data.encode("utf-8", "replace"))
