"""The applications of `apps.py`, with the metrics at ``/metrics``: `api` is a FastAPI application, `wsgi` a WSGI one."""

from __future__ import annotations

from typing import Any

import apps
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from fapilog.metrics import make_asgi_app, make_wsgi_app


def make_api() -> Any:
    from fastapi import FastAPI

    app = FastAPI()
    app.mount("/metrics", make_asgi_app())
    app.mount("/", apps.make_api())
    return app


def __getattr__(name: str) -> Any:
    if name != "api":
        raise AttributeError(name)
    return globals().setdefault("api", make_api())


wsgi = DispatcherMiddleware(apps.wsgi, {"/metrics": make_wsgi_app()})
