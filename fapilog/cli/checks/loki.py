"""One push of a marked line to Loki, by the code that pushes events, and what the answer means."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from fapilog._internal.built_in import loki_arguments
from fapilog.cli.checks import clock
from fapilog.cli.checks.finding import Finding, fine, warning
from fapilog.cli.checks.pushing import Push, Server, checked, failed
from fapilog.sinks.loki import LokiSink

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fapilog.cli.checks.case import Case
    from fapilog.settings import FapilogSettings

CHECK = "loki"
_ANSWERS = {
    204: "",
    401: "It wants other credentials, or a tenant: set FAPILOG_LOKI_USERNAME and _PASSWORD, or _TOKEN, or FAPILOG_LOKI_TENANT.",
    403: "These credentials may not write there: set others, or another FAPILOG_LOKI_TENANT.",
    404: "There is no push endpoint: FAPILOG_LOKI_URL is the URL of the server, without the path of a page, or ends in /push.",
    405: "There is no push endpoint: FAPILOG_LOKI_URL is the URL of the server, without the path of a page, or ends in /push.",
    260: "The tenant is blocked at the server: set another FAPILOG_LOKI_TENANT, or have it unblocked.",
    413: "A proxy before Loki refuses even a single line: raise its limit.",
    429: "The server is there and limits this tenant: raise its limits, or log less.",
}
_LOKI = Server(
    CHECK,
    "FAPILOG_LOKI_URL",
    "FAPILOG_LOKI_CA_FILE",
    "FAPILOG_LOKI_TIMEOUT",
    _ANSWERS,
    "Something that is no Loki has answered: set FAPILOG_LOKI_URL to the server itself.",
)


def check_loki(case: Case) -> Iterator[Finding]:
    """Send one line, unless that is forbidden."""
    if case.hub.others:
        yield warning(CHECK, "The program makes a sink of its own: it was not tried.", "Try it with a program of its own.")
    yield from checked(case, _LOKI, case.settings.loki_url, pushed)


def pushed(settings: FapilogSettings) -> Iterator[Finding]:
    """Send a line to the Loki of *settings*, once."""
    push = Push(LokiSink(**loki_arguments(settings)))
    push.make(settings)
    url = push.sink.url
    if push.problem:
        yield failed(_LOKI, push)
    else:
        where = f'{{service="{settings.service}"}} |= "{push.mark}"'
        yield fine(CHECK, f"{url} took a line in {push.took_ms:.0f} ms; to see it: {where}")
    if push.date and (late := clock.compared(push.at, _moment(push.date, push.at), url)):
        yield late


def _moment(date: str, otherwise: float) -> float:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError):
        return otherwise
