"""
One corpus for the stand-in, VictoriaLogs and the user's Loki, pushed by plain httpx: all must take and return the same.

The differences that are allowed are those of `DIFFERENCES` (VictoriaLogs does not check names, times, lengths and counts) and of
the tests below that name one. Anything else fails: then the stand-in is wrong, or what we believe about Loki.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.loki import StandIn
from tests.loki.encode import JSON, PROTOBUF, compressed, push_json, push_protobuf
from tests.real.servers import URL_VARIABLE, UsersLoki, VictoriaLogs

DAY = 86_400 * 1_000_000_000
FORMS: dict[str, Any] = {
    "json": (JSON, push_json, ""),
    "json, gzip": (JSON, push_json, "gzip"),
    "protobuf": (PROTOBUF, push_protobuf, ""),
}
LINE = '{"timestamp":"2026-11-28T05:17:29.123456Z","level":"info","event":"x","n":1}'

SERVERS = ["stand-in", pytest.param("VictoriaLogs", marks=pytest.mark.real)]
if os.environ.get(URL_VARIABLE):
    SERVERS.append(pytest.param("the user's Loki", marks=pytest.mark.real))

#: Label sets and entries (offset in ns, line, metadata) that every server takes and returns as they are.
CORPUS: dict[str, list[tuple[dict[str, str], list[Any]]]] = {
    "a JSON line": [({}, [(0, LINE)])],
    "label values of odd forms": [
        ({"a": 'q"uo\\te', "b": "line\nend\ttab", "c": "é \U0001f600 \u2028", "d": "{x=~}", "_": " "}, [(0, "x")])
    ],
    "the longest label names and values": [({"n" * 100: "v" * 2048}, [(0, "x")])],
    "fifteen labels": [({f"l{n}": str(n) for n in range(14)}, [(0, "x")])],
    "the longest line": [({}, [(0, "é" + "x" * (262_144 - 2))])],
    "unicode": [({}, [(0, "é ß 漢字 \U0001f600 \u200b\u2028\u2029 \ufeff")])],
    "escaped characters": [({}, [(0, '"\\/\b\f\n\r\t\x00\x01\x1f\x7f\x80 \\u0041 \\n')])],
    "line ends": [({}, [(0, "\n"), (1, "a\nb\r\nc\n")])],
    "structured metadata": [({}, [(0, LINE, {"pid": "123", "boot": "0123456789ab", "seq": "1", "odd": 'é"\\\n'}), (1, LINE)])],
    "equal times": [({}, [(0, "a"), (0, "b"), (0, "c", {"seq": "1"})])],
    "times out of order": [({}, [(5, "e"), (1, "a"), (3, "c"), (-1_000_000_000, "before")])],
    "every nanosecond": [({}, [(n, str(n)) for n in range(200)])],
    "several streams": [({"worker": str(n)}, [(0, "same"), (n + 1, "own")]) for n in range(5)],
    "labels that differ in their places": [({"a": "1", "b": "2"}, [(0, "x")]), ({"a": "2", "b": "1"}, [(0, "x")])],
    "a stream twice": [({"a": "1"}, [(0, "x")]), ({"a": "1"}, [(1, "y")])],
    "an empty stream among others": [({"a": "1"}, []), ({"a": "2"}, [(0, "x")])],
    "a label without a value": [({"a": ""}, [(0, "x")])],
}

#: What Loki refuses and VictoriaLogs takes: label sets and entries, Loki's status, the lines that Loki keeps, and VictoriaLogs.
DIFFERENCES: dict[str, tuple[Any, int, list[str], list[str]]] = {
    "no stream": ([], 422, [], []),
    "a name that is no label's": ([({"a": "1"}, [(0, "good")]), ({"a-b": "1"}, [(0, "bad")])], 400, [], ["good", "bad"]),
    "too many labels": ([({f"l{n}": "1" for n in range(16)}, [(0, "bad")]), ({}, [(0, "good")])], 400, ["good"], ["bad", "good"]),
    "a label value too long": ([({"a": "v" * 2049}, [(0, "bad")]), ({}, [(0, "good")])], 400, ["good"], ["bad", "good"]),
    "too old": ([({}, [(-8 * DAY, "bad"), (0, "good")])], 400, ["good"], ["bad", "good"]),
    "too new": ([({}, [(DAY, "bad"), (0, "good")])], 400, ["good"], ["bad", "good"]),
    "far behind": ([({}, [(0, "good"), (-DAY // 12, "bad")])], 400, ["good"], ["good", "bad"]),
    "a line too long": ([({}, [(0, "x" * 262_145), (0, "good")])], 400, ["good"], ["x" * 262_145, "good"]),
    "too much metadata": ([({}, [(0, "bad", {"k": "v" * 65_536}), (0, "good")])], 400, ["good"], ["bad", "good"]),
    "too many metadata": ([({}, [(0, "bad", {f"k{n}": "" for n in range(129)}), (0, "good")])], 400, ["good"], ["bad", "good"]),
    "metadata that is no text": ([({}, [(0, "bad", {"k": 1}), (0, "good")])], 400, [], ["bad", "good"]),
}


@pytest.fixture(params=SERVERS)
def server(request):
    """Each server in turn."""
    if request.param == "VictoriaLogs":
        yield request.getfixturevalue("shared_victoria_logs")
    elif request.param == "the user's Loki":
        yield request.getfixturevalue("users_loki")
    else:
        with StandIn() as standin:
            yield standin


class Run:
    """Pushes that can be told from all others by their label ``run``, at a time of their own."""

    def __init__(self, server):
        self.server = server
        self.run = uuid.uuid4().hex
        self.at = time.time_ns()

    def groups(self, groups: list[Any]) -> list[Any]:
        return [({**labels, "run": self.run}, [(self.at + offset, *rest) for offset, *rest in lines]) for labels, lines in groups]

    def push(self, groups, form="json", headers=None):
        """Send them as one request; return the status."""
        kind, encode, encoding = FORMS[form]
        more, body = compressed(encoding, encode(*self.groups(groups)))
        sent = {**getattr(self.server, "headers", {}), **kind, **more, **(headers or {})}
        return httpx.post(self.server.push_url, content=body, headers=sent, timeout=30).status_code

    def stored(self, count):
        """Return what was stored, as (labels, time, line, metadata), when it is *count* entries; none too many."""
        found = self.server.wait_entries(count, run=self.run)
        return Counter(self.row(entry.labels, entry.ts - self.at, entry.line, entry.metadata) for entry in found)

    def row(self, labels, offset, line, metadata=None):
        """Labels without those that the server or the test added, and without empty ones."""
        pairs = {name: value for name, value in labels.items() if value and name not in {"run", "service_name"}}
        return tuple(sorted(pairs.items())), offset, line, tuple(sorted((metadata or {}).items()))

    def lines(self, count):
        return sorted(line for _, _, line, _ in self.stored(count).elements())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", CORPUS)
def test_what_all_take(server, name, form) -> None:
    """204, and every entry is there once with its labels, time to the nanosecond, line byte for byte, and metadata."""
    run = Run(server)
    assert run.push(CORPUS[name], form) == 204
    expected = Counter(run.row(labels, *line) for labels, lines in CORPUS[name] for line in lines)
    assert run.stored(expected.total()) == expected


@pytest.mark.parametrize("name", DIFFERENCES)
def test_what_loki_refuses(server, name) -> None:
    """Loki's status and what it keeps all the same; VictoriaLogs takes everything."""
    groups, status, kept, taken = DIFFERENCES[name]
    run = Run(server)
    assert run.push(groups) == (204 if isinstance(server, VictoriaLogs) else status)
    wanted = taken if isinstance(server, VictoriaLogs) else kept
    assert run.lines(len(wanted)) == sorted(wanted)


