"""
What the stand-in keeps of a request, and what it answers: the checks in Loki's order, the valid part stored.

The order, from Loki v3.7.6 (`pkg/distributor/distributor.go`, `pkg/ingester/stream.go`): no streams 422; labels of each stream,
each entry (collected, 400 at the end); the tenant's rate (429, nothing stored, hides a 400); then stream by stream: the cap of
streams, each entry's stream rate and age behind the newest (the last failing stream's answer hides the 400 from before).
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.loki.labels import label_text
from tests.loki.limits import Bucket, Dedupe, Limits, size_text
from tests.loki.wire import Line, Refused, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = 1_000_000_000
_SHOWN = 10  # failed entries that an answer lists
_SERVICE_FROM = (
    "service",
    "app",
    "application",
    "app_name",
    "name",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "k8s_container_name",
    "component",
    "workload",
    "job",
    "k8s_job_name",
)
_ADVICE = (
    "reduce the number of active streams (reduce labels or reduce label values), or contact your Loki administrator to see "
    "if the limit can be increased"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored entry: *ts* in nanoseconds, *request* counts pushes from 1, *peer_port* is the client's (-1: not known)."""

    tenant: str
    labels: dict[str, str]
    ts: int
    line: str
    metadata: dict[str, str]
    request: int = -1
    peer_port: int = -1

    @property
    def key(self) -> tuple[object, ...]:
        """What is the same for the same entry from whatever server, hashable."""
        return (self.tenant, tuple(sorted(self.labels.items())), self.ts, self.line, tuple(sorted(self.metadata.items())))


@dataclass(slots=True)
class _Stream:
    labels: dict[str, str]
    bucket: Bucket
    newest: int | None = None
    seen: set[tuple[object, ...]] = field(default_factory=set)


@dataclass(slots=True)
class _Tenant:
    bucket: Bucket
    streams: dict[str, _Stream] = field(default_factory=dict)


@dataclass(slots=True)
class Failures:
    """The first *count* entries of a request that the server is told to refuse: as ``old``, ``behind`` or ``rate``."""

    count: int
    kind: str

    def take(self, kind: str) -> bool:
        """Whether the next entry is one of them."""
        if kind != self.kind or self.count <= 0:
            return False
        self.count -= 1
        return True


NOTHING = Failures(0, "")


