"""
Gunicorn's logger class: its error log and its access log through the hub.

Invariants:

1. It is made in the master and inherited by every worker through fork, so it holds no thread, no loop and no lock of its own.
2. Each request has one access event. WSGI: gunicorn calls `access()`, and a second time for one request when the application
   fails half-way; the first call decides, unless a middleware inside of the application does. ASGI: our middleware around it.
3. What gunicorn would write to its own stdout or stderr goes to the hub instead; a log file, syslog or logging configuration of
   the user's gets what it gets without us.
4. The lines survive a `dictConfig()` of the application's that disables existing loggers.
5. Where no sink of ours is a stream, errors of the master, and of a worker while it starts, are also on stderr, as JSON: somebody
   may be waiting there.
"""

from __future__ import annotations

import contextvars
import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote

from gunicorn import glogging
from gunicorn.instrument.statsd import Statsd

from fapilog._internal.access import Access, request_id_from, text
from fapilog._internal.exchange import SERVER_ERROR, logs_access
from fapilog.asgi import FapilogMiddleware
from fapilog.coordinator import coordinator
from fapilog.servers import gunicorn as hooks
from fapilog.servers.setup import configure_or_exit, echo
from fapilog.servers.uvicorn import wrap_application
from fapilog.stdlib import HubHandler
from fapilog.wsgi import MARK, WsgiExchange

if TYPE_CHECKING:
    from collections.abc import Callable

_ID = "X-Request-ID"
#: The request that this thread or green thread is serving, or has served.
_serving: contextvars.ContextVar[WsgiExchange | None] = contextvars.ContextVar("fapilog_serving", default=None)


class Logger(glogging.Logger):  # type: ignore[misc]
    """
    For gunicorn's `logger_class`. It composes our hooks with those of the configuration, so it is enough by itself:
    ``gunicorn --logger-class fapilog.servers.gunicorn_logger.Logger``.

    With `statsd_host` set it is also gunicorn's statsd logger.

    Args:
        cfg: Gunicorn's configuration.
    """

    reopens_fapilog = True

    def __new__(cls, cfg: Any) -> Self:
        """Return the logger that *cfg* asks for."""
        if cls is Logger and cfg.statsd_host:
            return object.__new__(StatsdLogger)
        return object.__new__(cls)

    def setup(self, cfg: Any) -> None:
        """Follow *cfg*; in the master, at the start and at each reload."""
        configure_or_exit()
        coordinator.become_master(cfg.uid, cfg.gid)
        hooks.compose(cfg)
        self._wraps_asgi = False
        self._starting = True
        super().setup(cfg)
        for log in (self.error_log, self.access_log):
            for handler in [each for each in log.handlers if _is_stdio(each)]:
                log.removeHandler(handler)
        handler = _Handler(self)
        handler._gunicorn = True  # type: ignore[attr-defined]  # noqa: SLF001 - gunicorn's mark for what the next setup() removes
        self.error_log.addHandler(handler)
        modules = logging.getLogger("gunicorn")  # of gunicorn's modules, which log by names of their own
        if not any(isinstance(each, _Handler) for each in modules.handlers):
            modules.addHandler(_Handler())

    @property
    def error_log(self) -> logging.Logger:
        """Gunicorn's error logger, never disabled."""
        self._error_log.disabled = False
        return self._error_log

    @error_log.setter
    def error_log(self, log: logging.Logger) -> None:
        self._error_log = log

    @property
    def starting(self) -> bool:
        """Whether this is the master, or a worker that is still on its way up."""
        return self._starting

    def adopt_worker(self, worker: Any) -> None:
        """Put our middleware around the application that *worker* will load; in the worker, before it loads it."""
        run, load_wsgi = worker.run, worker.load_wsgi

        def loaded() -> None:
            load_wsgi()
            if hasattr(worker, "asgi"):
                worker.asgi = FapilogMiddleware(worker.asgi)
            elif not self._wraps_asgi:
                worker.wsgi = _Serving(worker.wsgi)

        def running() -> Any:
            self._starting = False
            return run()

        config = getattr(worker, "config", None)
        uvicorns = any(base.__module__ == "uvicorn.config" for base in type(config).__mro__)
        if uvicorns:
            wrap_application(config)
        self._wraps_asgi = uvicorns or any(base.__module__ == "gunicorn.workers.gasgi" for base in type(worker).__mro__)
        worker.load_wsgi, worker.run = loaded, running

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log the access event, and whatever else the configuration asks for."""
        if not self._wraps_asgi and logs_access():
            _log_access(resp, req, environ, request_time.total_seconds())
        if self.access_log.handlers:
            super().access(resp, req, environ, request_time)

    def _compute_access_log_enabled(self) -> bool:
        return bool(super()._compute_access_log_enabled()) or logs_access()

    def reopen_files(self) -> None:
        """Reopen gunicorn's files and ours."""
        super().reopen_files()
        coordinator.reopen()


