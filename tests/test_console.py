"""The console form: one readable line per event, with nothing in it that drives a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import tempfile
import time
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fapilog.encoding import encode_open
from fapilog.sinks.console import clean, render
from fapilog.sinks.stream import StreamSink
from tests._support import ran_well, run_script, strict

FIELDS = {"timestamp": "2026-01-02T03:04:05.678901Z", "level": "info", "event": "hello", "logger": "app"}
NASTY = "a\r\nb\x00\x07\x1b[2J\x1b]0;title\x07\x1b]52;c;eA==\x07\x7f\x85\x9b1m\u2028\u2029\u200e\u202e\u2066\ufeff"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def shown(fields: dict[str, Any], *, colours: bool = False) -> str:
    text = render(fields, colours=colours).decode("utf-8")
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert text.splitlines() == [text[:-1]]
    return text


def test_a_plain_event() -> None:
    """Time, level, event, fields, logger; the hub's own fields are left out."""
    text = shown(
        {**FIELDS, "a": 1, "b": "x y", "c": None, "pid": 1, "worker": 2, "seq": 3, "boot": "f", "host": "h", "service": "s"}
    )
    assert text.split() == ["03:04:05.678", "info", "hello", "a=1", 'b="x', 'y"', "c=null", "[app]"]


def on_console(fields: dict[str, Any]) -> str:
    """Return what a stream sink in console form writes for the line of *fields*."""
    with tempfile.TemporaryFile("r+", encoding="utf-8") as file, mock.patch.object(sys, "stdout", file):
        StreamSink("stdout", form="console").write_now([encode_open(fields, 1 << 20) + b"}\n"])
        file.seek(0)
        return file.read()


@pytest.mark.parametrize("place", ["event", "logger", "value", "key", "list", "dict key", "level", "exception"])
def test_control_characters(place: str) -> None:
    """Wherever they are, they are shown as escapes and the event is one line (O-SEC-1)."""
    exception = [{"exc_type": NASTY, "exc_value": NASTY, "frames": [{"filename": NASTY, "lineno": 1, "name": NASTY}]}]
    cases: dict[str, dict[str, Any]] = {
        "event": {"event": NASTY},
        "logger": {"logger": NASTY},
        "value": {"v": NASTY},
        "key": {NASTY: 1},
        "list": {"v": [NASTY]},
        "dict key": {"v": {NASTY: 1}},
        "level": {"level": NASTY},
        "exception": {"exception": exception},
    }
    text = shown({**FIELDS, **cases[place]})
    assert not FORBIDDEN.search(text)
    assert "a" in text


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        st.text(max_size=20), st.recursive(st.text() | st.integers() | st.floats(allow_nan=False) | st.none(), st.lists)
    )
)
def test_any_fields(fields: dict[str, Any]) -> None:
    """One line without a control character, for whatever a line can say (O-SEC-1)."""
    text = on_console({**FIELDS, **{f"f{key}": value for key, value in fields.items()}})
    assert text.count("\n") == 1
    assert not FORBIDDEN.search(text)


@pytest.mark.parametrize("number", [2**64 + 1, -(2**63) - 1, 10**60, 10**400], ids=["2**64+1", "-2**63-1", "10**60", "10**400"])
def test_an_integer_over_64_bits(number: int) -> None:
    """Its digits are shown, and the sink does not fail on the line (O-VAL-1)."""
    assert f"n={number}" in on_console({**FIELDS, "n": number})


def test_colours() -> None:
    """Only the level is coloured, and the colour ends with it."""
    text = shown({**FIELDS, "v": NASTY}, colours=True)
    assert re.findall(r"\x1b\[[0-9;]*m", text) == ["\x1b[32m", "\x1b[0m"]
    assert not FORBIDDEN.search(re.sub(r"\x1b\[[0-9;]*m", "", text))


