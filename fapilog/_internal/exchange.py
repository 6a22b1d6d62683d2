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

from fapilog.coordinator import coordinator
from fapilog.pipeline import request_route

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextvars import ContextVar, Token

    from fapilog._internal.access import Access

SERVER_ERROR = 500


def _variables(*names: str) -> list[ContextVar[Any]]:
    """Return structlog's own variables, for all its helpers to see: to set them costs less than to look them up each time."""
    tokens = copy_context().run(lambda: bind_contextvars(**dict.fromkeys(names)))
    return [tokens[name].var for name in names]


_REQUEST_ID, _METHOD, _PATH, _CLIENT = _variables("request_id", "method", "path", "client")


def logs_access() -> bool:
    """Whether `FAPILOG_ACCESS_LOG` asks for access events in this process."""
    return coordinator.spec is None or coordinator.spec.settings.access_log


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


class Exchange:
    """
    One request and its response.

    Attributes:
        access: What is known of it so far.
        began: When it began, on the monotonic clock.
        wanted: Whether a middleware of ours, at any depth around the application, logs its access event.
        excluded: Whether one of them leaves its path out.
        done: Whether its access event has been logged, or would have been.
    """

    __slots__ = ("_route", "_source", "_tokens", "access", "began", "done", "excluded", "wanted")

    def __init__(self, access: Access, source: Any) -> None:
        """*source* is where the framework leaves what it has found out: the scope, or the environ."""
        self.began = time.monotonic()
        self.access = access
        self.wanted = False
        self.excluded = False
        self.done = False
        self._route = ""
        self._source = source
        self._tokens: tuple[Token[Any], ...] = ()

    def join(self, access: bool | None, exclude: Paths) -> None:
        """Take the wishes of a middleware into account: the outermost, which made this, and any inside of it."""
        self.wanted = self.wanted or (logs_access() if access is None else access)
        self.excluded = self.excluded or self.access.path in exclude

    def bind(self) -> None:
        """Put the request into the current context."""
        access = self.access
        self._tokens = (
            _REQUEST_ID.set(access.request_id),
            _METHOD.set(access.method),
            _PATH.set(access.path),
            _CLIENT.set(access.client),
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

    def route(self) -> str:
        """Return the template of the path, such as ``/items/{n}``; empty while nobody knows it. Any thread, never raises."""
        source = self._source
        if source is None:
            return self._route
        try:
            return self._found_route(source) or self._route
        except Exception:  # objects of a framework, which may change between two versions of it
            return self._route

    def _found_route(self, source: Any) -> str | None:
        raise NotImplementedError

    def keep_route(self) -> None:
        """Remember the route that is known now: a framework may clear away what it has found when it has answered."""
        self._route = self.route()

    def over(self, status: int = 0) -> None:
        """Log the access event, the first time; *status* is what the client got if the application never began to answer."""
        if self.done:
            return
        self.done = True
        if self.wanted and not self.excluded:
            access = self.access
            access.status = access.status or status
            access.seconds = time.monotonic() - self.began
            access.route = self.route()
            access.log()

    def let_go(self) -> None:
        """Forget the request itself: the application has come back for good."""
        self.keep_route()
        self._source = None
