"""
Named behaviours of the stand-in, for its script: one is consumed by a push request, or by a connection (`Fault.at`).

A fault says what became of the request's entries (`Fault.stored`). `CATALOGUE` holds one of each behaviour, by name.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Literal, TypeAlias

from tests.loki.store import Failures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.loki.exchange import Connection, Exchange

Stored = Literal["all", "none", "some"]
Header: TypeAlias = "str | Callable[[], str]"

GARBAGE = b"\x00\xffnot a protocol\r\n\r\n" * 8
HTML = "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n</body>\r\n</html>\r\n"
BLOCKED = "ingestion blocked for user 'fake' until '2099-01-01T00:00:00Z' with status code '{}'"
TOO_MANY = (
    "ingestion rate limit exceeded for user fake (limit: 4194304 bytes/sec) while attempting to ingest '10' lines totaling "
    "'9999999' bytes, reduce log volume or contact your Loki administrator to see if the limit can be increased"
)
NO_REPLICAS = "at least 1 live replicas required, could only find 0 - unhealthy instances: 127.0.0.1:9095"
BAD_LABELS = "couldn't parse labels: 1:2: parse error: unexpected character inside braces: '-'"


@dataclass(frozen=True)
class Fault:
    """
    A behaviour; made by the functions below.

    Args:
        name: For reports.
        stored: What becomes of the entries.
        request: Acts on a request, whose body has not been read yet.
        connection: Acts on a new connection, before TLS; the connection is closed afterwards.
        seconds, until: When a refusal to listen ends: after that time, and when it says so.
    """

    name: str
    stored: Stored = "none"
    request: Callable[[Exchange], None] | None = None
    connection: Callable[[Connection], None] | None = None
    seconds: float = 0.0
    until: Callable[[], bool] | None = None

    @property
    def at(self) -> Literal["request", "connection", "listen"]:
        """What consumes it."""
        return "request" if self.request else "connection" if self.connection else "listen"

    def named(self, name: str) -> Fault:
        """Return the same behaviour under another name."""
        return replace(self, name=name)


def http_date(seconds: float) -> Callable[[], str]:
    """Return a Retry-After that names the time so many seconds after the answer (whole seconds, rounded down)."""
    return lambda: formatdate(time.time() + seconds, usegmt=True)


def ok() -> Fault:
    """Answer what the request deserves."""
    return Fault("ok", "all", lambda exchange: exchange.handle())


def ok_then_close() -> Fault:
    """The same, then close the connection without having said so: the next request on it meets a closed one."""

    def act(exchange: Exchange) -> None:
        exchange.handle()
        exchange.close()

    return Fault("ok, then an unannounced close", "all", act)


def status(
    code: int,
    text: str | bytes = "",
    *,
    stored: bool = False,
    headers: Mapping[str, Header] | None = None,
    content_type: str = "",
) -> Fault:
    """Answer this, having stored the entries or not; a header may be a function that is called for each answer."""

    def act(exchange: Exchange) -> None:
        if stored:
            exchange.store()
        exchange.read()
        made = {name: value if isinstance(value, str) else value() for name, value in (headers or {}).items()}
        exchange.answer(code, text, made, content_type=content_type)

    return Fault(f"{code} after storing" if stored else str(code), "all" if stored else "none", act)


def proxy(code: int, title: str) -> Fault:
    """Answer as a proxy in front does: HTML."""
    return status(code, HTML.format(f"{code} {title}"), content_type="text/html")


def blocked(code: int = 260) -> Fault:
    """Loki's answer for a blocked tenant: nothing is stored; with code 200 nothing shows it."""
    return status(code, BLOCKED.format(code) if code != 200 else "")


def redirect(code: int = 307, location: str = "/elsewhere") -> Fault:
    return status(code, headers={"Location": location})


def bad_request() -> Fault:
    """400 for the whole request."""
    return status(400, BAD_LABELS)


def partial(refused: int = 1, kind: Literal["old", "behind", "rate"] = "old") -> Fault:
    """
    Store all but the first *refused* entries and say so in Loki's words.

    ``old`` is the distributor's 400 (``N errors like:``), ``behind`` the ingester's (``total ignored: X out of Y``), ``rate`` the
    ingester's 429.
    """

    def act(exchange: Exchange) -> None:
        exchange.handle(Failures(refused, kind))

    return Fault(f"{429 if kind == 'rate' else 400} partial, {kind}", "some", act)


def too_many(retry_after: Header | None = None) -> Fault:
    """429: a tenant's rate; only a proxy would send Retry-After."""
    return status(429, TOO_MANY, headers=_retry_after(retry_after))


def unavailable(retry_after: Header | None = None, code: int = 503) -> Fault:
    return status(code, NO_REPLICAS, headers=_retry_after(retry_after))


def _retry_after(value: Header | None) -> dict[str, Header]:
    return {} if value is None else {"Retry-After": value}


def failure(code: int = 500, *, stored: bool = False) -> Fault:
    return status(code, "empty ring", stored=stored)


def hang(*, stored: bool = False) -> Fault:
    """Take the request and answer nothing, until released; then close the connection."""

    def act(exchange: Exchange) -> None:
        exchange.store() if stored else exchange.read()
        exchange.wait()
        exchange.close()

    return Fault(f"hang{' after storing' if stored else ''}", "all" if stored else "none", act)


def stop_reading() -> Fault:
    """Read the head of the request and nothing more, until released; then reset the connection."""

    def act(exchange: Exchange) -> None:
        exchange.wait()
        exchange.close(reset=True)

    return Fault("stop reading", "none", act)


def black_hole() -> Fault:
    """Accept the connection and do nothing with it, not even TLS, until released."""
    return Fault("black hole", connection=lambda connection: connection.wait())


