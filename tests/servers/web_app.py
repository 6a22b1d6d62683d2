"""
A Flask application, `app`, and a Django one, `django`, that log and bind in the course of a request; `logs` is `logs_app.wsgi`.

::

    /items/<n>   binds `user` and never unbinds it
    /stream/<n>  logs in the body as well
    /file/<n>    a file, through `wsgi.file_wrapper`
    /fail/<n>    raises
    /health/<n>  without an access event where our middleware is in the application

`FAPILOG_TEST_WAY`: ``adapter`` leaves our middleware to the server, anything else puts it into the application.
"""

from __future__ import annotations

import os
from typing import Any

import flask

import fapilog
from fapilog.wsgi import FapilogMiddleware

log = fapilog.get_logger("app")
app = flask.Flask(__name__)


@app.get("/items/<int:n>")
def item(n: int) -> str:
    fapilog.bind_contextvars(user=n)
    log.info("work", n=n)
    return f"item {n}"


def parts(n: int) -> Any:
    for part in range(3):
        log.info("part", n=n, part=part)
        yield b"x" * 100


@app.get("/stream/<int:n>")
def stream(n: int) -> Any:
    log.info("work", n=n)
    return flask.Response(parts(n))


@app.get("/file/<int:n>")
def file(n: int) -> Any:
    log.info("work", n=n)
    return flask.send_file(__file__)


@app.get("/fail/<int:n>")
def fail(n: int) -> str:
    fapilog.bind_contextvars(user=n)
    log.info("work", n=n)
    raise RuntimeError("the application fails")


@app.get("/health/<int:n>")
def health(n: int) -> str:
    log.info("work", n=n)
    return "well"


def make_django() -> Any:
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import FileResponse, HttpResponse, StreamingHttpResponse
    from django.urls import path

    def view(made: Any, *, binds: bool = False) -> Any:
        def respond(request: Any, n: int) -> Any:
            if binds:
                fapilog.bind_contextvars(user=n)
            log.info("work", n=n)
            return made(n)

        return respond

    def failing(n: int) -> Any:
        raise RuntimeError("the application fails")

    class Urls:
        urlpatterns = (
            path("items/<int:n>", view(lambda n: HttpResponse(f"item {n}"), binds=True)),
            path("stream/<int:n>", view(lambda n: StreamingHttpResponse(parts(n)))),
            path("file/<int:n>", view(lambda _: FileResponse(open(__file__, "rb")))),  # noqa: SIM115 - the response closes it
            path("fail/<int:n>", view(failing, binds=True)),
            path("health/<int:n>", view(lambda _: HttpResponse("well"))),
        )

    settings.configure(ROOT_URLCONF=Urls, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
    return get_wsgi_application()


def __getattr__(name: str) -> Any:
    if name == "django":
        return globals().setdefault("django", wrapped(make_django()))
    if name == "logs":
        import logs_app

        return globals().setdefault("logs", wrapped(logs_app.wsgi))
    raise AttributeError(name)


def wrapped(application: Any) -> Any:
    if os.environ["FAPILOG_TEST_WAY"] == "adapter":
        return application
    fapilog.configure_logging()
    return FapilogMiddleware(application, exclude=["/health/*"])


app.wsgi_app = wrapped(app.wsgi_app)  # type: ignore[method-assign]