class StatsdLogger(Logger, Statsd):  # type: ignore[misc]
    """What `Logger(cfg)` makes where `statsd_host` is set: gunicorn's metrics go on being sent."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Log the access event and send the metrics of the request."""
        super().access(resp, req, environ, request_time)
        if not self.access_log.handlers:
            Statsd.access(self, resp, req, environ, request_time)


def _is_stdio(handler: logging.Handler) -> bool:
    if not getattr(handler, "_gunicorn", False) or type(handler) is not logging.StreamHandler:
        return False
    return handler.stream is sys.stdout or handler.stream is sys.stderr


class _Handler(HubHandler):
    """
    Takes gunicorn's records, some of whose messages have a whole URL in them.

    Args:
        logger: Errors are echoed while it is starting.
    """

    def __init__(self, logger: Logger | None = None) -> None:
        super().__init__(obeys=False)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        if self._logger is not None and self._logger.starting:
            echo(record)
        super().emit(record)


class _Serving:
    """A WSGI application whose requests have their context and id (`fapilog.wsgi`); `Logger.access()` logs the access events."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        exchange = environ[MARK] = WsgiExchange(environ)
        _serving.set(exchange)
        try:
            return exchange.serve(self._app, environ, start_response)
        except (OSError, SystemExit):  # gunicorn takes these for its own affair and may never call `access()`
            if logs_access() and not exchange.claimed:
                _log(environ, None, exchange, SERVER_ERROR, 0, 0.0)
            raise


def _log_access(resp: Any, req: Any, environ: Any, seconds: float) -> None:
    exchange = environ.get(MARK) or _serving.get()  # gunicorn's error handler makes an environ of its own
    if exchange is None or (MARK not in environ and exchange.body is not environ.get("wsgi.input")):  # another's, from before
        exchange = WsgiExchange(environ)
        exchange.request_id = request_id_from(_header(environ, req, _ID))
        exchange.began -= seconds
    if not exchange.claimed and not exchange.logged and not getattr(req, "logged_by_fapilog", False):
        sent = int(getattr(resp, "sent", 0) or 0) or exchange.body_bytes  # gunicorn does not count what sendfile() sends
        _log(environ, req, exchange, _status(resp, environ), sent, seconds)


def _log(environ: Any, req: Any, exchange: WsgiExchange, status: int, body_bytes: int, seconds: float) -> None:
    exchange.logged = True
    try:
        req.logged_by_fapilog = True
    except AttributeError:  # pywsgi hands over a list of headers, and calls once
        pass
    path = environ.get("PATH_INFO") or unquote(getattr(req, "path", "") or "", "latin-1")
    access = Access(
        str(environ.get("REQUEST_METHOD", "")),
        text(environ.get("SCRIPT_NAME", "")) + text(path),
        text(environ.get("QUERY_STRING", "")),
        str(environ.get("REMOTE_ADDR", "")),
        text(_header(environ, req, "User-Agent")),
        text(_header(environ, req, "Referer")),
        exchange.request_id,
        status,
        body_bytes,
        max(seconds, time.monotonic() - exchange.began),
        exchange.route(),
        aborted=exchange.unfinished,
    )
    exchange.context.copy().run(access.log)  # with what the application has bound


def _header(environ: Any, req: Any, name: str) -> str | None:
    """Return a header of the request, which is not in the environ that gunicorn's error handler makes."""
    found = environ.get("HTTP_" + name.upper().replace("-", "_"))
    if found is not None:
        return str(found)
    headers = getattr(req, "headers", None)
    return next((value for key, value in headers if key.lower() == name.lower()), None) if isinstance(headers, list) else None


def _status(resp: Any, environ: Any) -> int:
    """Return what the client got: gunicorn answers 500 when the application fails before the response has begun."""
    error = sys.exc_info()[1]
    begun = getattr(resp, "headers_sent", True)
    from_application = "PATH_INFO" in environ  # gunicorn's error handler makes an environ without it, and sets the true status
    if error is not None and from_application and not begun and not isinstance(error, OSError | StopIteration):
        return SERVER_ERROR
    return _number(getattr(resp, "status", None))


def _number(status: Any) -> int:
    try:
        return int(status) if isinstance(status, int) else int(text(status).split(None, 1)[0])
    except (ValueError, IndexError):
        return 0