def slow(seconds: float) -> Fault:
    """Wait, then do as usual."""

    def act(exchange: Exchange) -> None:
        exchange.wait(seconds)
        exchange.handle()

    return Fault("slow", "all", act)


def slow_head(interval: float = 0.05, *, count: int = 1000) -> Fault:
    """Store, then send 204's head by one header line each *interval* seconds; no single read takes longer."""

    def act(exchange: Exchange) -> None:
        exchange.store()
        lines = [b"HTTP/1.1 204 No Content\r\n", *(b"X-Slow-%d: 1\r\n" % n for n in range(count)), b"\r\n"]
        exchange.drip(204, lines, interval)

    return Fault("slow head", "all", act)


def slow_body(interval: float = 0.05, *, count: int = 1000, code: int = 500) -> Fault:
    """Answer *code* with a body of *count* bytes, one each *interval* seconds."""

    def act(exchange: Exchange) -> None:
        exchange.read()
        head = f"HTTP/1.1 {code} Slow\r\nContent-Type: text/plain\r\nContent-Length: {count}\r\n\r\n"
        exchange.drip(code, [head.encode(), *[b"."] * count], interval)

    return Fault("slow body", "none", act)


def endless_body(code: int = 500) -> Fault:
    """Answer *code* with a body that does not end before the client goes away, or 1 GiB."""

    def act(exchange: Exchange) -> None:
        exchange.read()
        head = f"HTTP/1.1 {code} Endless\r\nContent-Type: text/plain\r\nContent-Length: {1 << 30}\r\n\r\n"
        exchange.drip(code, [head.encode(), *[b"." * (1 << 16)] * (1 << 14)], 0)

    return Fault("endless body", "none", act)


def cut(*, stored: bool = True, reset: bool = False, answer: bytes = b"") -> Fault:
    """Take the request, send *answer* and close or reset the connection: the maker of duplicates."""

    def act(exchange: Exchange) -> None:
        exchange.store() if stored else exchange.read()
        if answer:
            exchange.send(answer)
        exchange.close(reset=reset)

    how = "garbage" if answer.startswith(b"\0") else "cut in the answer" if answer else "reset" if reset else "cut"
    return Fault(f"{how} {'after' if stored else 'without'} storing", "all" if stored else "none", act)


def reset() -> Fault:
    """Reset the connection as it is accepted."""
    return Fault("reset", connection=lambda connection: connection.reset())


def garbage() -> Fault:
    """Send bytes that are neither TLS nor HTTP as the connection is accepted, then close it."""
    return Fault("garbage", connection=lambda connection: connection.send(GARBAGE))


def refuse(seconds: float = 0.3, until: Callable[[], bool] | None = None) -> Fault:
    """
    Stop listening: connections are refused, idle ones closed.

    It ends after *seconds* and when *until* (called from a thread of the stand-in) says so. The server cannot see whom it
    refused: that the client tried is for the test to show, best by *until*.
    """
    return Fault("refuse", seconds=seconds, until=until)


#: One of each behaviour; those that hang or drip end when released or stopped.
CATALOGUE: dict[str, Callable[[], Fault]] = {
    "204": ok,
    "204, then an unannounced close": ok_then_close,
    "200": lambda: blocked(200),
    "202": lambda: status(202),
    "260": blocked,
    "301": lambda: redirect(301),
    "302": lambda: redirect(302),
    "307": redirect,
    "308": lambda: redirect(308),
    "400": bad_request,
    "400 partial, old": partial,
    "400 partial, behind": lambda: partial(kind="behind"),
    "401": lambda: status(401, "no org id"),
    "403": lambda: proxy(403, "Forbidden"),
    "404": lambda: status(404, "404 page not found"),
    "408": lambda: status(408),
    "413": lambda: proxy(413, "Request Entity Too Large"),
    "422": lambda: status(422, "error at least one valid stream is required for ingestion"),
    "429": too_many,
    "429, retry after seconds": lambda: too_many("1"),
    "429, retry after a date": lambda: too_many(http_date(2)),
    "429, retry after a past date": lambda: too_many(http_date(-3600)),
    "429, retry after very long": lambda: too_many("999999999"),
    "429, retry after rubbish": lambda: too_many("soon"),
    "429, retry after a negative time": lambda: too_many("-1"),
    "429 partial": lambda: partial(kind="rate"),
    "500": failure,
    "500 after storing": lambda: failure(stored=True),
    "501": lambda: failure(501),
    "502": lambda: proxy(502, "Bad Gateway"),
    "503": unavailable,
    "503, retry after seconds": lambda: unavailable("1"),
    "503, retry after a date": lambda: unavailable(http_date(2)),
    "504": lambda: proxy(504, "Gateway Time-out"),
    "refuse": refuse,
    "reset": reset,
    "reset after reading": lambda: cut(stored=False, reset=True),
    "cut without storing": lambda: cut(stored=False),
    "cut after storing": cut,
    "reset after storing": lambda: cut(reset=True),
    "cut in the answer": lambda: cut(answer=b"HTTP/1.1 204 No Con"),
    "garbage": garbage,
    "garbage for an answer": lambda: cut(answer=GARBAGE),
    "body shorter than said": lambda: cut(stored=False, answer=b"HTTP/1.1 500 Short\r\nContent-Length: 100\r\n\r\nshort"),
    "unreadable body": lambda: status(500, "no gzip", headers={"Content-Encoding": "gzip"}),
    "hang": hang,
    "hang after storing": lambda: hang(stored=True),
    "black hole": black_hole,
    "stop reading": stop_reading,
    "slow head": slow_head,
    "slow body": slow_body,
    "endless body": endless_body,
}
