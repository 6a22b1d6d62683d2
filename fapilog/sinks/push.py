"""
Loki's push request: labels, entries and their encoding; pure.

Protocol: ``POST /loki/api/v1/push`` of Grafana Loki, the JSON form (its HTTP API reference; `pkg/loghttp/push` of its source).

Invariants:

1. An entry is made from its line alone, so whoever sends it again, and whenever, sends the same bytes: a server that drops equal
   entries keeps one. Its stream and metadata are those of the process that wrote the line, whoever sends it; only the configured
   labels, which no line holds, are the sender's. A line that no hub has made gets those of the sender.
2. The line is the event's JSON line, unchanged. One that is over the server's limit is cut with a mark at the edge of a
   character; it is not JSON any more.
3. Labels are few and known at set-up. `pid`, `boot` and `seq` are metadata of each entry, never labels; so are those of
   `IN_LABELS` that are not to be labels.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from fapilog.sinks.origins import time_ns_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from fapilog.identity import Identity
    from fapilog.sinks.origins import Origins

LINE_LIMIT_BYTES = 262_144  # the server's default; a longer line would be refused
MAX_LABELS = 15
MAX_NAME, MAX_VALUE = 1024, 2048  # bytes
IN_LABELS = ("service", "env", "host", "worker")

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]")


def clean_name(name: str) -> str:
    """Return *name* as Loki takes it: letters, digits and ``_``, no digit first, not two ``_`` first (those are reserved)."""
    cleaned = _NOT_IN_NAMES.sub("_", name)[:MAX_NAME]
    if cleaned.startswith("__"):
        cleaned = "_" + cleaned.lstrip("_")
    return f"_{cleaned}"[:MAX_NAME] if not cleaned or cleaned[0].isdigit() else cleaned


def labels_of(
    identity: Identity, configured: Mapping[str, object], names: Iterable[str] = IN_LABELS
) -> tuple[dict[str, str], list[str]]:
    """
    Return the labels of a process, those of *names* first, and the names of those that are too many.

    Those without a value are left out; where none is left the label is `service`, since Loki takes no stream without one. Of two
    names that are the same once they are cleaned, the later one gets a number: `a_2`.
    """
    fields = identity.fields()
    labels: dict[str, str] = {}
    left: list[str] = []
    for name, value in [*((name, fields[name]) for name in names), *configured.items()]:
        text = "" if value is None else str(value)
        if not text:
            continue
        if len(labels) >= MAX_LABELS:
            left.append(name)
            continue
        labels[_free(clean_name(name), labels)] = _value(text)
    return labels or {"service": _value(identity.service)}, left


def _value(text: str) -> str:
    """Return *text* cut to what Loki takes, at the edge of a character."""
    return text.encode("utf-8", "replace")[:MAX_VALUE].decode("utf-8", "ignore")


def _free(name: str, taken: Mapping[str, str]) -> str:
    number = 1
    free = name
    while free in taken:
        number += 1
        free = f"{name[: MAX_NAME - 8]}_{number}"
    return free


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """
    Who wrote a line, as Loki is told.

    Args:
        labels: Of its stream.
        metadata: Of each of its entries, beside the `seq`.
    """

    labels: Mapping[str, str]
    metadata: Mapping[str, str]


def origin_of(identity: Identity, configured: Mapping[str, object], names: Sequence[str] = IN_LABELS) -> Origin:
    """Return what Loki is told of a process, of `IN_LABELS` only *names* as labels."""
    fields = identity.fields()
    others = {name: _value(str(fields[name])) for name in IN_LABELS if name not in names and fields[name] != ""}
    return Origin(labels_of(identity, configured, names)[0], {**others, "pid": str(identity.pid), "boot": identity.boot})


def encode_push(origins: Origins[Origin], lines: Iterable[bytes]) -> bytes:
    """Return the body of a request: a stream for each set of labels, in the order of their first lines."""
    streams: dict[tuple[str, ...], dict[str, Any]] = {}
    values: list[object] = []
    origin = None
    for line in lines:
        its, seq = origins.of(line)
        if its is not origin:
            origin = its
            key = tuple(part for item in its.labels.items() for part in item)
            values = streams.setdefault(key, {"stream": its.labels, "values": []})["values"]
        ns = time_ns_of(line, seq)
        values.append((str(time.time_ns() if ns is None else ns), _text(line), {**its.metadata, "seq": str(seq)}))
    return orjson.dumps({"streams": list(streams.values())})


def _text(line: bytes) -> str:
    line = line.rstrip(b"\n")
    if len(line) > LINE_LIMIT_BYTES:
        mark = b"...[cut: %d bytes]" % len(line)
        return line[: LINE_LIMIT_BYTES - len(mark)].decode("utf-8", "ignore") + mark.decode()
    return line.decode("utf-8", "replace")
