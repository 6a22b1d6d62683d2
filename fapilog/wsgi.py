"""
Pure WSGI middleware: the context of a request, the access event, the request id. For Flask, Django and anything else by PEP 3333.

Invariants:

1. Each request has one access event, logged when the server closes the response, or when the application raises; of several
   middlewares around one another the outermost logs it.
2. Everything logged in the course of a request, while its body is iterated and while it is closed included, has its id, method,
   path, client and, once known, route.
3. A request runs in a context of its own: whatever the application binds is gone when the response is closed. A thread that
   serves one request after another keeps nothing of any.
4. Nothing is held back: a body is handed on chunk by chunk, one of known length keeps it, `wsgi.file_wrapper` reaches the server
   as it is, `write()` and `exc_info` work. Exceptions pass.
5. Where a server's adapter of ours would log the access event, it does not do so for a request that this logs or leaves out.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from fapilog._internal.access import request_id_from, text
from fapilog._internal.exchange import SERVER_ERROR, Exchange, Middleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Environ = dict[str, Any]
    StartResponse = Callable[..., Callable[[bytes], object]]
    App = Callable[[Environ, StartResponse], Iterable[bytes]]

MARK = "fapilog.exchange"
_ID = "X-Request-ID"


class FapilogMiddleware(Middleware):
    """
    Binds each request to the context of what is logged during it, logs its access event, returns its id as `X-Request-ID`.

    ``app.wsgi_app = FapilogMiddleware(app.wsgi_app)`` for Flask, which is what `configure_logging(app=app)` does;
    ``application = FapilogMiddleware(get_wsgi_application())`` for Django.

    Arguments: a WSGI application, and ``access=`` and ``exclude=`` as `Middleware` has them.
    """

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        exchange = environ.get(MARK) or environ.get("asgi.scope", {}).get(MARK)  # the latter from a2wsgi, inside of asgi.py
        if exchange is not None:
            exchange.join(self._access, self._exclude)
            served: Iterable[bytes] = self.app(environ, start_response)
            return served
        exchange = environ[MARK] = WsgiExchange(environ)
        exchange.join(self._access, self._exclude)
        return exchange.serve(self.app, environ, start_response)


class WsgiExchange(Exchange):
    """
    One request and its response under WSGI.

    Attributes:
        context: In which the application runs.
        body: The request's input: the same object wherever a server speaks of this request.
        complete: Whether the server has asked for all of the response's body.
        logged: Whether a server's adapter has logged the access event.
    """

    __slots__ = ("_announced", "_begun", "body", "complete", "context", "logged")

    def __init__(self, environ: Environ) -> None:
        super().__init__(
            str(environ.get("REQUEST_METHOD", "")),
            text(environ.get("SCRIPT_NAME")) + text(environ.get("PATH_INFO")),
            str(environ.get("REMOTE_ADDR", "")),
            request_id_from(environ.get("HTTP_X_REQUEST_ID")),
            _found_route,
            environ,
        )
        self.context = copy_context()
        self.body = environ.get("wsgi.input")
        self.complete = False
        self.logged = False
        self._begun = False
        self._announced = -1

    @property
    def claimed(self) -> bool:
        """Whether a middleware logs the access event, or leaves it out: then no server's adapter does."""
        return self.wanted or self.excluded

    @property
    def unfinished(self) -> bool:
        """Whether the response has begun and is not at its end: if nothing follows, it was broken off."""
        by_length = 0 <= self._announced <= self.body_bytes
        return self._begun and not (self.complete or by_length or self.method == "HEAD")

    def serve(self, app: App, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Run *app* and return its response; the server is to close it."""

        def starting(status: str, headers: Iterable[tuple[str, str]], *exc_info: Any) -> Callable[[bytes], object]:
            headers = self._with_id(headers)
            write = start_response(status, headers, *exc_info)
            self.status = _number(status[:3])
            self.route.keep()
            self._announced = next((_number(value) for name, value in headers if name.lower() == "content-length"), -1)
            return self._counting(write)

        self.context.run(self.bind)
        try:
            return self._to_server(self.context.run(app, environ, starting), environ)
        except BaseException:
            self.fail()
            self._end()
            raise

    def _with_id(self, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        headers = list(headers)
        theirs = [value for name, value in headers if name.lower() == "x-request-id"]
        if not theirs:
            return [*headers, (_ID, self.request_id)]
        self.request_id = text(theirs[0])
        return headers

    def _counting(self, write: Callable[[bytes], object]) -> Callable[[bytes], object]:
        def counting(data: bytes) -> object:
            self.count(data)
            return write(data)

        return counting

    def _to_server(self, body: Iterable[bytes], environ: Environ) -> Iterable[bytes]:
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            return self._file(body)
        return (_SizedBody if hasattr(body, "__len__") else _Body)(body, self)

    def _file(self, body: Any) -> Iterable[bytes]:
        """Hand a file on, which only the server knows how to send; *body* tells when it is closed."""
        close = getattr(body, "close", None)
        self._begun = self.complete = True  # as far as is known
        if self.method != "HEAD":
            self.body_bytes = max(0, self._announced)

        def closing() -> None:
            self.close(close)

        try:
            body.close = closing
        except AttributeError:  # one in C
            self.close(None)
        result: Iterable[bytes] = body
        return result

    def count(self, data: bytes) -> None:
        """Take note of a part of the body that goes to the server."""
        self._begun = True
        if self.method != "HEAD":
            self.body_bytes += len(data)

    def fail(self) -> None:
        """Log the access event of a response that ended in an exception; it may still be closed."""
        if not self._begun:  # the server has not sent the headers either
            self.status = SERVER_ERROR
        self._over()

    def close(self, close: Callable[[], object] | None) -> None:
        """Close the application's response, log the access event, and let go of the request."""
        try:
            if close is not None:
                self.context.run(close)
        finally:
            self._over()
            self._end()

    def _over(self) -> None:
        self.aborted = self.unfinished
        self.context.run(self.over, SERVER_ERROR)

    def _end(self) -> None:
        self.context.run(self.unbind)  # else context and exchange would hold each other
        self.let_go()

    def _told(self, source: Environ) -> tuple[str, str, str]:
        return text(source.get("QUERY_STRING")), text(source.get("HTTP_USER_AGENT")), text(source.get("HTTP_REFERER"))


def _found_route(environ: Environ) -> str:
    return str(environ["werkzeug.request"].url_rule.rule)  # Flask


class _Body:
    """
    The application's response on its way to the server.

    Args:
        body: What the application returned.
        exchange: In whose context it is iterated.
    """

    def __init__(self, body: Any, exchange: WsgiExchange) -> None:
        self._body = body
        self._exchange = exchange
        self._run = exchange.context.run
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = self._run(iter, self._body)
            chunk: bytes = self._run(next, self._chunks)
            self._exchange.count(chunk)
        except StopIteration:
            self._exchange.complete = True
            raise
        except BaseException:
            self._exchange.fail()
            raise
        return chunk

    def close(self) -> None:
        self._exchange.close(getattr(self._body, "close", None))


class _SizedBody(_Body):
    """The same where the number of chunks is known: a server makes `Content-Length` of a body that is one."""

    def __len__(self) -> int:
        return len(self._body)


def _number(digits: str) -> int:
    return int(digits) if digits.isascii() and digits.isdigit() else 0
