"""OpenTelemetry's own variables as settings of the sink otlp."""

from __future__ import annotations

from typing import Any

import pytest

import fapilog
from fapilog._internal.standard import standard
from fapilog.errors import ConfigurationError
from fapilog.settings import load_settings
from tests._support import process_restored

GENERAL, LOGS = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_LOGS_"
OTLP = {"FAPILOG_SINKS": "otlp"}


def told(**environ: str) -> dict[str, Any]:
    """Return what variables say, by the part of their names behind OTEL_EXPORTER_OTLP_."""
    settings, wrong = standard({GENERAL + name: value for name, value in environ.items()}, service=False, env=False)
    assert wrong == []
    return {name.removeprefix("otlp_"): value for name, value in settings.items()}


@pytest.mark.parametrize(
    ("environ", "endpoint", "exact"),
    [
        ({"ENDPOINT": "http://c:4318"}, "http://c:4318/v1/logs", False),
        ({"ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/logs", False),
        ({"ENDPOINT": " https://c/otlp "}, "https://c/otlp/v1/logs", False),
        ({"LOGS_ENDPOINT": "http://c/own"}, "http://c/own", True),
        ({"LOGS_ENDPOINT": "http://c/own", "ENDPOINT": "http://d"}, "http://c/own", True),
        ({"LOGS_ENDPOINT": "", "ENDPOINT": "http://d"}, "http://d/v1/logs", False),
        ({"ENDPOINT": "http://ann:pw@c/?k=v"}, "http://ann:pw@c/v1/logs?k=v", False),
    ],
)
def test_endpoints(environ: dict[str, str], endpoint: str, exact: bool) -> None:
    """The general one is a base, that for logs is used as it is and wins; an empty one is none."""
    assert told(**environ) == {"endpoint": endpoint, "endpoint_exact": exact}


@pytest.mark.parametrize(
    ("environ", "settings"),
    [
        ({}, {}),
        ({"HEADERS": "a=1,b=x%2Cy"}, {"headers": "a=1,b=x%2Cy"}),
        ({"HEADERS": "a=1", "LOGS_HEADERS": "b=2"}, {"headers": "b=2"}),
        ({"TIMEOUT": "2500"}, {"timeout": 2.5}),
        ({"TIMEOUT": "2500", "LOGS_TIMEOUT": "1"}, {"timeout": 0.001}),
        ({"COMPRESSION": "gzip", "LOGS_COMPRESSION": "none"}, {"compression": "none"}),
        ({"COMPRESSION": "GZIP"}, {"compression": "gzip"}),
        (
            {"CERTIFICATE": "/a", "CLIENT_CERTIFICATE": "/b", "CLIENT_KEY": "/c"},
            {"ca_file": "/a", "client_certificate": "/b", "client_key": "/c"},
        ),
        ({"CERTIFICATE": "/a", "LOGS_CERTIFICATE": "/d"}, {"ca_file": "/d"}),
        ({"PROTOCOL": "grpc", "LOGS_PROTOCOL": "http/protobuf"}, {}),
        ({"TRACES_PROTOCOL": "grpc", "TRACES_TIMEOUT": "x", "METRICS_ENDPOINT": "y"}, {}),
    ],
)
def test_options(environ: dict[str, str], settings: dict[str, Any]) -> None:
    """Those for logs win over the general ones, each by itself; timeouts are in milliseconds; other signals' mean nothing."""
    assert told(**environ) == settings


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL='grpc': must be http/protobuf, which is all that the sink otlp speaks"),
        ("LOGS_PROTOCOL", "http/json", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL='http/json': must be http/protobuf"),
        ("TIMEOUT", "10s", "OTEL_EXPORTER_OTLP_TIMEOUT='10s': must be a whole number of milliseconds"),
        ("TIMEOUT", "0", "OTEL_EXPORTER_OTLP_TIMEOUT='0': must be a whole number of milliseconds"),
        ("COMPRESSION", "zstd", "OTEL_EXPORTER_OTLP_COMPRESSION='zstd': must be gzip or none"),
        ("HEADERS", "hunter2", r"OTEL_EXPORTER_OTLP_HEADERS=\*\*\*: must be key=value pairs"),
        ("LOGS_HEADERS", "a=%ffhunter2", r"OTEL_EXPORTER_OTLP_LOGS_HEADERS=\*\*\*: must be percent-encoded UTF-8"),
        ("HEADERS", "a b=hunter2", r"OTEL_EXPORTER_OTLP_HEADERS=\*\*\*: must have names that headers can have"),
        ("ENDPOINT", "hunter2:4318", r"OTEL_EXPORTER_OTLP_ENDPOINT=\*\*\*: must be the URL of a server"),
        ("ENDPOINT", "http://[::1", r"OTEL_EXPORTER_OTLP_ENDPOINT=\*\*\*: must be the URL of a server"),
        ("CERTIFICATE", "/nowhere.pem", "/nowhere.pem has no certificates that can be used"),
    ],
)
def test_what_cannot_be_used(name: str, value: str, message: str, monkeypatch) -> None:
    """It is one error at set-up that names the variable, where the sink is otlp; nothing secret is in it."""
    monkeypatch.setenv(GENERAL + name, value)
    with process_restored(), pytest.raises(ConfigurationError, match=message) as caught:
        fapilog.configure_logging(sinks=["otlp"])
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).count(name) <= 2
    load_settings({"sinks": ["stdout"]})  # and no error where it is not


