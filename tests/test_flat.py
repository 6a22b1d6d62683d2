"""The shortest way to a line: the same line as the longer way makes, or none."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapilog._internal import flat
from fapilog._internal.flat import MAX_FLAT, MAX_TEXT, encode_flat
from fapilog.encoding import encode_open
from fapilog.redaction import Redactor, redaction
from tests._support import ran_well, run_script, strict
from tests.hostile import OfHostileMeta

LIMIT = 262_144
NAMES = ["a", "user_id", "path", "naïve", "x" * 200]
SIGNS = ["it's", "a=b", "token=hunter2", "x@y", "https://u:p@h/", "\\", "\ud800", "k: v", "Cookie: hunter2", "x-api-key:\tz"]
PIECES = [*SIGNS, "Cookie", "password", "hunter2", ": ", "//", "\x1b[31m", "[cut:", *":= \t\n@'\""]
TEXTS = st.text(max_size=80) | st.lists(st.sampled_from(PIECES), max_size=6).map("".join)
NUMBERS = st.integers(-(1 << 70), 1 << 70) | st.floats() | st.booleans() | st.none() | st.dates() | st.uuids()
VALUES = (
    TEXTS | NUMBERS | st.lists(NUMBERS, max_size=5) | st.lists(TEXTS, max_size=2) | st.dictionaries(TEXTS, NUMBERS, max_size=2)
)


@pytest.fixture(autouse=True)
def quiet_redactor(monkeypatch) -> None:
    """Make every test begin with nothing remembered, at a time that stands still."""
    redactor = Redactor()
    for name in NAMES:
        redactor.learn(name)
    monkeypatch.setattr(redaction, "current", redactor)
    monkeypatch.setattr(flat, "_names", {})
    monkeypatch.setattr(flat, "_events", {})
    monkeypatch.setattr(flat, "clock_ns", lambda: 1_767_323_045_000_007_999)


def longer(level: str, name: str | None, event: object, fields: dict[str, Any], limit: int = LIMIT) -> bytes:
    record = {"timestamp": flat.timestamp(), "level": level, "event": event, "logger": name, **fields}
    if name is None:
        del record["logger"]
    return encode_open(record, limit)


@given(
    st.sampled_from(["debug", "info", "warning", "error", "critical"]),
    st.none() | st.sampled_from(["a.b", "it's", "password=x"]) | TEXTS,
    TEXTS,
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5),
)
def test_any_event(level: str, name: str | None, event: str, fields: dict[str, Any]) -> None:
    """The line is byte for byte that of the longer way, or there is none; the second time, from memory, too."""
    for _ in range(2):
        head = encode_flat(level, name, event, fields, LIMIT)
        assert head in {b"", longer(level, name, event, fields)}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"a": "text", "user_id": 7, "path": 1.5},
        {"a": None, "path": True, "user_id": math.inf},
        {"a": [1, 2.5, None], "path": date(2026, 1, 2), "user_id": UUID(int=7)},
        {"a": "it's = @ \\"},
    ],
)
def test_plain_events_go_this_way(fields: dict[str, Any]) -> None:
    """There is a line, and it says what was logged."""
    head = encode_flat("info", "shop", "placed", fields, LIMIT)
    assert head == longer("info", "shop", "placed", fields)
    assert strict(head + b"}")["timestamp"] == "2026-01-02T03:04:05.000007Z"


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("e", {"unknown": 1}),
        ("e", {"password": 1}),
        ("e", {"a": {"b": 1}}),
        ("e", {"a": ["text"]}),
        ("e", {"a": [[1]]}),
        ("e", {"a": (1, 2)}),
        ("e", {"a": datetime(2026, 1, 1, tzinfo=UTC)}),
        ("e", {"a": [0] * (MAX_FLAT + 1)}),
        ("e", {"a": "x" * (MAX_TEXT + 1)}),
        ("e", {"a": "token=hunter2"}),
        ("e", {"a": 1 << 64}),
        ("e", {"a": OfHostileMeta()}),
        ("e", {"a": "\ud800"}),
        ("Authorization: x", {"a": 1}),
        ("e", {"a": "Authorization: Bearer hunter2"}),
        ("e", {"a": "1", "path": "GET / HTTP/1.1\nX-Api-Key:\thunter2"}),
        ("token=hunter2", {"a": 1}),
        (7, {"a": 1}),
    ],
)
def test_other_events_do_not(event: object, fields: dict[str, Any]) -> None:
    """What is deep, long, strange or has a secret in it is left to the longer way."""
    assert encode_flat("info", "shop", event, fields, LIMIT) == b""


@pytest.mark.parametrize("name", ["authorization: Bearer hunter2", "token=hunter2", "https://u:hunter2@h/"])
def test_a_secret_in_the_name_of_a_logger(name: str) -> None:
    """It is left to the longer way, the second time too."""
    assert [encode_flat("info", name, "e", {"a": 1}, LIMIT) for _ in range(2)] == [b"", b""]


def test_a_list_that_another_thread_changes(monkeypatch) -> None:
    """What is encoded is what was looked at: a secret or a mass of items that came in between is not there."""
    shared: list[Any] = [1, 2]
    dumps = flat._dumps

    def late(*args: Any) -> bytes:
        shared.extend([{"password": "hunter2"}] * 1000)
        return dumps(*args)

    assert encode_flat("info", "shop", "e", {}, LIMIT)
    monkeypatch.setattr(flat, "_dumps", late)
    assert encode_flat("info", "shop", "e", {"a": shared}, LIMIT).endswith(b'"a":[1,2]')


def test_patterns_of_the_users_own(monkeypatch) -> None:
    """They may match anything, also what was remembered: nothing goes this way."""
    assert encode_flat("info", "shop", "placed", {"a": 1}, LIMIT)
    redactor = Redactor(patterns=["placed"])
    redactor.learn("a")
    monkeypatch.setattr(redaction, "current", redactor)
    assert encode_flat("info", "shop", "placed", {"a": 1}, LIMIT) == b""


def test_a_line_over_the_limit() -> None:
    """It is left to the longer way, which cuts."""
    assert encode_flat("info", "shop", "placed", {"a": "x" * 1000}, 1024) == b""


def test_what_is_remembered() -> None:
    """It stays bounded, and texts with a sign of a secret or of a great length are not in it."""
    for number in range(2 * flat.MAX_KNOWN + 10):
        assert encode_flat("info", f"n{number}", f"e{number}", {"a": 1}, LIMIT)
    assert 0 < len(flat._events) <= flat.MAX_KNOWN
    assert 0 < len(flat._names) <= flat.MAX_KNOWN
    for text in ("a=b", "it's", "x@y", "b\\", "c: d", "x" * 300):
        assert encode_flat("info", text, text, {"a": 1}, LIMIT)
        assert text not in flat._events
        assert text not in flat._names


def test_a_clock_that_jumps(monkeypatch) -> None:
    """Forwards or backwards, a line has the time of its call."""
    second = 1_767_323_045
    for now in (second, second + 1, second - 1, 0, second + 86_400 * 365, second):
        for nanos in (0, 999_999_999):
            monkeypatch.setattr(flat, "clock_ns", lambda now=now, nanos=nanos: now * 10**9 + nanos)
            head = encode_flat("info", None, "e", {}, LIMIT)
            expected = datetime.fromtimestamp(now, UTC).replace(microsecond=nanos // 1000)
            assert strict(head + b"}")["timestamp"] == f"{expected:%Y-%m-%dT%H:%M:%S.%f}Z"


def test_a_first_event_in_the_first_second_of_the_epoch(tmp_path) -> None:
    """A machine without a clock gets lines like any other."""
    script = """
        from fapilog._internal import flat
        flat.clock_ns = lambda: 500_000_000
        print(flat.encode_flat("info", None, "e", {}, 9999).decode())
    """
    assert ran_well(run_script(script, tmp_path)) == '{"timestamp":"1970-01-01T00:00:00.500000Z","level":"info","event":"e"\n'
