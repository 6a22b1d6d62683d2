"""`fapilog doctor` on Loki: one push of a marked line, to a stand-in that behaves in all the ways that go wrong."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from fapilog.cli.checks.loki import check_loki
from tests._support import rest_in_matrix
from tests.doctoring import made_up, seen, told, write
from tests.loki import StandIn, certificates, faults
from tests.loki.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fapilog.cli.checks.case import Case
    from tests.loki.exchange import Connection


def case_of(folder: Path, url: str, *, push: bool = True, **more: Any) -> Case:
    environ = {"FAPILOG_SINKS": "loki", "FAPILOG_LOKI_URL": url, "FAPILOG_LOKI_TIMEOUT": "5", "FAPILOG_SERVICE": "shop"}
    return made_up(
        folder, push=push, environ={**environ, **{f"FAPILOG_LOKI_{name.upper()}": value for name, value in more.items()}}
    )


def test_a_loki_that_takes_a_line(tmp_path: Path) -> None:
    """It is right; the line is there once, with its mark and the labels of the service."""
    with StandIn() as loki:
        found = told(check_loki, case_of(tmp_path, loki.url, labels="team=core"))
        assert found.keys() == {"ok"}
        (entry,) = loki.wait_entries(1)
        line = json.loads(entry.line)
        assert (line["event"], line["service"]) == ("fapilog.doctor", "shop")
        assert line["mark"].startswith("doctor-")
        assert f'{{service="shop"}} |= "{line["mark"]}"' in found["ok"]
        assert {name: entry.labels[name] for name in ("service", "team")} == {"service": "shop", "team": "core"}
        assert len(loki.requests()) == 1


def test_no_push(tmp_path: Path) -> None:
    """Nothing is sent then; the URL is shown without its secrets."""
    with StandIn() as loki:
        url = loki.url.replace("http://", "http://me:hush@")
        found = told(check_loki, case_of(tmp_path, url, push=False))["ok"]
        assert "was not tried (--no-push)" in found
        assert "hush" not in found
        assert loki.requests() == []


@pytest.mark.parametrize(
    ("name", "severity", "found", "change"),
    [
        ("401", "error", "does not take events (answer 401: no org id)", "It wants other credentials, or a tenant"),
        ("403", "error", "does not take events (answer 403", "These credentials may not write there"),
        ("404", "error", "does not take events (answer 404", "There is no push endpoint"),
        ("308", "error", "does not take events (answer 308", "redirects are not followed"),
        ("200", "error", "does not take events (answer 200", "Something that is no Loki has answered"),
        ("260", "error", "does not take events (answer 260", "The tenant is blocked"),
        ("400", "error", "does not take events (answer 400", "Change FAPILOG_LOKI_URL, or what the answer speaks of"),
        ("413", "error", "does not take events (answer 413", "A proxy before Loki"),
        ("429", "warning", "does not take events (answer 429", "limits this tenant"),
        ("500", "error", "is in trouble (answer 500", "its own logs"),
        ("503", "error", "is in trouble (answer 503", "its own logs"),
        ("reset after reading", "error", "cannot be reached: it breaks the connection off", "else look at its logs"),
        ("garbage for an answer", "error", "cannot be reached: the connection fails", "Look at the network between"),
        ("cut without storing", "error", "cannot be reached: it closes the connection without an answer", "https://"),
    ],
)
def test_a_loki_that_does_not(tmp_path: Path, name: str, severity: str, found: str, change: str) -> None:
    """The finding has the answer, and what it means; there is one try."""
    with StandIn() as loki:
        loki.script(faults.CATALOGUE[name]())
        text = told(check_loki, case_of(tmp_path, loki.url))
        assert text.keys() == {severity}
        assert f"{loki.push_url} {found}" in text[severity]
        assert change in text[severity].partition(" -> ")[2]
        loki.assert_reached()
        assert len(loki.requests()) <= 1


def test_a_server_that_says_it_speaks_tls(tmp_path: Path) -> None:
    """Its words are heeded."""
    with StandIn() as loki:
        loki.script(faults.status(400, "Client sent an HTTP request to an HTTPS server."))
        assert "-> It speaks TLS: write https://" in told(check_loki, case_of(tmp_path, loki.url))["error"]


def test_a_loki_that_does_not_answer(tmp_path: Path) -> None:
    """The time limit of a request is that of the settings."""
    with StandIn() as loki:
        loki.script(faults.hang())
        began = time.monotonic()
        text = told(check_loki, case_of(tmp_path, loki.url, timeout="0.5"))["error"]
        assert time.monotonic() - began < 10  # what it would be without the setting
        assert "cannot be reached: it does not answer in time (no answer within 0.5 s)" in text
        assert "a firewall between" in text


def test_nobody_there(tmp_path: Path) -> None:
    """A port where nothing listens, and a name that nobody has."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        text = told(check_loki, case_of(tmp_path, f"http://127.0.0.1:{held.getsockname()[1]}"))["error"]
    assert "cannot be reached: nothing listens there" in text
    text = told(check_loki, case_of(tmp_path, "http://no-such-host.invalid:3100"))["error"]
    assert "name" in text.partition("cannot be reached: ")[2].partition("(")[0]


