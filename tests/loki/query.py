"""The least of `/loki/api/v1/query_range`: one stream selector, a time range, a limit."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from tests.loki.labels import LabelError, parse_labels
from tests.loki.wire import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.loki.store import Entry

_OPERATOR = re.compile(
    r'(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)\s*(?P<operator>=~|!~|!=|=)\s*(?P<value>"(?:[^"\\]|\\.)*"|`[^`]*`)\s*,?\s*'
)
_MAX_LIMIT = 5000


def query_range(entries: Sequence[Entry], query_string: str, *, categorize: bool = False) -> str:
    """
    Return the JSON answer, newest first.

    Args:
        entries: Of the tenant.
        query_string: With `query`, and perhaps `start`, `end` (ns, seconds or RFC 3339), `limit`, `direction`.
        categorize: Whether metadata is apart from the labels, as the flag ``categorize-labels`` asks for.

    Raises:
        Refused: 400 for what is not understood.
    """
    asked = {name: values[-1] for name, values in parse_qs(query_string).items()}
    matches = matcher(asked.get("query", ""))
    start, end = (_time(asked[name]) if name in asked else None for name in ("start", "end"))
    limit = int(asked.get("limit", "100"))
    if limit > _MAX_LIMIT:
        raise Refused(400, f"max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {_MAX_LIMIT})")
    found = [entry for entry in entries if matches(entry.labels) and _within(entry.ts, start, end)]
    found.sort(key=lambda entry: entry.ts, reverse=asked.get("direction") != "forward")
    streams: dict[str, tuple[dict[str, str], list[list[object]]]] = {}
    for entry in found[:limit]:
        labels = entry.labels if categorize else {**entry.labels, **entry.metadata}
        extra: list[object] = [{"structuredMetadata": entry.metadata} if entry.metadata else {}] if categorize else []
        streams.setdefault(json.dumps(labels, sort_keys=True), (labels, []))[1].append([str(entry.ts), entry.line, *extra])
    result = [{"stream": labels, "values": values} for labels, values in streams.values()]
    flags = {"encodingFlags": ["categorize-labels"]} if categorize else {}
    return json.dumps({"status": "success", "data": {"resultType": "streams", **flags, "result": result, "stats": {}}})


def _within(ts: int, start: int | None, end: int | None) -> bool:
    return (start is None or ts >= start) and (end is None or ts < end)


def _time(text: str) -> int:
    if text.isdigit() and len(text) > 10:
        return int(text)
    try:
        return int(float(text) * 1e9)
    except ValueError:
        return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000


def matcher(query: str) -> Callable[[dict[str, str]], bool]:
    """Return what tells whether labels match a selector such as ``{a="b", c=~"d.*"}``."""
    inner = query.strip()
    if not (inner.startswith("{") and inner.endswith("}")):
        raise Refused(400, "parse error at line 1, col 1: syntax error: unexpected text, expecting {")
    at, rules = 0, []
    inner = inner[1:-1].strip()
    while at < len(inner):
        part = _OPERATOR.match(inner, at)
        if part is None:
            raise Refused(400, f"parse error at line 1, col {at + 1}: syntax error")
        at = part.end()
        rules.append((part["name"], part["operator"], _value(part["value"])))
    if not any(operator in {"=", "=~"} and value for _, operator, value in rules):
        raise Refused(400, "queries require at least one regexp or equality matcher that does not have an empty-compatible value")
    return lambda labels: all(_holds(labels.get(name, ""), operator, value) for name, operator, value in rules)


def _value(quoted: str) -> str:
    try:
        return parse_labels(f"{{x={quoted}}}")[0][1]
    except LabelError as error:
        raise Refused(400, f"parse error: {error}") from None


def _holds(value: str, operator: str, wanted: str) -> bool:
    same = bool(re.fullmatch(wanted, value)) if "~" in operator else value == wanted
    return same is not operator.startswith("!")