def rfc3339(ts: int) -> str:
    """Return the time as Go's time.RFC3339 shows it: whole seconds, UTC."""
    return datetime.fromtimestamp(ts // SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def go_time(ts: int) -> str:
    """Return the time as Go's Time.String shows it."""
    whole, rest = divmod(ts, SECOND)
    digits = f".{rest:09d}".rstrip("0") if rest else ""
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%d %H:%M:%S") + digits + " +0000 UTC"


def with_service_name(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return the labels that Loki stores: no empty values, and a ``service_name``."""
    labels = {name: value for name, value in pairs if value}
    if "service_name" not in labels:
        found = (labels[name] for name in _SERVICE_FROM if name in labels)
        labels["service_name"] = next(found, "unknown_service")
    return labels


def metadata_name(name: str) -> str:
    """Return the name under which Loki keeps a piece of structured metadata."""
    clean = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"key_{clean}" if clean[:1].isdigit() else clean


class Store:
    """
    The entries of all tenants; any thread may push and read.

    Args:
        limits: What it refuses.
        dedupe: Which entries it keeps once.
        clock: Seconds since 1970.
    """

    def __init__(self, limits: Limits, dedupe: Dedupe, clock: Callable[[], float] = time.time) -> None:
        self.limits = limits
        self.dedupe = dedupe
        self.clock = clock
        self.entries: list[Entry] = []
        self.deduplicated: list[Entry] = []
        self._tenants: dict[str, _Tenant] = {}
        self._lock = threading.Lock()

    def push(self, tenant: str, streams: list[Stream], request: int, peer_port: int, failures: Failures = NOTHING) -> None:
        """
        Store what is valid.

        Raises:
            Refused: With Loki's answer; the valid part is stored all the same, except for 422 and the tenant's 429.
        """
        if not streams:
            raise Refused(422, "error at least one valid stream is required for ingestion")
        with self._lock:
            _Push(self, tenant, request, peer_port, failures).run(streams)

    def tenant(self, name: str) -> _Tenant:
        limits = self.limits
        if name not in self._tenants:
            self._tenants[name] = _Tenant(Bucket(limits.ingestion_rate or 0, limits.ingestion_burst, self.clock()))
        return self._tenants[name]


class _Push:
    def __init__(self, store: Store, tenant: str, request: int, peer_port: int, failures: Failures) -> None:
        self.store = store
        self.limits = store.limits
        self.now = store.clock()
        self.name = tenant
        self.tenant = store.tenant(tenant)
        self.request = request
        self.peer_port = peer_port
        self.failures = failures
        self.errors: list[str] = []

    def run(self, streams: list[Stream]) -> None:
        valid = [(labels, lines) for stream in streams for labels, lines in self._checked(stream)]
        self._tenant_rate([line for _, lines in valid for line in lines])
        last: Refused | None = None
        for labels, lines in valid:
            try:
                self._ingest(labels, lines)
            except Refused as refused:
                last = refused
        if last is not None:
            raise last
        if self.errors:
            raise Refused(400, _grouped(self.errors))

    def _checked(self, stream: Stream) -> list[tuple[dict[str, str], list[Line]]]:
        if not stream.lines:
            return []
        labels = with_service_name(stream.labels)
        text = label_text(labels)
        wrong = self._wrong_labels(stream.labels, text)
        if wrong:
            self.errors.append(wrong)
            return []
        lines = [line for line in stream.lines if self._valid(line, text)]
        return [(labels, lines)] if lines else []

    def _wrong_labels(self, pairs: list[tuple[str, str]], text: str) -> str:
        limits = self.limits
        names = [name for name, value in pairs if value]
        counted = sum(name != "service_name" for name in names)
        if counted > limits.max_label_names:
            return f"entry for stream '{text}' has {counted} label names; limit {limits.max_label_names}"
        for name, value in pairs:
            if len(name.encode()) > limits.max_label_name_length:
                return f"stream '{text}' has label name too long: '{name}'"
            if len(value.encode()) > limits.max_label_value_length:
                return f"stream '{text}' has label value too long: '{value}'"
            if names.count(name) > 1:
                return f"stream '{text}' has duplicate label name: '{name}'"
        return ""

    def _valid(self, line: Line, text: str) -> bool:
        wrong = self._wrong_time(line, text) or self._wrong_size(line, text)
        if wrong:
            self.errors.append(wrong)
        line.metadata = {metadata_name(name): value for name, value in line.metadata.items()}
        return not wrong

    def _wrong_time(self, line: Line, text: str) -> str:
        limits = self.limits
        age = limits.reject_old_samples_max_age
        oldest = int((self.now - (age or 0)) * SECOND)
        if self.failures.take("old") or (age is not None and line.ts < oldest):
            return (
                f"entry for stream '{text}' has timestamp too old: {rfc3339(line.ts)}, "
                f"oldest acceptable timestamp is: {rfc3339(oldest)}"
            )
        if line.ts > (self.now + limits.creation_grace_period) * SECOND:
            return f"entry for stream '{text}' has timestamp too new: {rfc3339(line.ts)}"
        return ""

    def _wrong_size(self, line: Line, text: str) -> str:
        limits = self.limits
        length = len(line.line.encode())
        if length > limits.max_line_size:
            return (
                f"max entry size '{limits.max_line_size}' bytes exceeded for stream '{text}' "
                f"while adding an entry with length '{length}' bytes"
            )
        if not line.metadata:
            return ""
        if not limits.allow_structured_metadata:
            return (
                f"stream '{text}' includes structured metadata, but this feature is disallowed. "
                "Please see `limits_config.allow_structured_metadata` or contact your Loki administrator to enable it"
            )
        size, count = line.size() - length, len(line.metadata)
        if size > limits.max_structured_metadata_size:
            limit = limits.max_structured_metadata_size
            return f"stream '{text}' has structured metadata too large: '{size}' bytes, limit: '{limit}' bytes. Please see ..."
        if count > limits.max_structured_metadata_count:
            limit = limits.max_structured_metadata_count
            return f"stream '{text}' has too many structured metadata labels: '{count}', limit: '{limit}'. Please see ..."
        return ""

    def _tenant_rate(self, lines: list[Line]) -> None:
        size = sum(line.size() for line in lines)
        if self.limits.ingestion_rate is None or self.tenant.bucket.allow(size, self.now):
            return
        raise Refused(
            429,
            f"ingestion rate limit exceeded for user {self.name} (limit: {int(self.limits.ingestion_rate)} bytes/sec) while "
            f"attempting to ingest '{len(lines)}' lines totaling '{size}' bytes, reduce log volume or contact your Loki "
            "administrator to see if the limit can be increased",
        )

    def _stream(self, labels: dict[str, str]) -> _Stream:
        limits, text = self.limits, label_text(labels)
        streams = self.tenant.streams
        if text not in streams:
            if len(streams) >= limits.max_streams:
                raise Refused(
                    429,
                    f"maximum active stream limit exceeded when trying to create stream {text}, {_ADVICE}, user: '{self.name}'",
                )
            streams[text] = _Stream(labels, Bucket(limits.per_stream_rate or 0, limits.per_stream_burst, self.now))
        return streams[text]

    def _ingest(self, labels: dict[str, str], lines: list[Line]) -> None:
        stream = self._stream(labels)
        failed: list[tuple[int, int, str]] = []
        for line in lines:
            wrong = self._refusal(stream, line)
            if wrong is None:
                self._keep(stream, line)
            else:
                failed.append((*wrong[:1], line.ts, wrong[1]))
        if failed:
            shown = "".join(f"entry with timestamp {go_time(ts)} ignored, reason: '{why}',\n" for _, ts, why in failed[:_SHOWN])
            ignored = f"total ignored: {len(failed)} out of {len(lines)} for stream: {label_text(labels)}"
            raise Refused(failed[-1][0], f"{shown}user '{self.name}', {ignored}")

    def _refusal(self, stream: _Stream, line: Line) -> tuple[int, str] | None:
        limits, size = self.limits, line.size()
        rate = limits.per_stream_rate
        if self.failures.take("rate") or (rate is not None and not stream.bucket.allow(size, self.now)):
            return 429, (
                f"Per stream rate limit exceeded (limit: {size_text(rate or 0)}/sec) while attempting to ingest for stream "
                f"'{label_text(stream.labels)}' totaling {size_text(size)}, consider splitting a stream via additional labels or "
                "contact your Loki administrator to see if the limit can be increased"
            )
        oldest = (stream.newest or 0) - int((limits.unordered_window or 0) * SECOND)
        behind = limits.unordered_window is not None and stream.newest is not None and line.ts < oldest
        if self.failures.take("behind") or behind:
            return 400, (
                f"entry too far behind, entry timestamp is: {rfc3339(line.ts)}, oldest acceptable timestamp is: {rfc3339(oldest)}"
            )
        return None

    def _keep(self, stream: _Stream, line: Line) -> None:
        stream.newest = line.ts if stream.newest is None else max(stream.newest, line.ts)
        entry = Entry(self.name, dict(stream.labels), line.ts, line.line, line.metadata, self.request, self.peer_port)
        store = self.store
        metadata = tuple(sorted(line.metadata.items())) if store.dedupe is Dedupe.METADATA else ()
        key = (line.ts, line.line, metadata)
        if store.dedupe is not Dedupe.OFF and key in stream.seen:
            store.deduplicated.append(entry)
            return
        store.entries.append(entry)
        if store.dedupe is not Dedupe.OFF:
            stream.seen.add(key)


def _grouped(errors: list[str]) -> str:
    counts = Counter(errors)
    if len(errors) == 1:
        return errors[0]
    return "; ".join(f"{count} errors like: {text}" for text, count in counts.items())
