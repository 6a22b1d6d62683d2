"""The console form: one readable line per event, with nothing in it that drives a terminal or passes for another event."""

from __future__ import annotations

import io
import json
import re
import sys
import time
import unicodedata
from typing import Any
from unittest import mock

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fapilog.encoding import encode_open
from fapilog.sinks.console import FIELDS_LIMIT, INDENT, VALUE_LIMIT, render, shown
from fapilog.sinks.stream import StreamSink
from fapilog.sinks.terminal import clean, json_for_terminal, shortened, wants_colours
from tests._support import strict

FIELDS = {"timestamp": "2026-01-02T03:04:05.678901Z", "level": "info", "event": "hello", "logger": "app"}
HUB = {"service": "s", "env": "e", "host": "h", "worker": 2, "pid": 1, "boot": "f", "seq": 3}
#: Characters of the category Cf that can be seen: signs before Arabic, Syriac and Kaithi numbers, hieroglyphic joiners.
SEEN = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd\U00013430-\U0001343f]")
FORBIDDEN = [
    char
    for char in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} and not SEEN.match(char)
]
ANY_FORBIDDEN = re.compile(f"[{re.escape(''.join(FORBIDDEN))}]")
NASTY = (
    "a\r\nb\x00\x07\x1b[2J\x1b]0;title\x07\x1b]52;c;eA==\x07\x7f\x85\x9b1m\u2028\u2029\u061c\u200b\u200e\u200f\u202a\u202e"
    "\u2066\u2069\ufeff\ufff9\ufffb\U000e0041\ud800"
)
FORGED = (
    "x\n03:04:05.678 error    forged                       by=value\r03:04:05.678 error    forged\x85forged\u2028forged\u2029"
)
COLOUR = re.compile(r"\x1b\[(?:[0-9];)?[0-9]{1,2}m|\x1b\[0m")


@pytest.fixture(autouse=True)
def _utc(monkeypatch):
    """Let local time be UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def checked(text: str, *, lines: int | None = 1) -> str:
    """Check what holds for every event; *lines* is None where it may have any number."""
    assert text.endswith("\n")
    first, *others = text.removesuffix("\n").split("\n")
    assert first[:1] not in {"", " "}
    assert all(line.startswith(INDENT) for line in others)
    assert lines is None or len(others) + 1 == lines
    assert not ANY_FORBIDDEN.search(COLOUR.sub("", text).replace("\n", ""))
    text.encode()
    return text


def console(fields: dict[str, Any], *, colours: bool = False, worker: bool = False, lines: int | None = 1) -> str:
    """Return the console form of the line that says *fields*, whoever wrote it."""
    return checked(shown(json.dumps(fields).encode(), colours=colours, worker=worker), lines=lines)


def test_a_plain_event() -> None:
    """Time, level, event, fields, logger, in columns; the hub's own fields are left out."""
    text = console({**FIELDS, "a": 1, "b": "x y", "c": None, "d": 1.5, "e": True, "f": [1, {"k": "v"}], **HUB})

    expected = '03:04:05.678 info     hello                        a=1 b="x y" c=null d=1.5 e=true f=[1,{"k":"v"}] [app]\n'
    assert text == expected


def test_columns() -> None:
    """They stand below one another whatever the level, the worker and the event, also one of wide or combining characters."""
    events = ["e", "a much longer name", "\u4f60\u597d", "cafe\u0301", ""]
    levels = ["debug", "info", "warning", "error", "critical"]
    texts = [
        console({**FIELDS, "level": level, "event": event, "worker": worker, "key": 1}, worker=True)
        for event, level, worker in zip(events, levels, (0, 1, 2, 10, 11), strict=True)
    ]

    assert [text.index("key=") for text in texts] == [55, 55, 53, 56, 55]  # two wide characters, one that takes no cell
    assert [text[22:26] for text in texts] == ["w0  ", "w1  ", "w2  ", "w10 ", "w11 "]


def test_an_event_alone() -> None:
    """It has no blanks at its end."""
    assert console({**FIELDS, "logger": ""}) == "03:04:05.678 info     hello\n"


def test_the_worker_column() -> None:
    """It is there when asked for, and says so when a line has no worker."""
    assert console({**FIELDS, **HUB}, worker=True).split()[2] == "w2"
    assert console(FIELDS, worker=True).split()[2] == "w?"
    assert "w2" not in console({**FIELDS, **HUB})