def test_the_same_again(server) -> None:
    """The same entry again, in the same request or another, is one for Loki; VictoriaLogs keeps every copy."""
    run = Run(server)
    groups: list[Any] = [({}, [(0, LINE, {"seq": "1"}), (1, LINE, {"seq": "2"})])]
    assert run.push([*groups, *groups]) == 204
    assert run.push(groups, "json, gzip") == 204
    copies = 3 if isinstance(server, VictoriaLogs) else 1
    stored = run.stored(2 * copies)
    assert set(stored.values()) == {copies}
    assert len(stored) == 2


def test_names_of_metadata(server) -> None:
    """Loki makes dots underscores; VictoriaLogs leaves them."""
    run = Run(server)
    assert run.push([({}, [(0, "x", {"http.method": "GET"})])]) == 204
    ((row, count),) = run.stored(1).items()
    assert (count, row[3]) == (1, (("http.method" if isinstance(server, VictoriaLogs) else "http_method", "GET"),))


def test_an_empty_line(server) -> None:
    """VictoriaLogs puts a text in its place."""
    run = Run(server)
    assert run.push([({}, [(0, "")])]) == 204
    (line,) = run.lines(1)
    assert line.startswith("missing _msg field") if isinstance(server, VictoriaLogs) else line == ""


def test_what_is_no_json(server) -> None:
    """400 from all."""
    for body in (b"{", b"", b"[]", b'{"streams":{}}', b'{"streams":[{"stream":{"a":"1"},"values":[["1"]]}]}'):
        headers = {**getattr(server, "headers", {}), **JSON}
        assert httpx.post(server.push_url, content=body, headers=headers, timeout=30).status_code == 400, body


def test_the_name_of_the_service(server) -> None:
    """Loki adds it where it is absent; VictoriaLogs does not."""
    run = Run(server)
    assert run.push([({"app": "shop"}, [(0, "x")])]) == 204
    (entry,) = server.wait_entries(1, run=run.run)
    assert entry.labels == {"app": "shop", "run": run.run} | (
        {} if isinstance(server, VictoriaLogs) else {"service_name": "shop"}
    )


@pytest.mark.real
def test_the_users_loki(users_loki) -> None:
    """It is asked whenever it is named: then all tests here have run against it too."""
    assert httpx.get(f"{users_loki.url}/ready", headers=users_loki.headers, timeout=30).status_code == 200


def test_several_tenants(request) -> None:
    """Each has its own entries (VictoriaLogs wants numbers for names and is not asked)."""
    with StandIn(auth=True) as standin:
        check_tenants(lambda _: standin, ["one", "two"])
    if len(UsersLoki.tenants()) > 1:
        url = request.getfixturevalue("users_loki").url
        check_tenants(lambda tenant: UsersLoki(url, tenant), UsersLoki.tenants()[:2])


def check_tenants(server_of, tenants):
    runs = {tenant: Run(server_of(tenant)) for tenant in tenants}
    for tenant, run in runs.items():
        assert run.push([({}, [(0, tenant)])], headers={"X-Scope-OrgID": tenant}) == 204
    for tenant, run in runs.items():
        assert run.lines(1) == [tenant]