def test_a_tenant_and_credentials(tmp_path: Path) -> None:
    """What is set is sent; without it the server refuses; a wrong password is shown nowhere."""
    with StandIn(auth=True) as loki:
        assert told(check_loki, case_of(tmp_path, loki.url, tenant="one")).keys() == {"ok"}
        assert "FAPILOG_LOKI_TENANT" in told(check_loki, case_of(tmp_path, loki.url))["error"]
    with StandIn(basic_auth=("me", "right")) as loki:
        assert told(check_loki, case_of(tmp_path, loki.url, username="me", password="right")).keys() == {"ok"}
        text = told(check_loki, case_of(tmp_path, loki.url, username="me", password="hushhush"))["error"]
        assert "answer 401" in text
        assert "hushhush" not in text


def test_certificates(tmp_path: Path) -> None:
    """One that is trusted is right; each way not to be has its own words."""
    authority = certificates.authority(tmp_path / "ca")
    trusted: dict[str, Any] = {"ca_file": str(authority.ca_file)}
    with StandIn(tls=authority.server(), host="localhost") as loki:
        assert told(check_loki, case_of(tmp_path, loki.url, **trusted)).keys() == {"ok"}
        text = told(check_loki, case_of(tmp_path, loki.url))["error"]
        assert "its certificate is not trusted" in text
        assert "-> Set FAPILOG_LOKI_CA_FILE" in text
    with StandIn(tls=authority.server(expired=True), host="localhost") as loki:
        assert "its certificate has expired" in told(check_loki, case_of(tmp_path, loki.url, **trusted))["error"]
    with StandIn(tls=authority.server(name="other.test"), host="localhost") as loki:
        assert "its certificate is for another name" in told(check_loki, case_of(tmp_path, loki.url, **trusted))["error"]


class _Silent(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def plain_server() -> Iterator[int]:
    """Answer as a server does that is not asked in its own protocol."""
    with HTTPServer(("127.0.0.1", 0), _Silent) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def _hear(connection: Connection) -> None:
    """Take what a client says first; the connection is closed then."""
    connection.socket.recv(65_536)


def test_tls_on_one_side(tmp_path: Path) -> None:
    """Either way round the finding says which scheme to write."""
    authority = certificates.authority(tmp_path / "ca")
    with plain_server() as port:
        text = told(check_loki, case_of(tmp_path, f"https://127.0.0.1:{port}"))["error"]
        assert "it does not speak TLS" in text
        assert "Write http://" in text
    with StandIn() as loki:
        loki.script(Fault("handshake", connection=_hear))
        text = told(check_loki, case_of(tmp_path, loki.url.replace("http:", "https:")))["error"]
        assert "TLS handshake off (ConnectError). -> If it does not speak TLS, write http://" in text
    with StandIn(tls=authority.server(), host="localhost") as loki:
        text = told(check_loki, case_of(tmp_path, loki.url.replace("https:", "http:")))["error"]
        assert "write https://" in text


@pytest.mark.parametrize(("seconds", "word"), rest_in_matrix(1, [(-7200, "2h ahead of"), (7200, "2h behind"), (-60, "")]))
def test_a_loki_whose_clock_is_another(tmp_path: Path, seconds: int, word: str) -> None:
    """Where the two differ by more than five minutes, it is an error of its own."""
    date = formatdate(time.time() + seconds + (30 if seconds > 0 else -30), usegmt=True)
    answer = f"HTTP/1.1 204 No Content\r\nDate: {date}\r\nConnection: close\r\n\r\n"
    with StandIn() as loki:
        loki.script(faults.cut(answer=answer.encode()))
        found = told(check_loki, case_of(tmp_path, loki.url))
        assert "took a line" in found["ok"]
        assert (f"This clock is {word}" in found.get("error", "")) == bool(word)
        loki.script(faults.cut(answer=answer.replace(date, "soon").encode()))
        assert told(check_loki, case_of(tmp_path, loki.url)).keys() == {"ok"}


def test_a_url_without_the_sink(tmp_path: Path) -> None:
    """It is a warning: nothing is sent; no URL and no sink is nothing to say."""
    case = made_up(tmp_path, environ={"FAPILOG_LOKI_URL": "http://127.0.0.1:9"})
    assert "Set FAPILOG_SINKS=stdout,loki" in told(check_loki, case)["warning"]
    assert told(check_loki, made_up(tmp_path)) == {}
    wrong = made_up(tmp_path, environ={"FAPILOG_SINKS": "loki", "FAPILOG_LOKI_URL": "loki"})
    assert told(check_loki, wrong) == {}  # an error of the settings


def test_a_loki_that_the_program_asks_for(tmp_path: Path) -> None:
    """Its arguments are the ones that are tried; an object of the program's own cannot be."""
    with StandIn(auth=True) as loki:
        text = f"import fapilog; fapilog.configure_logging(sinks=['loki'], loki_url={loki.url!r}, loki_tenant='one'); app = print"
        write(tmp_path, app=text)
        assert told(check_loki, seen(tmp_path, "app:app", FAPILOG_LOKI_URL="http://127.0.0.1:9")).keys() == {"ok"}
        assert len(loki.entries()) == 1
        text = f"import fapilog; fapilog.configure_logging(sinks=[fapilog.sinks.LokiSink({loki.url!r})]); app = print"
        write(tmp_path, app=f"import fapilog.sinks\n{text}")
        assert "a sink of its own: it was not tried" in told(check_loki, seen(tmp_path, "app:app"))["warning"]
        assert len(loki.entries()) == 1