def test_an_exception() -> None:
    """Type, message and place are on the same line."""
    exception = [{"exc_type": "ValueError", "exc_value": "a\nb", "frames": [{"filename": "x.py", "lineno": 7, "name": "f"}]}]
    assert "ValueError: a\\nb at x.py:7" in shown({**FIELDS, "exception": exception})


@pytest.mark.parametrize(
    "exception", ["text", [], [1], {}, [{"frames": None}], [{"frames": []}], None, 5, [{"frames": [1]}], [{"frames": 3}]]
)
def test_an_exception_field_of_another_form(exception: Any) -> None:
    """Whatever the user put there, the event is shown."""
    assert "hello" in shown({**FIELDS, "exception": exception})


def test_text_that_is_not_english() -> None:
    """It is left as it is."""
    assert clean("gr\u00fc\u00df \u4f60\u597d \U0001f600") == "gr\u00fc\u00df \u4f60\u597d \U0001f600"


@pytest.mark.parametrize("fields", [{}, {"event": None}, {"level": 5, "timestamp": 7, "event": {"a": 1}}, {"event": "e", "": ""}])
def test_fields_that_are_missing_or_odd(fields: dict[str, Any]) -> None:
    """The event is shown all the same."""
    shown(fields)


LOGS = "import fapilog; fapilog.get_logger('app').info('hello', a='x\\x1b[2Jy'); fapilog.shutdown_logging()"


def on_terminal(env: dict[str, str], tmp_path) -> str:
    """Run a script that logs with stdout on a terminal; return what the terminal got."""
    primary, replica = pty.openpty()
    try:
        pid = os.fork()
        if pid == 0:
            os.dup2(replica, 1)
            clean_env = {name: value for name, value in os.environ.items() if not name.startswith(("FAPILOG_", "NO_COLOR"))}
            os.chdir(tmp_path)
            os.execve(
                sys.executable, [sys.executable, "-c", LOGS], {**clean_env, "FAPILOG_RUN_DIR": str(tmp_path / "run"), **env}
            )
        os.close(replica)
        replica = -1
        data = b""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if not select.select([primary], [], [], 0.5)[0]:
                continue
            try:
                chunk = os.read(primary, 65536)
            except OSError:
                break
            if not chunk:
                break
            data += chunk
        assert os.waitpid(pid, 0)[1] == 0
        return data.decode()
    finally:
        os.close(primary)
        if replica >= 0:
            os.close(replica)


def test_auto_on_a_terminal(tmp_path) -> None:
    """The console form with colours, and the value's escape sequence is harmless."""
    text = on_terminal({}, tmp_path)
    assert "hello" in text
    assert not text.startswith("{")
    assert "\x1b[32m" in text
    assert "\x1b[2J" not in text


def test_no_color_on_a_terminal(tmp_path) -> None:
    """With NO_COLOR set there is no escape sequence at all."""
    text = on_terminal({"NO_COLOR": "1"}, tmp_path)
    assert "hello" in text
    assert "\x1b" not in text


def test_an_empty_no_color_on_a_terminal(tmp_path) -> None:
    """Its convention says: only when it is not empty."""
    assert "\x1b[32m" in on_terminal({"NO_COLOR": ""}, tmp_path)


def test_format_json_on_a_terminal(tmp_path) -> None:
    """JSON lines."""
    lines = on_terminal({"FAPILOG_FORMAT": "json"}, tmp_path).replace("\r\n", "\n").splitlines()
    assert [strict(line)["event"] for line in lines] == ["hello", "fapilog.closed"]


def test_auto_on_a_pipe(tmp_path) -> None:
    """JSON lines."""
    assert strict(ran_well(run_script(LOGS, tmp_path)).splitlines()[0])["event"] == "hello"


def test_format_console_on_a_pipe(tmp_path) -> None:
    """The console form without colours."""
    text = ran_well(run_script(LOGS, tmp_path, env={"FAPILOG_FORMAT": "console"}))
    assert "hello" in text.splitlines()[0]
    assert "\x1b" not in text
