"""
What all sinks share that push batches of lines to a server over HTTP.

Invariants:

1. It runs on a thread and an event loop of its own. One time limit covers a whole request, from the name lookup to the answer,
   and a cancellation ends it at any point.
2. What the server has acknowledged is not sent again: while the same batch is offered, only what is left of it goes out, in the
   bytes of the first try. Each failed try says how much of the batch was stored and refused so far.
3. A request that is too large, in the server's opinion or by `max_body_bytes`, is halved until it passes; an event that is too
   large by itself is refused by the server alone.
4. No message, `repr()` or attribute that is shown has credentials: not those of headers, nor what stands in the URL's query, in
   parameters of its path or before an ``@``. What a server says back of them is masked.
5. TLS certificates are always checked. Redirects are not followed, proxies of the environment are not used.
6. Everything that a push needs is imported with this module, at set-up: a child forked while another thread imports would find
   half a module, for ever.
7. What the HTTP client logs about a push reaches nobody, neither us nor the program's own handlers; nor does OpenTelemetry, where
   the program has it instrument the client, make spans of pushes.

Where it goes and with what is said in `sinks/endpoint.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import importlib
import logging
import os
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from operator import is_
from typing import TYPE_CHECKING, Any

import httpx

from fapilog._internal.parsing import shown_url
from fapilog._internal.terms import Terms
from fapilog._internal.tracing import untraced
from fapilog.errors import SinkRejected, SinkUnavailable
from fapilog.redaction import redaction
from fapilog.sinks.answers import Answer, Fate
from fapilog.sinks.endpoint import Secrets, Tls, check_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from fapilog.identity import Identity
    from fapilog.typing import Event

RETRY_DELAY, RETRY_CAP = 0.5, 60.0
REPLAY_SPEED = 2.0
BODY_BYTES = 65_536  # of an answer that are read: the number of refused entries stands behind a list of ten
BODY_PATIENCE = 1.0  # seconds that they may take once the status is known
NO_CONTENT = 204

#: What httpx, httpcore, anyio and asyncio import only when they are used.
LATER_IMPORTS = ("httpcore", "anyio._backends._asyncio", "anyio._core._sockets", "anyio.streams.tls", "encodings.idna")
CLIENT_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11")

_parked: list[Any] = []  # clients of the process that this one was forked from: never closed here, never collected

_pushing: ContextVar[bool] = ContextVar("fapilog_pushing", default=False)


def _not_pushing(record: logging.LogRecord) -> bool:
    return not _pushing.get()


for _name in LATER_IMPORTS:
    with contextlib.suppress(ImportError):  # another version is made of other parts
        importlib.import_module(_name)
for _name in CLIENT_LOGGERS:
    logging.getLogger(_name).addFilter(_not_pushing)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keep what the HTTP client logs inside from everybody: it is no news of the program's, and comes with every batch."""
    before = _pushing.set(True)
    try:
        with untraced():
            yield
    finally:
        _pushing.reset(before)


def push_terms(max_elapsed: float, batch_bytes: int, batch_timeout: float, backlog_bytes: int) -> Terms:
    """Return the terms of delivery to a server that many processes push to."""
    return Terms(None, RETRY_DELAY, RETRY_CAP, max_elapsed, batch_bytes, batch_timeout, backlog_bytes, replay_speed=REPLAY_SPEED)


@dataclass(slots=True)
class _Part:
    """Lines that go out in one request."""

    lines: Sequence[bytes]
    body: bytes = b""


