"""
One request and its response: what the ASGI and the WSGI middleware have in common.

Invariants:

1. While an exchange is bound, every event that is logged in its context has `request_id`, `method`, `path` and `client` of this
   request, and `route` from the moment that the framework has found it.
2. Afterwards the context holds what it held before under these names. Nothing under other names is touched, now or ever.
3. There is one access event at most, when `over()` is called first: if a middleware around the application asked for one, and
   none excludes the path.
4. A context may outlive its request (in a task that the application started); it keeps the few texts, not the request.
"""

from __future__ import annotations

import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from structlog.contextvars import bind_contextvars

from fapilog._internal import capture
from fapilog._internal.access import Access
from fapilog.coordinator import coordinator
from fapilog.pipeline import request_route

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextvars import ContextVar, Token

SERVER_ERROR = 500


def _variables(*names: str) -> list[ContextVar[Any]]:
    """Return structlog's own variables, for all its helpers to see: to set them costs less than to look them up each time."""
    tokens = copy_context().run(lambda: bind_contextvars(**dict.fromkeys(names)))
    return [tokens[name].var for name in names]


_REQUEST_ID, _METHOD, _PATH, _CLIENT = _variables("request_id", "method", "path", "client")


def logs_access() -> bool:
    """Whether `FAPILOG_ACCESS_LOG` asks for access events in this process."""
    return coordinator.spec is None or coordinator.spec.settings.access_log


class Middleware:
    """
    How the middlewares of both protocols are made.

    Args:
        app: The application inside.
        access: Whether it logs access events; `FAPILOG_ACCESS_LOG` by default. Context and id are there either way.
        exclude: Paths without access events: ``"/health"`` is that path, ``"/static/*"`` everything that begins so.

    Raises:
        TypeError: *exclude* holds something else than strings.
        ValueError: *exclude* holds what can be no path.
    """

    def __init__(self, app: Any, *, access: bool | None = None, exclude: Iterable[str] = ()) -> None:
        self.app = app
        self._access = access
        self._exclude = Paths(exclude)
        capture.middleware_serves()


class Paths:
    """
    The paths that a middleware leaves out.

    Args:
        patterns: Paths such as ``/health``; ``/static/*`` is every path that begins with ``/static/``.

    Raises:
        TypeError: *patterns* is one string, or holds something else than strings.
        ValueError: A pattern begins with no slash, or has a star elsewhere than at its end.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        if isinstance(patterns, str):
            raise TypeError(f"exclude={patterns!r}: a list of paths is wanted, such as [{patterns!r}]")
        patterns = tuple(patterns)
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise TypeError(f"exclude: {pattern!r} is not a str")
            if not pattern.startswith(("/", "*")) or "*" in pattern[:-1]:
                raise ValueError(
                    f"exclude: {pattern!r} is neither a path, such as '/health', nor the beginning of one, '/static/*'"
                )
        self._exact = frozenset(patterns)
        self._beginnings = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))

    def __contains__(self, path: str) -> bool:
        return path in self._exact or path.startswith(self._beginnings)


class Route:
    """
    The template of a request's path, such as ``/items/{n}``, which becomes known while the request is under way.

    It is in the context of the request, and with it in every context that is copied from that, for as long as these live.

    Args:
        find: Returns it; may raise anything while there is none.
        source: What *find* looks at: the scope, or the environ.
    """

    __slots__ = ("_find", "_known", "_source")

    def __init__(self, find: Callable[[Any], str], source: Any) -> None:
        self._find = find
        self._source = source
        self._known = ""

    def __call__(self) -> str:
        """Return the template; empty while nobody knows it. Any thread, never raises an `Exception`."""
        source = self._source
        if source is None:
            return self._known
        try:
            return self._find(source) or self._known
        except Exception:  # objects of a framework, which may change between two versions of it
            return self._known

    def keep(self) -> str:
        """Remember what is known now, and return it: a framework may clear away what it has found when it has answered."""
        self._known = self()
        return self._known

    def let_go(self) -> None:
        """Forget the request itself, with all that hangs on it."""
        self.keep()
        self._source = None


class Exchange:
    """
    One request and its response.

    Args:
        method: As sent.
        path: Decoded.
        client: The address of whoever asked, without the port; empty where there is none.
        request_id: From `request_id_from()`.
        find: Returns the template of the path, given *source*; may raise anything while there is none.
        source: Where the server and the framework say what there is to know: the scope, or the environ.

    Attributes:
        status: Of the response; 0 as long as it has not begun.
        body_bytes: Of its body, so far.
        close_code: Of a websocket that was open and is closed.
        aborted: Whether the response began and did not come to its end, as far as is known.
        began: When, on the monotonic clock.
        wanted: Whether a middleware of ours, at any depth around the application, logs the access event.
        excluded: Whether one of them leaves the path out.
        route: The template of the path.
        done: Whether the access event has been logged, or would have been.
    """

    __slots__ = (
        *("_source", "_tokens", "aborted", "began", "body_bytes", "client", "close_code", "done", "excluded"),
        *("method", "path", "request_id", "route", "status", "wanted"),
    )

    def __init__(self, method: str, path: str, client: str, request_id: str, find: Callable[[Any], str], source: Any) -> None:
        self.began = time.monotonic()
        self.route = Route(find, source)
        self.method = method
        self.path = path
        self.client = client
        self.request_id = request_id
        self.status = 0
        self.body_bytes = 0
        self.close_code: int | None = None
        self.aborted = False
        self.wanted = False
        self.excluded = False
        self.done = False
        self._source = source
        self._tokens: tuple[Token[Any], ...] = ()

    def join(self, access: bool | None, exclude: Paths) -> None:
        """Take the wishes of a middleware into account: the outermost, which made this, and any inside of it."""
        self.wanted = self.wanted or (logs_access() if access is None else access)
        self.excluded = self.excluded or self.path in exclude

    def bind(self) -> None:
        """Put the request into the current context."""
        self._tokens = (
            _REQUEST_ID.set(self.request_id),
            _METHOD.set(self.method),
            _PATH.set(self.path),
            _CLIENT.set(self.client),
            request_route.set(self.route),
        )

    def unbind(self) -> None:
        """Put the current context back as it was before `bind()`."""
        tokens, self._tokens = self._tokens, ()
        for token in tokens:
            try:
                token.var.reset(token)
            except ValueError:  # another context: the garbage collector closes a coroutine that was never finished
                return

    def over(self, status: int = 0) -> None:
        """Log the access event, the first time; *status* is what the client got if the application never began to answer."""
        if self.done:
            return
        self.done = True
        if self.wanted and not self.excluded:
            query, user_agent, referer = self._told(self._source)
            Access(
                self.method,
                self.path,
                query,
                self.client,
                user_agent,
                referer,
                self.request_id,
                self.status or status,
                self.body_bytes,
                time.monotonic() - self.began,
                self.route.keep(),
                self.close_code,
                self.aborted,
            ).log()

    def _told(self, source: Any) -> tuple[str, str, str]:
        """Return query, user agent and referer."""
        raise NotImplementedError

    def let_go(self) -> None:
        """Forget the request itself: the application has come back for good."""
        self.route.let_go()
        self._source = None
