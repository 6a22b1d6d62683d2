"""
The documented form of values: one table, from which `docs/values.md` is made and which this module holds to be true.

``python -m tests.test_values`` writes the page anew.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import ipaddress
import json
import pathlib
import re
import types
import uuid
import zoneinfo
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
import pydantic
import pytest

from fapilog.encoding import encode_open
from tests._support import strict

INTRODUCTION = """# How values are shown

Every value has one form in the line, alone or deep inside of others. This page is made from the table that the tests check
(`python -m tests.test_values`).

A line is strict JSON: no NaN, no raw control character, valid UTF-8, one line. Its size is at most `FAPILOG_MAX_EVENT_BYTES` and
a few marks. What is cut ends in a mark with the original size: `...[cut: N bytes]` for texts, `...[cut: N items]` for
collections. Small fields stay whole beside a large one. Beyond 5,000 items in all, and beyond 1,000 fields of an event, the rest
is cut as well, so that a log call stays under 100 ms whatever it is given, unless a value's own `repr()` is slow.

Secrets are masked in whatever is unfolded (dataclasses, models, mappings): see the README on redaction.
"""
PAGE = Path(__file__).parent.parent / "docs" / "values.md"
MAX_BYTES = 262_144


#: What the examples of the page are written in, beside the classes of this module.
LANGUAGE = (collections, decimal, fractions, ipaddress, pathlib, types, uuid, zoneinfo)
SHORT = {"dt": dt, "np": np}


class Colour(enum.Enum):
    RED = "red"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Number(enum.IntEnum):
    ONE = 1


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None
    password: str = "hunter2"
    cache: Any = dataclasses.field(default=None, repr=False)


@attrs.define
class Box:
    width: int
    api_key: str = "abc"


class User(pydantic.BaseModel):
    name: str
    token: str = "abc"
    pin: pydantic.SecretStr = pydantic.SecretStr("1234")


class Pair(NamedTuple):
    left: int
    right: int


class Plain:
    def __repr__(self) -> str:
        return "<Plain>"


class Spoken(Plain):
    def __str__(self) -> str:
        return "spoken"


class Broken:
    def __repr__(self) -> str:
        raise ValueError("no")


def cycle() -> list[Any]:
    found: list[Any] = [1]
    found.append(found)
    return found


def deep(depth: int) -> Any:
    found: Any = "bottom"
    for _ in range(depth):
        found = [found]
    return found


def generator() -> Any:
    yield 1


ROWS: dict[str, list[tuple[str, str, Any]]] = {
    "Numbers": [
        ("`int`", "7", 7),
        ("`int` of up to 4,300 digits: every digit", "2**70", 2**70),
        ("`int` beyond: hexadecimal text (as Python's readers refuse longer ones)", "16**4000", "0x1" + "0" * 4000),
        ("`bool`", "True", True),
        ("`float`", "1.5", 1.5),
        ("`float` that JSON has no token for", "[float('nan'), float('inf')]", [None, None]),
        ("`Decimal`, all digits, as text", "decimal.Decimal('1.50')", "1.50"),
        ("`Fraction`, `complex`, as text", "[fractions.Fraction(1, 3), 1 + 2j]", ["1/3", "(1+2j)"]),
        ("numpy scalars", "[np.int64(5), np.float32(0.5), np.bool_(True), np.str_('a')]", [5, 0.5, True, "a"]),
        ("numpy arrays", "np.array([[1, 2], [3, 4]])", [[1, 2], [3, 4]]),
        ("numpy structured arrays", "np.array([(1, 2.0)], dtype=[('a', int), ('b', float)])", [{"a": 1, "b": 2.0}]),
        ("numpy dates", "np.datetime64('2026-01-02')", "2026-01-02"),
    ],
    "Text and bytes": [
        ("`str`", "'h\u00e9llo'", "h\u00e9llo"),
        ("lone surrogates, escaped", "'a\\udc80'", "a\\udc80"),
        ("bytes that are UTF-8", "b'abc'", "abc"),
        ("bytes that are not, escaped; `bytearray`, `memoryview` too", "b'a\\xff'", "a\\xff"),
        ("paths", "pathlib.PurePosixPath('/a/b')", "/a/b"),
    ],
    "Time": [
        ("aware `datetime`", "dt.datetime(2026, 1, 2, 3, 4, 5, 6, dt.UTC)", "2026-01-02T03:04:05.000006Z"),
        (
            "of any zone",
            "dt.datetime(2026, 7, 2, 3, 4, tzinfo=zoneinfo.ZoneInfo('Europe/Berlin'))",
            "2026-07-02T03:04:00+02:00",
        ),
        ("naive `datetime`, taken as UTC", "dt.datetime(2026, 1, 2, 3, 4, 5)", "2026-01-02T03:04:05Z"),
        ("`date`, `time`", "[dt.date(2026, 1, 2), dt.time(3, 4, 5)]", ["2026-01-02", "03:04:05"]),
        ("`timedelta`", "dt.timedelta(days=1, seconds=2)", "1 day, 0:00:02"),
    ],
    "Collections": [
        ("`list`, `tuple`, `deque`, `range`, `array`", "[(1, 2), collections.deque([3]), range(2)]", [[1, 2], [3], [0, 1]]),
        ("`set`, `frozenset`, in their order", "{7}", [7]),
        ("`dict`, any mapping", "collections.OrderedDict(a=types.MappingProxyType({'b': 1}))", {"a": {"b": 1}}),
        (
            "keys of other types, as text",
            "{1: 'a', None: 'b', (1, 2): 'c', b'x': 'd'}",
            {"1": "a", "None": "b", "(1, 2)": "c", "x": "d"},
        ),
        ("keys that look alike: all are kept", "{1: 'int', '1': 'str'}", {"1": "int", "1_": "str"}),
        ("a named tuple", "Pair(1, 2)", {"left": 1, "right": 2}),
        ("a namespace", "types.SimpleNamespace(a=1)", {"a": 1}),
        ("generators and iterators are not consumed", "generator()", re.compile(r"<generator object generator at 0x[0-9a-f]+>")),
    ],
    "Models": [
        (
            "a dataclass; a field with `repr=False` is left out, secrets are masked",
            "Point(1, Point(2))",
            {"x": 1, "y": {"x": 2, "y": None, "password": "***"}, "password": "***"},
        ),
        ("attrs", "Box(3)", {"width": 3, "api_key": "***"}),
        ("pydantic", "User(name='a')", {"name": "a", "token": "***", "pin": "**********"}),
        ("an enum: its value", "[Colour.RED, Number.ONE, Access.READ | Access.WRITE]", ["red", 1, 3]),
    ],
    "Other objects": [
        ("`UUID`, addresses", "[uuid.UUID(int=5), ipaddress.ip_address('::1')]", ["00000000-0000-0000-0000-000000000005", "::1"]),
        ("an object with a text form of its own: `str()`", "Spoken()", "spoken"),
        ("any other: `repr()`, at most 8,192 characters", "Plain()", "<Plain>"),
        ("an exception as a value", "ValueError('x')", "ValueError('x')"),
        ("an object whose `repr()` raises", "Broken()", "<Broken: repr raised ValueError>"),
        ("types and functions", "[int, len]", ["<class 'int'>", "<built-in function len>"]),
    ],
    "What is cut": [
        ("a cycle", "cycle()", [1, "...[cut: cycle]"]),
        ("the same object twice is shown twice", "[[1]] * 2", [[1], [1]]),
        ("nesting of more than 32 levels", "deep(40)", re.compile(r"\[{32}\"\.\.\.\[cut: 1 items\]\"\]{32}")),
        ("a text that is too long for the line", "'x' * 1_000_000", re.compile(r"x{200000,}\.\.\.\[cut: 1000000 bytes\]")),
        ("a collection that is too long", "list(range(1_000_000))", re.compile(r"\[0,1,2,.*,\"\.\.\.\[cut: 1000000 items\]\"\]")),
    ],
}  # fmt: skip

CASES = [(title, label, code, shown) for title, rows in ROWS.items() for label, code, shown in rows]


def encoded(value: Any, **beside: Any) -> Any:
    """Return what a line says for *value*."""
    return strict(encode_open({"event": "e", "value": value, **beside}, MAX_BYTES) + b"}")["value"]


@pytest.mark.parametrize(("code", "shown"), [(code, shown) for _, _, code, shown in CASES], ids=[code for _, _, code, _ in CASES])
@pytest.mark.parametrize("way", ["fast", "slow"])
def test_the_documented_form(code: str, shown: Any, way: str) -> None:
    """It is the one of the page, whichever way the event takes (O-VAL-1, O-VAL-3)."""
    value = eval(code, {**globals(), **SHORT, **{module.__name__: module for module in LANGUAGE}})
    found = encoded(value, **({"big": 2**70} if way == "slow" else {}))
    if isinstance(shown, re.Pattern):
        text = found if isinstance(found, str) else json.dumps(found, separators=(",", ":"))
        assert shown.fullmatch(text), text[:200]
    else:
        assert found == shown
        assert json.dumps(found) == json.dumps(shown)


def cell(shown: Any, code: str) -> str:
    """Return how the page shows the form."""
    if not isinstance(shown, re.Pattern):
        text = json.dumps(shown, ensure_ascii=False)
        return f"`{text}`" if len(text) < 100 else f"`{text[:12]}...`"
    return {
        "generator()": "`<generator object ...>`",
        "deep(40)": '`[[[...["...[cut: 1 items]"]...]]]`',
        "'x' * 1_000_000": "`xxx...[cut: 1000000 bytes]`",
        "list(range(1_000_000))": '`[0,1,2,...,"...[cut: 1000000 items]"]`',
    }[code]


def page() -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for title, rows in ROWS.items():
        parts.append(f"\n## {title}\n\n| value | example | in the line |\n|---|---|---|\n")
        parts += [f"| {label} | `{code}` | {cell(shown, code)} |\n" for label, code, shown in rows]
    return "".join(parts).replace("|` Access.WRITE", "\\| Access.WRITE").replace("READ | Access", "READ \\| Access")


@pytest.mark.skipif(not PAGE.is_file(), reason="the pages are not beside these tests")
def test_the_page() -> None:
    """`docs/values.md` is what this table makes."""
    assert PAGE.read_text() == page()


if __name__ == "__main__":
    PAGE.write_text(page())
