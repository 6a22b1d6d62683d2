"""
Pure ASGI middleware: the lifespan door of the drain, the access event, the request id.

Invariants:

1. The hub is drained after the application has finished its own shutdown and before the server hears that it is complete; where
   several applications live in one process, it is flushed, and the last one drains.
2. A second start of the same application opens the hub again.
3. Each request has one access event, logged when the response is complete or when the application ends without one; of several
   middlewares around one another the outermost logs it.
4. Nothing is held back: messages pass as they come, bodies are counted and not kept.
5. Other scopes pass through untouched.

Protocol: ASGI 3.0, HTTP 2.x, lifespan 2.0.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from fapilog._internal import capture
from fapilog._internal.access import CLIENT_LEFT, Access, request_id_from, text
from fapilog.coordinator import coordinator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

_SHUTDOWN = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")
_MARK = "fapilog.access"
_ID = b"x-request-id"
SERVER_ERROR = 500
_alive: list[object] = []  # the lifespans under way in this process: the last one to end drains


def logs_access() -> bool:
    """Whether `FAPILOG_ACCESS_LOG` asks for access events in this process."""
    return coordinator.spec is None or coordinator.spec.settings.access_log


class FapilogMiddleware:
    """
    Drains the hub when the application shuts down and logs an access event for each request.

    Args:
        app: An ASGI application. FastAPI and Starlette take the class in `add_middleware()`, which is what
            `configure_logging(app=app)` does.
        access: Whether it logs access events; `FAPILOG_ACCESS_LOG` by default.
    """

    def __init__(self, app: App, *, access: bool | None = None) -> None:
        self.app = app
        self._access = access
        capture.middleware_serves()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] == "http" and _MARK not in scope and self._logs_access():
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _logs_access(self) -> bool:
        return logs_access() if self._access is None else self._access

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope[_MARK] = _Exchange(scope)

        async def sending(message: Message) -> None:
            await send(exchange.marked(message))
            exchange.sent(message)

        try:
            await self.app(scope, receive, sending)
        except asyncio.CancelledError:
            exchange.over(CLIENT_LEFT)
            raise
        finally:
            exchange.over(SERVER_ERROR)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def opening() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                _alive.append(scope)
                coordinator.open()
            return message

        async def draining(message: Message) -> None:
            if message["type"] in _SHUTDOWN:
                if scope in _alive:
                    _alive.remove(scope)
                await (coordinator.aflush() if _alive else coordinator.adrain())
            await send(message)

        await self.app(scope, opening, draining)


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope) -> None:
        self._began = time.monotonic()
        self._scope = scope
        self._headers = {name: value for name, value in scope.get("headers", ()) if name in {b"user-agent", b"referer", _ID}}
        self._id = request_id_from(self._headers.get(_ID))
        self._status = 0
        self._body_bytes = 0
        self._over = False

    def marked(self, message: Message) -> Message:
        """Return a message to the client, with the request's id where the response begins."""
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            theirs = [value for name, value in headers if name.lower() == _ID]
            if not theirs:
                return {**message, "headers": [*headers, (_ID, self._id.encode())]}
            self._id = text(theirs[0])
        return message

    def sent(self, message: Message) -> None:
        """Take note of a message that the server has taken."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            if self._scope.get("method") != "HEAD":
                self._body_bytes += len(message.get("body", b""))
            if not message.get("more_body"):
                self.over()

    def over(self, status: int = 0) -> None:
        """Log the access event, the first time; *status* is what the client got if the application never began to answer."""
        if self._over:
            return
        self._over = True
        scope = self._scope
        client = scope.get("client")
        Access(
            scope.get("method", ""),
            scope.get("path", ""),
            text(scope.get("query_string")),
            str(client[0]) if client else "",
            text(self._headers.get(b"user-agent")),
            text(self._headers.get(b"referer")),
            self._id,
            self._status or status,
            self._body_bytes,
            time.monotonic() - self._began,
        ).log()
