"""
The Loki sink: pushes batches of lines over HTTP.

What all such sinks share, and their invariants, stand in `sinks/pushing.py`. What each answer means is said in
`sinks/loki_answers.py`, what a request looks like in `sinks/push.py`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fapilog._internal.notes import note
from fapilog._internal.parsing import stream_labels as chosen_labels
from fapilog._internal.terms import BACKLOG_BYTES, BATCH_BYTES
from fapilog.errors import ConfigurationError
from fapilog.sinks.endpoint import Tls, authorization, server_url
from fapilog.sinks.loki_answers import judged
from fapilog.sinks.origins import Origins
from fapilog.sinks.push import IN_LABELS, clean_name, encode_push, labels_of, origin_of
from fapilog.sinks.pushing import PushSink, push_terms

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from fapilog.identity import Identity
    from fapilog.sinks.answers import Answer
    from fapilog.sinks.push import Origin

PUSH_PATH = "/loki/api/v1/push"
NEVER_LABELS = frozenset(("pid", "boot", "seq"))  # each process, or event, would be a stream of its own


def push_url(url: str) -> tuple[str, tuple[str, str]]:
    """Return the URL of the push endpoint without credentials, and the credentials; see `server_url()`."""
    return server_url(url, "http://loki:3100", _push_path)


def _push_path(path: str) -> str:
    path = path.rstrip("/")
    return path if path.endswith("/push") else path + PUSH_PATH


class LokiSink(PushSink):
    """
    Pushes events to Grafana Loki, or to what speaks its push protocol.

    Args:
        url: Of the server, or of its push endpoint if the path ends in ``/push``; credentials in it are used and never shown.
        tenant: Sent as ``X-Scope-OrgID``.
        username: For basic authentication, with *password*.
        password: For basic authentication.
        token: For bearer authentication instead.
        ca_file: Certificates that are trusted besides those of the system.
        labels: Constant labels beside the *stream_labels*.
        stream_labels: Which of `service`, `env`, `host` and `worker` are labels; the others are metadata of each entry.
        batch_bytes: Bytes of lines in one request, at most.
        batch_timeout: How long an event waits for others, in seconds.
        timeout: Of one request as a whole, in seconds.
        max_elapsed: After how many seconds of trying an event is given up and counted `expired`.
        backlog_bytes: Bytes of lines that wait, at most.
        name: Of the sink.

    Raises:
        ConfigurationError: An argument cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        tenant: str = "",
        username: str = "",
        password: str = "",
        token: str = "",
        ca_file: str | os.PathLike[str] | None = None,
        labels: Mapping[str, object] | None = None,
        stream_labels: Sequence[str] = IN_LABELS,
        batch_bytes: int = BATCH_BYTES,
        batch_timeout: float = 1.0,
        timeout: float = 10.0,
        max_elapsed: float = 300.0,
        backlog_bytes: int = BACKLOG_BYTES,
        name: str = "loki",
    ) -> None:
        target, in_url = push_url(url)
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        if tenant:
            headers["X-Scope-OrgID"] = tenant
        headers.update(authorization(in_url, (username, password), token))
        terms = push_terms(max_elapsed, batch_bytes, batch_timeout, backlog_bytes)
        super().__init__(name, target, headers, (in_url[1], password, token), Tls(ca_file), timeout, terms)
        self._configured = _checked_labels(labels or {})
        self._names = chosen_labels(stream_labels)
        self._origins: Origins[Origin] | None = None

    def prepare(self, identity: Identity) -> None:
        """Make the labels of this process."""
        self._origins = Origins(identity, partial(origin_of, configured=self._configured, names=self._names))
        if left := labels_of(identity, self._configured, self._names)[1]:
            note(f"labels {self.name}", f"sink {self.name!r}: more labels than a server takes; left out: {', '.join(left)}")

    def encoded(self, lines: Sequence[bytes]) -> bytes:
        """See `PushSink.encoded()`."""
        assert self._origins is not None
        return encode_push(self._origins, lines)

    def judged(self, status: int, headers: Mapping[str, str], body: bytes, count: int) -> Answer:
        """See `PushSink.judged()`."""
        return judged(status, headers, body.decode("utf-8", "replace"), count, self.hidden_in)


def _checked_labels(labels: Mapping[str, object]) -> dict[str, object]:
    for name in labels:
        if clean_name(name).lower() in NEVER_LABELS:
            raise ConfigurationError(
                f"{name} cannot be a label: every process would be a stream of its own (it is in each entry)"
            )
    return dict(labels)
