"""
Exceptions in events: an object with type, message, module, frames and what hangs on them, bounded, whatever the exception does.

Written from the issue and the cases O-VAL-2, O-VAL-5 and O-SEC-1, not from the code. The form: ``{"type", "module", "message",
"notes"?, "frames": [{"file", "line", "function", "code"?, "locals"?}], "cause"? or "context"?, "exceptions"?}``, frames outermost
first; what is cut is marked by a text.
"""

from __future__ import annotations

import gc
import json
import linecache
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import fapilog
from tests import hostile
from tests._support import FORKED, process_restored, ran_well, read_lines, run_script, strict
from tests.hostile import caught_heads, fight, limits, raised

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "zq99887766"
MARK = re.compile(r"\.\.\.\[cut: (\d+) (items|bytes)\]|\.\.\.\[cut: cycle\]")
FORM = {"type", "module", "message", "notes", "frames", "cause", "context", "exceptions"}
FRAME = {"file", "line", "function", "code", "locals"}
LIMIT = 262_144


@pytest.fixture
def caught() -> Iterator[list[bytes]]:
    with caught_heads() as heads:
        yield heads


@pytest.fixture
def with_locals() -> Iterator[list[bytes]]:
    with caught_heads(exception_locals=True) as heads:
        yield heads


def checked(form: Any) -> None:
    """Check the form of one exception and of those on it."""
    assert isinstance(form, dict), form
    assert set(form) <= FORM
    assert {"type", "module", "message"} <= set(form)
    assert all(isinstance(form[name], str) for name in ("type", "module", "message"))
    assert not {"cause", "context"} <= set(form)
    for name in ("notes", "frames", "exceptions"):
        assert isinstance(form.get(name, []), list)
    assert all(isinstance(note, str) for note in form.get("notes", []))
    assert "notes" not in form or form["notes"]
    for frame in form.get("frames", []):
        if isinstance(frame, str):
            assert MARK.search(frame)
            continue
        assert set(frame) <= FRAME
        assert {"file": str, "line": int, "function": str}.items() <= {name: type(value) for name, value in frame.items()}.items()
    for inner in (form.get("cause"), form.get("context"), *form.get("exceptions", [])):
        if isinstance(inner, str):
            assert MARK.search(inner)
        elif inner is not None:
            checked(inner)


def logged(heads: list[bytes], exc_info: Any, **fields: Any) -> Any:
    """Log *exc_info*; return the exception of the event, its form checked."""
    with limits():
        fapilog.get_logger("exceptions").error("e", exc_info=exc_info, sibling="kept", **fields)
    assert len(heads) == 1
    head = heads.pop()
    assert len(head) <= LIMIT + 256
    found = strict(head)
    assert "pipeline_error" not in found
    assert (found["event"], found["sibling"]) == ("e", "kept")
    checked(found["exception"])
    return found["exception"]


def chain(form: Any, name: str) -> list[Any]:
    """Return *form*, its cause or context, that one's, and so on."""
    found = [form]
    while isinstance(found[-1], dict) and name in found[-1]:
        found.append(found[-1][name])
    return found


# -- what is in it --------------------------------------------------------------------------------------------------------------


def fails(value: int) -> None:
    raise ValueError(f"bad {value}")


def test_the_form(caught) -> None:
    """Type, module, message and the frames, outermost first, each with file, line, function; what is empty is left out."""
    try:
        fails(7)
    except ValueError:
        fapilog.get_logger("exceptions").exception("e")
    found = strict(caught[0])["exception"]
    checked(found)
    assert (found["type"], found["module"], found["message"]) == ("ValueError", "builtins", "bad 7")
    assert set(found) == {"type", "module", "message", "frames"}
    assert [frame["function"] for frame in found["frames"]] == ["test_the_form", "fails"]
    assert [frame["file"] for frame in found["frames"]] == [__file__] * 2
    assert found["frames"][1]["line"] == fails.__code__.co_firstlineno + 1
    assert found["frames"][1].get("code", "") in {"", 'raise ValueError(f"bad {value}")'}
    assert '"locals"' not in found["frames"][1]