def test_ours_before_the_standard_ones() -> None:
    """Each setting of fapilog wins over the standard variable for it, also an empty one, and leaves the others alone."""
    environ = {
        **OTLP,
        "FAPILOG_OTLP_ENDPOINT": "http://own",
        "FAPILOG_OTLP_HEADERS": "",
        "FAPILOG_OTLP_TIMEOUT": "3",
        LOGS + "ENDPOINT": "http://c/exact",
        GENERAL + "HEADERS": "a=1",
        GENERAL + "TIMEOUT": "7000",
        GENERAL + "COMPRESSION": "gzip",
    }
    settings = load_settings(environ=environ)
    assert (settings.otlp_endpoint, settings.otlp_endpoint_exact) == ("http://own", False)
    assert (settings.otlp_headers, settings.otlp_timeout, settings.otlp_compression) == ("", 3.0, "gzip")
    assert load_settings({"otlp_compression": "none"}, environ).otlp_compression == "none"


@pytest.mark.parametrize(
    ("environ", "resource"),
    [
        ({"OTEL_SERVICE_NAME": "till"}, {"service.name": "till"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,team=x%2Cy"}, {"service.name": "a", "team": "x,y"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a", "OTEL_SERVICE_NAME": "b"}, {"service.name": "b"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,b=c", "OTEL_SERVICE_NAME": "b", "FAPILOG_SERVICE": "s"}, {"b": "c"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=a,deployment.environment=a", "FAPILOG_ENV": "p"}, {}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=a", "FAPILOG_ENV": ""}, {"deployment.environment.name": "a"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=b", "FAPILOG_OTLP_RESOURCE": "c=d"}, {"c": "d"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "nonsense"}, {}),
    ],
)
def test_the_resource(environ: dict[str, str], resource: dict[str, str]) -> None:
    """The standard attributes are taken, but for what fapilog's own settings say in other words."""
    assert load_settings(environ=environ).otlp_resource == resource


def test_an_override_of_the_service() -> None:
    """It counts like `FAPILOG_SERVICE`."""
    assert load_settings({"service": "s"}, {"OTEL_SERVICE_NAME": "b"}).otlp_resource == {}


def test_attributes_that_cannot_be_read() -> None:
    """They are an error where the sink is otlp, without their values."""
    with pytest.raises(ConfigurationError, match=r"OTEL_RESOURCE_ATTRIBUTES=\*\*\*: must be key=value pairs"):
        load_settings(environ={**OTLP, "OTEL_RESOURCE_ATTRIBUTES": "hunter2"})