def halves(lines: Sequence[bytes]) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Return the first and the second half of at least two *lines*."""
    middle = len(lines) // 2
    return lines[:middle], lines[middle:]


class PushSink:
    """
    Pushes lines to one URL; a sink says what a request looks like and what an answer means.

    Args:
        name: Of the sink.
        url: To push to, without credentials.
        headers: Of every request.
        secrets: Others that are masked wherever they are said, beside those in *url* and *headers*; perhaps empty.
        tls: What certificates are checked against.
        timeout: Of one request as a whole, in seconds.
        terms: Of its delivery.

    Attributes:
        compresses: Whether bodies are compressed with gzip.
        max_body_bytes: The most that one measures before that, unless it has a single event.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    compresses = True
    max_body_bytes: int | None = None

    def __init__(
        self, name: str, url: str, headers: Mapping[str, str], secrets: Iterable[str], tls: Tls, timeout: float, terms: Terms
    ) -> None:
        self.name = name
        self.url = self.target = shown_url(url)
        self.terms = terms
        self._push_url = url
        self._headers = {"User-Agent": "fapilog", **headers}
        check_headers(self._headers)
        self._secrets = Secrets(url, secrets, self._headers)
        self._tls = tls
        tls.context()  # so that a file that cannot be used is an error here
        self._timeout = timeout
        self._client: httpx.AsyncClient | None = None
        self._pid = 0
        self._batch: Sequence[bytes] = ()
        self._parts: deque[_Part] = deque()
        self._stored = self._refused = 0
        self._reason = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, name={self.name!r})"

    def prepare(self, identity: Identity) -> None:
        """Get ready to encode in the process of *identity*."""
        raise NotImplementedError

    def encoded(self, lines: Sequence[bytes]) -> bytes:
        """Return the body of a request, not compressed."""
        raise NotImplementedError

    def judged(self, status: int, headers: Mapping[str, str], body: bytes, count: int) -> Answer:
        """Return what an answer means for the *count* events of a request; *body* is at least the beginning of the answer's."""
        raise NotImplementedError

    async def open(self, identity: Identity) -> None:
        """Make the client of this process."""
        if self._client is not None and self._pid != os.getpid():
            _parked.append(self._client)
            self._client = None
        await self.close()
        self._pid = os.getpid()
        self.prepare(identity)
        context = await asyncio.to_thread(self._tls.context)
        self._client = httpx.AsyncClient(
            verify=context, trust_env=False, follow_redirects=False, timeout=2 * self._timeout, headers=self._headers
        )

    def watch(self, look: Callable[[httpx.Response], Awaitable[None]]) -> None:
        """Let *look* see each answer, between `open()` and `close()`."""
        assert self._client is not None
        self._client.event_hooks = {"response": [look]}

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        self._batch = ()
        self._parts.clear()
        if client is not None:
            with _unheard():
                await client.aclose()

    async def write(self, events: Sequence[Event]) -> None:
        """Push *events*; see `Sink.write()`."""
        await self.write_lines([event.line for event in events])

    async def write_lines(self, lines: Sequence[bytes]) -> None:
        """
        Push *lines*, or what is left of them after a try that failed half-way.

        Raises:
            SinkUnavailable: The server could not be reached, or asks to be called again.
            SinkRejected: It has refused some of them for good.
        """
        if not (self._parts and len(lines) == len(self._batch) and all(map(is_, lines, self._batch))):
            self._batch = list(lines)
            self._parts = deque([_Part(lines)])
            self._stored, self._refused, self._reason = 0, 0, ""
        while self._parts:
            self._settle(self._parts[0], await self._pushed(self._parts[0]))
        self._batch = ()
        if self._refused:
            raise SinkRejected(self._refused, self._reason)

    def _settle(self, part: _Part, answer: Answer) -> None:
        if answer.fate is Fate.AGAIN:
            raise SinkUnavailable(answer.reason, answer.retry_after, delivered=self._stored, rejected=self._refused)
        self._parts.popleft()
        if answer.fate is Fate.TOO_MUCH and len(part.lines) > 1:
            self._parts.extendleft(map(_Part, reversed(halves(part.lines))))
            return
        if answer.fate is not Fate.STORED:
            self._refused += answer.refused
            self._reason = answer.reason
        self._stored += len(part.lines) - answer.refused

    def _body(self, part: _Part) -> bytes:
        """Return what goes out; nothing for a part that is too large."""
        if not part.body:
            body = self.encoded(part.lines)
            if self.max_body_bytes is not None and len(body) > self.max_body_bytes and len(part.lines) > 1:
                return b""
            part.body = gzip.compress(body, 1, mtime=0) if self.compresses else body
        return part.body

    async def _pushed(self, part: _Part) -> Answer:
        if self._client is None:
            return Answer(Fate.AGAIN, 0, "it is not open")
        body = self._body(part)
        if not body:
            return Answer(Fate.TOO_MUCH)
        response: httpx.Response | None = None
        beginning = b""
        try:
            with _unheard():
                async with (
                    asyncio.timeout(self._timeout),
                    self._client.stream("POST", self._push_url, content=body) as response,
                ):
                    beginning = await _beginning(response)
        except TimeoutError:
            if response is None:
                return Answer(Fate.AGAIN, 0, f"no answer within {self._timeout:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            if response is None:
                return Answer(Fate.AGAIN, 0, redaction.current.text(self.hidden_in(f"{type(error).__name__}: {error}")))
        assert response is not None
        return self.judged(response.status_code, response.headers, beginning, len(part.lines))

    def hidden_in(self, text: str) -> str:
        """Return *text* with a mask for each of our credentials."""
        return self._secrets.hidden_in(text)


async def _beginning(response: httpx.Response) -> bytes:
    """Return the beginning of an answer's body; whatever goes wrong with it, the status has said what matters."""
    data = b""
    if response.status_code == NO_CONTENT:
        return data
    try:
        async with asyncio.timeout(BODY_PATIENCE):
            async for chunk in response.aiter_raw():
                data += chunk
                if len(data) >= BODY_BYTES:
                    break
    except (TimeoutError, httpx.HTTPError, OSError):
        pass
    return data[:BODY_BYTES]
