"""
The variables of the OpenTelemetry specification that speak of log export, as settings of fapilog.

Sources: "OpenTelemetry Protocol Exporter" (endpoints, headers, timeouts, compression, protocol), "Environment Variable
Specification" and the resource SDK (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`) of the OpenTelemetry specification.

Invariants:

1. For each option the variable for logs wins over the general one; an empty variable is as good as none.
2. What is wrong becomes a line with the variable, its value and what would be right; the others are taken all the same.
3. What headers, endpoints and attributes say is in no line: it may be secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from fapilog._internal.parsing import MAX_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GENERAL, LOGS = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_LOGS_"
SERVICE_NAME, RESOURCE = "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"
LOGS_PATH = "/v1/logs"
PROTOCOL = "http/protobuf"
FILES = {"CERTIFICATE": "otlp_ca_file", "CLIENT_CERTIFICATE": "otlp_client_certificate", "CLIENT_KEY": "otlp_client_key"}

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """
    Read ``key=value,key=value`` in the form of W3C baggage: spaces around are no part, values are percent-encoded.

    Raises:
        ValueError: It has another form.
    """
    for item in text.split(","):
        name, equals, value = item.partition("=")
        if not item.strip():
            continue
        if not equals or not name.strip():
            raise ValueError("must be key=value pairs with commas between them")
        yield name.strip(), unquote(value.strip(), errors="strict").strip()


def headers(text: str) -> dict[str, str]:
    """
    Read the headers that a variable lists.

    Raises:
        ValueError: They have another form.
    """
    found = dict(pairs(text))
    if not all(_TOKEN.fullmatch(name) for name in found):
        raise ValueError("must have names that headers can have")
    return found


def logs_path(path: str) -> str:
    """Return the path for logs below a base *path*, or the path itself if it is one."""
    return path if path.endswith(LOGS_PATH) else path.rstrip("/") + LOGS_PATH


def standard(environ: Mapping[str, str], *, service: bool, env: bool) -> tuple[dict[str, Any], list[str]]:
    """
    Return what *environ* says, by the names of our settings, and what is wrong with it.

    Args:
        environ: The variables of a process.
        service: Whether `FAPILOG_SERVICE` is set, so that no other name of the service counts.
        env: Whether `FAPILOG_ENV` is.
    """
    reader = _Reader(environ)
    reader.read_endpoint()
    reader.read_options()
    reader.read_resource(service=service, env=env)
    return reader.settings, reader.wrong


class _Reader:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self.settings: dict[str, Any] = {}
        self.wrong: list[str] = []
        self._environ = environ

    def _of(self, option: str) -> tuple[str, str]:
        """Return the name and the value of the variable that counts for *option*; the value is empty if there is none."""
        for name in (LOGS + option, GENERAL + option):
            if value := self._environ.get(name, "").strip():
                return name, value
        return GENERAL + option, ""

    def _refuse(self, name: str, rule: object, value: str | None = None) -> None:
        shown = "***" if value is None else repr(value)
        self.wrong.append(f"{name}={shown}: {'must be percent-encoded UTF-8' if isinstance(rule, UnicodeError) else rule}")

    def read_endpoint(self) -> None:
        name, url = self._of("ENDPOINT")
        if not url:
            return
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            self._refuse(name, "must be the URL of a server, such as http://collector:4318")
            return
        exact = name.startswith(LOGS)
        path = parts.path if exact else logs_path(parts.path)
        self.settings["otlp_endpoint"] = urlunsplit(parts._replace(path=path))
        self.settings["otlp_endpoint_exact"] = exact

    def read_options(self) -> None:
        name, text = self._of("HEADERS")
        try:
            headers(text)
        except ValueError as error:
            self._refuse(name, error)
        else:
            self._set("otlp_headers", text)
        name, text = self._of("TIMEOUT")
        if re.fullmatch(r"[0-9]{1,12}", text) and 0 < int(text) <= MAX_SECONDS * 1000:
            self.settings["otlp_timeout"] = int(text) / 1000
        elif text:
            self._refuse(name, "must be a whole number of milliseconds, 1 or more", text)
        name, text = self._of("COMPRESSION")
        if text.lower() in {"", "gzip", "none"}:
            self._set("otlp_compression", text.lower())
        else:
            self._refuse(name, "must be gzip or none", text)
        name, text = self._of("PROTOCOL")
        if text not in {"", PROTOCOL}:
            rule = f"must be {PROTOCOL}, which is all that the sink otlp speaks (a Collector does on port 4318); "
            self._refuse(name, f"{rule}{LOGS}PROTOCOL={PROTOCOL} says so for logs alone", text)
        for option, field in FILES.items():
            self._set(field, self._of(option)[1])

    def _set(self, field: str, value: str) -> None:
        if value:
            self.settings[field] = value

    def read_resource(self, *, service: bool, env: bool) -> None:
        try:
            found = dict(pairs(self._environ.get(RESOURCE, "")))
        except ValueError as error:
            self._refuse(RESOURCE, error)
            found = {}
        if name := self._environ.get(SERVICE_NAME, "").strip():
            found["service.name"] = name
        for given, attributes in ((service, ("service.name",)), (env, ("deployment.environment.name", "deployment.environment"))):
            for attribute in attributes if given else ():
                found.pop(attribute, None)
        if found:
            self.settings["otlp_resource"] = found