def test_colours() -> None:
    """Each is switched off where it ends, the text is the same without them, and levels differ."""
    fields = {**FIELDS, **HUB, "v": NASTY, "exception": {"type": "E", "message": NASTY, "frames": []}}
    text = console(fields, colours=True, worker=True, lines=None)

    found = COLOUR.findall(text)
    assert found[1::2] == ["\x1b[0m"] * (len(found) // 2)
    assert "\x1b[0m" not in found[::2]
    assert COLOUR.sub("", text) == console(fields, worker=True, lines=None)
    assert "\x1b[32minfo\x1b[0m     " in text
    assert "\x1b[1;31mcritical\x1b[0m " in console({**FIELDS, "level": "critical"}, colours=True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("word", "word"),
        ("", '""'),
        ("two words", '"two words"'),
        ("a=b", '"a=b"'),
        ('say "hi"', r'"say \"hi\""'),
        (r"C:\dir", r"C:\dir"),
        (r"C:\my dir", r'"C:\\my dir"'),
        ("a\nb", r'"a\nb"'),
        ("a\\n", r"a\n"),
        ("\x1b[2J", r'"\x1b[2J"'),
        ("\u202e", r'"\u202e"'),
        ("17", '"17"'),
        (17, "17"),
        ("-1.5e3", '"-1.5e3"'),
        ("null", '"null"'),
        (None, "null"),
        ("[1]", '"[1]"'),
        ([1], "[1]"),
        ("2026-01-02", "2026-01-02"),
        ("127.0.0.1", "127.0.0.1"),
        ("gr\u00fc\u00df\u4f60\u597d\U0001f600", "gr\u00fc\u00df\u4f60\u597d\U0001f600"),
        ({"k": ["a b"]}, '{"k":["a b"]}'),
        ({"k": "\x1b\u202e"}, r'{"k":"\u001b\u202e"}'),
    ],
)
def test_values(value: Any, text: str) -> None:
    """A text that could be taken for something else stands in quotes, with its backslashes doubled there."""
    assert console({"timestamp": "", "v": value}).split(" v=")[1] == f"{text}\n"


@pytest.mark.parametrize("place", ["event", "logger", "value", "key", "list", "dict key", "level", "timestamp", "worker"])
@pytest.mark.parametrize("text", [NASTY, FORGED], ids=["nasty", "forged"])
def test_control_characters(place: str, text: str) -> None:
    """Wherever they are, they are shown as escapes and the event is one line (O-SEC-1)."""
    cases: dict[str, dict[str, Any]] = {
        "value": {"v": text},
        "key": {text: 1},
        "list": {"v": [text]},
        "dict key": {"v": {text: 1}},
    }
    fields = {**FIELDS, **cases.get(place, {place: text})}
    assert r"\n" in console(fields, worker=True)
    console(fields, worker=True, colours=True)


@pytest.mark.parametrize(
    "place", ["type", "module", "message", "note", "file", "line", "function", "code", "local", "value", "stack"]
)
def test_text_in_a_traceback_that_looks_like_an_event(place: str) -> None:
    """It stands behind our indent, so that one line is the event's and all others are seen to belong to it (O-SEC-1)."""
    frame = {"file": "a.py", "line": 1, "function": "f", "code": "x"}
    error: dict[str, Any] = {"type": "E", "module": "m", "message": "bad", "frames": [frame]}
    cases: dict[str, Any] = {
        "note": {"notes": [FORGED]},
        "local": {"frames": [{**frame, "locals": {FORGED: 1}}]},
        "value": {"frames": [{**frame, "locals": {"name": FORGED}}]},
    }
    change = cases.get(place, {place: FORGED} if place in error else {"frames": [{**frame, place: FORGED}]})
    fields = {**FIELDS, "exception": {**error, **change}} | ({"stack": FORGED} if place == "stack" else {})
    text = console(fields, lines=None)

    assert "forged" in text
    assert [line for line in text.split("\n")[1:-1] if not line.startswith(INDENT)] == []


def test_every_character_that_must_not_reach_a_terminal() -> None:
    """It is shown as its escape, and all others are left as they are (O-SEC-1)."""
    named = "\x00\x1b\r\n\x7f\x85\x9b\u2028\u2029\u061c\u200b\u200e\u200f\u202a\u202e\u2066\u2069\ufeff\ufff9\U000e0000\ud800"
    assert set(named) - {"\U000e0000"} <= set(FORBIDDEN)  # that one is unassigned
    for char in FORBIDDEN + list(named):
        assert clean(f"a{char}b") == f"a{char.encode('unicode_escape').decode()}b"
    others = "".join(char for char in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(char)[0] in "LMNPS")
    assert clean(others) == others


