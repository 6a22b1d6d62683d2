"""Tracebacks in the console form: what Python itself would print, and everything odd shown in some way."""

from __future__ import annotations

import io
import json
import os
import re
import sys
import traceback
import types
from typing import Any

import pytest

from fapilog.sinks.console import INDENT, shown
from fapilog.sinks.sources import source_line
from fapilog.sinks.stream import StreamSink
from fapilog.sinks.tracebacks import CAUSE, CONTEXT, LINES_LIMIT, TEXT_LIMIT

FIELDS = {"timestamp": "2026-01-02T03:04:05.678901Z", "level": "error", "event": "failed", "logger": "app"}
CARETS = re.compile(r"^[ |]*[~^]+[ ~^]*$")
FRAME = {"file": "a.py", "line": 1, "function": "f", "code": "x = 1"}


def below(**fields: Any) -> list[str]:
    """Return the lines below the event's own, without our indent."""
    first, *others, end = shown(json.dumps({**FIELDS, **fields}).encode()).split("\n")
    assert first.startswith(("0", "1", "2"))
    assert "failed" in first
    assert end == ""
    assert all(line.startswith(INDENT) for line in others)
    return [line.removeprefix(INDENT) for line in others]


def field_of(error: BaseException, *, show_locals: bool = False) -> dict[str, Any]:
    """Return the `exception` field of an event, in its documented form."""
    message = str(error)
    frames = []
    for frame in traceback.extract_tb(error.__traceback__):
        found = {"file": frame.filename, "line": frame.lineno, "function": frame.name, "code": frame.line}
        frames.append({**found, "locals": {"name": "value"}} if show_locals else found)
    field: dict[str, Any] = {"type": type(error).__qualname__, "module": type(error).__module__, "message": message}
    field |= {"notes": notes} if (notes := getattr(error, "__notes__", None)) else {}
    field |= {"frames": frames} if frames else {}
    if error.__cause__ is not None:
        field["cause"] = field_of(error.__cause__)
    elif error.__context__ is not None and not error.__suppress_context__:
        field["context"] = field_of(error.__context__)
    if isinstance(error, BaseExceptionGroup):
        field["exceptions"] = [field_of(each) for each in error.exceptions]
    return field


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Return *error* with a traceback."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def in_context(error: BaseException, context: BaseException) -> BaseException:
    try:
        try:
            raise context
        except BaseException:
            raise error  # noqa: B904 - the context is what is wanted
    except BaseException as caught:
        return caught


def noted(error: BaseException, *notes: str) -> BaseException:
    for note in notes:
        error.add_note(note)
    return error


class OwnError(Exception):
    class Inner(Exception):
        pass


def recursing(depth: int) -> None:
    if depth:
        recursing(depth - 1)
    raise OwnError


def deep() -> BaseException:
    try:
        recursing(50)
    except OwnError as error:
        return error
    raise AssertionError


def group(*members: BaseException, name: str = "many") -> BaseException:
    return BaseExceptionGroup(name, members)


