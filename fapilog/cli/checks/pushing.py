"""
One push of a marked line to a server, by the code that pushes events, and what comes of it: what the checks of all servers share.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fapilog._internal.flat import timestamp
from fapilog._internal.parsing import shown_url
from fapilog.cli.checks.finding import Finding, error, fine, warning
from fapilog.errors import SinkError
from fapilog.identity import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fapilog.cli.checks.case import Case
    from fapilog.settings import FapilogSettings
    from fapilog.sinks.pushing import PushSink

BUSY = 429

#: What stands in the text of an error of the connection, and what it means.
TEXTS = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "its certificate is not trusted",
        "Set {ca_file} to the certificate of its authority.",
    ),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS", "Write http:// in {url}, or the port that speaks TLS."),
    ("record layer failure", "it does not speak TLS", "Write http:// in {url}, or the port that speaks TLS."),
    ("Connection refused", "nothing listens there", "Start it, or set {url} to where it listens."),
    (
        "All connection attempts failed",
        "nothing listens there, or no way leads there",
        "Start it, or set {url} to where it listens.",
    ),
    (
        "Name or service not known",
        "there is no host of that name",
        "Set {url} to the name that this machine knows it by.",
    ),
    (
        "name resolution",
        "its name cannot be looked up",
        "Look at the name server of this machine, or set {url} to an address.",
    ),
    ("No address associated", "its name has no address", "Set {url} to the name that this machine knows it by."),
    ("nodename nor servname", "there is no host of that name", "Set {url} to the name that this machine knows it by."),
    ("no answer within", "it does not answer in time", "Look for a firewall between, or raise {timeout}."),
    ("disconnected", "it closes the connection without an answer", "If it speaks TLS, write https:// in {url}."),
    ("ReadError", "it breaks the connection off", "If it speaks TLS, write https:// in {url}; else look at its logs."),
    ("unreachable", "no way leads there", "Look at the network and its routes."),
)
CERTIFICATES = (
    ("expired", "its certificate has expired", "Renew it, or look at the clock of this machine."),
    ("not yet valid", "its certificate is not valid yet", "Look at the clocks of both machines."),
    ("ostname mismatch", "its certificate is for another name", "Write in {url} the name that the certificate has."),
    (
        "IP address mismatch",
        "its certificate is for another name",
        "Write in {url} the name that the certificate has.",
    ),
)


@dataclass(frozen=True, slots=True)
class Server:
    """
    What is said of a kind of server.

    Args:
        check: The name of the check, and of the sink.
        url: The variable with its URL.
        ca_file: The variable with its authority's certificate.
        timeout: The variable with the time limit of a request.
        answers: What to change, by its answer.
        otherwise: What to change where it answers a success that is none.
    """

    check: str
    url: str
    ca_file: str
    timeout: str
    answers: Mapping[int, str]
    otherwise: str


@dataclass(slots=True)
class Push:
    """
    One push, and how the server has answered.

    Attributes:
        status: 0 for not at all.
        date: As it says.
        at: When, by this clock.
        problem: Why nothing came of it; empty if it took the line.
    """

    sink: PushSink
    mark: str = field(default_factory=lambda: f"doctor-{os.urandom(6).hex()}")
    status: int = 0
    date: str = ""
    at: float = 0.0
    took_ms: float = 0.0
    problem: str = ""

    def make(self, settings: FapilogSettings) -> None:
        """Send a line of the service's, once."""
        began = time.monotonic()
        try:
            asyncio.run(self._make(Identity.of_this_process(settings.service, settings.env)))
        except SinkError as problem:
            self.problem = str(problem) or "no reason was given"
        self.took_ms = 1000 * (time.monotonic() - began)

    async def _make(self, identity: Identity) -> None:
        head = f'{{"timestamp":"{timestamp()}","level":"info","event":"fapilog.doctor","logger":"fapilog","mark":"{self.mark}"'
        await self.sink.open(identity)
        self.sink.watch(self._look)
        try:
            await self.sink.write_lines([head.encode() + identity.tail() % 1])
        finally:
            await self.sink.close()

    async def _look(self, response: Any) -> None:
        self.status, self.date, self.at = response.status_code, response.headers.get("date", ""), time.time()


def checked(case: Case, server: Server, url: str, try_it: Callable[[FapilogSettings], Iterator[Finding]]) -> Iterator[Finding]:
    """
    Look whether the sink is there, and try it unless that is forbidden.

    Args:
        case: What is looked at.
        server: What its server is.
        url: That is set for it, or else empty.
        try_it: Pushes a line.
    """
    settings = case.settings
    if server.check in case.hub.pushing:
        if case.push:
            yield from try_it(settings)
        else:
            yield fine(server.check, f"{shown_url(url)} was not tried (--no-push).")
    elif url and not case.hub.others and not any(server.check.upper() in problem for problem in case.problems):
        found = f"{server.url} is set, and FAPILOG_SINKS does not name {server.check}: nothing is sent."
        yield warning(server.check, found, f"Set FAPILOG_SINKS={','.join([*settings.sinks, server.check])}, or remove the URL.")


def failed(server: Server, push: Push) -> Finding:
    """Return what it means that a push came to nothing."""
    url, status, reason = push.sink.url, push.status, push.problem.partition(" (delivered")[0]
    check = server.check
    if not status:
        meaning, change = _of_connection(server, reason)
        if reason.endswith("ConnectError: ") and url.startswith("https:"):  # nothing is said of a handshake that is cut off
            meaning, change = "it breaks the TLS handshake off", f"If it does not speak TLS, write http:// in {server.url}."
            reason = reason.rstrip(": ")
        return error(check, f"{url} cannot be reached: {meaning} ({reason}).", change)
    if status >= 500:
        return error(check, f"{url} is in trouble ({reason}).", "Look at its own logs, and at those of a proxy before it.")
    change = server.answers.get(status) or f"Change {server.url}, or what the answer speaks of."
    if 300 <= status < 400:
        change = f"Set {server.url} to the address that it points to: redirects are not followed."
    elif status < 300 and status not in server.answers:
        change = server.otherwise
    elif "plain HTTP" in reason or "HTTP request to an HTTPS" in reason:
        change = f"It speaks TLS: write https:// in {server.url}."
    say = warning if status == BUSY else error
    return say(check, f"{url} does not take events ({reason}).", change)


def _of_connection(server: Server, reason: str) -> tuple[str, str]:
    known = [*(CERTIFICATES if "CERTIFICATE_VERIFY_FAILED" in reason else ()), *TEXTS]
    found = next(
        ((meaning, change) for sign, meaning, change in known if sign in reason),
        ("the connection fails", "Look at the network between, and at {url}."),
    )
    return found[0], found[1].format(url=server.url, ca_file=server.ca_file, timeout=server.timeout)