text_of_trouble = st.text(
    st.sampled_from([*NASTY, *"ab =\"\\'|[]{}", "\u4f60", "\U0001f600", "\xe9"]) | st.characters(), max_size=20
)
json_values = st.recursive(
    text_of_trouble | st.integers() | st.floats() | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text_of_trouble, inner, max_size=4),
    max_leaves=8,
)
frames = st.fixed_dictionaries(
    {},
    optional={
        "file": text_of_trouble | json_values,
        "line": st.integers() | json_values,
        "function": text_of_trouble,
        "code": text_of_trouble | json_values,
        "locals": st.dictionaries(text_of_trouble, json_values, max_size=3) | json_values,
    },
)
exceptions = st.recursive(
    json_values,
    lambda inner: st.fixed_dictionaries(
        {"type": text_of_trouble | json_values},
        optional={
            "module": text_of_trouble | json_values,
            "message": text_of_trouble | json_values,
            "notes": st.lists(text_of_trouble | json_values, max_size=3) | json_values,
            "frames": st.lists(frames | json_values, max_size=5) | json_values,
            "cause": inner,
            "context": inner,
            "exceptions": st.lists(inner, max_size=3) | inner,
        },
    ),
    max_leaves=5,
)
events = st.builds(
    lambda mine, theirs: {**theirs, **mine},
    st.fixed_dictionaries(
        {},
        optional={
            "timestamp": st.just(FIELDS["timestamp"]) | text_of_trouble | json_values,
            "level": st.sampled_from(["info", "error"]) | text_of_trouble | json_values,
            "event": text_of_trouble | json_values,
            "logger": text_of_trouble | json_values,
            "worker": st.integers() | json_values,
            "exception": exceptions,
            "stack": text_of_trouble | json_values | st.lists(frames, max_size=3),
        },
    ),
    st.dictionaries(text_of_trouble, json_values, max_size=5),
)


@pytest.mark.matrix
@settings(max_examples=1_000, deadline=None)
@given(events, st.booleans(), st.booleans())
def test_any_event(fields: dict[str, Any], colours: bool, worker: bool) -> None:
    """Only colours of ours, one line at column 0, our indent before all others, of which only a traceback has any (O-SEC-1)."""
    text = console(fields, colours=colours, worker=worker, lines=None)

    assert not text.startswith("(unreadable)")
    if not colours:
        assert "\x1b" not in text
    if not isinstance(fields.get("exception"), dict | str) and not isinstance(fields.get("stack"), list | str):
        assert text.count("\n") == 1


@settings(max_examples=300, deadline=None)
@given(st.binary() | text_of_trouble.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes(line: bytes) -> None:
    """What is no event is shown all the same, on one line that says so (O-SEC-1)."""
    checked(shown(line), lines=None)


@pytest.mark.parametrize("line", [b"", b"\n", b"{", b"[1]", b"17", b'{"event":"a"', b"\xff\xfe\x1b[2J\n", b"[" * 5_000])
def test_a_line_that_is_no_event(line: bytes) -> None:
    """It is shown clean, marked as unreadable, so that text of an old file cannot pass for an event (O-SEC-1)."""
    assert checked(shown(line)).startswith("(unreadable) ")


def test_a_line_that_is_no_event_and_long() -> None:
    """It is cut, with its size."""
    assert checked(shown(b"x" * 1_000_000)).endswith("x...[cut: 1000000 bytes]\n")


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(text_of_trouble, json_values, max_size=5))
def test_json_on_a_terminal(fields: dict[str, Any]) -> None:
    """No raw control character either, and it decodes to what was logged (O-SEC-1)."""
    line = encode_open({**FIELDS, "v": fields}, 1 << 20) + b"}\n"
    safe = json_for_terminal(line)

    assert not ANY_FORBIDDEN.search(safe.decode().removesuffix("\n"))
    assert orjson.loads(safe) == orjson.loads(line)