def test_ways_of_giving_an_exception(caught) -> None:
    """True and other true values mean the one in hand, an exception and a triple mean themselves."""
    error = raised(ValueError("given"))
    for given in (error, (type(error), error, error.__traceback__)):
        assert logged(caught, given)["message"] == "given"
        assert logged(caught, given)["frames"][0]["function"] == "raised"
    try:
        raise KeyError("in hand")
    except KeyError:
        for given in (True, 1, "yes", sys.exc_info()):  # type: ignore[assignment]
            assert logged(caught, given)["message"] == "'in hand'"
        assert logged(caught, error)["message"] == "given"


def test_an_exception_that_was_never_raised(caught) -> None:
    """It has no frames."""
    assert logged(caught, ValueError("fresh")) == {"type": "ValueError", "module": "builtins", "message": "fresh"}


@pytest.mark.parametrize("given", [False, None, 0, "", (), (None, None, None), True], ids=repr)
def test_no_exception(caught, given: Any) -> None:
    """Without one in hand the event has no field for it, and nothing of `exc_info`."""
    fapilog.get_logger("exceptions").error("e", exc_info=given)
    assert set(strict(caught[0])) == {"timestamp", "level", "event", "logger"}


@pytest.mark.parametrize(
    "given",
    [
        *(
            5,
            "text",
            object(),
            [],
            [1],
            {},
            (1,),
            (1, 2),
            (1, 2, 3),
            (ValueError, None, None),
            (None, ValueError("x"), None),
            ValueError,
        ),
        *((ValueError, "x", None), (ValueError, ValueError("x"), "no traceback"), (ValueError, ValueError("x"), None, 4)),
        *(
            hostile.OfNamelessMeta,
            hostile.lying(BaseException)(),
            hostile.lying(tuple)(),
            hostile.raising("__bool__", RuntimeError)(),
        ),
    ],
    ids=lambda given: f"{type.__repr__(type(given))}{len(given) if type(given) in (tuple, list) else ''}",
)
def test_nonsense_as_exc_info(caught, given: Any) -> None:
    """The event arrives whole, whatever stands in its exception."""
    with limits():
        fapilog.get_logger("exceptions").error("e", exc_info=given, sibling="kept")
    found = strict(caught.pop())
    assert (found["event"], found["sibling"]) == ("e", "kept")
    assert "pipeline_error" not in found


class Outer:
    class InnerError(Exception):
        """Has a qualified name."""


