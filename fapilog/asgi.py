"""
Pure ASGI middleware: the lifespan door of the drain.

Invariants:

1. The hub is drained after the application has finished its own shutdown and before the server hears that it is complete.
2. A second start of the same application opens the hub again.
3. Anything but a lifespan scope passes through untouched.

Protocol: ASGI 3.0, lifespan 2.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fapilog.coordinator import coordinator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_SHUTDOWN = ("lifespan.shutdown.complete", "lifespan.shutdown.failed")


class FapilogMiddleware:
    """
    Drains the hub when the application shuts down.

    Args:
        app: An ASGI application. FastAPI and Starlette take the class in `add_middleware()`, which is what
            `configure_logging(app=app)` does.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return

        async def opening() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                coordinator.open()
            return message

        async def draining(message: Message) -> None:
            if message["type"] in _SHUTDOWN:
                await coordinator.adrain()
            await send(message)

        await self.app(scope, opening, draining)