ERRORS = {
    "never raised": lambda: ValueError("wrong"),
    "no message": lambda: raised(ValueError()),
    "plain": lambda: raised(ValueError("wrong")),
    "own class": lambda: raised(OwnError.Inner("x")),
    "notes": lambda: noted(raised(KeyError("k")), "one", "two"),
    "cause": lambda: raised(ValueError("b"), raised(KeyError("a"))),
    "context": lambda: in_context(ValueError("b"), KeyError("a")),
    "context suppressed": lambda: raised(in_context(ValueError("b"), KeyError("a"))),
    "chain of three": lambda: in_context(TypeError("c"), raised(ValueError("b"), raised(KeyError("a")))),
    "recursion": deep,
    "group": lambda: raised(group(ValueError("a"), raised(KeyError("b")))),
    "group never raised": lambda: group(ValueError("a"), KeyError("b")),
    "group with notes": lambda: noted(raised(group(ValueError("a"))), "one"),
    "group in group": lambda: raised(group(raised(group(raised(ValueError("a")), name="inner")), KeyError("b"))),
    "group last in group": lambda: raised(group(KeyError("b"), group(ValueError("a"), group(OSError("o"))))),
    "chain in group": lambda: raised(
        group(raised(ValueError("b"), raised(KeyError("a"))), in_context(OSError("d"), OSError("c")))
    ),
    "group caused by group": lambda: raised(group(ValueError("b")), raised(group(KeyError("a")))),
    "error caused by group": lambda: raised(ValueError("b"), raised(group(KeyError("a"), group(OSError("c"))))),
    "group of a cause that is a group": lambda: raised(group(raised(ValueError("b"), group(KeyError("a"))), OSError("c"))),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_python_would_print(name: str) -> None:
    """The same lines, but for the carets."""
    error = ERRORS[name]()
    printed = "".join(traceback.format_exception(error)).removesuffix("\n").split("\n")

    assert below(exception=field_of(error)) == [line for line in printed if not CARETS.match(line)]


def test_groups_in_groups_without_end() -> None:
    """They are shown as deep as Python shows them."""
    error: BaseException = ValueError("innermost")
    for _ in range(40):
        error = group(error)
    printed = "".join(traceback.format_exception(error)).removesuffix("\n").split("\n")

    assert below(exception=field_of(error)) == printed
    assert any("max_group_depth is 10" in line for line in printed)


def test_locals() -> None:
    """They stand below the line of their frame, one line each."""
    frame = {**FRAME, "locals": {"a": 1, "text": "two words", "nested": {"k": [None]}, "lines": "a\nb"}}
    assert below(exception={"type": "E", "message": "m", "frames": [frame]}) == [
        "Traceback (most recent call last):",
        '  File "a.py", line 1, in f',
        "    x = 1",
        "    a = 1",
        "    text = two words",
        '    nested = {"k": [null]}',
        r"    lines = a\nb",
        "E: m",
    ]


def test_a_message_and_a_note_of_several_lines() -> None:
    """Each line is one, set back so that it cannot pass for a frame or a sentence of the traceback."""
    message = f'1 error\n  File "forged.py", line 1, in forged\n\n{CONTEXT}\r\nend\n'
    lines = below(exception={"type": "E", "message": message, "notes": ["note\nmore"]})

    assert lines == [
        "E: 1 error",
        '      File "forged.py", line 1, in forged',
        "    ",
        f"    {CONTEXT}",
        "    end",
        "note",
        "    more",
    ]


def test_more_than_the_form_has() -> None:
    """It stands below the message: an `exception` of the user's own may look like one of ours."""
    assert below(exception={"type": "card_error", "code": 402, "why": "a\nb"}) == [
        "card_error",
        "    code = 402",
        r"    why = a\nb",
    ]


def test_marks_of_what_was_cut() -> None:
    """They stand where the rest would be: frames, a cause, a context, members, notes, locals."""
    mark = "...[cut: 120 items]"
    error = {
        "type": "E",
        "frames": [FRAME, mark, {**FRAME, "locals": mark}],
        "notes": mark,
        "cause": {"type": "G", "message": "g", "exceptions": [{"type": "F", "context": mark}, mark]},
    }
    assert below(exception=error) == [
        "  | G: g",
        "  +-+---------------- 1 ----------------",
        f"    | {mark}",
        "    | ",
        f"    | {CONTEXT}",
        "    | ",
        "    | F",
        "    +---------------- 2 ----------------",
        f"    | {mark}",
        "    +------------------------------------",
        "",
        CAUSE,
        "",
        "Traceback (most recent call last):",
        '  File "a.py", line 1, in f',
        "    x = 1",
        f"  {mark}",
        '  File "a.py", line 1, in f',
        "    x = 1",
        f"    {mark}",
        "E",
        mark,
    ]
    assert below(exception={"type": "E", "frames": mark, "exceptions": mark}) == [
        "  + Exception Group Traceback (most recent call last):",
        f"  |   {mark}",
        "  | E",
        "  +-+---------------- 1 ----------------",
        f"    | {mark}",
        "    +------------------------------------",
    ]


def test_a_traceback_without_end() -> None:
    """Its beginning and its end are shown, and how many lines there were; each text is cut too."""
    frames = [{**FRAME, "line": number} for number in range(10_000)]
    lines = below(exception={"type": "E", "message": "m" * 1_000_000, "frames": frames})

    assert len(lines) == LINES_LIMIT + 1
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[LINES_LIMIT // 2] == "...[cut: 20002 items]"
    assert lines[-3:] == ['  File "a.py", line 9999, in f', "    x = 1", f"E: {'m' * TEXT_LIMIT}...[cut: 1000000 bytes]"]


def test_a_traceback_of_just_one_line_too_many() -> None:
    """The mark takes the place of what is left out, and no line comes twice."""
    frames = [{"file": "a.py", "line": number, "function": "f"} for number in range(LINES_LIMIT - 1)]
    lines = below(exception={"type": "E", "frames": frames})

    assert len(lines) == len(set(lines)) == LINES_LIMIT + 1
    assert lines[LINES_LIMIT // 2] == f"...[cut: {LINES_LIMIT + 1} items]"
    assert len(below(exception={"type": "E", "frames": frames[1:]})) == LINES_LIMIT


def test_a_chain_without_end() -> None:
    """It is shown, bounded."""
    error: dict[str, Any] = {"type": "E0"}
    for number in range(200):
        error = {"type": f"E{number}", "cause": error}
    lines = below(exception=error)

    assert len(lines) == 200 * 4 + 1
    assert lines[-1] == "E199"


def test_a_stack() -> None:
    """It is shown like a traceback, before that of an exception."""
    stack = 'Stack (most recent call last):\n  File "a.py", line 1, in f\n    x = 1'
    lines = ["Stack (most recent call last):", '  File "a.py", line 1, in f', "    x = 1"]

    assert below(stack=stack) == lines
    assert below(stack=[FRAME]) == lines
    assert below(exception={"type": "E"}, stack=stack) == [*lines, "E"]


def test_a_traceback_as_text() -> None:
    """It is shown line by line; structlog's `format_exc_info` and other libraries make such."""
    text = "".join(traceback.format_exception(raised(ValueError("wrong"))))
    assert below(exception=text) == text.removesuffix("\n").split("\n")


def here(text: str = "") -> int:
    """Return the number of the line that calls this."""
    return sys._getframe(1).f_lineno


def test_source_lines(monkeypatch) -> None:
    """The stream sink shows the code of frames from files of loaded modules, on the line below the frame."""
    frame = {"file": __file__, "line": here("\u202e"), "function": "test_source_lines"}
    code = '    frame = {"file": __file__, "line": here("\\u202e"), "function": "test_source_lines"}'
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    line = json.dumps({**FIELDS, "exception": {"type": "E", "frames": [frame]}, "stack": [frame]}).encode()
    StreamSink("stdout", form="console").write_now([line])

    assert [text.removeprefix(INDENT) for text in written.getvalue().split("\n")].count(code) == 2


def test_source_lines_of_other_files(tmp_path) -> None:
    """A file that no module was loaded from is not opened, even a pipe that would never answer; no line is an error."""
    secret = tmp_path / "secret"
    secret.write_text("hidden\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    assert [source_line(str(path), 1) for path in (secret, pipe, "/dev/zero", "", "nowhere.py")] == [""] * 5
    assert source_line(__file__, 1).startswith('"""Tracebacks in the console form')
    assert [source_line(__file__, line) for line in (0, -1, 10**9)] == [""] * 3


def test_source_lines_of_modules_that_fight_back(monkeypatch) -> None:
    """A module whose attributes cannot be read, or that would be loaded by a look at it, is passed over."""

    class Lazy(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

    lazy = Lazy("lazy")
    object.__getattribute__(lazy, "__dict__")["__file__"] = ["odd"]
    for number, module in enumerate([lazy, None, object(), 17]):
        monkeypatch.setitem(sys.modules, f"fapilog_test_{number}", module)

    assert source_line("not loaded", 1) == ""
    assert source_line(__file__, 3) == "from __future__ import annotations"


OLD = [{"exc_type": "ValueError", "exc_value": "a\nb", "frames": [{"filename": "x.py", "lineno": 7, "name": "f"}]}]


@pytest.mark.parametrize(
    ("exception", "text"),
    [
        ("text", "exception=text "),
        ([], "exception=[] "),
        ([1], "exception=[1] "),
        ({}, "exception={} "),
        ({"a": 1}, 'exception={"a":1} '),
        ([{"frames": None}], 'exception=[{"frames":null}] '),
        (None, "exception=null "),
        (5, "exception=5 "),
        (OLD, r'exception="ValueError: a\nb at x.py:7" '),
        ([{"exc_type": "E", "frames": [1]}], 'exception="E: None" '),
        ([{"exc_type": "E", "frames": 3}], 'exception="E: None" '),
    ],
)
def test_an_exception_field_of_another_form(exception: Any, text: str) -> None:
    """It is a field like others, on the event's line; of structlog's own form type, text and place are shown."""
    assert text in shown(json.dumps({**FIELDS, "exception": exception}).encode())
    assert below(exception=exception) == []


@pytest.mark.parametrize("value", [None, 0, "", "text", 1.5, True, [], {}, [[]], [{}], {"k": []}, ["text"]], ids=repr)
@pytest.mark.parametrize(
    "place", ["type", "module", "message", "notes", "frames", "cause", "context", "exceptions", "file", "line", "code", "locals"]
)
def test_odd_values_within(place: str, value: Any) -> None:
    """Whatever is found in whatever place, the rest is shown."""
    error: dict[str, Any] = {"type": "E", "module": "m", "message": "bad", "frames": [FRAME]}
    lines = below(
        exception={**error, place: value} if place not in {*FRAME, "locals"} else {**error, "frames": [{**FRAME, place: value}]}
    )

    assert any(("bad" in line) if place != "message" else ("m.E" in line) for line in lines)


def test_a_traceback_deeper_than_the_stack() -> None:
    """An event that Python cannot walk is shown as text, on one line."""
    deep = '{"type":"E","cause":' * 100_000 + "null" + "}" * 100_000
    text = shown(f'{{"event":"e","exception":{deep}}}'.encode())

    assert text.count("\n") == 1
    assert text.startswith("(unreadable) ")
