"""
Where a network sink sends to, and with what: URL, credentials, certificates.

Invariants:

1. Credentials go where they were given, and nowhere else: people see the URL as `parsing.shown_url()` makes it, and `Secrets`
   hides them in what servers say.
2. What cannot be used is an error at set-up that shows no secret.
"""

from __future__ import annotations

import base64
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import certifi
import httpx

from fapilog.errors import ConfigurationError
from fapilog.redaction import MASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SHORTEST_SECRET = 4  # characters


def server_url(url: str, example: str, finished: Callable[[str], str]) -> tuple[str, tuple[str, str]]:
    """
    Return the URL of a server's endpoint without credentials, and the credentials.

    Args:
        url: As it was given.
        example: Of one, for the error.
        finished: Makes of its path that of the endpoint.

    Raises:
        ConfigurationError: It is no URL of a server.
    """
    rule = f"must be the URL of a server, such as {example}"
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigurationError(rule) from None
    if parts.scheme not in {"http", "https"} or not host or not url.isprintable() or " " in url.strip():
        raise ConfigurationError(rule)
    place = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
    pushed = urlunsplit((parts.scheme, place, finished(parts.path), parts.query, ""))
    try:
        httpx.Request("POST", pushed)
    except (httpx.InvalidURL, UnicodeError):  # a host that no name lookup takes
        raise ConfigurationError(rule) from None
    return pushed, (unquote(parts.username or ""), unquote(parts.password or ""))


class Secrets:
    """
    Hides the credentials of a sink in texts of others, whatever `FAPILOG_REDACT` says.

    Args:
        url: Values in its query are some.
        given: Others, perhaps empty.
        headers: The credentials of `Authorization` are.
    """

    def __init__(self, url: str, given: Iterable[str], headers: Mapping[str, str]) -> None:
        values = [value or name for name, _, value in (pair.partition("=") for pair in urlsplit(url).query.split("&"))]
        sent = headers.get("Authorization", "").partition(" ")[2]
        forms = {form for value in [*values, *given, sent] for form in _forms(value) if len(form) >= SHORTEST_SECRET}
        self._forms = sorted(forms, key=len, reverse=True)

    def hidden_in(self, text: str) -> str:
        """Return *text* with a mask for each of them; not for what is so short that it stands in any text."""
        for form in self._forms:
            text = text.replace(form, MASK)
        return text


def _forms(value: str) -> tuple[str, str, str]:
    return value, unquote(value), quote(value, safe="", errors="surrogateescape")


def authorization(in_url: tuple[str, str], given: tuple[str, str], token: str) -> dict[str, str]:
    """
    Return the header that authorizes: by user name and password as *given*, else those *in_url*, or by *token*.

    Raises:
        ConfigurationError: They cannot be used, or not together.
    """
    user = given if any(given) else in_url
    if token and any(user):
        raise ConfigurationError("a token and a user name with password exclude each other")
    if token:
        check_headers({"Authorization": token})
        return {"Authorization": f"Bearer {token}"}
    if ":" in user[0]:
        raise ConfigurationError("the user name must not hold a colon (RFC 7617)")
    if any(user):
        raw = ":".join(user).encode("utf-8", "surrogateescape")  # as the environment gave it
        return {"Authorization": "Basic " + base64.b64encode(raw).decode()}
    return {}


def check_headers(headers: Mapping[str, str]) -> None:
    """
    Check the values of headers.

    Raises:
        ConfigurationError: One cannot be sent.
    """
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable() or value != value.strip():
            what = {"X-Scope-OrgID": "the tenant", "Authorization": "the token"}.get(name, name)
            raise ConfigurationError(f"{what} must be printable ASCII, with no space at its ends")


@dataclass(frozen=True, slots=True)
class Tls:
    """
    What certificates are checked against, and our own.

    Args:
        ca_file: Certificates that are trusted besides those of the system and of certifi.
        certificate: A file with the client's, if the server wants one.
        key: A file with the key to that; it may stand in the same file.
    """

    ca_file: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None

    def context(self) -> ssl.SSLContext:
        """
        Return what checks certificates.

        Raises:
            ConfigurationError: A file cannot be used.
        """
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        if self.ca_file is not None:
            try:
                context.load_verify_locations(Path(self.ca_file))
            except OSError as error:  # ssl.SSLError is one
                raise ConfigurationError(f"{os.fspath(self.ca_file)} has no certificates that can be used: {error}") from None
        if self.certificate is not None:
            try:
                context.load_cert_chain(Path(self.certificate), self.key and Path(self.key), _no_password)
            except (OSError, ValueError) as error:
                raise ConfigurationError(
                    f"{os.fspath(self.certificate)} and its key cannot be used as a client's certificate: {error}"
                ) from None
        elif self.key is not None:
            raise ConfigurationError(f"{os.fspath(self.key)} is the key to a client's certificate, which is missing")
        return context


def _no_password() -> str:
    """Do what keeps OpenSSL from asking the terminal for the password of a key."""
    raise ValueError("the key has a password")
