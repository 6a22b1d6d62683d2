"""
Where our middleware goes in an application of each framework, for `configure_logging(app=app)`.

Invariants:

1. It is there once, however often it is asked for, and whoever put it there.
2. An application that cannot take it is refused, with the line that does it by hand, before anything has changed.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from fapilog.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

_DEPTH = 50  # of middlewares around an application


def middleware_into(app: Any) -> Callable[[], object]:
    """
    Return what puts the middleware into *app*: a FastAPI, Starlette, Litestar or Flask application; None is no application.

    Raises:
        ConfigurationError: *app* is something else, or has started already.
    """
    if app is None:
        return _nothing
    if hasattr(app, "add_middleware"):
        return _into_starlette(app)
    if hasattr(app, "asgi_handler") and hasattr(app, "on_shutdown"):
        return functools.partial(_into_litestar, app)
    if hasattr(app, "wsgi_app"):
        return functools.partial(_into_flask, app)
    raise ConfigurationError(
        f"app: {app!r} is no FastAPI, Starlette, Litestar or Flask application; wrap it instead: "
        "app = fapilog.asgi.FapilogMiddleware(app), or app = fapilog.wsgi.FapilogMiddleware(app) for WSGI"
    )


def _nothing() -> None:
    pass


def _into_starlette(app: Any) -> Callable[[], object]:
    from fapilog.asgi import FapilogMiddleware

    if any(entry.cls is FapilogMiddleware for entry in getattr(app, "user_middleware", ())):
        return _nothing
    if getattr(app, "middleware_stack", None) is not None:
        message = "app: it has started already, so it takes no middleware; call configure_logging(app=app) before it serves"
        raise ConfigurationError(message)
    return functools.partial(app.add_middleware, FapilogMiddleware)


def _into_litestar(app: Any) -> None:
    from fapilog.asgi import FapilogMiddleware, drained, opened

    async def opening() -> None:
        opened(app)

    async def draining() -> None:
        await drained(app)

    if not _is_around(FapilogMiddleware, app.asgi_handler):
        app.asgi_handler = FapilogMiddleware(app.asgi_handler)
        app.on_startup.insert(0, opening)
        app.on_shutdown.append(draining)  # hooks run after the application's lifespan managers, in this order


def _into_flask(app: Any) -> None:
    from fapilog.wsgi import FapilogMiddleware

    if not _is_around(FapilogMiddleware, app.wsgi_app):
        app.wsgi_app = FapilogMiddleware(app.wsgi_app)


def _is_around(middleware: type, app: Any) -> bool:
    """Return whether *middleware* is somewhere around the application, among others that keep what they wrap as `app`."""
    for _ in range(_DEPTH):
        if isinstance(app, middleware):
            return True
        app = getattr(app, "app", None)
    return False