@pytest.mark.parametrize(
    ("error", "kind", "module", "message"),
    [
        (ValueError(), "ValueError", "builtins", ""),
        (ValueError("a", 2), "ValueError", "builtins", "('a', 2)"),
        (KeyError("k"), "KeyError", "builtins", "'k'"),
        (KeyError(), "KeyError", "builtins", ""),
        (OSError(2, "No such file", "/a"), "FileNotFoundError", "builtins", "[Errno 2] No such file: '/a'"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"), "UnicodeDecodeError", "builtins", None),
        (SystemExit(3), "SystemExit", "builtins", "3"),
        (KeyboardInterrupt(), "KeyboardInterrupt", "builtins", ""),
        (json.JSONDecodeError("bad", "doc", 1), "JSONDecodeError", "json.decoder", "bad: line 1 column 2 (char 1)"),
        (ValueError("\u00e4\U0001f600\n\x1b[31m"), "ValueError", "builtins", "\u00e4\U0001f600\n\x1b[31m"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_type_module_and_message(caught, error: BaseException, kind: str, module: str, message: str | None) -> None:
    """They are those of the exception; the message is its text."""
    found = logged(caught, error)
    assert (found["type"], found["module"], found["message"]) == (kind, module, str(error) if message is None else message)


def test_a_nested_class(caught) -> None:
    """Its type is its qualified name or its name."""
    found = logged(caught, Outer.InnerError("x"))
    assert found["type"] in {"Outer.InnerError", "InnerError"}
    assert found["module"] == __name__


def test_a_syntax_error(caught) -> None:
    """It says where, and no file is opened for it."""
    try:
        compile("x = 1 +* 2", "some file.py", "exec")
    except SyntaxError as error:
        found = logged(caught, error)
    assert found["type"] == "SyntaxError"
    assert "invalid syntax" in found["message"]
    assert logged(caught, SyntaxError("m", ("f", 1, 10**9, "text", 2, 10**9)))["type"] == "SyntaxError"
    assert logged(caught, SyntaxError("m", (None, None, None, None)))["type"] == "SyntaxError"


# -- what hangs on it -----------------------------------------------------------------------------------------------------------


def test_a_cause(caught) -> None:
    """It has the same form, and the context, which it stands for, is not shown."""
    try:
        try:
            fails(1)
        except ValueError as error:
            raise KeyError("outer") from error
    except KeyError as error:
        found = logged(caught, error)
    assert found["message"] == "'outer'"
    assert found["cause"]["message"] == "bad 1"
    assert [frame["function"] for frame in found["cause"]["frames"]] == ["test_a_cause", "fails"]
    assert "context" not in found


def test_a_context(caught) -> None:
    """It has the same form."""
    try:
        try:
            fails(1)
        except ValueError:
            raise KeyError("outer")  # noqa: B904 - a context is what is wanted
    except KeyError as error:
        found = logged(caught, error)
    assert found["context"]["message"] == "bad 1"
    assert "cause" not in found


def test_a_suppressed_context(caught) -> None:
    """It is not shown."""
    try:
        try:
            fails(1)
        except ValueError:
            raise KeyError("outer") from None
    except KeyError as error:
        found = logged(caught, error)
    assert not {"cause", "context"} & set(found)


def test_a_chain(caught) -> None:
    """Causes and contexts are followed as a traceback does, in order."""
    first, second, third = ValueError("first"), ValueError("second"), ValueError("third")
    first.__cause__, second.__context__ = second, third
    found = logged(caught, first)
    assert found["cause"]["context"]["message"] == "third"


@pytest.mark.parametrize(
    ("notes", "shown"),
    [
        (["first", "second"], ["first", "second"]),
        (["two\nlines"], ["two\nlines"]),
        (["\udc80"], None),
        ([], []),
        ([1, None, b"x", {"a": 1}], None),
        (("a", "b"), ["a", "b"]),
        ("text", None),
        (5, None),
        (None, None),
        ([hostile.FightingStr("x"), hostile.UnprintableError(), hostile.OfNamelessMeta()], None),
        (hostile.sub(list, "__iter__", "__len__")([1]), None),
        (hostile.sub(list, __iter__=hostile.endless)([1]), None),
    ],
    ids=lambda value: type(value).__name__ if value is not None else "",
)
def test_notes(caught, notes: Any, shown: Any) -> None:
    """They are shown in order; what is no list of texts costs neither the call nor the rest of the exception."""
    error = ValueError("x")
    error.__notes__ = notes
    found = logged(caught, error)
    assert found["message"] == "x"
    if shown is not None:
        assert found.get("notes", []) == shown


def test_very_many_notes(caught) -> None:
    """They are cut with the number of all, and so is one that is very long."""
    error = ValueError("x")
    error.__notes__ = ["note"] * 200_000
    assert "...[cut: 200000 items]" in logged(caught, error)["notes"][-1]
    error.__notes__ = ["n" * 10_000_000]
    assert "...[cut: 10000000 bytes]" in logged(caught, error)["notes"][0]


def test_a_group(caught) -> None:
    """All members are shown, nested ones too, each with what hangs on it."""
    inner = ExceptionGroup("inner", [raised(KeyError("deep")), OSError("o")])  # type: ignore[type-var]
    member = ValueError("member")
    member.__cause__ = TypeError("why")
    member.add_note("noted")
    found = logged(caught, raised(ExceptionGroup("outer", [member, inner])))
    assert (found["type"], found["message"]) == ("ExceptionGroup", "outer (2 sub-exceptions)")
    assert [each["message"] for each in found["exceptions"]] == ["member", "inner (2 sub-exceptions)"]
    assert found["exceptions"][0]["cause"]["message"] == "why"
    assert found["exceptions"][0]["notes"] == ["noted"]
    assert [each["message"] for each in found["exceptions"][1]["exceptions"]] == ["'deep'", "o"]
    assert found["exceptions"][1]["exceptions"][0]["frames"]


def test_a_group_of_base_exceptions(caught) -> None:
    """The same holds for it, and for one that is a cause."""
    error = ValueError("x")
    error.__cause__ = BaseExceptionGroup("g", [KeyboardInterrupt(), SystemExit(1)])
    found = logged(caught, error)["cause"]
    assert [each["type"] for each in found["exceptions"]] == ["KeyboardInterrupt", "SystemExit"]


# -- bounds ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
@pytest.mark.parametrize("length", [50, 1_000, 10_000])
def test_a_long_chain(caught, link: str, length: int) -> None:
    """It is cut with a mark that says how many there were or are left; the beginning is whole."""
    first: BaseException = ValueError(0)
    current = first
    for number in range(1, length):
        following = ValueError(number)
        setattr(current, link, following)
        current = following
    found = chain(logged(caught, first), link.strip("_"))
    assert [each["message"] for each in found[:5]] == ["0", "1", "2", "3", "4"]
    if length > 1_000:
        assert isinstance(found[-1], str)
        assert MARK.search(found[-1])
    unlink(first, link)


def unlink(error: BaseException | None, link: str) -> None:
    """Take a chain apart, which the interpreter would do with one call in another."""
    while error is not None:
        following = getattr(error, link)
        setattr(error, link, None)
        error = following


@pytest.mark.parametrize("link", ["__cause__", "__context__"])
def test_a_circular_chain(caught, link: str) -> None:
    """It is cut with a mark, also where an exception is its own cause or a member's cause is the group."""
    first, second = ValueError("first"), ValueError("second")
    setattr(first, link, second)
    setattr(second, link, first)
    found = chain(logged(caught, first), link.strip("_"))
    assert [each["message"] for each in found[:2]] == ["first", "second"]
    assert isinstance(found[2], str)
    own = ValueError("own")
    own.__cause__ = own
    assert isinstance(logged(caught, own)["cause"], str)
    member = ValueError("member")
    group = ExceptionGroup("group", [member])
    member.__cause__ = group
    assert isinstance(logged(caught, group)["exceptions"][0]["cause"], str)


def test_one_exception_twice(caught) -> None:
    """Without a cycle it is shown in full each time."""
    shared = raised(ValueError("shared"))
    found = logged(caught, ExceptionGroup("g", [shared, shared]))
    assert found["exceptions"][0] == found["exceptions"][1]
    assert found["exceptions"][0]["frames"]


def test_groups_that_multiply(caught) -> None:
    """A group of groups of groups is bounded in size and time."""
    group: BaseException = ValueError("x" * 100)
    for _ in range(30):
        group = ExceptionGroup("g", [group] * 5)  # type: ignore[type-var]
    began = time.perf_counter()
    logged(caught, group)
    assert time.perf_counter() - began < 2
    assert MARK.search(json.dumps(logged(caught, ExceptionGroup("wide", [ValueError(n) for n in range(50_000)]))))


def test_a_group_nested_deeply(caught) -> None:
    """It is cut with a mark."""
    group: BaseException = ValueError("bottom")
    for _ in range(5_000):
        group = ExceptionGroup("g", [group])  # type: ignore[type-var]
    assert MARK.search(json.dumps(logged(caught, group)))


@pytest.mark.parametrize("depth", [20, 900])
def test_a_deep_traceback(caught, depth: int) -> None:
    """Both ends of it are kept, and a mark in place of what is cut out says how many frames."""

    def dive(left: int) -> None:
        if not left:
            fails(1)
        dive(left - 1)

    try:
        dive(depth)
    except ValueError as error:
        frames = logged(caught, error)["frames"]
    assert frames[0]["function"] == "test_a_deep_traceback"
    assert frames[-1]["function"] == "fails"
    cut = [frame for frame in frames if isinstance(frame, str)]
    assert len(cut) == (depth > 500)
    if cut:
        mark = MARK.search(cut[0])
        assert mark is not None
        assert int(mark.group(1)) in {depth + 3, depth + 3 - (len(frames) - 1)}
        assert len(frames) <= 201


def test_a_recursion_error(caught) -> None:
    """It is bounded, and the call that logs it raises nothing."""

    def dive() -> None:
        dive()

    try:
        dive()
    except RecursionError as error:
        found = logged(caught, error)
    assert found["type"] == "RecursionError"
    assert found["frames"][0]["function"] == "test_a_recursion_error"
    assert found["frames"][-1]["function"] == "dive"
    assert len(found["frames"]) <= 201


def test_a_long_message(caught) -> None:
    """It is cut with its size in bytes; type, frames and cause are there."""
    error = ValueError("m" * 10_000_000)
    error.__cause__ = ValueError("\u00e4" * 1_000_000)
    found = logged(caught, raised(error))
    assert found["message"].endswith("...[cut: 10000000 bytes]")
    assert found["cause"]["message"].endswith("...[cut: 2000000 bytes]")
    assert found["type"] == "ValueError"
    assert found["frames"]


def test_a_small_limit() -> None:
    """Also an event of 1,024 bytes says type, message and where."""

    def dive(left: int) -> None:
        if not left:
            raise ValueError("deep")
        dive(left - 1)

    with caught_heads(max_event_bytes=1024) as heads:
        try:
            dive(100)
        except ValueError:
            fapilog.get_logger("exceptions").exception("e", sibling="kept")
        assert len(heads[0]) <= 1024 + 256
        found = strict(heads[0])
    assert (found["event"], found["sibling"]) == ("e", "kept")
    assert "ValueError" in json.dumps(found["exception"])
    assert "deep" in json.dumps(found["exception"])


def test_very_many_large_locals(with_locals) -> None:
    """The line fits, and the frames are all there."""

    def dive(left: int, large: str, table: dict[int, int]) -> None:
        if not left:
            raise ValueError("deep")
        dive(left - 1, large, table)

    with pytest.raises(ValueError, match="deep") as raising:
        dive(10, "x" * 1_000_000, {n: n for n in range(100_000)})
    began = time.perf_counter()
    found = logged(with_locals, raising.value)
    assert time.perf_counter() - began < 1
    assert (found["type"], found["message"]) == ("ValueError", "deep")
    assert [frame["function"] for frame in found["frames"]][-2:] == ["dive", "dive"]


# -- exceptions that fight back -------------------------------------------------------------------------------------------------

FIGHTING: dict[str, Any] = {
    "text": hostile.UnprintableError,
    "class": hostile.ClasslessError,
    "two arguments": lambda: hostile.HalfMadeError(1, 2),
    "everything": lambda: hostile.sub(
        ValueError, "__str__", "__repr__", "__eq__", "__hash__", "__getattribute__", "__reduce__", "__setattr__"
    )("x"),
    "text of another type": lambda: hostile.sub(ValueError, "__str__", with_=lambda _self: 5)("x"),
    "text of a fighting str": lambda: hostile.sub(ValueError, "__str__", with_=lambda _self: hostile.FightingStr("x"))("x"),
    "text without end": lambda: hostile.sub(ValueError, "__str__", with_=lambda self: str(type(self)()))("x"),
    "memory error in text": lambda: ValueError(hostile.raising("__repr__", MemoryError)(), 1),
    "recursion error in text": lambda: ValueError(hostile.raising("__repr__", RecursionError)(), 1),
    "notes": lambda: hostile.sub(ValueError, __notes__=property(fight))("x"),
    "cause": lambda: hostile.sub(ValueError, __cause__=property(fight), __context__=property(fight))("x"),
    "cause of another type": lambda: hostile.sub(ValueError, __cause__=5, __context__="x")("x"),
    "cause without end": lambda: hostile.sub(ValueError, __cause__=property(lambda self: type(self)("x")))("x"),
    "suppression": lambda: hostile.sub(ValueError, __suppress_context__=property(fight))("x"),
    "traceback": lambda: hostile.sub(ValueError, __traceback__=property(fight))("x"),
    "traceback of another type": lambda: hostile.sub(ValueError, __traceback__=[1])("x"),
    "args": lambda: hostile.sub(ValueError, args=property(fight))("x"),
    "name of its class": lambda: hostile.NamelessMeta("Nameless", (Exception,), {})("x"),
    "module of its class": lambda: type("Odd", (Exception,), {"__module__": 5})("x"),
    "no module": lambda: type("Odd", (Exception,), {"__module__": None})("x"),
    "surrogates": lambda: type("Odd", (Exception,), {"__module__": "m\udc80"})("x\udc80"),
    "members": lambda: hostile.sub(ExceptionGroup, exceptions=property(fight))("g", [ValueError()]),
    "members of another type": lambda: hostile.sub(ExceptionGroup, exceptions=5)("g", [ValueError()]),
    "members without end": lambda: hostile.sub(ExceptionGroup, exceptions=property(hostile.endless))("g", [ValueError()]),
}


@pytest.mark.parametrize("place", ["itself", "cause", "context", "member", "value"])
@pytest.mark.parametrize("name", list(FIGHTING))
def test_an_exception_that_fights_back(caught, name: str, place: str) -> None:
    """The call raises nothing; the rest of the event, and of the exceptions around it, is whole."""
    error = FIGHTING[name]()
    around: Any = ExceptionGroup("around", [ValueError("before"), error]) if place == "member" else raised(ValueError("around"))
    if place == "value":
        with limits():
            fapilog.get_logger("exceptions").info("e", value=[error, {"x": error}], sibling="kept")
        assert strict(caught.pop())["sibling"] == "kept"
        return
    if place in {"cause", "context"}:
        setattr(around, f"__{place}__", error)
    found = logged(caught, error if place == "itself" else around)
    if place != "itself":
        assert found["message"].startswith("around")
        assert {"cause": "cause", "context": "context", "member": "exceptions"}[place] in found
    if place == "member":
        assert found["exceptions"][0]["message"] == "before"


# -- locals ---------------------------------------------------------------------------------------------------------------------


def with_secrets(argument: str) -> None:
    password = argument
    nested = {"api_key": [argument], "plain": "shown nested"}
    url = f"https://ann:{argument}@host.example/?token={argument}"
    headers = [(b"authorization", argument.encode())]
    plain = "shown plain"
    odd = [hostile.UnprintableError(), hostile.FightingStr("x"), 2**70, "\udc80"]
    raise ValueError("with locals", len([password, nested, url, headers, plain, odd]))


def with_secrets_inside() -> None:
    token = SECRET
    try:
        with_secrets("shown argument")
    except ValueError as error:
        raise ExceptionGroup("g", [error]) from error
    assert token


def test_locals_are_off(caught) -> None:
    """No value of a local variable is anywhere in the line."""
    with pytest.raises(ValueError, match="with locals") as raising:
        with_secrets(SECRET)
    found = json.dumps(logged(caught, raising.value))
    assert SECRET not in found
    assert '"locals"' not in found
    assert "shown" not in re.sub(r'"code": "[^"]*"', "", found)


def test_locals_are_on(with_locals) -> None:
    """Each frame has its own, and what names or holds secrets is masked, at any depth."""
    with pytest.raises(ValueError, match="with locals") as raising:
        with_secrets(SECRET)
    exception = logged(with_locals, raising.value)
    found = exception["frames"][-1]["locals"]
    assert (found["plain"], found["nested"]["plain"]) == ("shown plain", "shown nested")
    assert found["password"] == found["nested"]["api_key"] == "***"
    assert found["headers"] == [["authorization", "***"]]
    assert SECRET not in found["url"]
    assert len(found["odd"]) == 4
    assert found["argument"] == SECRET  # nothing says that it is one


def test_locals_of_causes_and_members(with_locals) -> None:
    """They are masked too."""
    with pytest.raises(ExceptionGroup) as raising:
        with_secrets_inside()
    found = logged(with_locals, raising.value)
    assert SECRET not in json.dumps(found)
    assert found["cause"]["frames"][-1]["locals"]["plain"] == "shown plain"
    assert found["exceptions"][0]["frames"][-1]["locals"]["plain"] == "shown plain"


def test_locals_that_are_not_redacted() -> None:
    """With FAPILOG_REDACT=false they are shown."""
    with caught_heads(exception_locals=True, redact=False) as heads:
        with pytest.raises(ValueError, match="with locals") as raising:
            with_secrets(SECRET)
        assert logged(heads, raising.value)["frames"][-1]["locals"]["password"] == SECRET


def test_odd_locals(with_locals) -> None:
    """Each value of the catalogue may be a local variable."""
    failed = []
    for name, make in hostile.CATALOGUE.items():
        try:
            fails_with(make())
        except ZeroDivisionError as caught:
            error = caught
        try:
            assert logged(with_locals, error)["frames"][-1]["function"] == "fails_with"
        except (Exception, hostile.Hung) as wrong:
            with_locals.clear()
            failed.append(f"{name}: {type(wrong).__name__}: {str(wrong)[:100]}")
    assert failed == []


def fails_with(value: Any) -> None:
    raise ZeroDivisionError


def test_locals_are_not_kept(with_locals) -> None:
    """The frames are let go: logging an exception does not prolong anybody's life."""

    class Held:
        alive = 0

        def __init__(self) -> None:
            Held.alive += 1

        def __del__(self) -> None:
            Held.alive -= 1

    def fails_holding() -> None:
        held = Held()
        raise ValueError(id(held))

    def attempt() -> None:
        try:
            fails_holding()
        except ValueError as error:
            logged(with_locals, error)

    attempt()
    gc.collect()  # up to Python 3.12 a frame whose locals were read keeps them in a cycle
    assert Held.alive == 0


# -- frames of odd code ---------------------------------------------------------------------------------------------------------

ODD_CODE = {
    "string": ("<string>", "raise ValueError('odd')"),
    "stdin": ("<stdin>", "raise ValueError('odd')"),
    "missing file": ("/does/not/exist.py", "raise ValueError('odd')"),
    "no name": ("", "raise ValueError('odd')"),
    "surrogates": ("/tmp/\udcff.py", "raise ValueError('odd')"),
    "control characters": ("a\nb\x1b.py", "raise ValueError('odd')"),
    "directory": ("/", "raise ValueError('odd')"),
    "device": ("/dev/zero", "raise ValueError('odd')"),
    "long name": ("/x" * 50_000, "raise ValueError('odd')"),
    "line of no number": ("odd.py", "\n" * 70_000 + "raise ValueError('odd')"),
}


@pytest.mark.parametrize("name", list(ODD_CODE))
def test_code_without_a_source(caught, name: str) -> None:
    """Its frames have file, line and function, and nobody waits for a source that is not there."""
    file, source = ODD_CODE[name]
    with pytest.raises(ValueError, match="odd") as raising:
        exec(compile(source, file, "exec"), {})
    began = time.perf_counter()
    frame = logged(caught, raising.value)["frames"][-1]
    assert time.perf_counter() - began < 1
    assert frame["function"] == "<module>"
    assert frame["line"] == source.count("\n") + 1
    assert not frame.get("code")


def test_a_source_that_would_block(caught, tmp_path) -> None:
    """A pipe in place of the source file is not opened."""
    fifo = tmp_path / "module.py"
    os.mkfifo(fifo)
    with pytest.raises(ValueError, match="odd") as raising:
        exec(compile("raise ValueError('odd')", str(fifo), "exec"), {})
    with limits(5):
        assert logged(caught, raising.value)["frames"][-1]["file"] == str(fifo)


def test_a_loader_of_the_programs_own(caught) -> None:
    """What `linecache` would ask for a source is not asked during a log call."""
    asked = []

    class Loader:
        def get_source(self, name: str) -> str:
            asked.append(name)
            raise RuntimeError("no source")

    scope = {"__name__": "odd", "__loader__": Loader()}
    with pytest.raises(ValueError, match="odd") as raising:
        exec(compile("raise ValueError('odd')", "odd.py", "exec"), scope)
    linecache.clearcache()
    logged(caught, raising.value)
    assert asked == []


def test_hidden_attributes_of_frames(caught) -> None:
    """A program's `__tracebackhide__`, `__name__` or `__file__` that are no texts change nothing."""
    scope: dict[str, Any] = {"__name__": hostile.UnprintableError(), "__file__": 5, "__tracebackhide__": hostile.fight}
    with pytest.raises(ValueError, match="odd") as raising:
        exec(compile("def f():\n  raise ValueError('odd')\nf()", "odd.py", "exec"), scope)
    assert logged(caught, raising.value)["frames"][-1]["function"] == "f"


# -- O-VAL-5: across processes --------------------------------------------------------------------------------------------------


@FORKED
def test_an_exception_that_cannot_be_pickled(method: str, tmp_path) -> None:
    """A pool child writes type, message, frames and fields of one with two arguments, a lock and a lambda (O-VAL-5)."""
    (tmp_path / "worker.py").write_text(
        """
import threading
import fapilog

class OddError(Exception):
    def __init__(self, first, second):
        self.lock, self.function = threading.Lock(), lambda: 1
        super().__init__(f"{first} and {second}")

class Holder:
    def __init__(self):
        self.log = fapilog.get_logger("holder", bound="value")

    def fail(self, n):
        try:
            raise OddError("one", "two")
        except OddError as error:
            error.add_note("noted")
            self.log.exception("failed", n=n, error=error)
        assert fapilog.flush(10).complete
        return n
"""
    )
    result = run_script(
        f"""
        import multiprocessing, sys, warnings
        from concurrent.futures import ProcessPoolExecutor
        sys.path.insert(0, ".")
        warnings.filterwarnings("ignore", message="This process")
        from worker import Holder

        if __name__ == "__main__":
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("{method}")) as pool:
                print(list(pool.map(Holder().fail, range(3))))
        """,
        tmp_path,
        env={
            "FAPILOG_SINKS": "file",
            "FAPILOG_FILE_PATH": str(tmp_path / "out.{pid}.jsonl"),
            "PYTHONPATH": f"{tmp_path}:{hostile.ROOT}",
        },
    )
    assert ran_well(result).strip() == "[0, 1, 2]"
    lines = [line for path in tmp_path.glob("out.*.jsonl") for line in read_lines(path) if line["event"] == "failed"]
    assert [(line["n"], line["bound"], line["logger"]) for line in lines] == [(n, "value", "holder") for n in range(3)]
    for line in lines:
        checked(line["exception"])
        assert (line["exception"]["type"], line["exception"]["module"]) == ("OddError", "worker")
        assert (line["exception"]["message"], line["exception"]["notes"]) == ("one and two", ["noted"])
        assert [frame["function"] for frame in line["exception"]["frames"]] == ["fail"]
        assert "one and two" in json.dumps(line["error"])


def test_an_exception_in_every_sink(tmp_path) -> None:
    """A custom sink gets the same object as the file; the console form has the traceback with its frames and its cause."""
    result = run_script(
        """
        import fapilog
        fapilog.configure_logging(sinks=["file", "stdout"], format="console")

        def inner():
            raise KeyError("first cause")

        try:
            try:
                inner()
            except KeyError as error:
                raise ValueError("outer message") from error
        except ValueError:
            fapilog.get_logger("a").exception("failed")
        """,
        tmp_path,
        env={"FAPILOG_FILE_PATH": "out.jsonl"},
    )
    printed = ran_well(result)
    for part in ("ValueError", "outer message", "KeyError", "first cause"):
        assert part in printed
    checked(read_lines(tmp_path / "out.jsonl")[0]["exception"])


def test_a_process_put_back() -> None:
    """Nothing of these tests stays configured."""
    with process_restored():
        assert fapilog.FapilogSettings().exception_locals is False