def test_json_off_a_terminal(monkeypatch) -> None:
    """The line is written as it is, and decodes to the original (O-SEC-1)."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    value = NASTY.replace("\ud800", "")
    line = encode_open({**FIELDS, "v": value, value: 1}, 1 << 20) + b"}\n"
    StreamSink("stdout").write_now([line])

    assert written.getvalue().encode() == line
    assert strict(line)["v"] == value
    assert strict(line)[value] == 1


@pytest.mark.parametrize("number", [2**64 + 1, -(2**63) - 1, 10**60, 10**400], ids=["2**64+1", "-2**63-1", "10**60", "10**400"])
def test_an_integer_over_64_bits(number: int) -> None:
    """Its digits are shown, and the sink does not fail on the line (O-VAL-1)."""
    assert f"n={number} " in checked(shown(encode_open({**FIELDS, "n": number}, 1 << 20) + b"}\n"))


def test_long_values() -> None:
    """They are cut at a stated length, with the mark and the size; the event stays readable."""
    text = console({**FIELDS, "event": "e" * 300_000, "v": "\u00e9" * 300_000, "n": list(range(100_000)), "k" * 9_999: 1})

    assert len(text) < 4 * VALUE_LIMIT
    assert f"{'e' * VALUE_LIMIT}...[cut: 300000 bytes] " in text
    assert 'v="' + "\u00e9" * VALUE_LIMIT + '...[cut: 600000 bytes]" ' in text
    assert re.search(r"n=\[0,1,[0-9,]*\.\.\.\[cut: [0-9]+ bytes\] ", text)
    assert "k...[cut: 9999 bytes]" in text


def test_a_value_that_was_cut_before() -> None:
    """The size that is named is the original one."""
    text = shortened("x" * 300_000 + "...[cut: 700000000 bytes]", 100)
    assert text == "x" * 100 + "...[cut: 700000000 bytes]"
    assert shortened("x" * 90 + "...[cut: 9 items]", 100) == "x" * 90 + "...[cut: 9 items]"


def test_very_many_fields() -> None:
    """Those beyond a stated length are left out, and the mark says how many there were."""
    text = console({**FIELDS, **{f"field_{number}": "x" * 100 for number in range(1_000)}})

    assert FIELDS_LIMIT - 200 < len(text) < FIELDS_LIMIT + 2_000
    assert text.endswith("...[cut: 1000 items] [app]\n")


@pytest.mark.parametrize(
    ("stamp", "text"),
    [
        ("2026-01-02T03:04:05Z", "03:04:05.000"),
        ("2026-01-02T03:04:05.1Z", "03:04:05.100"),
        ("2026-13-02T03:04:05.123456Z", "03:04:05.123"),
        ("9999-12-31T23:59:59.999999Z", "23:59:59.999"),
        ("0001-01-01T00:00:00.000000Z", "00:00:00.000"),
        ("yesterday", "yesterday"),
        ("   ", '"   "'),
        (17, "17"),
        ("", "--:--:--.---"),
        (None, "--:--:--.---"),
    ],
)
def test_timestamps(stamp: Any, text: str) -> None:
    """One of another form than ours is shown as it is; none at all leaves its column to dashes."""
    assert console({**FIELDS, "timestamp": stamp}).startswith(text + " ")


def test_the_time_zone(monkeypatch) -> None:
    """The time is the local one, with the rule of the event's own date, so old files are right too."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    times = [
        console({**FIELDS, "timestamp": f"{day}T23:04:05.678901Z", "event": "zone"})[:12] for day in ("2025-02-02", "2025-07-02")
    ]
    assert times == ["00:04:05.678", "01:04:05.678"]


@pytest.mark.parametrize("fields", [{}, {"event": None}, {"level": 5, "timestamp": 7, "event": {"a": 1}}, {"event": "e", "": ""}])
def test_fields_that_are_missing_or_odd(fields: dict[str, Any]) -> None:
    """The event is shown all the same."""
    assert not console(fields).startswith("(unreadable)")
    assert checked(render(fields)) == console(fields)


@pytest.mark.parametrize(
    ("environ", "terminal", "wanted"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": "0"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({"TERM": "xterm"}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": ""}, False, False),
        ({"FORCE_COLOR": "0"}, True, False),
        ({"FORCE_COLOR": "False"}, True, False),
        ({"FORCE_COLOR": "3", "TERM": "dumb"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
    ],
)
def test_when_there_are_colours(environ: dict[str, str], terminal: bool, wanted: bool) -> None:
    """NO_COLOR, then FORCE_COLOR, then a dumb TERM, then the terminal decides; empty is as good as not set."""
    assert wants_colours(environ, terminal=terminal) is wanted


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("ascii", b"\\xe9\\U0001f600"),
        ("latin-1", b"\xe9\\U0001f600"),
        ("utf-8", "\u00e9\U0001f600".encode()),
        ("utf-16", "\u00e9\U0001f600".encode()),
        ("no-such-codec", "\u00e9\U0001f600".encode()),
        (None, "\u00e9\U0001f600".encode()),
    ],
)
def test_a_stream_that_cannot_encode_a_character(tmp_path, encoding: str | None, expected: bytes) -> None:
    """The console form shows its escape; an encoding that lines cannot be written in is taken for UTF-8 (O-IO-3)."""
    path = tmp_path / "out"
    with path.open("wb") as file:
        stream = mock.Mock(encoding=encoding, fileno=file.fileno, isatty=lambda: False)
        with mock.patch.object(sys, "stdout", stream):
            StreamSink("stdout", form="console").write_now([encode_open({**FIELDS, "v": "\u00e9\U0001f600"}, 1 << 20) + b"}\n"])
    assert b"v=" + expected + b" [app]\n" in path.read_bytes()


def test_a_stream_that_is_closed(monkeypatch) -> None:
    """The first stdout of the program takes its place; without one the sink is unavailable, in its own terms (O-IO-3)."""
    from fapilog.errors import SinkUnavailable

    stream, first = io.StringIO(), io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "__stdout__", first)
    StreamSink("stdout", form="json").write_now([b"{}\n"])
    assert first.getvalue() == "{}\n"
    first.close()
    with pytest.raises(SinkUnavailable):
        StreamSink("stdout", form="console").write_now([b"{}\n"])
