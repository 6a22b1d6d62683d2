"""`fapilog doctor` on a Collector: one push of a marked event, to a stand-in that behaves in ways that go wrong."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from fapilog.cli.checks.otlp import check_otlp
from fapilog.cli.checks.values import check_settings
from tests.doctoring import made_up, seen, told, write
from tests.loki import faults
from tests.otlp import Collector

if TYPE_CHECKING:
    from pathlib import Path

    from fapilog.cli.checks.case import Case


def case_of(folder: Path, url: str, *, push: bool = True, **more: Any) -> Case:
    environ = {"FAPILOG_SINKS": "otlp", "FAPILOG_OTLP_ENDPOINT": url, "FAPILOG_SERVICE": "shop", **more}
    return made_up(folder, push=push, environ=environ)


def test_a_collector_that_takes_an_event(tmp_path: Path) -> None:
    """It is right; the event is there once, with its mark and the resource of the service."""
    with Collector() as collector:
        found = told(check_otlp, case_of(tmp_path, collector.url, FAPILOG_OTLP_RESOURCE="team=core"))
        assert found.keys() == {"ok"}
        (record,) = collector.wait_records(1)
        assert record.record.body.string_value == "fapilog.doctor"
        assert f"its attribute mark is {record.fields['mark']}." in found["ok"]
        assert {"service.name": "shop", "team": "core"}.items() <= record.resource.items()
        assert len(collector.requests()) == 1


def test_the_standard_variables(tmp_path: Path) -> None:
    """They are those of the program, also where its module sets them."""
    with Collector() as collector:
        write(tmp_path, app=f"import os; os.environ['OTEL_EXPORTER_OTLP_ENDPOINT'] = {collector.url!r}; app = print")
        found = told(check_otlp, seen(tmp_path, "app:app", FAPILOG_SINKS="otlp"))
        assert f"{collector.push_url} took an event" in found["ok"]


def test_no_push(tmp_path: Path) -> None:
    """Nothing is sent then; the URL is shown without its secrets."""
    with Collector() as collector:
        url = collector.url.replace("http://", "http://me:hush@")
        found = told(check_otlp, case_of(tmp_path, url, push=False))["ok"]
        assert "was not tried (--no-push)" in found
        assert "hush" not in found
        assert collector.requests() == []


@pytest.mark.parametrize(
    ("name", "severity", "found", "change"),
    [
        ("401", "error", "does not take events (answer 401: no org id)", "It wants other credentials"),
        ("404", "error", "does not take events (answer 404", "port 4318, not the 4317"),
        ("308", "error", "does not take events (answer 308", "redirects are not followed"),
        ("400", "error", "does not take events (answer 400", "Change FAPILOG_OTLP_ENDPOINT, or what the answer speaks of"),
        ("400 partial, old", "error", "does not take events (these are too old", "or one that rejects the event"),
        ("429", "warning", "does not take events (answer 429", "limits what it takes"),
        ("503", "error", "is in trouble (answer 503", "its own logs"),
        (
            "cut without storing",
            "error",
            "cannot be reached: it closes the connection without an answer",
            "FAPILOG_OTLP_ENDPOINT",
        ),
    ],
)
def test_a_collector_that_does_not(tmp_path: Path, name: str, severity: str, found: str, change: str) -> None:
    """The finding has the answer, and what it means; there is one try."""
    with Collector() as collector:
        collector.script(faults.CATALOGUE[name]())
        text = told(check_otlp, case_of(tmp_path, collector.url))
        assert text.keys() == {severity}
        assert f"{collector.push_url} {found}" in text[severity]
        assert change in text[severity].partition(" -> ")[2]
        collector.assert_reached()
        assert len(collector.requests()) <= 1


def test_nobody_there(tmp_path: Path) -> None:
    """A port where nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        text = told(check_otlp, case_of(tmp_path, f"http://127.0.0.1:{held.getsockname()[1]}"))["error"]
    assert "cannot be reached: nothing listens there" in text
    assert "set FAPILOG_OTLP_ENDPOINT to where it listens" in text


def test_the_port_of_grpc(tmp_path: Path, monkeypatch) -> None:
    """Where the connection fails there, the finding says which one it should be; a server that answers there is right."""
    with Collector() as collector:
        monkeypatch.setattr("fapilog.cli.checks.otlp.GRPC_PORT", collector.port)
        assert told(check_otlp, case_of(tmp_path, collector.url)).keys() == {"ok"}
        collector.script(faults.garbage())
        text = told(check_otlp, case_of(tmp_path, collector.url))["error"]
        assert f"-> Port {collector.port} is gRPC's: write that of HTTP, 4318. " in text


def test_an_endpoint_without_the_sink(tmp_path: Path) -> None:
    """A warning; the standard variables may be there for other signals."""
    other = made_up(tmp_path, environ={"FAPILOG_OTLP_ENDPOINT": "http://ann:hush@c"})
    found = told(check_otlp, other)["warning"]
    assert "FAPILOG_OTLP_ENDPOINT is set, and FAPILOG_SINKS does not name otlp" in found
    assert "hush" not in found
    assert told(check_otlp, made_up(tmp_path, environ={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"})) == {}


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"FAPILOG_OTLP_ENDPOINT": "collector:4318"}, "must be the URL of a server"),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "10s"}, "OTEL_EXPORTER_OTLP_TIMEOUT='10s' cannot be used."),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL='grpc' cannot be used."),
        ({"OTEL_EXPORTER_OTLP_LOGS_HEADERS": "hush"}, "OTEL_EXPORTER_OTLP_LOGS_HEADERS=*** cannot be used."),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, environ: dict[str, str], found: str) -> None:
    """They are errors that name the variable, and the other checks are made."""
    case = made_up(tmp_path, environ={"FAPILOG_SINKS": "otlp", **environ})
    findings = told(check_settings, case)
    assert findings.keys() == {"error"}
    assert found in findings["error"]
    assert "hush" not in findings["error"]
